"""What runs scored and how they went, as sections of a page."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from residuum.cli.compare import scores_table
from residuum.cli.curves import curve
from residuum.cli.run_names import Runs, called_by_name, prefix
from residuum.cli.run_records import RunRecord
from residuum.errors import UserError, counted, listed
from residuum.records import Chart, Matrix, Measurement, Measurements, Part, Section, Series

if TYPE_CHECKING:
    from residuum.evaluation.published import Published
    from residuum.evaluation.scores import Evaluation

_WHAT_DIFFERENCES_MEAN = (
    "The difference is that of the error to the first run's, on the same images, with its 95 % interval (Newcombe "
    "1998). p: the probability of a difference at least this large if the two were equally good (McNemar's exact test)."
)


def results(runs: Runs) -> Iterator[Section]:
    """What went wrong, the scores, their differences, and what is printed of the same networks."""
    finished = {name: record for name, record in runs.items() if record.split is not None}
    parts: list[Part] = [text for name, record in runs.items() for text in _failure(prefix(name, runs), record)]
    if finished:
        parts.append(_tiles(finished))
    if len(finished) > 1:
        parts += _differences(finished)
    parts += dict.fromkeys(text for record in finished.values() for text in _published(record, len(runs) > 1))
    for name, record in finished.items():
        parts += [f"{prefix(name, runs)}{note}" for note in _judged(record).headline().notes]
    parts += [f"{prefix(name, runs)}{fault}" for name, record in runs.items() for fault in record.faults]
    if parts:
        yield Section("Results", tuple(parts))


def _judged(record: RunRecord) -> "Evaluation":
    return record.evaluations[str(record.split)]


def _failure(before: str, record: RunRecord) -> Iterator[str]:
    failure = record.manifest.get("failure")
    if failure:
        images = f" (images: {listed(failure['images'])})" if failure.get("images") else ""
        yield f"{before}failed: {failure['message']}{images}"


def _tiles(finished: Runs) -> Measurements:
    """All that one run scored; of several the one number to compare them by."""
    tiles, mains = [], set()
    for name, record in finished.items():
        evaluation = _judged(record)
        small = f"{record.split}, {counted(evaluation.images, 'image')}, {evaluation.protocol}"
        main = "top-1 error" if evaluation.top1 else "mean average precision"
        mains.add(main)
        for measure, *values in evaluation.headline().rows:
            if len(finished) == 1 or measure == main:
                tiles.append((f"{prefix(name, finished)}{measure}", Measurement(*values), small))  # type: ignore[arg-type]
    return Measurements(tuple(tiles), one_scale=len(finished) > 1 and len(mains) == 1)


def _differences(finished: Runs) -> Iterator[Part]:
    try:
        yield scores_table(called_by_name(finished))
    except UserError as reason:
        yield f"The runs are not compared: {reason}."
        return
    if all(_judged(record).top1 for record in finished.values()):
        yield _WHAT_DIFFERENCES_MEAN


def _published(record: RunRecord, with_model: bool) -> Iterator[str]:
    of = f" of {record.model}" if with_model else ""
    for figure in record.published.get(str(record.split), ()):
        yield f"Published{of}: {_errors(figure)} ({'; '.join(filter(None, (figure.source, figure.note)))})."


def _errors(figure: "Published") -> str:
    top5 = "" if figure.top5_error is None else f", top-5 error {figure.top5_error:g} %"
    return f"top-1 error {figure.top1_error:g} %{top5}"


def training(runs: Runs) -> Iterator[Section]:
    """The curves over the epochs, and how long they took."""
    panels = (
        ("train_error", "val_error", "error [%]"),
        (None, "val_map", "mean average precision [%]"),
        ("train_loss", "val_loss", "loss [nats]"),
        (None, "lr", "learning rate"),
    )
    drawn = [panel for keys in panels if (panel := tuple(_curves(runs, *keys)))]
    if not drawn:
        return
    alt = "; ".join(_last_values(panel) for panel in drawn)
    chart = Chart("Over the epochs", tuple(drawn), f"Curves over the epochs. At the end: {alt}", log_y=True)
    paces = [f"{prefix(name, runs)}{_pace(record)}" for name, record in runs.items() if record.metrics]
    yield Section("Training", (chart, *paces))


def _curves(runs: Runs, trained: str | None, held: str, label: str) -> Iterator[Series]:
    """Thin the training's, bold those of held-out images, as He et al. 2015 draw them."""
    for number, (run, record) in enumerate(runs.items()):
        for key, is_training in ((trained, True), (held, False)):
            name = "training" if is_training else label if key == "lr" else record.watched
            shown = f"{name}, {run}" if len(runs) > 1 else name
            if key and (series := curve(record.metrics, key, shown, label, run=number, is_training=is_training)).x:
                yield series


