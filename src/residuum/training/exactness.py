"""Whether a run is claimed to be exact: to end in the same bytes as one that nothing ever interrupted."""

from collections.abc import Mapping
from typing import Any

import torch

from residuum.training.run import Run

_VERSIONS = ("residuum", "torch", "torchvision", "numpy", "pillow", "simplejpeg")
_HARDWARE = ("processor", "instructions", "threads", "device", "precision", "processes", "cuda", "cudnn")

Facts = Mapping[str, Any]
"""What `run.json` says of versions, hardware, and the claim so far."""


def first_doubts(run: Run, device: torch.device) -> list[str]:
    """Why a run cannot be exact even where it is never moved."""
    if device.type == "mps":
        return ["MPS kernels need not repeat their results"]
    if device.type == "cuda" and not run.deterministic:
        return ["GPU kernels need not repeat their results; --deterministic chooses those that do"]
    return []


def changed_conditions(recorded: Facts, now: Facts) -> list[str]:
    """What decides the last bits of a result and is not as recorded, as "threads 2 -> 1"."""
    pairs = [("versions", name) for name in _VERSIONS] + [("hardware", name) for name in _HARDWARE]
    values = [(name, recorded[group].get(name), now[group].get(name)) for group, name in pairs]
    return [f"{name} {before} -> {after}" for name, before, after in values if before != after]


def claim(doubts: list[str]) -> dict[str, Any]:
    """The claim as `run.json` keeps it: made where there is no doubt, and never again once there was one."""
    return {"claimed": not doubts, "doubts": doubts}
