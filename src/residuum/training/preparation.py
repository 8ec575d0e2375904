"""From a run's configuration to the things it works with: images, normalisation, network."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from residuum.data.augmentations import Augmentation
from residuum.data.loaders import Loader, evaluation_loader, train_loader
from residuum.data.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocessing,
)
from residuum.data.sources import DataSet
from residuum.data.splits import Split
from residuum.data.statistics import ChannelStatistics, statistics
from residuum.data.storage import open_images
from residuum.data.workers import LoaderSettings
from residuum.distributed import World
from residuum.errors import UserError
from residuum.hardware import default_workers
from residuum.models.catalogue import PARTS, create_model
from residuum.pretrained import load_weights
from residuum.randomness import derived_seed
from residuum.training.freezing import freeze_until
from residuum.training.progress import Reporter
from residuum.training.run import DataHandling, ModelChoice, Run


@dataclass(frozen=True)
class PreparedData:
    """Loaders for training and, by split name, for measuring; the first of them is the one that training watches."""

    preprocessing: Preprocessing
    train: Loader
    measured: Mapping[str, Loader]

    @property
    def watched(self) -> str:
        return next(iter(self.measured))


def prepare_data(run: Run, dataset: DataSet, device: torch.device, world: World, reporter: Reporter) -> PreparedData:
    """Open the splits a run needs, and compute its normalisation on the training images."""
    workers = default_workers(device) if run.data.workers is None else run.data.workers
    settings = LoaderSettings(device, workers, world, run.data.loader, run.seed, run.data.strict)
    geometry = _geometry(run.data)
    with reporter.reading("training images") as progress:
        images = open_images(dataset.train, geometry, run.data.augmentation, settings, progress)
    needs_statistics = run.data.augmentation.lighting or run.data.normalisation in (
        "mean-std",
        "per-pixel-mean",
    )
    found = statistics(images.centre_views()) if needs_statistics else None
    preprocessing = normalised(geometry, run.data, found)
    train = train_loader(
        images,
        preprocessing,
        run.data.augmentation,
        classes=len(dataset.classes),
        batch_size=run.batch_size,
        settings=settings,
        colours=found,
    )
    measured = {}
    for name, split in dict([dataset.monitored(), dataset.held_out()]).items():
        with reporter.reading(f"{name} images") as progress:
            kept = open_images(split, preprocessing, Augmentation(), replace(settings, strict=False), progress)
        measured[name] = evaluation_loader(
            kept, preprocessing, batch_size=max(1, 2 * run.batch_size // run.accumulate), settings=settings
        )
    return PreparedData(preprocessing, train, measured)


def _geometry(handling: DataHandling) -> Preprocessing:
    unit = (1.0,) * handling.channels
    zero = (0.0,) * handling.channels
    return Preprocessing(handling.channels, handling.size, handling.crop_pct, handling.interpolation, zero, unit)


def normalised(geometry: Preprocessing, handling: DataHandling, found: ChannelStatistics | None) -> Preprocessing:
    """The preprocessing with its normalisation; `found` are the training images' statistics where it needs them."""
    if handling.normalisation == "none":
        return geometry
    if handling.normalisation == "imagenet":
        if handling.channels != 3:
            raise UserError("data.normalisation=imagenet is for 3 channels, these images have 1; use mean-std")
        return replace(geometry, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert found is not None
    if handling.normalisation == "mean-std":
        return replace(geometry, mean=found.mean, std=found.std)
    return replace(geometry, mean=found.mean, mean_image=found.mean_image)  # He15 divides by nothing


def model_args(choice: ModelChoice) -> dict[str, Any]:
    """What shapes the network beyond the name and the sizes: `create_model` is told it, a saved model remembers it.

    What stands at its default is left out.
    """
    return {part: value for part, usual in PARTS.items() if (value := getattr(choice, part)) != usual}


def prepare_network(run: Run, dataset: DataSet, device: torch.device, reporter: Reporter) -> nn.Module:
    """The network on its device: initialised from the seed, or from `model.weights`, and frozen as far as asked."""
    choice = run.model
    torch.manual_seed(derived_seed(run.seed, "initialisation"))
    network = create_model(
        choice.name,
        num_classes=len(dataset.classes),
        in_channels=run.data.channels,
        zero_gamma=choice.zero_gamma,
        drop_path=choice.drop_path,
        initialisation=choice.initialisation,
        **model_args(choice),
    )
    if choice.weights is not None:
        for note in load_weights(network, choice.name, choice.weights, dataset.classes):
            reporter.line(note)
    if choice.freeze_until is not None:
        freeze_until(network, choice.freeze_until)
    _check_fit(network, run)
    # L-BFGS flattens every gradient by a view, which the channels-last layout does not allow.
    layout = torch.contiguous_format if run.optimizer.name == "lbfgs" else torch.channels_last
    return network.to(device).to(memory_format=layout)


def blank_images(run: Run, device: torch.device) -> Tensor:
    """Zeros (N, C, S, S), as few as any of the run's batches has, two at most: what a network is tried on."""
    count, size = min(2, run.batch_size // run.accumulate), run.data.size
    return torch.zeros(count, run.data.channels, size, size, device=device)


def _check_fit(network: nn.Module, run: Run) -> None:
    """Refuse a network that cannot take the run's batches: tried on meta tensors, which cost nothing."""
    images = blank_images(run, torch.device("meta"))
    try:
        copy.deepcopy(network).to("meta").train()(images)
    except NotImplementedError:  # an operation without a meta version: training itself will tell
        return
    except (RuntimeError, ValueError, AssertionError) as error:
        reason, size = str(error).splitlines()[0], run.data.size
        raise UserError(
            f"{run.model.name} cannot be trained on batches of {len(images)} or more images of {size}x{size} "
            f"({reason}); change --set data.size=N or -b"
        ) from None


def class_counts(split: Split, classes: int) -> list[int]:
    """Images of each class; of an image with several labels, each counts."""
    labels = split.labels
    counts = labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=classes)
    return [int(count) for count in counts]
