"""A study's result as a page of records: the answer first, then the figures, then what it was made of."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from residuum.errors import counted
from residuum.records import Page, Part, Section, Table
from residuum.studies.engine import MEMBERS, StudyResult, members_table
from residuum.studies.study import Arm
from residuum.training.overrides import settings_of


def study_page(result: StudyResult, command: tuple[str, ...]) -> Page:
    """Everything there is to say of a study; `command` is what made it."""
    study, prepared, finding = result.prepared.study, result.prepared, result.finding
    images = ", ".join(f"{count:,} {split}" for split, count in prepared.counts.items())
    answer: list[Part] = [finding.verdict, finding.table, *finding.notes]
    sections = [Section("Answer", tuple(answer))]
    if finding.charts:
        sections.append(Section("Figures", finding.charts))
    sections += [*_arms(prepared.plan.arms), Section("Members", (members_table(result.results), _where()))]
    made = f"Made by: {shlex.join(command)}"
    sections.append(Section("How it was made", (made, f"Source of the question: {study.source}.")))
    seeds = counted(prepared.plan.seeds, "seed")
    subtitle = f"Study {study.name} at scale {prepared.scale}: {prepared.data}, {images} images, {seeds} an arm"
    return Page(study.question, subtitle, tuple(sections))


def _where() -> str:
    return (
        f"Each member lies below {MEMBERS}/ of the studies' folder; one that trains is a run: residuum report shows it."
    )


def _arms(arms: tuple[Arm, ...]) -> Iterator[Section]:
    """What the arms are given alike, and in what each differs from the first that trains."""
    runs = {arm.name: arm.run for arm in arms if arm.run is not None}
    if not runs:
        return
    settings = {name: settings_of(run) for name, run in runs.items()}
    base_name, base = next(iter(settings.items()))
    rows = tuple((name, _differences(base, own) or f"as {base_name}") for name, own in settings.items())
    alike = tuple((path, str(value)) for path, value in base.items())
    parts = (Table(f"In what the arms differ from {base_name}", ("arm", "settings"), rows),)
    yield Section("The arms", (*parts, Table(f"All settings of {base_name}", ("field", "value"), alike)))


def _differences(base: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    return "; ".join(f"{path} {value}" for path, value in own.items() if value != base[path])
