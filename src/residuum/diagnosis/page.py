"""A diagnosis as records: tables for a terminal, a section with charts for a page."""

import math
from collections.abc import Callable, Sequence

from residuum.diagnosis.facts import LayerFacts
from residuum.diagnosis.verdict import Diagnosis
from residuum.records import Cell, Chart, Section, Series, Table

_LAYER, _JOIN = "layer, in order of execution", "layers before the sum"
_COLUMNS = ("layer", "kind", "std", "variation", "gradient", "sensitivity", "dead [%]", "weight norm")
_UPDATE = "update / weight"


def short_table(diagnosis: Diagnosis, rows: int = 9) -> Table:
    """Some of the layers, evenly spaced from the first to the last, and the one with most dead units if any are."""
    layers = diagnosis.probe.layers
    if len(layers) <= rows:
        return layers_table(diagnosis, layers)
    chosen = {round(index * (len(layers) - 1) / (rows - 1)) for index in range(rows)}
    dead = max(range(len(layers)), key=lambda index: layers[index].dead if layers[index].dead > 0 else 0.0)
    chosen |= {dead} if layers[dead].dead > 0 else set()
    table = layers_table(diagnosis, [layers[index] for index in sorted(chosen)])
    return Table(table.title, table.columns, table.rows, (f"{len(table.rows)} of {len(layers)} layers.",))


def layers_table(diagnosis: Diagnosis, layers: Sequence[LayerFacts] | None = None) -> Table:
    """A row a call of a layer; without `layers`, all of them. Numbers are rounded to three digits."""
    shown = diagnosis.probe.layers if layers is None else layers
    columns = (*_COLUMNS, *([] if diagnosis.lr is None else [_UPDATE]))
    return Table("Layer by layer", columns, tuple(_row(layer, diagnosis.lr) for layer in shown))


def _row(layer: LayerFacts, lr: float | None) -> tuple[Cell, ...]:
    name = layer.name if not layer.call else f"{layer.name}, call {layer.call + 1}"
    kind = " ".join([layer.kind, *(["x".join(map(str, layer.kernel))] if layer.kernel else [])])
    numbers = (layer.std, layer.variation, layer.gradient_std, layer.sensitivity)
    ratio = [] if lr is None else [_short(layer.update_ratio(lr))]
    dead = None if math.isnan(layer.dead) else 100 * layer.dead
    return (name, kind, *map(_short, numbers), dead, _short(layer.weight_norm), *ratio)


def _short(value: float) -> str:
    """Three digits: these numbers differ by powers of ten within a column."""
    return "-" if math.isnan(value) else f"{value:.3g}"


def sections(diagnosis: Diagnosis) -> tuple[Section, ...]:
    """Verdict; curves over the layers; every layer; every residual sum; every batch normalisation."""
    found = [
        Section("Verdict", (f"{diagnosis.verdict.capitalize()}. {diagnosis.reason}", f"Remedy: {diagnosis.remedy}")),
        Section("Through the network", (_signal(diagnosis), *_joins_chart(diagnosis))),
        Section("Layers", (layers_table(diagnosis),)),
    ]
    tables = [table for table in (_joins(diagnosis), _normalisers(diagnosis)) if table.rows]
    return (*found, *(Section(table.title, (table,)) for table in tables))


def _signal(diagnosis: Diagnosis) -> Chart:
    values: dict[str, Callable[[LayerFacts], float]] = {
        "standard deviation of the output": lambda layer: layer.std,
        "standard deviation of its gradient": lambda layer: layer.gradient_std,
        "sensitivity of the loss [nats]": lambda layer: layer.sensitivity,
    }
    panels = tuple((_series(label, diagnosis.probe.layers, value),) for label, value in values.items())
    return Chart(
        "From the first layer to the last", panels, "A line over the layers of the network", log_y=True, log_first=True
    )


def _series(label: str, layers: Sequence[LayerFacts], value: Callable[[LayerFacts], float]) -> Series:
    points = [(float(number), value(layer)) for number, layer in enumerate(layers, start=1)]
    known = [(x, y) for x, y in points if math.isfinite(y)]
    return Series("every layer", tuple(x for x, _ in known), tuple(y for _, y in known), _LAYER, label)


def _joins_chart(diagnosis: Diagnosis) -> tuple[Chart, ...]:
    joins = [join for join in diagnosis.probe.joins if math.isfinite(join.share)]
    if len(joins) < 2:
        return ()
    where = tuple(float(join.after) for join in joins)
    share = Series("branch", where, tuple(100 * join.share for join in joins), _JOIN, "share of the branch [%]")
    size = Series("sum", where, tuple(join.std for join in joins), _JOIN, "standard deviation of the sum")
    return (Chart("Residual sums", ((share,), (size,)), "A line over the residual sums of the network"),)


def _joins(diagnosis: Diagnosis) -> Table:
    rows = tuple(
        (
            join.name,
            _short(join.branch_std),
            _short(join.carried_std),
            _short(join.std),
            None if math.isnan(join.share) else 100 * join.share,
        )
        for join in diagnosis.probe.joins
    )
    note = "The share of the branch is that of its mean square in the sum of both."
    return Table("Residual sums", ("in", "std of branch", "std of carried", "std of sum", "branch [%]"), rows, (note,))


def _normalisers(diagnosis: Diagnosis) -> Table:
    rows = tuple(
        (layer.name, 100 * one.small, 100 * one.flat, _short(one.shift), _short(one.stretch), f"{one.eps:g}")
        for layer in diagnosis.probe.layers
        if (one := layer.normaliser) is not None
    )
    columns = ("layer", "variance below eps [%]", "no variance [%]", "means apart", "variances, batch / running", "eps")
    return Table("Batch normalisations", columns, rows)
