"""Exceptions as one line for the person at the terminal; our own mistakes stay exceptions."""

import errno

import typer

from residuum.errors import NO_ROOM, UserError, in_words, printable, tells_of_no_memory

# Typer exports one name of this family only, and newer versions no longer take it from click.
UsageError = typer.BadParameter.__bases__[0]


def one_line(error: Exception) -> str | None:
    """What went wrong and what to do next, in one line; None for an error that the user did not cause."""
    if isinstance(error, UserError):
        text = str(error)
    elif isinstance(error, UsageError):
        text = _usage(error)
    elif isinstance(error, OSError):
        text = _file(error)
    elif tells_of_no_memory(error):
        text = "memory ran out; use a smaller batch (-b), --set accumulate=2, or a smaller input"
    else:
        return None
    return printable(" ".join(text.splitlines()), longest=None)


def _usage(error: Exception) -> str:
    """Typer's sentence in our form: `unknown option --bacth-size; did you mean --batch-size?`."""
    name = getattr(error, "option_name", None)
    near = getattr(error, "possibilities", None)
    if name and near:
        text = f"unknown option {name}; did you mean {' or '.join(near)}?"
    else:
        message = " ".join(error.format_message().split()).rstrip(".")  # type: ignore[attr-defined]
        message = message.replace("Value error, ", "")
        text = message[:1].lower() + message[1:]
    context = getattr(error, "ctx", None)
    return f"{text} (see: {context.command_path} --help)" if context else text


def _file(error: OSError) -> str:
    reason = in_words(error)
    place = f"{error.filename}: " if error.filename is not None else ""
    if error.errno in NO_ROOM:
        return f"{place}{reason}; free some space, or write elsewhere with --out"
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return f"{place}{reason}; change its permissions, or name another file or folder"
    return f"{place}{reason}"
