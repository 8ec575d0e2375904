"""What a verb waits for before it works."""

import gc
import sys

from residuum.errors import torch_needed


def import_torch() -> None:
    """Import torch without Python's garbage collector, which finds nothing in it and takes a quarter of the time.

    What is imported stays until the process ends: the collector is told not to search it later either, nor at the end.
    Raises UserError where PyTorch is not installed.
    """
    if "torch" in sys.modules:  # somebody else's process, perhaps: its collector is left alone
        return
    gc.disable()
    try:
        with torch_needed("this command"):
            import torch  # noqa: F401
    finally:
        gc.freeze()
        gc.enable()
