"""What a model learnt from, how and on what, as its card tells it."""

from collections.abc import Iterator, Mapping
from typing import Any

from residuum.cli.card_facts import CardFacts
from residuum.cli.compare import cell, flattened
from residuum.cli.run_records import RunRecord
from residuum.errors import UserError, counted
from residuum.model_config import public_name
from residuum.records import Cell, Table
from residuum.report.markdown import code, table_markdown, words

_MOST_CLASSES = 50  # that are named
_SHOWN = (
    "model.name",
    "data.size",
    "data.channels",
    "epochs",
    "iterations",
    "batch_size",
    "optimizer.name",
    "optimizer.lr",
    "optimizer.weight_decay",
    "schedule.name",
    "loss.name",
    "loss.label_smoothing",
    "ema",
    "early_stopping",
    "seed",
)
_OF_THE_MACHINE = ("device", "precision", "data.workers", "data.loader", "capture", "checkpoint_every")


def data(facts: CardFacts) -> Iterator[str]:
    """The data's name and fingerprint, how many images each split has, the classes, and what was odd."""
    provenance = facts.classifier.provenance
    if facts.record is not None:
        used = facts.record.manifest["data"]
        splits = ", ".join(f"{count:,} {words(split)}" for split, count in used["images"].items())
        fingerprint = code(used["fingerprint"])
        yield f"Learnt from and measured on {words(facts.data)}: {splits} images; fingerprint {fingerprint}."
        yield from (words(note) for note in used.get("notes", ()) if used["spec"] not in note)
        if left_out := facts.record.manifest.get("bad_images"):
            yield f"Left out of training: {counted(len(left_out), 'image')} or more that could not be read."
    elif "fingerprint" in provenance:
        yield f"Learnt from {words(facts.data)}; fingerprint {code(str(provenance['fingerprint']))}."
    else:
        yield "What it learnt from is not recorded."
    yield _classes(facts)


def _classes(facts: CardFacts) -> str:
    names = facts.classifier.classes
    named = ", ".join(map(words, names[:_MOST_CLASSES]))
    more = ", and more: all are in `config.json`" if len(names) > _MOST_CLASSES else ""
    return f"Its {len(names):,} classes, in the order of the outputs: {named}{more}."


def training(facts: CardFacts) -> Iterator[str]:
    """The recipe and what differs from it, the time it took, and on what."""
    if facts.record is None:
        yield "How it was trained is not recorded."
        return
    manifest = facts.record.manifest
    yield _course(facts.record)
    yield _settings(manifest["run"])
    yield from _changes(facts.record)
    versions = ", ".join(f"{words(name)} {words(str(number))}" for name, number in manifest["versions"].items())
    repeats = "" if manifest["exact"].get("claimed") else "not "
    yield f"Versions: {versions}. The same run again is {repeats}claimed to give the same weights bit for bit."


def _course(record: RunRecord) -> str:
    run, hardware = record.manifest["run"], record.manifest["hardware"]
    seconds = sum(line.get("seconds", 0.0) for line in record.metrics)
    cores, processor = hardware.get("cores", "?"), hardware.get("processor", "unknown")
    where = words(f"{hardware.get('device', 'unknown')} ({processor}, {cores} cores)")
    processes = f" in {hardware['processes']} processes" if hardware["processes"] > 1 else ""
    weights = run["model"].get("weights")
    start = f", from the weights {code(public_name(weights))}" if weights else ""
    return (
        f"The recipe {code(run['recipe'])}{start}: {counted(len(record.metrics), 'epoch')} in {seconds:,.0f} s of "
        f"training on {where}{processes}, computing in {words(str(hardware.get('precision', 'unknown')))}."
    )


def _settings(run: Mapping[str, Any]) -> str:
    flat = flattened(run)
    rows = tuple((name, _shown(flat[name])) for name in _SHOWN if flat.get(name) not in (None, 0, 0.0))
    return table_markdown(Table("", ("setting", "value"), rows))


def _changes(record: RunRecord) -> Iterator[str]:
    """What differs from the recipe as it stands today, for this network and data; nothing where one is not known."""
    if "facts" not in record.manifest["data"]:  # of an earlier version
        return
    try:
        rows = _differences(record, _usual(record))
    except UserError:  # no such recipe any more
        return
    if rows:
        yield table_markdown(Table("", ("differs from the recipe", "here", "there"), tuple(rows)))
    else:
        yield "Nothing differs from the recipe."


def _differences(record: RunRecord, usual: Mapping[str, object]) -> list[tuple[Cell, ...]]:
    own = flattened(record.manifest["run"])
    return [
        (name, _shown(_public(name, value)), _shown(usual.get(name)))
        for name, value in own.items()
        if cell(value) != cell(usual.get(name)) and name not in _OF_THE_MACHINE
    ]


def _shown(value: object) -> Cell:
    return f"{value:.6g}" if isinstance(value, float) else cell(value)


def _public(name: str, value: object) -> object:
    return public_name(str(value)) if name == "model.weights" and value is not None else value


def _usual(record: RunRecord) -> dict[str, object]:
    """What the recipe sets for this network and these data. Raises UserError without one."""
    from residuum.data.facts import DataFacts
    from residuum.training.recipes import make_run

    facts = DataFacts(**record.manifest["data"]["facts"])
    return flattened(make_run(record.manifest["run"]["recipe"], facts, record.model).to_dict())
