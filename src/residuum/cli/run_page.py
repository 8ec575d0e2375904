"""The page of one run or of several: from what lies in their folders to sections of records."""

from collections.abc import Iterator, Sequence

from residuum.cli.compare import cell, flattened, scores_table, settings_table
from residuum.cli.curves import curve
from residuum.cli.run_records import RunRecord
from residuum.records import Chart, Matrix, Measurement, Measurements, Page, Part, Section, Series, Table

REFRESH_SECONDS = 10


def run_page(records: Sequence[RunRecord], insights: Sequence[Section] = ()) -> Page:
    """What runs were, how they went and what they scored; `insights` are sections that needed the data."""
    first = records[0]
    title = " and ".join(dict.fromkeys(f"{one.model} on {one.manifest['data']['spec']}" for one in records[:3]))
    if len(records) > 3:
        title += f" and {len(records) - 3} more"
    states = ", ".join(f"{one.name}: {one.manifest.get('status', 'unknown')}" for one in records)
    sections = [
        *_results(records),
        *_training(records),
        *_answers(records),
        *insights,
        *_network(first),
        *_settings(records),
        *_data(records),
        _environment(records),
    ]
    refresh = REFRESH_SECONDS if any(one.is_running for one in records) else 0
    return Page(title, f"residuum report. {states}", tuple(sections), refresh)


def _results(records: Sequence[RunRecord]) -> Iterator[Section]:
    finished = [record for record in records if record.split is not None]
    if not finished:
        return
    parts: list[Part] = [_tiles(finished)]
    if len(finished) > 1:
        parts.append(scores_table(finished))
        parts.append(
            "The difference is of the error to the first run's, on the same images, with its 95 % interval (Newcombe "
            "1998); p is that of McNemar's exact test: how often chance alone parts equally good models so far."
        )
    for record in finished:
        evaluation = record.evaluations[str(record.split)]
        parts += [f"{record.name}: {note}" for note in evaluation.headline().notes]
    yield Section("Results", tuple(parts))


def _tiles(finished: Sequence[RunRecord]) -> Measurements:
    """All that one run scored; of several the one number to compare them by."""
    tiles = []
    for record in finished:
        evaluation = record.evaluations[str(record.split)]
        small = f"{record.split}, {evaluation.images:,} images, {evaluation.protocol}"
        rows = evaluation.headline().rows
        main = "top-1 error" if evaluation.top1 else "mean average precision"
        for name, *values in rows:
            if len(finished) == 1 or name == main:
                shown = str(name) if len(finished) == 1 else f"{record.name}: {name}"
                tiles.append((shown, Measurement(*values), small))  # type: ignore[arg-type]
    return Measurements(tuple(tiles))


def _training(records: Sequence[RunRecord]) -> Iterator[Section]:
    panels = (
        ("train_error", "val_error", "error [%]"),
        (None, "val_map", "mean average precision [%]"),
        ("train_loss", "val_loss", "loss [nats]"),
        ("lr", None, "learning rate"),
    )
    drawn = [tuple(_curves(records, trained, held, label)) for trained, held, label in panels]
    drawn = [panel for panel in drawn if panel]
    if not drawn:
        return
    alt = "; ".join(_last_values(panel) for panel in drawn)
    chart = Chart("Over the epochs", tuple(drawn), f"Curves over the epochs. At the end: {alt}", log_y=True)
    yield Section("Training", (chart, *(_pace(record) for record in records if record.metrics)))


def _curves(records: Sequence[RunRecord], trained: str | None, held: str | None, label: str) -> Iterator[Series]:
    """Thin the training's, bold those of held-out images, as He et al. 2015 draw them."""
    for record in records:
        run = f", {record.name}" if len(records) > 1 else ""
        names = ((trained, "learning rate" if trained == "lr" else "training"), (held, record.watched))
        for key, name in names:
            series = curve(record.metrics, key, f"{name}{run}", label) if key else None
            if series is not None and series.x:
                yield series


def _last_values(panel: Sequence[Series]) -> str:
    return ", ".join(f"{series.name} {series.y_label} {series.y[-1]:.4g}" for series in panel)


def _pace(record: RunRecord) -> str:
    seconds = sum(line.get("seconds", 0.0) for line in record.metrics)
    images = sum(line.get("images", 0) for line in record.metrics)
    rate = f", {images / seconds:,.0f} images/s" if seconds else ""
    return f"{record.name}: {len(record.metrics)} epochs in {seconds:,.0f} s of training{rate}."


