"""A training run as one frozen value: what is trained, on what, how and for how long.

Recipes make runs, `--set` changes them, `run.json` keeps them. A value out of range is refused where it is
made.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from residuum.data.augmentations import Augmentation
from residuum.errors import UserError
from residuum.records import plain
from residuum.training.fields import from_plain


def _check(condition: bool, path: str, got: object, allowed: str) -> None:
    if not condition:
        raise UserError(f"{path} is {got!r}; allowed: {allowed}; change it with --set {path}=VALUE")


@dataclass(frozen=True)
class ModelChoice:
    """Which network, by the arguments of `create_model`.

    `weights`: a saved model to start from. `freeze_until`: the first child to train.
    """

    name: str
    shortcut: Literal["A", "B", "C", "none", "gated", "shortcut-gated", "constant", "dropout"] | None = None
    zero_gamma: bool = False
    drop_path: float = 0.0
    normalisation: Literal["batch", "layer", "group", "none"] = "batch"
    activation: Literal["relu", "tanh"] | None = None
    initialisation: Literal["he", "xavier", "gaussian"] | None = None
    weights: str | None = None
    freeze_until: str | None = None

    def __post_init__(self) -> None:
        _check(0 <= self.drop_path < 1, "model.drop_path", self.drop_path, "at least 0, below 1")

    @property
    def draws(self) -> bool:
        """Whether these choices make the network draw random numbers in training."""
        return self.drop_path > 0 or self.shortcut == "dropout"


@dataclass(frozen=True)
class DataHandling:
    """From a decoded image to what the network sees. `size`: side of the square input in pixels.

    `normalisation`: "mean-std" (per channel) and "per-pixel-mean" are computed on the training data,
    "imagenet" takes the customary constants, "none" leaves pixels in [0, 1]. `strict` stops at the first
    image that cannot be read.
    """

    size: int
    crop_pct: float = 1.0
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    normalisation: Literal["mean-std", "per-pixel-mean", "imagenet", "none"] = "mean-std"
    augmentation: Augmentation = field(default_factory=Augmentation)
    channels: int = 3
    loader: Literal["auto", "memory", "file"] = "auto"
    workers: int | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        _check(self.size >= 1, "data.size", self.size, "1 pixel or more")
        _check(0 < self.crop_pct <= 1, "data.crop_pct", self.crop_pct, "above 0, at most 1")
        _check(self.channels in (1, 3), "data.channels", self.channels, "1 (grey) or 3 (colour)")
        _check(self.workers is None or self.workers >= 0, "data.workers", self.workers, "none, 0 or more")


@dataclass(frozen=True)
class OptimizerChoice:
    """An optimiser of torch.optim.

    `momentum` is that of "momentum" and "nesterov"; `betas` and `eps` are those of the adaptive ones.
    `decay_norm_and_bias=False` spares every parameter with one axis (biases, normalisation) the weight decay.
    """

    name: Literal[
        "sgd",
        "momentum",
        "nesterov",
        "adagrad",
        "adadelta",
        "rmsprop",
        "adam",
        "adamw",
        "nadam",
        "lbfgs",
    ]
    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    decay_norm_and_bias: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _check(self.lr > 0, "optimizer.lr", self.lr, "above 0")
        _check(0 <= self.momentum < 1, "optimizer.momentum", self.momentum, "at least 0, below 1")
        _check(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "0 or more")
        _check(all(0 <= beta < 1 for beta in self.betas), "optimizer.betas", self.betas, "at least 0, below 1")
        _check(self.eps >= 0, "optimizer.eps", self.eps, "0 or more")
        no_decay = self.name != "lbfgs" or self.weight_decay == 0
        _check(no_decay, "optimizer.weight_decay", self.weight_decay, "0 with lbfgs, which has none")


@dataclass(frozen=True)
class ScheduleChoice:
    """The learning rate over the run, which starts from `optimizer.lr`.

    `milestones` and `warmup_steps`: below 1 a share of the duration, from 1 on iterations. `patience`:
    evaluations without improvement that "plateau" waits before it multiplies the rate by `gamma`. Warm-up by
    steps goes from `warmup_lr` to the full rate ("linear") or stays there ("constant").
    `warmup_until_train_error` (0: off; 0.8 for He et al. 2015, section 4.2) stays at `warmup_lr` until the
    training error, a share in [0, 1], is below it.
    """

    name: Literal["constant", "multistep", "plateau", "cosine", "one-cycle", "linear"]
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    patience: int = 10
    min_lr: float = 0.0
    warmup_steps: float = 0.0
    warmup_lr: float = 0.0
    warmup_shape: Literal["linear", "constant"] = "linear"
    warmup_until_train_error: float = 0.0

    def __post_init__(self) -> None:
        _check(all(at > 0 for at in self.milestones), "schedule.milestones", self.milestones, "above 0")
        missing = self.name == "multistep" and not self.milestones
        _check(not missing, "schedule.milestones", self.milestones, "at least one for multistep")
        _check(0 < self.gamma <= 1, "schedule.gamma", self.gamma, "above 0, at most 1")
        _check(self.patience >= 0, "schedule.patience", self.patience, "0 or more evaluations")
        _check(self.min_lr >= 0, "schedule.min_lr", self.min_lr, "0 or more")
        self._check_warm_up()

    def _check_warm_up(self) -> None:
        error = self.warmup_until_train_error
        _check(self.warmup_lr >= 0, "schedule.warmup_lr", self.warmup_lr, "0 or more")
        _check(self.warmup_steps >= 0, "schedule.warmup_steps", self.warmup_steps, "0 or more")
        _check(0 <= error <= 1, "schedule.warmup_until_train_error", error, "0 (off) to 1")
        twice = self.warmup_steps > 0 and (error > 0 or self.name == "one-cycle")
        _check(not twice, "schedule.warmup_steps", self.warmup_steps, "0 where another warm-up is in force")
        stuck = error > 0 and self.warmup_lr == 0
        _check(not stuck, "schedule.warmup_lr", self.warmup_lr, "above 0 for a warm-up until a training error")


@dataclass(frozen=True)
class LossChoice:
    """What is minimised. "balanced" weighs each class by (mean count of the classes) / (its own count)."""

    name: Literal["cross-entropy", "binary-cross-entropy", "mse"]
    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"

    def __post_init__(self) -> None:
        smoothing = self.label_smoothing
        _check(0 <= smoothing < 1, "loss.label_smoothing", smoothing, "at least 0, below 1")
        applies = smoothing == 0 or self.name == "cross-entropy"
        _check(applies, "loss.label_smoothing", smoothing, f"0 with {self.name}; only cross-entropy has it")


class Interval(NamedTuple):
    """How often something is due: every so many updates, or every so many seconds; the other one is 0."""

    updates: int
    seconds: float


def parse_interval(text: str) -> Interval | None:
    """The interval that "500 steps" or "10 minutes" names; None for any other text."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *(steps?|minutes?)", text.strip())
    number = float(found[1]) if found else 0.0
    if not found or number == 0:
        return None
    if found[2].startswith("minute"):
        return Interval(0, 60 * number)
    return Interval(int(number), 0.0) if number.is_integer() else None


