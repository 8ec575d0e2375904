"""Updates that a GPU makes while nobody waits for it: what came of them is read later, all at once."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from residuum.data.splits import Indices

_FINITE_ONLY = ("SGD", "Adam", "AdamW")  # the optimisers whose fused kernels leave out an update on request


class Outcome(NamedTuple):
    """What came of some updates: sums over their images, how many were made, and the last one's loss and gradient norm.

    failed: that one was not made, nor any after it, for one of the two is not finite.
    """

    loss_sum: float
    correct: float
    images: float
    made: int
    failed: bool
    loss: float
    norm: float


class Unseen:
    """The updates since the last reading. Everything but `read` leaves the device at its work.

    From the first loss or gradient on that is not finite the optimiser, which is told so on the device, changes
    nothing more: whoever reads finds the weights as they were before that update.
    Running statistics of normalisation have taken in that batch and those after it; they come back with a checkpoint.
    batches: the number of each update and its sample indices.
    """

    def __init__(self, optimizer: Optimizer, device: torch.device) -> None:
        self.batches: list[tuple[int, Indices]] = []
        self._sums = torch.zeros(4, dtype=torch.float64, device=device)
        self._last = torch.zeros(2, dtype=torch.float64, device=device)
        self._failed = torch.zeros((), device=device)
        optimizer.found_inf = self._failed  # type: ignore[attr-defined]  # by the name that GradScaler gives it

    def note(self, counts: Tensor, norm: Tensor) -> None:
        """Take in what the gradients of one update came to, before the optimiser's step.

        counts: (3,) loss summed over images, right answers, images; norm: the gradient's.
        """
        values = torch.stack([counts[0] / counts[2], norm]).double()
        made = torch.isfinite(values).all() & (self._failed == 0)
        self._last.copy_(torch.where(self._failed == 0, values, self._last))
        self._failed.copy_(torch.where(made, self._failed, 1.0))
        self._sums.add_(torch.where(made, torch.cat([counts.double(), torch.ones_like(self._sums[:1])]), 0.0))

    def read(self) -> Outcome:
        """What came of the updates since the last reading; waits until the device has made them."""
        loss_sum, correct, images, made, failed, loss, norm = torch.cat(
            [self._sums, self._failed.double()[None], self._last]
        ).tolist()
        self._sums.zero_()
        return Outcome(loss_sum, correct, images, int(made), failed > 0, loss, norm)

    def clear(self) -> None:
        """Begin anew, after a failure too."""
        self.batches.clear()
        self._sums.zero_()
        self._failed.zero_()


def can_be_unseen(optimizer: Optimizer, device: torch.device) -> bool:
    """Whether updates of `optimizer` on `device` need nobody to look at them before they are made."""
    fused = all(group.get("fused") for group in optimizer.param_groups)
    return device.type == "cuda" and fused and type(optimizer).__name__ in _FINITE_ONLY
