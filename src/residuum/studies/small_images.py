"""The setting of the studies whose networks are those of CIFAR, whatever the size of the images."""

from dataclasses import replace

from residuum.data.facts import DataFacts
from residuum.studies.settings import base_run
from residuum.studies.study import Arm, Plan, ScaleName
from residuum.training.run import Run

_SIDE = 32  # pixels: CIFAR's
_IMAGES: dict[ScaleName, tuple[int | None, int | None]] = {
    "smoke": (1_500, 500),
    "small": (5_000, 2_000),
    "paper": (None, None),
}


def cifar_run(scale: ScaleName, facts: DataFacts, model: str, *overrides: str) -> Run:
    """`base_run` on images of at most 32 pixels a side."""
    return base_run(scale, reduced(facts), model, *overrides)


def reduced(facts: DataFacts) -> DataFacts:
    """The facts of images that are reduced to 32 pixels a side where they are larger; smaller ones stay as they are."""
    return replace(facts, height=min(_SIDE, facts.height), width=min(_SIDE, facts.width))


def cifar_plan(scale: ScaleName, arms: tuple[Arm, ...], seeds: int | None = None) -> Plan:
    """The arms on 1,500 training and 500 test images ("smoke"), 5,000 and 2,000 ("small"), or all ("paper").

    seeds: by default 1, 3 and 3.
    """
    return Plan(arms, *_IMAGES[scale], seeds=seeds or (1 if scale == "smoke" else 3))
