"""`run_study`: from a question to its answer, through members that are made once and never again."""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

from residuum.data.facts import data_facts
from residuum.data.sources.builtin import BUILTIN
from residuum.errors import UserError
from residuum.files import read_json, write_json, write_text
from residuum.hardware import versions
from residuum.records import Cell, Table, plain
from residuum.studies.makers import Look, Maker, MemberError, here, quietly
from residuum.studies.members import Draw, Member, describe, is_made, member_of
from residuum.studies.results import Outcome, Results, read_outcome
from residuum.studies.study import RUN, Arm, Finding, Plan, ScaleName, Study
from residuum.studies.work import training_work
from residuum.training.overrides import apply_overrides, settings_of, values_of
from residuum.training.run import Run

MEMBERS, RECORD = "members", "study.json"
SCALES: tuple[ScaleName, ...] = get_args(ScaleName)
DEFAULT_DATA: dict[ScaleName, str] = {"smoke": "digits", "small": "fashion-mnist", "paper": "cifar10"}


@dataclass(frozen=True)
class Prepared:
    """A study that is about to run: what it consists of, and in which folder each member lies or will lie."""

    study: Study
    data: str
    scale: ScaleName
    plan: Plan
    images: Draw
    members: tuple[tuple[Member, Path], ...]
    counts: Mapping[str, int]
    classes: int
    folder: Path
    overrides: tuple[str, ...] = ()

    def work_of(self, member: Member) -> int:
        """The multiply-adds of the member's training; 0 where it only measures."""
        return 0 if member.run is None else training_work(member.run, self.classes, self.counts["train"])

    @property
    def missing(self) -> tuple[Path, ...]:
        """The folders of members that are not made, seed by seed, each once."""
        return tuple(dict.fromkeys(folder for member, folder in self.members if not is_made(member, folder)))


@dataclass(frozen=True)
class StudyResult:
    """What a study found, and the folder with `study.json`, `table.csv` and `members.csv`."""

    prepared: Prepared
    results: Results
    finding: Finding

    @property
    def folder(self) -> Path:
        return self.prepared.folder


def run_study(
    study: Study, data: str | None = None, *, maker: Maker = here, look: Look = quietly, **how: Any
) -> StudyResult:
    """Make the members that are missing and read the answer off all of them.

    how: scale, seeds, out and the rest, as `prepare` takes them; maker: where members are made, by default one after
    another in this process. Raises UserError as `prepare` and `make_members` do.
    """
    prepared = prepare(study, data, **how)
    make_members(prepared, maker, look)
    return conclude(prepared)


def prepare(
    study: Study,
    data: str | None = None,
    *,
    scale: ScaleName = "small",
    seeds: int | None = None,
    out: str | Path = "studies",
    processes: int = 1,
    overrides: Sequence[str] = (),
    **opening: Any,
) -> Prepared:
    """What the study consists of on these data; nothing is computed or written yet.

    data: a data spec, by default the digits ("smoke"), Fashion-MNIST ("small") or CIFAR-10 ("paper"). seeds: how many,
    0, 1, ..., by default the plan's. overrides: changes to every arm's run, as after `--set`. processes: how many train
    one member. opening: root, val_fraction and split_seed, as `open_data` has them. Members lie in `out`/members,
    shared by all studies there. Raises UserError for data that cannot be opened or trained on.
    """
    spec = data or DEFAULT_DATA[scale]
    _refuse_file(Path(out))
    choice = Draw(_found_anywhere(spec), **opening)
    whole = choice.open()
    whole.monitored()
    plan = study.plan(scale, data_facts(whole.train, whole.classes, whole.multi_label))
    _refuse_what_is_asked(study, plan.arms, overrides)
    folder = Path(out) / _folder_name(study, spec, scale, [*overrides, *_unusual(opening), *_together(processes)])
    plan = replace(plan, seeds=seeds or plan.seeds, arms=tuple(_changed(arm, overrides) for arm in plan.arms))
    images = replace(choice, train_images=plan.train_images, test_images=plan.test_images)
    dataset = images.open()
    fingerprint, base = dataset.fingerprint(), Path(out) / MEMBERS
    _refuse_other_images(folder, fingerprint)
    members = [member_of(arm, seed, images, fingerprint, processes) for seed in range(plan.seeds) for arm in plan.arms]
    return Prepared(
        study=study,
        data=spec,
        scale=scale,
        plan=plan,
        images=images,
        members=tuple((member, base / member.digest) for member in members),
        counts={split: len(images) for split, images in dataset.splits.items()},
        classes=len(dataset.classes),
        folder=folder,
        overrides=tuple(overrides),
    )


