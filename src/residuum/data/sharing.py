"""One piece of memory for all the processes of a machine, and what they decide together."""

import mmap
import os
from collections.abc import Callable
from contextlib import ExitStack
from math import prod
from typing import TypeVar

import torch
from torch import Tensor

from residuum.data.views import MixedSizesError
from residuum.distributed import World
from residuum.errors import RefusedByMainError, UserError, in_words

T = TypeVar("T")


class CannotShareError(UserError):
    """The processes are on one machine and yet cannot reach each other's memory."""


_NO_MEMORY = (MixedSizesError, CannotShareError)
"""What leaves the images in their files where nobody has asked for memory."""


def neighbours(world: World) -> World:
    """The processes that can share memory: `world` where all of it is on this machine (torchrun tells), else one."""
    is_local = os.environ.get("LOCAL_WORLD_SIZE") == str(world.size)
    return world if is_local and hasattr(os, "memfd_create") else World()


def refusal(world: World, message: str) -> UserError:
    """For every process to raise; the main one's is the one to be read."""
    return UserError(message) if world.is_main else RefusedByMainError(message)


def together(world: World, make: Callable[[], T]) -> list[T]:
    """What `make` returns in each process, in the order of ranks, in every process; none goes on before all are here.

    Where it raises in any of them, all raise: a refusal of memory as such, anything else as a UserError
    (but a process raises what no user caused, a mistake of our own, as it is).
    """
    if world.size == 1:
        return [make()]
    answer, own = _tried(make)
    answers = world.gather((answer, own and _for_others(own, world.rank)))
    told = [failure for _, failure in answers if failure is not None]
    failure = next((one for one in told if not isinstance(one, _NO_MEMORY)), next(iter(told), None))
    if failure is None:
        return [result for result, _ in answers]  # type: ignore[misc]
    try:
        if own is not None and not isinstance(own, (MixedSizesError, UserError)):
            raise own
        raise failure if isinstance(failure, _NO_MEMORY) or world.is_main else refusal(world, str(failure))
    finally:
        del own, told, failure, answers  # else this frame and the error would keep each other, and all that `make` used


def _tried(make: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return make(), None
    except Exception as error:  # whatever it is, the others must not wait for an answer
        return None, error


def _for_others(error: Exception, rank: int) -> Exception:
    if isinstance(error, (MixedSizesError, UserError)):
        return error
    return UserError(f"process {rank} has failed ({type(error).__name__}: {error}); mend that, and start again")


def shared_zeros(world: World, shape: tuple[int, ...]) -> Tensor:
    """uint8 zeros that all processes of `world` see, and that are gone with the last of them, however they end.

    The memory never has a name that could stay behind, and no limit of its own as that of /dev/shm has. Raises
    UserError where a process cannot reach it.
    """
    size = prod(shape)
    if world.size == 1 or not size:
        return torch.zeros(shape, dtype=torch.uint8)
    mapped: list[mmap.mmap] = []
    with ExitStack() as stack:
        place = together(world, lambda: _create(size, stack) if world.is_main else None)[0]
        assert place is not None
        together(world, lambda: mapped.append(_map(*place, size)))
    return torch.frombuffer(mapped[0], dtype=torch.uint8).view(shape)


def _create(size: int, stack: ExitStack) -> tuple[str, int]:
    """Memory that lives until it is neither open, as it is till the end of `stack`, nor mapped: its path and inode."""
    descriptor = os.memfd_create("residuum")
    stack.callback(os.close, descriptor)
    os.truncate(descriptor, size)
    return f"/proc/{os.getpid()}/fd/{descriptor}", os.fstat(descriptor).st_ino


def _map(path: str, inode: int, size: int) -> mmap.mmap:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError as error:
        raise CannotShareError(f"the processes cannot share memory ({in_words(error)}); use the file loader") from error
    with ExitStack() as stack:
        stack.callback(os.close, descriptor)
        if os.fstat(descriptor).st_ino != inode:
            told = "the processes cannot share memory (they are in different containers); use the file loader"
            raise CannotShareError(told)
        return mmap.mmap(descriptor, size)
