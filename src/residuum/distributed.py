"""The environment that torchrun sets, as a value; and the two reductions that residuum needs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


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

    def agree(self, text: str) -> str:
        """The main process's `text`, in every process."""
        texts = [text]
        if self.size > 1:
            dist.broadcast_object_list(texts)
        return texts[0]

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()


def world_from_environment() -> World:
    """The world that `RANK`, `LOCAL_RANK` and `WORLD_SIZE` describe (set by torchrun); without them, one process."""
    env = os.environ
    return World(int(env.get("RANK", 0)), int(env.get("LOCAL_RANK", 0)), int(env.get("WORLD_SIZE", 1)))


@contextmanager
def process_group(device: torch.device) -> Iterator[World]:
    """Join the process group that the environment describes, and leave it at the end."""
    world = world_from_environment()
    if world.size == 1:
        yield world
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield world
    finally:
        dist.destroy_process_group()
