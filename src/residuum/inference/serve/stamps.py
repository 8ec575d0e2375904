"""Whether a model's files have changed, by what the folder says of them."""

import os
from pathlib import Path

Stamp = tuple[tuple[str, int, int, int], ...]
"""Of each file: name, number, size and time of change."""

_FOLDERS = ("", "model")


def stamp(path: Path) -> Stamp:
    """Of the files of the model at `path`: a run, a folder, or a file in one. Empty where there is nothing."""
    folder = path.parent if path.is_file() else path
    found = []
    for name in _FOLDERS:
        try:
            with os.scandir(folder / name) as entries:
                found += [_of(name, entry) for entry in entries if entry.name[0] != "." and _is_part(name, entry.name)]
        except OSError:  # none there, or just now being exchanged
            continue
    return tuple(sorted(found))


def _is_part(folder: str, name: str) -> bool:
    """A run's own files change while it trains; the model in it is a folder of its own."""
    return bool(folder) or name.startswith(("model.", "config.", "preprocessing.", "head."))


def _of(folder: str, entry: "os.DirEntry[str]") -> tuple[str, int, int, int]:
    try:
        status = entry.stat()
    except OSError:
        return (f"{folder}/{entry.name}", 0, 0, 0)
    return (f"{folder}/{entry.name}", status.st_ino, status.st_size, status.st_mtime_ns)