def _refuse_file(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name the folder for studies with --out")


def _refuse_other_images(folder: Path, fingerprint: str) -> None:
    """An answer is not overwritten by that of images that are not the same, though their folder has its name."""
    record = folder / RECORD
    if record.is_file() and read_json(record).get("fingerprint", fingerprint) != fingerprint:
        raise UserError(f"{folder} holds the answer of other images; choose another folder with --out")


def _found_anywhere(spec: str) -> str:
    """A path as it is from any folder: members are made by other processes, on other machines perhaps."""
    return spec if spec in BUILTIN or not Path(spec).exists() else str(Path(spec).absolute())


def _refuse_what_is_asked(study: Study, arms: Iterable[Arm], overrides: Sequence[str]) -> None:
    """Arms that all have one value of what they are to differ in answer nothing."""
    settings = [settings_of(arm.run) for arm in arms if arm.run is not None]
    for path in values_of(overrides):
        if path == "seed":
            raise UserError("--set seed: a study counts its seeds from 0; say how many with --seeds")
        if not settings and not any(path in arm.settings or RUN in arm.settings for arm in arms):
            raise UserError(f"--set {path}: no arm of {study.name} has it; leave it out")
        if len({str(one[path]) for one in settings}) > 1:
            raise UserError(f"--set {path}: the arms of {study.name} differ in it; leave it out")


def _unusual(opening: Mapping[str, Any]) -> list[str]:
    usual = Draw("")
    return [f"{name}={value}" for name, value in opening.items() if value != getattr(usual, name)]


def _together(processes: int) -> list[str]:
    return [] if processes == 1 else [f"processes={processes}"]


def _folder_name(study: Study, spec: str, scale: ScaleName, changes: Sequence[str]) -> str:
    """ "units-digits-smoke"; what is asked otherwise than usual has a name of its own, and overwrites nothing."""
    own = f"-{hashlib.blake2b(' '.join(changes).encode(), digest_size=4).hexdigest()}" if changes else ""
    return f"{study.name}-{Path(spec).resolve().name}-{scale}{own}".replace(":", "-")


def _changed(arm: Arm, overrides: Sequence[str]) -> Arm:
    """The arm with its run, and what its measurement has of the same names, as the overrides say."""
    settings = {**arm.settings, **{path: value for path, value in values_of(overrides).items() if path in arm.settings}}
    if RUN in settings:
        settings[RUN] = apply_overrides(Run.from_dict(settings[RUN]), overrides).to_dict()
    return replace(arm, run=arm.run and apply_overrides(arm.run, overrides), settings=settings)


def make_members(prepared: Prepared, maker: Maker = here, look: Look = quietly) -> None:
    """Make what is missing. Raises UserError, naming the arm, for a member that cannot be made; the rest is kept."""
    missing = prepared.missing
    if not missing:
        return
    for member, folder in prepared.members:
        if folder in missing:
            describe(member, folder)
    try:
        maker(missing, look)
    except MemberError as error:
        member = next(member for member, folder in prepared.members if folder == error.folder)
        raise UserError(f"{member.arm}, seed {member.seed}: {error}") from error


def conclude(prepared: Prepared) -> StudyResult:
    """Read all members, answer, and write `study.json`, `table.csv` and `members.csv`."""
    outcomes: dict[str, tuple[Outcome, ...]] = {arm.name: () for arm in prepared.plan.arms}
    for member, folder in prepared.members:
        outcomes[member.arm] += (read_outcome(member, folder),)
    results = Results(prepared.scale, prepared.data, prepared.plan, outcomes)
    result = StudyResult(prepared, results, prepared.study.answer(results))
    _write(result)
    return result


def _write(result: StudyResult) -> None:
    prepared, finding = result.prepared, result.finding
    prepared.folder.mkdir(parents=True, exist_ok=True)
    members = members_table(result.results)
    write_text(prepared.folder / "table.csv", csv_text(finding.table))
    write_text(prepared.folder / "members.csv", csv_text(members))
    record = {
        "study": prepared.study.name,
        "question": prepared.study.question,
        "source": prepared.study.source,
        "scale": prepared.scale,
        "data": prepared.data,
        "images": prepared.counts,
        "fingerprint": prepared.members[0][0].fingerprint,
        "draw": asdict(prepared.images),
        "seeds": prepared.plan.seeds,
        "processes": prepared.members[0][0].processes,
        "overrides": prepared.overrides,
        "arms": {arm.name: None if arm.run is None else arm.run.to_dict() for arm in prepared.plan.arms},
        "verdict": finding.verdict,
        "table": finding.table.records(),
        "notes": finding.notes,
        "charts": finding.charts,
        "members": members.records(),
        "versions": versions(),
    }
    write_json(prepared.folder / RECORD, plain(record))


def members_table(results: Results) -> Table:
    """A row a member: what it scored and where it lies."""
    columns = (
        "arm",
        "seed",
        "status",
        "train error [%]",
        "train loss",
        "test error [%]",
        "test loss",
        "seconds",
        "folder",
    )
    rows = tuple(_member_row(one) for outcomes in results.outcomes.values() for one in outcomes)
    return Table("Members", columns, rows)


def _member_row(one: Outcome) -> tuple[Cell, ...]:
    scores = (one.train_error, one.train_loss, one.test_error, one.test_loss, one.seconds)
    return one.arm, one.seed, one.reason or one.status, *scores, one.folder.name


def csv_text(table: Table) -> str:
    """The table as CSV with full numbers; NaN and nothing are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([table.columns, *(_csv_row(row) for row in table.rows)])
    return text.getvalue()


def _csv_row(row: Iterable[Cell]) -> list[Cell]:
    return ["" if cell is None or cell != cell else cell for cell in row]