def _answers(records: Sequence[RunRecord]) -> Iterator[Section]:
    from residuum.evaluation.answers import Answers

    with_answers = [
        (record, found)
        for record in records
        if record.split is not None and isinstance(found := record.answers.get(record.split), Answers)
    ]
    confusion: list[Part] = []
    for record, found in with_answers:
        counts, names = found.confusion(), list(found.classes)  # with a last row and column, which are often empty
        rows = names + (["(a class it does not know)"] if counts[-1].any() else [])
        columns = names + (["(no answer)"] if counts[:, -1].any() else [])
        title = f"{record.name}, {record.split}" if len(records) > 1 else f"On {record.split}"
        confusion.append(Matrix(title, tuple(rows), tuple(columns), counts[: len(rows), : len(columns)]))
    if confusion:
        yield Section("Which classes are taken for which", tuple(confusion))
    per_class: list[Part] = [
        record.evaluations[record.split].per_class for record in records if record.split is not None
    ]
    if len(records) == 1 and per_class:
        yield Section("Class by class", tuple(per_class))
    yield from _calibration(records)


def _calibration(records: Sequence[RunRecord]) -> Iterator[Section]:
    from residuum.evaluation.answers import Answers
    from residuum.evaluation.calibration import reliability

    curves: list[Series] = []
    texts: list[str] = []
    for record in records:
        for kind, answers in (("", record.answers), (", with temperature", record.calibrated)):
            found = answers.get(record.split or "")
            if not isinstance(found, Answers):
                continue
            measured = reliability(found.confidences, found.right)
            own, diagonal = measured.series()
            name = f"{record.name}{kind}"
            curves += [Series(name, own.x, own.y, own.x_label, own.y_label)] if own.x else []
            ece = measured.ece
            texts.append(f"{name}: expected calibration error {ece.value:.2f} %.")
    if not curves:
        return
    chart = Chart(
        "How often an answer is right, by how sure it is",
        ((diagonal, *curves),),
        "Accuracy over confidence; the diagonal is perfect calibration. " + " ".join(texts),
    )
    yield Section("Calibration", (chart, *texts))


def _network(record: RunRecord) -> Iterator[Section]:
    """Stage by stage; nothing where the library it comes from is not there."""
    from residuum.errors import UserError
    from residuum.models.catalogue import create_skeleton
    from residuum.models.summary import summarise

    run = record.manifest["run"]
    shortcut = run["model"].get("shortcut")
    options = {"num_classes": len(record.classes), "in_channels": run["data"]["channels"]}
    size = run["data"]["channels"], run["data"]["size"], run["data"]["size"]
    try:
        network = create_skeleton(record.model, **options, **({"shortcut": shortcut} if shortcut else {}))
        summary = summarise(network, size)
    except UserError:
        return
    total = (
        f"{record.model} on {'x'.join(map(str, size))}: {summary.parameters:,} parameters, "
        f"{summary.multiply_adds:,} multiply-adds."
    )
    yield Section("The network", (total, summary.stages))


def _settings(records: Sequence[RunRecord]) -> Iterator[Section]:
    if len(records) > 1:
        table = settings_table(records)
        yield Section(
            "What differs in the settings", (table if table.rows else "Nothing: the runs differ in data or luck.",)
        )
        return
    rows = tuple((name, cell(value)) for name, value in flattened(records[0].manifest["run"]).items())
    yield Section("Settings", (Table("", ("field", "value"), rows),))


def _data(records: Sequence[RunRecord]) -> Iterator[Section]:
    rows = []
    notes: dict[str, None] = {}
    for record in records:
        data = record.manifest["data"]
        rows += [(record.name, data["spec"], split, count) for split, count in data["images"].items()]
        notes |= dict.fromkeys(data.get("notes", ()))
        notes |= {
            f"left out of training: {name}: {reason}": None for name, reason in record.manifest.get("bad_images", ())
        }
    names = records[0].classes
    text = f"{len(names):,} classes: {', '.join(names[:50])}{' and more' if len(names) > 50 else ''}."
    yield Section("Data", (Table("", ("run", "data", "split", "images"), tuple(rows)), text, *notes))


def _environment(records: Sequence[RunRecord]) -> Section:
    facts = [
        {
            **flattened({"versions": one.manifest.get("versions", {}), "hardware": one.manifest.get("hardware", {})}),
            "repeats bit for bit": one.manifest.get("exact", {}).get("claimed"),
            "doubts": "; ".join(one.manifest.get("exact", {}).get("doubts", ())) or None,
        }
        for one in records
    ]
    names = dict.fromkeys(name for one in facts for name in one)
    rows = tuple((name, *(cell(one.get(name)) for one in facts)) for name in names)
    return Section("Made with", (Table("", ("", *(one.name for one in records)), rows),))
