"""What is tortured: runs that, between them, use every part of the training that has a state."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

BASE = {
    "digits": "data.size=8 batch_size=64",  # 22 updates an epoch
    "photos": "data.size=12 batch_size=16",  # 7
}


@dataclass(frozen=True)
class Configuration:
    """A run by name: `settings` are what comes after `--set`, `every` is checkpoint_every.

    `data`: "digits", or "photos" for the folder that `write_photos` makes. `varied`: each start and each resumption
    draws its number of workers and its loader. `way`: how runs are started; "fork" is the fast one. `share`: its part
    of the kills, beside the others'.
    """

    name: str
    settings: str
    data: Literal["digits", "photos"] = "digits"
    every: str = "5 steps"
    varied: bool = False
    processes: int = 1
    way: Literal["fork", "command", "torchrun"] = "fork"
    share: float = 1.0

    @property
    def overrides(self) -> list[str]:
        usual = f"epochs=5 device=cpu precision=fp32 optimizer.lr=0.02 schedule.warmup_steps=0 {BASE[self.data]}"
        return [*usual.split(), f"checkpoint_every={self.every}", *self.settings.split()]

    @property
    def workers(self) -> tuple[int, ...]:
        return (0, 1, 2) if self.varied else (0,)

    @property
    def loaders(self) -> tuple[str, ...]:
        return ("memory", "file") if self.varied else ("memory",)


MATRIX = (
    Configuration(
        "momentum-multistep-crops",
        "optimizer.name=momentum schedule.name=multistep schedule.milestones=0.5,0.75 "
        "data.augmentation.pad_and_crop=2 clip_norm=1",
    ),
    Configuration(
        "nesterov-cosine-ema-early-stopping",
        "epochs=12 optimizer.lr=0.2 schedule.warmup_steps=0.15 ema=0.9 early_stopping=2",
    ),
    Configuration(
        "adamw-plateau-mixup-droppath",
        "optimizer.name=adamw schedule.name=plateau schedule.patience=0 data.augmentation.mixup=0.2 "
        "model.drop_path=0.2 keep_checkpoints=3",
    ),
    Configuration(
        "nadam-one-cycle-cutmix-evaluate-every-2",
        "optimizer.name=nadam schedule.name=one-cycle data.augmentation.cutmix=1.0 evaluate_every=2",
    ),
    Configuration(
        "rmsprop-linear-randaugment-class-weights",
        "optimizer.name=rmsprop optimizer.lr=0.003 schedule.name=linear schedule.warmup_steps=0.2 "
        "data.augmentation.randaugment=2,9 loss.class_weights=balanced",
        every="0.002 minutes",
    ),
    Configuration(
        "lbfgs-constant-accumulate",
        "epochs=none iterations=8 optimizer.name=lbfgs optimizer.weight_decay=0 schedule.name=constant accumulate=2",
        every="2 steps",
    ),
    Configuration(
        "momentum-error-warm-up-droppath",
        "optimizer.name=momentum optimizer.lr=0.05 schedule.name=constant schedule.warmup_lr=0.005 "
        "schedule.warmup_until_train_error=0.5 model.drop_path=0.1",
    ),
    Configuration(
        "bf16-adam-recompute-bn-ema",
        "precision=bf16 optimizer.name=adam optimizer.lr=0.005 recompute_bn=true ema=0.95",
        varied=True,
    ),
    Configuration(
        "iterations-mixup-cutmix-accumulate",
        "epochs=none iterations=105 data.augmentation.mixup=0.3 data.augmentation.cutmix=0.5 accumulate=4 "
        "loss.label_smoothing=0.1 keep_checkpoints=1",
    ),
    Configuration(
        "sgd-erasing-checkpoints-by-epoch",
        "optimizer.name=sgd data.augmentation.random_erasing=0.5 evaluate_every=2",
        every="10 minutes",
        varied=True,
    ),
    Configuration(
        "adadelta-frozen-decay-mse",
        "optimizer.name=adadelta optimizer.lr=1 optimizer.decay_norm_and_bias=false loss.name=mse "
        "loss.label_smoothing=0 model.freeze_until=layer2",
    ),
    Configuration(
        "photos-random-crops",
        "data.augmentation.random_resized_crop=0.4,1.0 data.augmentation.color_jitter=0.3",
        data="photos",
        varied=True,
    ),
    Configuration(
        "photos-adagrad-lighting-early-stopping",
        "epochs=12 optimizer.name=adagrad data.augmentation.lighting=0.1 accumulate=2 early_stopping=2 "
        "model.drop_path=0.2",
        data="photos",
        every="3 steps",
        varied=True,
    ),
    Configuration(
        "photos-rollback",
        "epochs=1 batch_size=4 optimizer.name=sgd optimizer.lr=1000 schedule.name=constant on_nan=rollback ema=0.9 "
        "data.augmentation.mixup=0.2",
        data="photos",
        every="2 steps",
    ),
    Configuration(
        "two-processes-adamw-ema-mixup",
        "ema=0.9 data.augmentation.mixup=0.2 model.drop_path=0.2 optimizer.name=adamw optimizer.lr=0.005",
        processes=2,
    ),
    Configuration(
        "two-processes-sync-bn-early-stopping",
        "epochs=10 sync_bn=true early_stopping=2 recompute_bn=true clip_norm=1",
        processes=2,
        varied=True,
    ),
    Configuration(
        "two-processes-photos-bf16-plateau",
        "precision=bf16 schedule.name=plateau schedule.patience=0 accumulate=2 "
        "data.augmentation.random_resized_crop=0.4,1.0",
        data="photos",
        every="2 steps",
        processes=2,
        varied=True,
    ),
    Configuration(
        "command-line",
        "epochs=15 ema=0.9 early_stopping=5 data.augmentation.mixup=0.2",
        way="command",
        share=0.5,
        varied=True,
    ),
    Configuration("torchrun", "epochs=15 model.drop_path=0.1 sync_bn=true", processes=2, way="torchrun", share=0.3),
)


def write_photos(folder: Path) -> None:
    """Three classes of 20x16 images, each brighter in one channel: 40 to train on, 10 to watch; one file is damaged."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 40), ("val", 10)):
        for channel, name in enumerate(("red", "green", "blue")):
            where = folder / split / name
            where.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 200, (20, 16, 3), dtype=np.uint8)
                pixels[..., channel] += 40
                Image.fromarray(pixels).save(where / f"{index}.png")
    (folder / "train" / "red" / "7.png").write_bytes(b"no image")