@dataclass(frozen=True)
class Run:
    """One training run. Lasts `epochs` passes over the data or `iterations` updates: exactly one is set.

    `batch_size` counts the images of one process at one update; `accumulate` splits them into that many
    micro-batches, each with batch statistics of its own. `ema`: decay of the average of the weights, 0 for
    none. `clip_norm`: largest gradient norm, 0 for no clipping. `early_stopping`: epochs without improvement
    before the run stops, 0 for never. `evaluate_every` counts epochs. `sync_bn` normalises over the batches of
    all processes together. `deterministic` lets a GPU compute by repeatable kernels alone. `capture` lets it make
    each update as one CUDA graph, which keeps memory of its own, where the optimiser is of the SGD kind and the network
    ours. `checkpoint_every`,
    "500 steps" or "10 minutes", comes beside the checkpoint after each epoch; `keep_checkpoints` are kept.
    `on_nan`: "stop", or "rollback" to the epoch's start and on with half the learning rate.
    """

    recipe: str
    model: ModelChoice
    data: DataHandling
    optimizer: OptimizerChoice
    schedule: ScheduleChoice
    loss: LossChoice
    epochs: int | None
    iterations: int | None
    batch_size: int
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    ema: float = 0.0
    accumulate: int = 1
    clip_norm: float = 0.0
    early_stopping: int = 0
    recompute_bn: bool = False
    evaluate_every: int = 1
    sync_bn: bool = False
    deterministic: bool = False
    capture: bool = True
    checkpoint_every: str = "10 minutes"
    keep_checkpoints: int = 2
    on_nan: Literal["stop", "rollback"] = "stop"

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.iterations is None):
            got = f"epochs={self.epochs} and iterations={self.iterations}"
            raise UserError(f"a run has {got}; allowed: exactly one of them; set the other to none")
        _check(self.epochs is None or self.epochs >= 1, "epochs", self.epochs, "1 or more")
        _check(self.iterations is None or self.iterations >= 1, "iterations", self.iterations, "1 or more")
        _check(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more images")
        _check(self.seed >= 0, "seed", self.seed, "0 or more")
        _check(0 <= self.ema < 1, "ema", self.ema, "0 (off) or more, below 1")
        _check(self.clip_norm >= 0, "clip_norm", self.clip_norm, "0 (off) or more")
        _check(self.early_stopping >= 0, "early_stopping", self.early_stopping, "0 (off) or more epochs")
        _check(self.evaluate_every >= 1, "evaluate_every", self.evaluate_every, "1 or more epochs")
        highest = self.optimizer.lr
        for name in ("warmup_lr", "min_lr"):
            rate = getattr(self.schedule, name)
            _check(rate <= highest, f"schedule.{name}", rate, f"at most optimizer.lr ({highest})")
        sees_one = self.early_stopping == 0 or self.early_stopping >= self.evaluate_every
        least = f"0 (off), or evaluate_every ({self.evaluate_every}) or more"
        _check(sees_one, "early_stopping", self.early_stopping, least)
        splits = 1 <= self.accumulate <= self.batch_size
        _check(splits, "accumulate", self.accumulate, f"1 to batch_size ({self.batch_size})")
        every = parse_interval(self.checkpoint_every)
        _check(every is not None, "checkpoint_every", self.checkpoint_every, "N steps or N minutes")
        _check(self.keep_checkpoints >= 1, "keep_checkpoints", self.keep_checkpoints, "1 or more")

    @property
    def checkpoint_interval(self) -> Interval:
        """`checkpoint_every`, read."""
        interval = parse_interval(self.checkpoint_every)
        assert interval is not None
        return interval

    def total_iterations(self, steps_per_epoch: int) -> int:
        """The updates of the whole run, when one pass over the data takes `steps_per_epoch`."""
        if self.iterations is not None:
            return self.iterations
        assert self.epochs is not None
        return self.epochs * steps_per_epoch

    def to_dict(self) -> dict[str, Any]:
        """The run as nested dicts that `json.dumps` takes; `from_dict` gives it back exactly."""
        record: dict[str, Any] = plain(self)
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Run":
        """The run that `to_dict` described. Raises UserError for unknown or missing fields, wrong types."""
        return from_plain(cls, record)
