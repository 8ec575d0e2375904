"""A process that makes members: `python -m residuum.studies.worker` reads folders from stdin, one a line.

For each it prints one line of JSON on stdout: "error", empty when the member is made. What training says goes to
`log.txt` in the member's folder. With a folder as its argument it makes that one and ends, as torchrun starts it.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from residuum.errors import UserError, in_words
from residuum.studies.members import make
from residuum.training.interruption import Interrupted

LOG = "log.txt"


def main(arguments: list[str]) -> int:
    """Make the folder that is named, or those that come on stdin until it ends."""
    if arguments:
        error = make_quietly(Path(arguments[0]))
        print(error, file=sys.stderr)
        return 1 if error else 0
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    for line in sys.stdin:
        error = make_logged(Path(line.rstrip("\n")))
        print(json.dumps({"error": error}), file=replies, flush=True)
    return 0


def make_quietly(folder: Path) -> str:
    """Make a member; what went wrong, in one line, "" for nothing."""
    try:
        make(folder)
    except Interrupted as interruption:
        return str(interruption)
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or folder}: {in_words(error)}"
    except Exception as error:
        import traceback

        traceback.print_exc()
        return f"{type(error).__name__}: {error}; see {folder / LOG}"
    return ""


def make_logged(folder: Path) -> str:
    """The same, with all that is said meanwhile in the folder's `log.txt`."""
    try:
        with output_to(folder / LOG):
            return make_quietly(folder)
    except OSError as error:
        return f"{error.filename or folder}: {in_words(error)}"


@contextmanager
def output_to(log: Path) -> Iterator[None]:
    """While the block runs, what this process and its libraries print goes to the end of a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, before in zip((1, 2), kept, strict=True):
            os.dup2(before, descriptor)
            os.close(before)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
