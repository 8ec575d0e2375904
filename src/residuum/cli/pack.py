"""`residuum pack`: decode a data set once, for all the times it will be read."""

import shlex
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from residuum.cli import options
from residuum.cli.messages import print_first, print_notes
from residuum.cli.startup import import_torch
from residuum.errors import printable

if TYPE_CHECKING:
    from residuum.data.packs import Pack


def pack(
    data: options.Data,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write; a pack that is there is replaced.")],
    shorter_side: Annotated[
        int | None,
        typer.Option(
            "--shorter-side", min=1, metavar="N", help="Reduce larger images to it; by default all stay as they are."
        ),
    ] = None,
    root: options.Root = None,
    val_fraction: options.ValFraction = options.DEFAULT_VAL_FRACTION,
    split_seed: options.SplitSeed = options.DEFAULT_SPLIT_SEED,
    workers: options.Workers = None,
    as_json: options.AsJson = False,
) -> None:
    """Decode a data set once into a folder that every other verb takes in its place.

    A pack takes more disk, and reading it next to no time. Without --shorter-side a run on it equals one on the data.

    Example: residuum pack photos/ packs/photos --shorter-side 256
    """
    import_torch()
    from rich.console import Console

    from residuum.data.packing import open_source, write_pack
    from residuum.report.terminal import print_json
    from residuum.training.progress import Reporter

    started = time.monotonic()
    reporter = Reporter(Console(stderr=True))
    before = signal.signal(signal.SIGTERM, _leave)  # a stopped job, too, takes away what it had half written
    try:
        source = open_source(data, root=root, val_fraction=val_fraction, split_seed=split_seed)
        written = write_pack(source, out, shorter_side=shorter_side, workers=workers, watch=reporter.reading)
    finally:
        signal.signal(signal.SIGTERM, before)
    record = _record(written, out, time.monotonic() - started)
    print_notes(written.notes)
    print_first("left out", [f"{name}: {reason}" for name, reason in record["bad"]], record["left_out"])
    if as_json:
        print_json(record)
    else:
        _print(written, record)


def _leave(number: int, frame: object) -> None:
    raise SystemExit(128 + number)  # as shells have it


def _record(pack: "Pack", out: Path, seconds: float) -> dict[str, Any]:
    """What was written; of the images left out the first hundred are named."""
    from residuum.data.packs import bad_images

    return {
        "pack": str(out),
        "data": pack.spec,
        "fingerprint": pack.fingerprint,
        "classes": len(pack.classes),
        "images": {name: len(split) for name, split in pack.splits.items()},
        "left_out": sum(split.counts.left_out for split in pack.splits.values()),
        "bad": [bad for split in pack.splits.values() for bad in bad_images(split)][:100],
        "shorter_side": pack.shorter_side,
        "bytes": sum(file.stat().st_size for file in pack.folder.iterdir()),
        "seconds": round(seconds, 2),
    }


def _print(pack: "Pack", record: dict[str, Any]) -> None:
    from residuum.data.packing import size_text

    images = ", ".join(f"{number:,} {name}" for name, number in record["images"].items())
    size, folder = size_text(record["bytes"]), shlex.quote(record["pack"])
    print(printable(f"{pack.spec}: {images} images of {record['classes']} classes", longest=None))
    print(f"pack      {record['pack']}, {size}, in {record['seconds']:.1f} s")
    print(f"train     residuum train {folder}")
