"""Files that appear whole or not at all, and JSON that may come from a stranger."""

import gc
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

from residuum.errors import UserError, printable

_LONGEST_JSON, _DEEPEST_JSON = 4 * 2**20, 64  # bytes; brackets within brackets
_PREFIX, _OLD = ".residuum-", ".old"  # of what is on its way in, and of what is on its way out


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary sibling folder to write into; on success it takes `target`'s place, on failure it is removed.

    It is on the disk, not merely in its cache, before it takes that place.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=_PREFIX, suffix=f"-{target.name}", dir=target.parent))
    try:
        temporary.chmod(0o755)
        yield temporary
        for file in temporary.iterdir():
            _sync(file)
        _sync(temporary)
        _replace_folder(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _replace_folder(new: Path, target: Path) -> None:
    old = new.with_name(f"{new.name}{_OLD}")
    if target.exists():
        os.replace(target, old)
    try:
        os.replace(new, target)
    except BaseException:
        if old.exists():
            os.replace(old, target)
        raise
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder so that nobody ever sees half of it."""
    doomed = folder.with_name(f"{_PREFIX}{secrets.token_hex(4)}-{folder.name}")  # on a full disk, too
    os.replace(folder, doomed)
    shutil.rmtree(doomed)


def sweep(folder: Path) -> None:
    """Remove what writers that were killed have left in `folder`, and put back what one had just moved out.

    Only where no other process can be writing.
    """
    for leftover in folder.glob(f"{_PREFIX}*"):
        target = leftover.with_name(leftover.name.split("-", 2)[2].removesuffix(_OLD))
        if leftover.name.endswith(_OLD) and not target.exists():
            os.replace(leftover, target)
        elif leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def sweep_of(target: Path) -> None:
    """Remove what writers of `target` alone that were killed have left beside it."""
    for leftover in target.parent.glob(f"{_PREFIX}{'?' * 8}-{escape(target.name)}"):  # as mkstemp names it
        leftover.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A temporary sibling file to write; on success it takes `target`'s place, on failure it is removed.

    A reader sees the old content or the new, never half. The sibling has the same suffix.
    """
    with _named_after(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=_PREFIX, suffix=f"-{target.name}", dir=target.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with _named_after(target):
            _sync(temporary)
            temporary.chmod(0o644)
            os.replace(temporary, target)
            _sync(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def refuse_read_only(path: Path) -> None:
    """Raise OSError, naming `path`, where `whole_file` could not write it; nothing is left behind."""
    with _named_after(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass


@contextmanager
def _named_after(path: Path) -> Iterator[None]:
    """What goes wrong with a temporary file is told of the file that it was to become."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            error.filename, error.filename2 = str(path), None
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """What is in a JSON file from anywhere: UTF-8, at most 4 MiB, nested at most 64 deep. Raises UserError."""
    if not path.is_file():  # nor is a named pipe, which would be waited for, or a device, which never ends
        raise UserError(f"{path} is no file; copy or save it again")
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_JSON + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); change its permissions") from None
    if len(content) > _LONGEST_JSON:
        raise UserError(f"{path} is longer than {_LONGEST_JSON:,} bytes; copy or save it again")
    try:
        value = _parsed(content.decode("utf-8"))
        _refuse_depth(value)
    except RecursionError:
        raise UserError(f"{path} is nested deeper than {_DEEPEST_JSON} levels; copy or save it again") from None
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({printable(str(error))}); copy or save it again") from None
    return value


def _parsed(text: str) -> Any:
    """JSON, which has no cycles, without Python's collector: it would look for some over and over, for a second."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        return json.loads(text)
    finally:
        if was_on:
            gc.enable()


def _refuse_depth(value: Any) -> None:
    level = [value]
    for _ in range(_DEEPEST_JSON):
        level = [child for item in level for child in _children(item)]
    if level:
        raise RecursionError


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
