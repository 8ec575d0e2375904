"""What the user got wrong, said in one line: what was got, what is allowed, what to do next; and the words for it."""

import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

_COMMANDS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The system's codes for a disk, a quota or a file that is full."""


class UserError(ValueError):
    """Bad input. The message is one line; the command line prints it and exits with code 2."""


class RefusedByMainError(UserError):
    """The main one of several processes has refused, and says why."""


def unknown_name(kind: str, got: str, allowed: Iterable[str], hint: str = "") -> UserError:
    """An error for a name that is not in a list, with the nearest right ones.

    `hint` tells where the whole list is; without it the list is printed.
    """
    names = sorted(allowed)
    near = get_close_matches(got, names, n=3, cutoff=0.5)
    where = hint or f"allowed: {', '.join(names)}"
    if near:
        return UserError(f"unknown {kind} {got!r}; did you mean {' or '.join(near)}? ({where})")
    return UserError(f"unknown {kind} {got!r}; {where}")


def missing_extra(package: str, extra: str, purpose: str) -> UserError:
    """An error for an optional dependency that is not installed, with the line that installs it."""
    return UserError(f"{purpose} needs {package}, which is not installed; run: pip install 'residuum[{extra}]'")


@contextmanager
def torch_needed(what: str) -> Iterator[None]:
    """Raises UserError where the block imports PyTorch and it is not installed; `what` needs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise UserError(
            f"{what} needs PyTorch, which is not installed; install it (pip install torch), or export the run to onnx "
            "where it is and use the export"
        ) from None


def counted(number: int, noun: str) -> str:
    """ "1 image", "2,000 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Iterable[str], most: int = 5) -> str:
    """ "a, b, c and 12 more": names for a sentence."""
    every = list(names)
    rest = len(every) - most
    return ", ".join(every[:most]) + (f" and {rest} more" if rest > 0 else "")


def tells_of_no_memory(error: BaseException) -> bool:
    """Python's error, a GPU's (by name: torch may not be loaded), or that of torch on a CPU, which has no type."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "DefaultCPUAllocator" in str(error)


def in_words(error: OSError) -> str:
    """ "no space left on device": what the system says went wrong."""
    return (error.strerror or str(error)).lower()


def printable(text: str, longest: int | None = 80) -> str:
    """Foreign `text` for one line of a terminal: control characters escaped; past `longest` characters cut short."""
    shown = text if longest is None or len(text) <= longest else f"{text[: longest - 1]}…"
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), shown)
