"""Models given on a command line, measured on data: what `evaluate` prints and `report` draws."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from residuum.cli.run_records import CALIBRATED
from residuum.errors import UserError

if TYPE_CHECKING:
    from residuum.data.sources import DataSet
    from residuum.data.workers import Progress
    from residuum.evaluation.answers import Answers, LabelAnswers
    from residuum.evaluation.published import Published
    from residuum.evaluation.scores import Evaluation
    from residuum.evaluation.views import Protocol
    from residuum.inference.predictors import Model

ENSEMBLE = "ensemble"


class Test(NamedTuple):
    """What models are measured on: the data as they were named and as they were opened, and the split's name."""

    data: str
    dataset: "DataSet"
    split: str


class Result(NamedTuple):
    """A line of the outcome: a name, what was measured, and the printed figures that it may stand beside."""

    name: str
    evaluation: "Evaluation"
    answers: "Answers | LabelAnswers"
    published: "tuple[Published, ...]" = ()


def open_models(
    names: Sequence[str], weights: str | None, opened: Callable[..., "DataSet"]
) -> "tuple[list[Model], DataSet]":
    """The trained models, or networks by name, and the data under their classes, or under its own where none has any.

    opened: opens the data, given the `classes` to match. Raises UserError for models that differ in their
    classes.
    """
    from residuum.inference.predictors import open_model
    from residuum.pretrained import new_classifier

    by_name = [name for name in names if is_network(name)]
    if weights is not None and len(by_name) != 1:
        raise UserError(
            f"--weights is for one network given by name and got {len(by_name)}; name one, such as resnet50"
        )
    loaded = {name: open_model(name) for name in names if name not in by_name}
    first = next(iter(loaded.values()), None)
    for name, classifier in loaded.items():
        if first is not None and set(classifier.classes) != set(first.classes):
            raise UserError(f"{name} knows other classes than {next(iter(loaded))}; measure them apart")
    dataset = opened(classes=first.classes if first else None)
    several = dataset.multi_label
    new = {name: new_classifier(name, dataset.classes, weights, multi_label=several) for name in by_name}
    return [{**loaded, **new}[name] for name in names], dataset


def is_network(name: str) -> bool:
    """Whether this names a network of the catalogue or a library, and not a folder. Raises UserError for neither."""
    from residuum.hub import is_on_hub
    from residuum.models.catalogue import find

    if is_on_hub(name) or Path(name).exists():
        return False
    try:
        find(name)
    except UserError as error:
        if name.partition("/")[0] in ("torchvision", "timm"):
            raise
        raise UserError(f"{name} does not exist, nor is there a network of that name: {error}") from None
    return True


def measured(
    names: Sequence[str],
    classifiers: "Sequence[Model]",
    test: Test,
    look: "Protocol",
    ensemble: bool,
    how: Mapping[str, Any],
) -> list[Result]:
    """What each model came to, and last, if asked for, their ensemble. how: what `measure` is told of computing."""
    from residuum.inference.evaluate import measure

    with _shown(f"{test.split} images") as progress:
        found = measure(
            classifiers, test.dataset, split=test.split, protocol=look, ensemble=ensemble, progress=progress, **how
        )
    labels = [*names, *([ENSEMBLE] if ensemble else [])]
    figures = published_beside(classifiers, test, [one.evaluation.protocol for one in found])
    figures += [()] if ensemble else []
    return [
        Result(name, one.evaluation, one.answers, printed)
        for name, one, printed in zip(labels, found, figures, strict=True)
    ]


def calibrated(
    name: str, classifier: "Model", test: Test, on: str, look: "Protocol", how: Mapping[str, Any]
) -> list[Result]:
    """The model without a temperature and with one fitted on the split `on`, which is kept with it."""
    from residuum.inference.calibrate import calibrate
    from residuum.model_config import store_temperature
    from residuum.weights import Classifier

    assert isinstance(classifier, Classifier), "checked with the arguments"
    if on == test.split or test.split == "all":
        raise UserError(
            f"a temperature fitted on {on!r} says nothing on {test.split!r}, which holds the same images; "
            "measure another split with --split"
        )
    temperature = calibrate(classifier, test.dataset, on, **how)
    states: list[Model] = [replace(classifier, temperature=value) for value in (1.0, temperature)]
    labels = [f"{name}, as trained", f"{name}, temperature {temperature:.3f}"]
    results = measured(labels, states, test, look, False, how)
    store_temperature(name, temperature, {"split": on, "fingerprint": test.dataset.fingerprint()})
    return results


def keep_beside_run(name: str, classifier: "Model", test: Test, result: Result) -> None:
    """Keep what the model said for its run's report, where that is missing or damaged.

    Only of the images that the run was measured on, seen as it saw them. Answers by a temperature are kept apart.
    """
    from residuum.evaluation.answers import read_answers, write_answers
    from residuum.evaluation.views import Protocol
    from residuum.training.run_folder import RunFolder

    path = Path(name)
    folder = RunFolder(path.parent if path.name in ("model", "best") else path)
    same_look = result.evaluation.protocol == Protocol().name(classifier.preprocessing)
    if path.name == "best" or not folder.holds_run or not same_look:
        return
    is_calibrated = classifier.temperature != 1
    file = folder.predictions(f"{test.split}{CALIBRATED if is_calibrated else ''}")
    with suppress(UserError):
        if file.exists() and not is_calibrated:
            read_answers(file, classifier.classes)
            return
    if classifier.provenance.get("fingerprint") == test.dataset.fingerprint():  # which looks at every file
        write_answers(file, result.answers)


@contextmanager
def _shown(what: str) -> "Iterator[Progress]":
    """A function to tell how many images are read, which shows it, and says at the end how long it took."""
    from rich.console import Console

    from residuum.distributed import world_from_environment
    from residuum.training.progress import Reporter

    reporter, images, start = Reporter(Console(stderr=True, quiet=not world_from_environment().is_main)), 0, monotonic()
    with reporter.reading(what) as show:

        def progress(done: int, total: int) -> None:
            nonlocal images
            images = total
            show(done, total)

        yield progress
    seconds = monotonic() - start
    reporter.line(f"{images:,} images in {seconds:.1f} s, {images / seconds:,.0f} images/s")


def published_beside(
    classifiers: "Sequence[Model]", test: Test, protocols: Sequence[str]
) -> "list[tuple[Published, ...]]":
    """What the papers print of each network, on these data, by its protocol.

    Nothing for one that is untrained, or that has other parts than the published.
    """
    from residuum.evaluation.published import published_on
    from residuum.models.translate import our_name_for

    names = [our_name_for(one.architecture) or one.architecture for one in classifiers]
    shortcuts = [one.model_args.get("shortcut") for one in classifiers]
    found = published_on(test.dataset, test.split, list(zip(names, shortcuts, protocols, strict=False)))
    strangers = [one.provenance.get("untrained") or one.model_args.keys() - {"shortcut"} for one in classifiers]
    return [() if strange else figures for strange, figures in zip(strangers, found, strict=True)]
