"""The members of a study: one arm with one seed on one draw of the data, in a folder named after what decides it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from residuum.data.sources import DataSet, open_data
from residuum.distributed import world_from_environment
from residuum.errors import UserError
from residuum.files import read_json, write_json
from residuum.records import plain
from residuum.studies.samples import draw
from residuum.studies.study import RUN, Arm, Measure, Subject
from residuum.training.resuming import HARMLESS
from residuum.training.run import Run
from residuum.training.run_folder import RunFolder
from residuum.training.train import train
from residuum.training.updates import NonFiniteError

_MEMBER = "member.json"
_KEPT_DIGITS = 16


@dataclass(frozen=True)
class Draw:
    """Which images a study uses: a data spec with its options, and how many of them (None: all)."""

    spec: str
    root: str | None = None
    val_fraction: float = 0.2
    split_seed: int = 0
    train_images: int | None = None
    test_images: int | None = None

    def open(self) -> DataSet:
        """The data set, cut to size. Raises UserError as `open_data` does."""
        whole = _opened(self.spec, self.root, self.val_fraction, self.split_seed)
        return draw(whole, self.train_images, self.test_images)


@lru_cache(maxsize=1)  # the members of a study are of one data set
def _opened(spec: str, root: str | None, val_fraction: float, split_seed: int) -> DataSet:
    return open_data(spec, root=root, val_fraction=val_fraction, split_seed=split_seed)


@dataclass(frozen=True)
class Member:
    """An arm's run and measure with one seed, on data of one fingerprint.

    processes: how many torchrun starts for it; each of them takes its share of the batch.
    """

    arm: str
    seed: int
    run: Run | None
    measure: Measure | None
    settings: Mapping[str, Any]
    draw: Draw
    fingerprint: str
    processes: int = 1

    @property
    def digest(self) -> str:
        """16 hex digits of what decides the member's run; of the measure, where it trains nothing."""
        if self.run is not None:
            alone = {} if self.processes == 1 else {"processes": self.processes}
            what: dict[str, Any] = {"run": _deciding(self.run), **alone}
        else:
            what = {"measure": self._measure_key(), "seed": self.seed}
        return _digest({**what, "data": self.fingerprint})

    @property
    def measured_file(self) -> str:
        """The name of the file with the measure's result: a run may be measured in several ways."""
        return f"measured-{_digest(self._measure_key())}.json"

    @property
    def wanted_file(self) -> str:
        """The name of the file that says which measure is wanted."""
        return f"wanted-{_digest(self._measure_key())}.json"

    def _measure_key(self) -> list[Any]:
        assert self.measure is not None
        settings = dict(plain(self.settings))
        if RUN in settings:
            settings[RUN] = _deciding(Run.from_dict(settings[RUN]))
        return [path_of(self.measure), settings]


def member_of(arm: Arm, seed: int, images: Draw, fingerprint: str, processes: int = 1) -> Member:
    """The arm with this seed. Raises UserError where the processes cannot share its batches evenly."""
    if arm.run is None:
        return Member(arm.name, seed, None, arm.measure, arm.settings, images, fingerprint)
    share, rest = divmod(arm.run.batch_size, processes)
    if rest:
        raise UserError(f"{arm.name}: {processes} processes cannot share batches of {arm.run.batch_size} evenly")
    run = replace(arm.run, seed=seed, batch_size=share)
    return Member(arm.name, seed, run, arm.measure, arm.settings, images, fingerprint, processes)


def path_of(measure: Measure) -> str:
    """ "residuum.studies.signal:measure"."""
    return f"{measure.__module__}:{measure.__qualname__}"


def _deciding(run: Run) -> dict[str, Any]:
    """The fields that differ from the run that leaves them out, less those that do not touch the result.

    So a field that is new, and at its default, changes no digest. How many checkpoints are kept counts: a measure may
    need them.
    """
    return _without_defaults(run, "", set(HARMLESS) - {"keep_checkpoints"})


