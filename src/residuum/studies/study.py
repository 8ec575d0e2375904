"""What a study is: a question, the arms that are tried to answer it, and the answer from their numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from residuum.data.facts import DataFacts
from residuum.data.sources import DataSet
from residuum.records import Chart, Table
from residuum.training.run import Run

if TYPE_CHECKING:
    from residuum.studies.results import Results

ScaleName = Literal["smoke", "small", "paper"]
"""smoke: seconds on the digits; small: minutes to an hour on two CPU cores; paper: as published, for a GPU."""


@dataclass(frozen=True)
class Subject:
    """What a measure looks at: the data, and the folder of the run it comes after; `run` and `folder` are None without.

    settings: what the arm asks of the measure.
    """

    dataset: DataSet
    seed: int
    settings: Mapping[str, Any]
    run: Run | None = None
    folder: Path | None = None


RUN = "run"
"""The setting of a measure that is told a run, as `Run.to_dict` gives it, without its being trained."""

Measure = Callable[[Subject], Mapping[str, Any]]
"""A function at the top of a module, found again by its name; it returns what JSON has."""


@dataclass(frozen=True)
class Arm:
    """One answer that is tried. `name` stands in tables and legends.

    run: trained once a seed, which the engine sets; None: nothing is trained. measure: taken after that, or of the
    data alone, with `settings` of plain JSON values.
    """

    name: str
    run: Run | None = None
    measure: Measure | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.run is not None or self.measure is not None, f"{self.name} neither trains nor measures"


@dataclass(frozen=True)
class Plan:
    """The arms of a study at one scale; of the data `train_images` and `test_images` are drawn, None: all are taken."""

    arms: tuple[Arm, ...]
    train_images: int | None = None
    test_images: int | None = None
    seeds: int = 3

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        assert len(set(names)) == len(names), "two arms have one name"


@dataclass(frozen=True)
class Finding:
    """The answer. verdict: one to three sentences made from the numbers; table: a row an arm."""

    verdict: str
    table: Table
    charts: tuple[Chart, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """A question with its source, how to ask it at each scale, and how to read the answer off the results."""

    name: str
    question: str
    source: str
    plan: Callable[[ScaleName, DataFacts], Plan]
    answer: "Callable[[Results], Finding]"
