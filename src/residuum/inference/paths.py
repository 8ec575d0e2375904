"""The image files that a command line names: files, folders, patterns, lists; in order, found as they are asked for."""

import fnmatch
import glob
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from heapq import nsmallest
from itertools import chain
from pathlib import Path
from typing import IO

from residuum.data.decoding import IMAGE_SUFFIXES
from residuum.errors import UserError

STDIN = "-"
LIST = "@"
"""Before the name of a file that lists files."""

_NAMES_AT_ONCE = 100_000  # that are held of a folder, however many it has: some 10 MB
_CHUNK = 2**16  # bytes of a list
_LONGEST = 2**16  # bytes of a name in it: no system has longer ones

_Kept = Callable[["os.DirEntry[str]"], bool]


def expand_paths(patterns: Sequence[str | Path], *, null: bool = False) -> Iterator[Path]:
    """The files that `patterns` stand for, in their order: files, folders (all images below), glob patterns, lists.

    "@FILE" stands for the files that FILE lists, "-" for those that stdin lists: one a line, or with `null` each
    ended by a NUL. They are found as they are asked for, a folder's in the order of their names. Raises UserError at
    once for one that stands for no file, but not of stdin, which is read only once.
    """
    for pattern in map(str, patterns):
        if pattern != STDIN and next(_expand(pattern, null), None) is None:
            raise UserError(_nothing_found(pattern))
    return chain.from_iterable(_expand(str(pattern), null) for pattern in patterns)


def _expand(pattern: str, null: bool) -> Iterator[Path]:
    if pattern == STDIN:
        yield from _listed(sys.stdin.buffer, "the list on stdin", null)
    elif os.path.isdir(pattern):
        os.scandir(pattern).close()  # what is named itself and cannot be read is refused
        yield from _images_below(pattern, set())
    elif os.path.lexists(pattern):
        yield _single(pattern)
    elif pattern.startswith(LIST):
        if not os.path.isfile(pattern[1:]):  # a named pipe would be waited for, and gives its content only once
            raise UserError(f"{pattern[1:]} is no file that could list others; name one, or pipe the list into '-'")
        with open(pattern[1:], "rb") as file:
            yield from _listed(file, pattern[1:], null)
    else:
        yield from _matching(pattern)


def _single(name: str) -> Path:
    if name.lower().endswith(".txt"):
        raise UserError(f"{name} is no image; if it lists files, one a line, write {LIST}{name}")
    return Path(name)


# Lists


def _listed(stream: IO[bytes], what: str, null: bool) -> Iterator[Path]:
    for entry in _split(stream, b"\0" if null else b"\n"):
        if len(entry) > _LONGEST or b"\0" in entry:
            way_out = "it has one a line, leave out -0" if null else "they end with NULs, add -0"
            raise UserError(f"{what} has a name with a NUL, or of more than {_LONGEST:,} bytes; if {way_out}")
        name = entry if null else entry.removesuffix(b"\r")
        if name:
            yield Path(os.fsdecode(name))


def _split(stream: IO[bytes], separator: bytes) -> Iterator[bytes]:
    """The entries; a beginning of one that is too long is given as it is, and ends them."""
    rest = b""
    while len(rest) <= _LONGEST and (chunk := _some(stream)):
        *whole, rest = (rest + chunk).split(separator)
        yield from whole
    yield rest


def _some(stream: IO[bytes]) -> bytes:
    """What there is already, so that a slow writer's first name is not waited for until its thousandth."""
    read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
    return read(_CHUNK)


# Folders


def _images_below(folder: str, visited: set[tuple[int, int]]) -> Iterator[Path]:
    """The images in a folder, then those of its sub-folders. Links are followed, and may form a loop.

    A folder that cannot be read stands for itself: a file that cannot be read, among many that can.
    """
    if not _can_be_listed(folder):
        yield Path(folder)
        return
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in visited:
        return
    visited.add((status.st_dev, status.st_ino))
    yield from (Path(folder, name) for name in _names(folder, _is_image))
    for name in _names(folder, _is_shown_folder):
        yield from _images_below(os.path.join(folder, name), visited)


