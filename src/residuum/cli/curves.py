"""The curves of a run, from its records of each epoch to a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from residuum.files import whole_file
from residuum.records import Series


def draw_curves(metrics: Sequence[Mapping[str, Any]], path: Path, *, held_out: str, title: str) -> None:
    """Draw error, loss and learning rate over the epochs. `metrics`: the lines of metrics.jsonl.

    `held_out` names the split that training watched. An epoch that lacks a value is left out of its curve.
    """
    from residuum.report.pictures import plot_curves

    panels = [
        [
            curve(metrics, "train_error", "training", "error [%]", is_training=True),
            curve(metrics, "val_error", held_out, "error [%]"),
        ],
        [curve(metrics, "val_map", held_out, "mean average precision [%]")],
        [
            curve(metrics, "train_loss", "training", "loss", is_training=True),
            curve(metrics, "val_loss", held_out, "loss"),
        ],
        [curve(metrics, "lr", "learning rate", "learning rate")],
    ]
    drawn = [[series for series in panel if series.x] for panel in panels]
    with whole_file(path) as temporary:
        plot_curves([panel for panel in drawn if panel], temporary, title)


def curve(
    metrics: Sequence[Mapping[str, Any]],
    key: str,
    name: str,
    label: str,
    *,
    run: int | None = None,
    is_training: bool = False,
) -> Series:
    """One column of the metrics over the epochs that have it."""
    points = [(float(record["epoch"]), float(record[key])) for record in metrics if record.get(key) is not None]
    x, y = tuple(x for x, _ in points), tuple(y for _, y in points)
    return Series(name, x, y, "epoch", label, run, is_training)
