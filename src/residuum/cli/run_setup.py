"""What runs were made of and with, as sections of a page."""

from collections.abc import Iterator

from residuum.cli.compare import cell, flattened, settings_table
from residuum.cli.run_names import Runs, called_by_name
from residuum.cli.run_records import RunRecord
from residuum.errors import UserError
from residuum.records import Part, Section, Table
from residuum.report.names import isolated

_MOST_CLASSES = 50  # that are named


def networks(runs: Runs) -> Iterator[Section]:
    """Each different network, stage by stage; nothing where the library it comes from is not there."""
    different = {str(_asked_for(record)): record for record in runs.values()}
    parts = [part for record in different.values() for part in _network(record)]
    if parts:
        yield Section("The network" if len(parts) == 2 else "The networks", tuple(parts))


def _asked_for(record: RunRecord) -> tuple[dict[str, object], tuple[int, int, int]]:
    """Options of the network, and the shape of what it is shown."""
    from residuum.models.catalogue import PARTS

    run = record.manifest["run"]
    channels, size = run["data"]["channels"], run["data"]["size"]
    options = {"name": record.model, "num_classes": len(record.classes), "in_channels": channels}
    changed = {part: run["model"][part] for part, usual in PARTS.items() if run["model"].get(part, usual) != usual}
    return options | changed, (channels, size, size)


def _network(record: RunRecord) -> Iterator[Part]:
    from residuum.models.catalogue import PARTS, create_skeleton
    from residuum.models.summary import summarise

    options, shape = _asked_for(record)
    try:
        summary = summarise(create_skeleton(**options), shape)  # type: ignore[arg-type]
    except UserError:
        return
    parts = "".join(f", {part} {options[part]}" for part in PARTS if part in options)
    what = f"{record.model}{parts}{',' if parts else ''} on {'x'.join(map(str, shape))}"
    yield f"{what}: {summary.parameters:,} parameters, {summary.multiply_adds:,} multiply-adds."
    yield summary.stages


def settings(runs: Runs) -> Iterator[Section]:
    """The settings of one run; of several those that differ, and those that do not."""
    flat = [flattened(record.manifest["run"]) for record in runs.values()]
    if len(runs) == 1:
        rows = tuple((name, cell(value)) for name, value in flat[0].items())
        yield Section("Settings", (Table("", ("field", "value"), rows),))
        return
    table = settings_table(called_by_name(runs))
    differing = {row[0] for row in table.rows}
    same = tuple((name, cell(value)) for name, value in flat[0].items() if name not in differing)
    yield Section(
        "What differs in the settings",
        (
            Table("", table.columns, table.rows) if table.rows else "Nothing: the runs differ in data or luck.",
            Table("What is the same", ("field", "value"), same),
        ),
    )


def data(runs: Runs) -> Section:
    """What was learnt from and measured on, and whether that is the same for all."""
    rows = []
    notes: dict[str, None] = {}
    for name, record in runs.items():
        used = record.manifest["data"]
        rows += [(name, used["spec"], split, count) for split, count in used["images"].items()]
        notes |= dict.fromkeys(used.get("notes", ()))
        notes |= {
            f"left out of training: {isolated(image)}: {reason}": None
            for image, reason in record.manifest.get("bad_images", ())
        }
    classes = dict.fromkeys(_classes(record) for record in runs.values())
    table = Table("", ("run", "data", "split", "images"), tuple(rows))
    return Section("Data", (table, *_odds(runs), *classes, *notes))


def _odds(runs: Runs) -> Iterator[str]:
    """What of the data is not the same in all runs."""
    fingerprints = {name: record.manifest["data"]["fingerprint"][:12] for name, record in runs.items()}
    if len(set(fingerprints.values())) > 1:
        yield f"The data differ, by their fingerprints: {_each(fingerprints)}."
    splits = {name: record.split for name, record in runs.items() if record.split is not None}
    if len(set(splits.values())) > 1:
        yield f"The runs are judged by different splits: {_each(splits)}."


def _each(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _classes(record: RunRecord) -> str:
    names = record.classes
    named = ", ".join(map(isolated, names[:_MOST_CLASSES]))
    return f"{len(names):,} classes: {named}{' and more' if len(names) > _MOST_CLASSES else ''}."


def environment(runs: Runs) -> Section:
    """Versions and hardware, and whether the same run again gives the same bits."""
    facts = [
        {
            **flattened({"versions": one.manifest.get("versions", {}), "hardware": one.manifest.get("hardware", {})}),
            "repeats bit for bit": one.manifest.get("exact", {}).get("claimed"),
            "doubts": "; ".join(one.manifest.get("exact", {}).get("doubts", ())) or None,
        }
        for one in runs.values()
    ]
    names = dict.fromkeys(name for one in facts for name in one)
    rows = tuple((name, *(cell(one.get(name)) for one in facts)) for name in names)
    return Section("Made with", (Table("", ("", *runs), rows),))