def _without_defaults(record: Any, prefix: str, left_out: set[str]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, field in record.__dataclass_fields__.items():
        value, path = getattr(record, name), f"{prefix}{name}"
        if path in left_out or value == field.default:
            continue
        is_group = hasattr(value, "__dataclass_fields__")
        kept[name] = _without_defaults(value, f"{path}.", left_out) if is_group else plain(value)
    return kept


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=_KEPT_DIGITS // 2).hexdigest()


# On the disk.


def describe(member: Member, folder: Path) -> None:
    """Write what the member is into its folder, where whoever makes it reads it: another process, another machine.

    Each measure has a file of its own, since several studies may want theirs of one run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "seed": member.seed,
        "run": None if member.run is None else member.run.to_dict(),
        "draw": asdict(member.draw),
        "fingerprint": member.fingerprint,
        "processes": member.processes,
    }
    write_json(folder / _MEMBER, plain(record))
    if member.measure is not None:
        wanted = {"measure": path_of(member.measure), "settings": dict(member.settings)}
        write_json(folder / member.wanted_file, plain(wanted))


def described(folder: Path) -> tuple[Member, ...]:
    """The member whose folder this is, once for each measure that is wanted. Raises UserError where there is none."""
    try:
        found = read_json(folder / _MEMBER)
        bare = Member(
            arm=folder.name,
            seed=found["seed"],
            run=None if found["run"] is None else Run.from_dict(found["run"]),
            measure=None,
            settings={},
            draw=Draw(**found["draw"]),
            fingerprint=found["fingerprint"],
            processes=found["processes"],
        )
        wanted = [read_json(file) for file in sorted(folder.glob("wanted-*.json"))]
        measured = [replace(bare, measure=_measure_at(one["measure"]), settings=one["settings"]) for one in wanted]
    except (OSError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is no member of a study ({error}); remove it and run the study again") from None
    return tuple(measured) or (bare,)


def _measure_at(path: str) -> Measure:
    module, _, name = path.partition(":")
    measure: Measure = getattr(import_module(module), name)
    return measure


def is_made(member: Member, folder: Path) -> bool:
    """Whether nothing is left to do: it ran to its end, or to a loss that is no number, and was measured."""
    end = None if member.run is None else end_of(folder)
    if end == "diverged":
        return True
    return (member.run is None or end is not None) and (
        member.measure is None or (folder / member.measured_file).is_file()
    )


def end_of(folder: Path) -> Literal["finished", "diverged"] | None:
    """How the run in `folder` has ended: as meant, or because its loss or gradient is no number; None: it has not."""
    run = RunFolder(folder)
    manifest = run.read_manifest() if run.holds_run else {}
    if "step" in (manifest.get("failure") or {}):
        return "diverged"
    return "finished" if manifest.get("status") == "finished" else None


def make(folder: Path) -> None:
    """Train and measure the member that `folder` describes, from where it stands.

    A loss that is no number is a result, too. Raises UserError where the data have changed, and whatever training
    raises. Under torchrun it is only trained, by all processes; a measure is one process's work.
    """
    members = described(folder)
    first, dataset = members[0], members[0].draw.open()
    if dataset.fingerprint() != first.fingerprint:
        raise UserError(f"{dataset.spec} is not what it was when the study began; start it again")
    if first.run is not None and end_of(folder) is None:
        _train(first.run, dataset, folder)
    if world_from_environment().size > 1:
        return
    for member in members:
        if member.measure is not None and not is_made(member, folder):
            subject = Subject(dataset, member.seed, member.settings, member.run, folder if member.run else None)
            write_json(folder / member.measured_file, plain(member.measure(subject)))


def _train(run: Run, dataset: DataSet, folder: Path) -> None:
    try:
        train(dataset, recipe=run, out=folder, resume="auto")
    except UserError as error:
        if not isinstance(error.__cause__, NonFiniteError):
            raise