def _can_be_listed(folder: str) -> bool:
    try:
        os.stat(folder or os.curdir)
        os.scandir(folder or os.curdir).close()
    except OSError:
        return False
    return True


def _names(folder: str, keep: _Kept) -> Iterator[str]:
    """The names that are kept, in order; a folder of millions is read several times rather than held."""
    after, count = "", _NAMES_AT_ONCE
    while count == _NAMES_AT_ONCE:
        with os.scandir(folder or os.curdir) as entries:
            names = nsmallest(_NAMES_AT_ONCE, (entry.name for entry in entries if entry.name > after and keep(entry)))
        yield from names
        after, count = names[-1] if names else after, len(names)


def _is_image(entry: "os.DirEntry[str]") -> bool:
    return _is_image_name(entry.name) and not entry.is_dir()


def _is_image_name(name: str) -> bool:
    return name[0] != "." and name.rpartition(".")[2].lower() in IMAGE_SUFFIXES


def _is_shown_folder(entry: "os.DirEntry[str]") -> bool:
    return entry.name[0] != "." and entry.is_dir()


# Patterns


class _Unreadable(str):
    """The name of a folder in which nothing can be looked for: as in `_images_below`."""


def _matching(pattern: str) -> Iterator[Path]:
    """As the shell has it; a folder that matches stands for the images below, where not `**` names those itself."""
    parts = Path(pattern).parts
    if parts.count("**") > 1:
        raise UserError(f"{pattern} has several **, which match files more than once; write it with one")
    deep = "**" in parts
    for name in _matches("", parts, set()):
        if isinstance(name, _Unreadable):
            yield Path(name)
        elif not os.path.isdir(name):
            if not deep or _is_image_name(os.path.basename(name)):
                yield Path(name)
        elif not deep:
            yield from _images_below(name, set())


def _matches(folder: str, parts: Sequence[str], visited: set[tuple[int, int]]) -> Iterator[str]:
    """What is below a folder and matches the parts of a pattern, a part a level; `**` is any number of levels."""
    if not parts:
        yield folder
    elif glob.has_magic(parts[0]) and os.path.isdir(folder or os.curdir) and not _can_be_listed(folder):
        yield _Unreadable(folder)
    elif parts[0] == "**":
        yield from _matches_below(folder, parts, visited)
    elif glob.has_magic(parts[0]):
        for name in _names(folder, _is_match(parts[0], is_last=len(parts) == 1)):
            yield from _matches(os.path.join(folder, name), parts[1:], visited)
    elif os.path.lexists(os.path.join(folder, parts[0])):
        yield from _matches(os.path.join(folder, parts[0]), parts[1:], visited)


def _matches_below(folder: str, parts: Sequence[str], visited: set[tuple[int, int]]) -> Iterator[str]:
    if not os.path.isdir(folder or os.curdir):
        return
    status = os.stat(folder or os.curdir)
    if (status.st_dev, status.st_ino) in visited:
        return
    visited.add((status.st_dev, status.st_ino))
    yield from _matches(folder, parts[1:] or ["*"], visited)
    for name in _names(folder, _is_shown_folder):
        yield from _matches(os.path.join(folder, name), parts, visited)


def _is_match(part: str, is_last: bool) -> _Kept:
    shows_hidden = part[0] == "."

    def keep(entry: "os.DirEntry[str]") -> bool:
        is_shown = shows_hidden or entry.name[0] != "."
        return is_shown and fnmatch.fnmatch(entry.name, part) and (is_last or entry.is_dir())

    return keep


def _nothing_found(pattern: str) -> str:
    if os.path.isdir(pattern):
        return f"{pattern} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}); name another folder"
    if pattern.startswith(LIST):
        return f"{pattern[1:]} lists no files; write one a line"
    if glob.has_magic(pattern):
        return f"nothing matches {pattern}; name files, folders or another pattern"
    return f"{pattern} does not exist; name files, folders or a pattern such as 'photos/*.jpg'"
