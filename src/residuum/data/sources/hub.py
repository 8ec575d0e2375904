"""Data sets in parquet files: found in a folder, or fetched from the Hugging Face Hub."""

import re
from pathlib import Path

from residuum.data.sources.assembly import Reading
from residuum.errors import UserError, missing_extra


def find_parquet(folder: Path) -> list[Path]:
    """The parquet files in a folder and at most two levels below it, as the Hub nests them."""
    patterns = ("*.parquet", "*/*.parquet", "*/*/*.parquet")
    files = sorted(file for pattern in patterns for file in folder.glob(pattern))
    return [file for file in files if not any(part[0] == "." for part in file.relative_to(folder).parts)]


def open_parquet(place: Path) -> Reading:
    """`read_parquet`, or a UserError that says how to install what it needs."""
    try:
        from residuum.data.sources.parquet import read_parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "hub", "reading parquet") from error
    return read_parquet(place)


def read_hub(spec: str, root: Path | None) -> Reading:
    """`hf:owner/name[/set]`: a data set's parquet files, downloaded once (to `root`, else the Hub's cache).

    Where a repository holds none, those that the Hub makes of every public data set are taken. Raises
    UserError.
    """
    if not re.fullmatch(r"hf:\w[\w.-]*(/\w[\w.-]*){1,2}", spec):
        raise UserError(f"{spec!r} does not name a data set of the Hub; expected hf:owner/name")
    owner, name, *subset = spec[3:].split("/")
    try:
        import huggingface_hub
    except ImportError as error:
        raise missing_extra("huggingface_hub", "hub", f"downloading {spec}") from error
    for revision in (None, "refs/convert/parquet"):
        try:
            folder = huggingface_hub.snapshot_download(
                f"{owner}/{name}",
                repo_type="dataset",
                revision=revision,
                cache_dir=root,
                allow_patterns=["/".join([*subset, "*.parquet"])],
            )
        except Exception as error:  # whatever the network, the Hub and its client's many versions raise
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise UserError(
                f"cannot download {spec} ({reason}); check the name and the network, or pass a copy's folder"
            ) from error
        place = Path(folder, *subset)
        if find_parquet(place):
            return open_parquet(place)
    raise UserError(f"{spec} holds no parquet files; download it and pass its folder")