def _last_values(panel: Sequence[Series]) -> str:
    return ", ".join(f"{series.name} {series.y_label} {series.y[-1]:.4g}" for series in panel)


def _pace(record: RunRecord) -> str:
    seconds = sum(line.get("seconds", 0.0) for line in record.metrics)
    images = sum(line.get("images", 0) for line in record.metrics)
    rate = f", {images / seconds:,.0f} images/s" if seconds else ""
    return f"{counted(len(record.metrics), 'epoch')} in {seconds:,.0f} s of training{rate}."


def answers(runs: Runs) -> Iterator[Section]:
    """Which classes were taken for which, and each class by itself."""
    from residuum.evaluation.answers import Answers

    confusion: list[Part] = []
    for name, record in runs.items():
        found = record.answers.get(record.split or "")
        if isinstance(found, Answers):
            counts, names = found.confusion(), list(found.classes)  # with a last row and column, which are often empty
            rows = names + (["(a class it does not know)"] if counts[-1].any() else [])
            columns = names + (["(no answer)"] if counts[:, -1].any() else [])
            title = f"{name}, {record.split}" if len(runs) > 1 else f"On {record.split}"
            confusion.append(Matrix(title, tuple(rows), tuple(columns), counts[: len(rows), : len(columns)]))
    if confusion:
        yield Section("Which classes are taken for which", tuple(confusion))
    tables = {name: _judged(record).per_class for name, record in runs.items() if record.split is not None}
    if tables:
        titled = (replace(table, title=f"{prefix(name, runs)}{table.title}") for name, table in tables.items())
        yield Section("Class by class", tuple(titled))


def calibration(runs: Runs) -> Iterator[Section]:
    """How often an answer is right, by how sure it is, before and after a temperature was fitted."""
    from residuum.evaluation.answers import Answers
    from residuum.evaluation.calibration import reliability

    kinds = {
        "": [one.answers for one in runs.values()],
        ", with temperature": [one.calibrated for one in runs.values()],
    }
    curves: list[Series] = []
    errors: list[str] = []
    for kind, (suffix, by_run) in enumerate(kinds.items()):
        for number, ((name, record), by_split) in enumerate(zip(runs.items(), by_run, strict=True)):
            found = by_split.get(record.split or "")
            if not isinstance(found, Answers):
                continue
            measured = reliability(found.confidences, found.right)
            own, diagonal = measured.series()
            if own.x:
                curves.append(replace(own, name=f"{name}{suffix}", run=kind * len(runs) + number))
            errors.append(f"{name}{suffix} {measured.ece.value:.2f} %")
    if not curves:
        return
    chart = Chart(
        "How often an answer is right, by how sure it is",
        ((diagonal, *curves),),
        "Accuracy over confidence; the diagonal is perfect calibration",
    )
    error = f"Expected calibration error, the mean distance from the diagonal: {', '.join(errors)}."
    yield Section("Calibration", (chart, error, *_temperatures(runs)))


def _temperatures(runs: Runs) -> Iterator[str]:
    for name, record in runs.items():
        if record.temperature is None:
            continue
        fitted_on = record.temperature["fitted_on"]
        text = f"{prefix(name, runs)}Temperature {record.temperature['value']:.2f}, fitted on {fitted_on}."
        if fitted_on == record.split:
            text += " The figures with it are of these same images, which flatters them."
        yield text
