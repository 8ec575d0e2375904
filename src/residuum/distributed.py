"""The environment that torchrun sets, as a value; and what processes tell each other."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from residuum.errors import RefusedByMainError

T = TypeVar("T")

_GROUPS = count()


@dataclass(frozen=True)
class World:
    """This process among its peers. One process alone is `World()`: rank 0 of 1."""

    rank: int = 0
    local_rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over all processes; the tensor itself when there is one."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def max(self, tensor: Tensor) -> Tensor:
        """The greatest `tensor` over all processes; the tensor itself when there is one."""
        if self.size > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor

    def share(self, tensor: Tensor) -> None:
        """Put the main process's values into `tensor`, in every process."""
        if self.size > 1:
            dist.broadcast(tensor, 0)

    def from_main(self, make: Callable[[], T]) -> T:
        """What `make` returns in the main process, in every process.

        Where it raises there, the others raise RefusedByMainError.
        """
        if self.size == 1:
            return make()
        answer: list[T | None] = [None]
        refusal: Exception | None = None
        if self.is_main:
            try:
                answer = [make()]
            except Exception as error:  # whatever it is, the others must not wait for an answer
                refusal = error
        told = [answer[0], refusal is not None]
        dist.broadcast_object_list(told)
        if told[1]:
            raise refusal or RefusedByMainError("the main process has refused, and says why")
        return told[0]  # type: ignore[return-value]

    def gather(self, part: T) -> list[T]:
        """Every process's `part`, in the order of ranks, in every process."""
        parts = [part] * self.size
        if self.size > 1:
            dist.all_gather_object(parts, part)
        return parts

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()


def world_from_environment() -> World:
    """The world that `RANK`, `LOCAL_RANK` and `WORLD_SIZE` describe (set by torchrun); without them, one process."""
    env = os.environ
    return World(int(env.get("RANK", 0)), int(env.get("LOCAL_RANK", 0)), int(env.get("WORLD_SIZE", 1)))


def launch() -> str:
    """What tells this start of torchrun from another, the same in all its processes and their restarts; else ""."""
    names = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT")
    return " ".join(os.environ.get(name, "") for name in names).strip()


def is_restarted() -> bool:
    """Whether torchrun has started this process again, after one of its kind was lost."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def may_be_restarted() -> bool:
    """Whether torchrun was told to start lost processes again (`--max-restarts`)."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) > 0


def tells_of_a_lost_peer(error: BaseException) -> bool:
    """Whether `error` is what a collective operation raises when another process is gone."""
    named = isinstance(error, dist.DistError)
    return named or (isinstance(error, RuntimeError) and ("gloo" in str(error) or "NCCL" in str(error)))


@contextmanager
def process_group(device: torch.device) -> Iterator[World]:
    """Make `device` the current one, join the process group that the environment describes, leave it at the end."""
    world = world_from_environment()
    if device.type == "cuda":
        torch.cuda.set_device(device)  # graphs are recorded, and NCCL works, on the current one
    if world.size == 1:
        yield world
        return
    store, rank, size = next(rendezvous("env://"))
    # A place of its own: torchrun keeps one store for all its attempts, and in it the addresses of processes long dead.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)
    store = PrefixStore(f"attempt {attempt}, group {next(_GROUPS)}", store)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=store, rank=rank, world_size=size)
    try:
        yield world
    finally:
        dist.destroy_process_group()
