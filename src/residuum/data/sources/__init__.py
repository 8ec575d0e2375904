"""What stands after `residuum train`: a data spec, opened."""

from collections.abc import Sequence
from pathlib import Path

from residuum.data.packs import Pack, is_pack, open_pack
from residuum.data.sources.assembly import Found, Reading, assemble
from residuum.data.sources.builtin import BUILTIN
from residuum.data.sources.dataset import DataSet
from residuum.data.sources.folders import read_folder
from residuum.data.sources.hub import find_parquet, open_parquet, read_hub
from residuum.data.sources.manifests import read_manifest
from residuum.errors import UserError, unknown_name

__all__ = ["DataSet", "open_data", "read_data"]

FORMS = "a folder, a pack, a .csv or .jsonl manifest, .parquet, hf:owner/name"


def open_data(
    spec: str,
    *,
    root: str | Path | None = None,
    classes: Sequence[str] | None = None,
    val_fraction: float = 0.2,
    split_seed: int = 0,
) -> DataSet:
    """The data set that `spec` names.

    spec: digits, mnist, fashion-mnist, cifar10 or cifar100; a folder of images (a folder a class, with or
    without train/val/test above them) or of parquet files; a pack; a .csv or .jsonl manifest; a .parquet file;
    hf:owner/name. A folder that is named like a built-in set is written ./digits.
    root: where a built-in set's files are or go (default $RESIDUUM_DATA, else ~/.cache/residuum); what a
    manifest's paths are relative to (default: its folder).
    classes: a model's class list, onto which labels are matched by name; by default the training split's own,
    in natural order, or in the order that the source defines.
    val_fraction, split_seed: the stratified draw of a val split from data that have no splits.

    Raises UserError for what is not there or not as expected.
    """
    reading = read_data(spec, root)
    return assemble(spec, reading, classes, val_fraction, split_seed)


def read_data(spec: str, root: str | Path | None = None) -> Reading:
    """What `spec` names as it was found: its own splits, if any, each under its own class list. Raises UserError."""
    root = Path(root).expanduser() if root is not None else None
    if spec in BUILTIN:
        return BUILTIN[spec](root)
    if spec.startswith("hf:"):
        return read_hub(spec, root)
    path = Path(spec).expanduser()
    if path.is_dir():
        if is_pack(path):
            return _of_pack(open_pack(path))
        return open_parquet(path) if find_parquet(path) else read_folder(path)
    if not path.exists():
        raise unknown_name("data", spec, BUILTIN, f"no such file or folder; allowed: {', '.join(BUILTIN)}, {FORMS}")
    match path.suffix.lower():
        case ".csv" | ".jsonl":
            return read_manifest(path, root)
        case ".parquet":
            return open_parquet(path)
    raise UserError(f"{spec} is a file and no known kind of data set; allowed: {FORMS}")


def _of_pack(pack: Pack) -> Reading:
    return Reading({name: Found(split, pack.classes_of(name)) for name, split in pack.splits.items()}, pack.notes)
