"""Class activation maps of models at work: of a run by PyTorch, of an exported one from the features that it gives."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from residuum.data.preprocessing import Preprocessing
from residuum.errors import UserError
from residuum.inference.deployed import Views
from residuum.inference.exported import Exported, read_head

if TYPE_CHECKING:
    import torch

    from residuum.weights import Classifier

Maps = NDArray[np.float32]  # (N, T, h, w)
MapMaker = Callable[[Views, NDArray[np.int64]], Maps]
"""Of views (N, S, S, C) and classes (N, T): for each image and each of its T classes what speaks for it (positive) or
against it (negative), position by position."""
Features = Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Normalised images (N, C, S, S) to their logits (N, K) and the last features by position (N, F, h, w)."""

_ROUNDING = 0.05  # of the largest logit: engines compute in other orders, and some in int8


def maps_by_pytorch(classifier: "Classifier", device: "torch.device") -> MapMaker | None:
    """CAM or Grad-CAM of a run's network; None where it has no features by position."""
    import torch

    from residuum.inference.activation_maps import activation_maps

    handling = classifier.preprocessing

    def maps(views: Views, classes: NDArray[np.int64]) -> Maps:
        images = handling.normalise(torch.from_numpy(views).to(device).permute(0, 3, 1, 2))
        return activation_maps(classifier.network, images, torch.from_numpy(classes)).maps.numpy()

    try:
        maps(_blank(handling), np.zeros((1, 1), np.int64))
    except UserError:
        return None
    return maps


def maps_by_features(exported: Exported, features: Features) -> MapMaker | None:
    """CAM from an exported model's features and the weights of its last layer.

    None where there are none, or where their average does not give the model's own logits: then they are not CAM.
    """
    head = read_head(exported)
    if head is None:
        return None
    (weight, bias), handling = head, exported.preprocessing
    logits, blank = features(handling.normalise_views(_blank(handling)))
    if not _agree(blank, weight, bias, logits):
        return None

    def maps(views: Views, classes: NDArray[np.int64]) -> Maps:
        _, found = features(handling.normalise_views(views))
        shares: Maps = np.einsum("nfhw,ntf->nthw", found, weight[classes]) + bias[classes][..., None, None]
        return shares

    return maps


def _agree(
    features: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32], logits: NDArray[np.float32]
) -> bool:
    if features.ndim != 4 or weight.shape != (logits.shape[1], features.shape[1]) or bias.shape != weight.shape[:1]:
        return False
    expected = features.mean(axis=(2, 3)) @ weight.T + bias
    return bool(np.abs(expected - logits).max() <= _ROUNDING * max(1.0, float(np.abs(logits).max())))


def _blank(handling: Preprocessing) -> Views:
    return np.full((1, handling.size, handling.size, handling.channels), 128, np.uint8)
