"""What of a finished run must be the same bytes however often it was killed, and what may not be left of a kill."""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOCK = ".lock"


def digest(run: Path) -> dict[str, str]:
    """The SHA-256 of each part of a finished run, elapsed times left out."""
    manifest = json.loads((run / "run.json").read_text())
    last = checkpoints(run)[-1]
    state = json.loads((last / "state.json").read_text())
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    parts = {
        "status": manifest["status"].encode(),
        "model": (run / "model" / "model.safetensors").read_bytes(),
        "description of the model": (run / "model" / "config.json").read_bytes(),
        "best model": (run / "best" / "model.safetensors").read_bytes(),
        "description of the best model": (run / "best" / "config.json").read_bytes(),
        "last checkpoint": last.name.encode(),
        "tensors of the last checkpoint": (last / "state.safetensors").read_bytes(),
        "rest of the last checkpoint": _canonical(state),
        "metrics": _canonical(metrics),
        "results": _canonical(manifest["results"]),
        "choice of the best": _canonical(manifest["best"]),
        "list of bad images": _canonical(manifest["bad_images"]),
        "rollbacks": _canonical(manifest.get("rollbacks")),
        "claim to be exact": _canonical(manifest["exact"]),
    }
    return {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}


def _canonical(value: Any) -> bytes:
    return json.dumps(_without_times(value), sort_keys=True).encode()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(item) for key, item in value.items() if key != "seconds"}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """The names of the parts that differ."""
    return [name for name in expected if expected[name] != found[name]]


def is_finished(run: Path) -> bool:
    manifest = run / "run.json"
    return manifest.exists() and json.loads(manifest.read_text())["status"] == "finished"


def checkpoints(run: Path) -> list[Path]:
    """What stands under a checkpoint's name, oldest first."""
    return sorted((run / "checkpoints").glob("step-*"))


def is_intact(checkpoint: Path) -> bool:
    """Whether each file of it is there and has the checksum that was written with it."""
    try:
        lines = (checkpoint / "SHA256SUMS").read_text().splitlines()
        sums = {name: sha256 for sha256, name in (line.split("  ", 1) for line in lines)}
        files = {name: hashlib.sha256((checkpoint / name).read_bytes()).hexdigest() for name in sums}
    except (OSError, ValueError):
        return False
    return sums == files and set(files) == {"state.safetensors", "state.json"}


def listing(run: Path) -> set[str]:
    """The names of what a run saves. Quick: it is asked in a tight loop."""
    names: set[str] = set()
    for folder in (run, run / "checkpoints"):
        with contextlib.suppress(FileNotFoundError):
            names.update(os.listdir(folder))
    return names


def temporaries(run: Path) -> set[str]:
    """Those of them that are being saved, or were when the writer was killed."""
    return {name for name in listing(run) if name.startswith(".") and name != LOCK}


def leftovers(run: Path) -> list[str]:
    """The names of what nobody but a writer may see, anywhere in the folder."""
    hidden = [path for path in run.rglob(".*") if path != run / LOCK]
    return [str(path.relative_to(run)) for path in hidden]
