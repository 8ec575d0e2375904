"""Weight files by their headers, from strangers too: opened without PyTorch, nothing in them is executed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from residuum.errors import UserError, printable

LONGEST_NAME = 200
"""Characters of a tensor's name, at most."""
_LONGEST_HEADER = 4 * 2**20  # bytes, some 40,000 tensors


def require_file(path: Path) -> None:
    """Raise UserError where there is no such file, or no ordinary one."""
    if not path.is_file():  # nor is a named pipe, which would be waited for, or a device, which never ends
        raise UserError(f"there is no weight file {path}; give a run folder, a .safetensors or a .pth file")


@contextmanager
def opened_safetensors(path: Path, framework: Literal["pt", "numpy"]) -> Iterator[Any]:
    """The file, opened: the library has checked that its header is sound and fits its size.

    Raises UserError where that is not so.
    """
    try:
        with path.open("rb") as start:
            length = int.from_bytes(start.read(8), "little")
        if _LONGEST_HEADER < length < path.stat().st_size:
            raise SafetensorError(f"a header of {length:,} bytes, more than {_LONGEST_HEADER:,}")
        with safe_open(path, framework=framework) as file:
            if any(len(name) > LONGEST_NAME for name in file.keys()):  # noqa: SIM118
                raise SafetensorError(f"a name of more than {LONGEST_NAME} characters")
            yield file
    except SafetensorError as error:
        reason = printable(str(error))
        raise UserError(f"{path} is damaged or no safetensors file ({reason}); copy or save it again") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); change its permissions") from None
