"""The learning rate: pure functions of the step, and the two rules that watch the training.

Steps count updates from 0. Each curve equals its namesake in `torch.optim.lr_scheduler`.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from residuum.training.run import ScheduleChoice

ONE_CYCLE_RISE = 0.3  # PyTorch's defaults: the share of the run that rises,
ONE_CYCLE_START = 1 / 25  # the first rate over the highest,
ONE_CYCLE_END = 1 / 25e4  # and the last over the highest
PLATEAU_THRESHOLD = 1e-4  # an error counts as better when it is lower by this share
ERROR_MEMORY = 0.95  # the running training error remembers about 20 batches


def multistep(step: int, base_lr: float, milestones: Sequence[int], gamma: float) -> float:
    """`base_lr` times `gamma` for every milestone (an update number, ascending) that the step has reached."""
    return base_lr * gamma ** bisect_right(milestones, step)


def linear(step: int, start_lr: float, end_lr: float, steps: int) -> float:
    """A straight line from `start_lr` at step 0 to `end_lr` at `steps`, where it stays."""
    return start_lr + (end_lr - start_lr) * min(step / steps, 1.0)


def cosine(step: float, start_lr: float, end_lr: float, steps: float) -> float:
    """Half a cosine from `start_lr` at step 0 to `end_lr` at `steps`, where it stays."""
    return end_lr + (start_lr - end_lr) * (1 + math.cos(math.pi * min(step / steps, 1.0))) / 2


def one_cycle(step: int, max_lr: float, total_steps: int) -> float:
    """Up to `max_lr` over 30 % of the run and down to nearly nothing at its last step, each half a cosine."""
    top = ONE_CYCLE_RISE * total_steps - 1
    if step <= top:
        return cosine(step, max_lr * ONE_CYCLE_START, max_lr, top)
    return cosine(step - top, max_lr, max_lr * ONE_CYCLE_END, total_steps - 1 - top)


def resolve_steps(at: float, total_steps: int) -> int:
    """A point of the run in updates: `at` below 1 is a share of the duration, from 1 on updates."""
    return round(at * total_steps) if at < 1 else round(at)


class Plateau:
    """A factor, multiplied by `gamma` when the error has not fallen for more than `patience` epochs.

    He et al. 2015, section 3.4, "divided by 10 when the error plateaus"; the bookkeeping is
    ReduceLROnPlateau's.
    """

    def __init__(self, gamma: float, patience: int) -> None:
        self.gamma = gamma
        self.patience = patience
        self.factor = 1.0
        self.best = math.inf
        self.epochs_without_improvement = 0

    def observe(self, error: float) -> None:
        if error < self.best * (1 - PLATEAU_THRESHOLD):
            self.best = error
            self.epochs_without_improvement = 0
        else:
            self.epochs_without_improvement += 1
        if self.epochs_without_improvement > self.patience:
            self.factor *= self.gamma
            self.epochs_without_improvement = 0


class ErrorGate:
    """Open once the running training error is below `threshold`, and open ever after.

    The running error is an exponential mean over about the last 20 batches. It starts at 1, the error of a
    network that knows nothing, so that one lucky batch opens nothing. He et al. 2015, section 4.2: below 80 %
    after about 400 updates.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.error = 1.0
        self.open = threshold == 0

    def observe(self, error: float) -> None:
        self.error = ERROR_MEMORY * self.error + (1 - ERROR_MEMORY) * error
        self.open = self.open or self.error < self.threshold


class Schedule:
    """`lr(step)`, and what it has seen of the training. Every process of a run must observe the same numbers.

    Warm-up takes nothing from milestones: they count from update 0. Cosine and linear span what a warm-up by
    steps leaves.
    """

    def __init__(self, choice: ScheduleChoice, base_lr: float, total_steps: int) -> None:
        self._choice = choice
        self._base_lr = base_lr
        self._warmup = min(resolve_steps(choice.warmup_steps, total_steps), total_steps)
        self._curve = _curve(choice, base_lr, total_steps, self._warmup)
        self._plateau = Plateau(choice.gamma, choice.patience)
        self._gate = ErrorGate(choice.warmup_until_train_error)

    def lr(self, step: int) -> float:
        """The learning rate of update `step`, from 0, given what was observed so far."""
        if not self._gate.open:
            return self._choice.warmup_lr
        if step < self._warmup:
            if self._choice.warmup_shape == "constant":
                return self._choice.warmup_lr
            return linear(step, self._choice.warmup_lr, self._base_lr, self._warmup)
        return self._curve(step) if self._choice.name != "plateau" else self._plateau_lr()

    def _plateau_lr(self) -> float:
        return max(self._base_lr * self._plateau.factor, self._choice.min_lr)

    @property
    def watches_batches(self) -> bool:
        """Whether the next rate may depend on the errors of single batches."""
        return not self._gate.open

    def observe_batch(self, train_error: float) -> None:
        """Tell the share of wrongly classified images, in [0, 1], of the whole batch of one update."""
        self._gate.observe(train_error)

    def observe_epoch(self, metric: float) -> None:
        """Tell the watched error (lower is better) of one evaluation."""
        self._plateau.observe(metric)

    def state_dict(self) -> dict[str, Any]:
        """What was observed, as values that `json.dumps` takes."""
        return {
            "factor": self._plateau.factor,
            "best": None if math.isinf(self._plateau.best) else self._plateau.best,
            "epochs_without_improvement": self._plateau.epochs_without_improvement,
            "train_error": self._gate.error,
            "warm": self._gate.open,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict` of a schedule made by the same choice."""
        self._plateau.factor = state["factor"]
        self._plateau.best = math.inf if state["best"] is None else state["best"]
        self._plateau.epochs_without_improvement = state["epochs_without_improvement"]
        self._gate.error = state["train_error"]
        self._gate.open = state["warm"]


def _curve(choice: ScheduleChoice, base_lr: float, total_steps: int, warmup: int) -> Callable[[int], float]:
    rest = max(total_steps - warmup, 1)
    if choice.name == "multistep":
        milestones = sorted(resolve_steps(at, total_steps) for at in choice.milestones)
        return partial(multistep, base_lr=base_lr, milestones=milestones, gamma=choice.gamma)
    if choice.name == "cosine":
        return lambda step: cosine(step - warmup, base_lr, choice.min_lr, rest)
    if choice.name == "linear":
        return lambda step: linear(step - warmup, base_lr, choice.min_lr, rest)
    if choice.name == "one-cycle":
        return partial(one_cycle, max_lr=base_lr, total_steps=total_steps)
    return lambda step: base_lr


def build_schedule(choice: ScheduleChoice, base_lr: float, total_steps: int) -> Schedule:
    """The schedule of a run: `base_lr` is the optimiser's rate, `total_steps` all updates of the run."""
    return Schedule(choice, base_lr, total_steps)
