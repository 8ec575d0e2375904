"""What a training run works with, and how far it has come."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from residuum.data.loaders import Loader
from residuum.distributed import World
from residuum.evaluation.scores import Evaluation
from residuum.training.captured import Update
from residuum.training.checkpoints import CheckpointWriter, optimizer_state, restore_optimizer
from residuum.training.ema import WeightAverage
from residuum.training.losses import Loss
from residuum.training.progress import Reporter
from residuum.training.run import Run
from residuum.training.run_folder import RunFolder
from residuum.training.schedules import Schedule
from residuum.training.unseen import Unseen


@dataclass
class Position:
    """How far training has come: all that must survive an interruption beside tensors and the schedule.

    rollbacks: how often a loss that is not finite has sent training back; each halves the learning rate.
    """

    step: int = 0
    loss_sum: float = 0.0
    correct: float = 0.0
    images: float = 0.0
    seconds: float = 0.0
    epochs_recorded: int = 0
    best: float | None = None
    best_epoch: int = 0
    rollbacks: int = 0

    @property
    def key(self) -> tuple[int, int, int]:
        """What tells any two positions of a run apart."""
        return self.step, self.epochs_recorded, self.rollbacks

    def add(self, loss_sum: float, correct: float, images: float) -> None:
        self.loss_sum += loss_sum
        self.correct += correct
        self.images += images

    def start_epoch(self) -> None:
        self.loss_sum, self.correct, self.images, self.seconds = 0.0, 0.0, 0.0, 0.0


@dataclass
class Job:
    """Everything one training run works with.

    `evaluate` scores a network on the split that training watches. It may raise Interrupted. `draws`: whether the
    network draws random numbers. `unseen` is there where updates are made without waiting for them; `captures` says
    whether they become a CUDA graph, and `captured` is what makes them, once there was one.
    """

    run: Run
    network: nn.Module
    optimizer: Optimizer
    schedule: Schedule
    loss: Loss
    loader: Loader
    watched: str
    evaluate: Callable[[nn.Module], Evaluation]
    save_best: Callable[[nn.Module], None]
    folder: RunFolder
    checkpoints: CheckpointWriter
    reporter: Reporter
    device: torch.device
    dtype: torch.dtype
    single_label: bool
    world: World
    average: WeightAverage | None = None
    draws: bool = True
    unseen: Unseen | None = None
    captures: bool = False
    captured: Update | None = None
    position: Position = field(default_factory=Position)
    saved: tuple[int, int, int] | None = None
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def total_steps(self) -> int:
        return self.run.total_iterations(len(self.loader))

    @property
    def epochs(self) -> int:
        return math.ceil(self.total_steps / len(self.loader))

    @property
    def epoch_start(self) -> int:
        """The updates before the epoch that training is in."""
        return self.position.epochs_recorded * len(self.loader)

    @property
    def evaluated_network(self) -> nn.Module:
        """The network whose scores count: the weight average where one is kept."""
        if self.average is not None:
            return self.average.network
        return unwrapped(self.network)

    def lr(self, step: int) -> float:
        """The learning rate of update `step`."""
        return self.schedule.lr(step) * 0.5**self.position.rollbacks

    def state(self) -> dict[str, Any]:
        return {
            "network": unwrapped(self.network).state_dict(),
            "optimizer": optimizer_state(self.optimizer),
            "schedule": self.schedule.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "position": asdict(self.position),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        unwrapped(self.network).load_state_dict(state["network"])
        restore_optimizer(self.optimizer, state["optimizer"])
        self.captured = None  # it knows the optimiser's old state
        if self.unseen is not None:
            self.unseen.clear()
        self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.position = Position(**state["position"])
        self.saved = self.position.key
        if self.world.is_main:
            self.folder.truncate_metrics(self.position.epochs_recorded)


def unwrapped(network: nn.Module) -> nn.Module:
    """The network itself, without the wrapper that shares gradients between processes."""
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
