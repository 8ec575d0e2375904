"""What training minimises: (logits, labels) -> one number, the mean over the images of a batch.

Every loss is a mean over images of a quantity of one image alone, also with class weights: so a batch may be
split over micro-batches or processes and the mean of the parts is the whole. Logits are taken to float32
first.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from residuum.training.run import LossChoice

Loss = Callable[[Tensor, Tensor], Tensor]
_CPU = torch.device("cpu")


def build_loss(choice: LossChoice, num_classes: int, class_counts: Sequence[int], device: torch.device = _CPU) -> Loss:
    """The loss `(logits (N, K), labels) -> scalar`; labels are (N,) int64 or (N, K) float in [0, 1].

    `class_counts`: training images of each of the K classes, for "balanced". `device`: where the logits will
    be.
    """
    weights = None
    if choice.class_weights == "balanced":
        weights = balanced_weights(class_counts).to(device)
        assert len(weights) == num_classes
    if choice.name == "cross-entropy":
        return partial(cross_entropy, weights=weights, label_smoothing=choice.label_smoothing)
    return partial(binary_cross_entropy if choice.name == "binary-cross-entropy" else squared_error, weights=weights)


def balanced_weights(class_counts: Sequence[int]) -> Tensor:
    """(K,) weights: mean count over the classes / own count, so that each class weighs the same in all.

    The mean weight of an image is then 1, as scikit-learn's "balanced". A class without images, which never
    occurs, has 0.
    """
    counts = torch.as_tensor(class_counts, dtype=torch.float64)
    present = counts > 0
    weights = counts[present].mean() / counts.clamp(min=1)
    return torch.where(present, weights, 0.0).float()


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None, label_smoothing: float) -> Tensor:
    """Softmax cross-entropy. Weighted: the mean over N images of weight x loss, whatever the weights' sum."""
    return F.cross_entropy(logits.float(), labels, weights, reduction="none", label_smoothing=label_smoothing).mean()


def binary_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Sigmoid cross-entropy of each class against 0 or 1 (one-hot for class numbers), mean over N and K."""
    return F.binary_cross_entropy_with_logits(logits.float(), _as_targets(logits, labels), weight=weights)


def squared_error(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Squared difference of the network's plain outputs and the one-hot labels, mean over N and K."""
    errors = (logits.float() - _as_targets(logits, labels)).square()
    return (errors if weights is None else errors * weights).mean()


def _as_targets(logits: Tensor, labels: Tensor) -> Tensor:
    if labels.ndim == 2:
        return labels.float()
    return F.one_hot(labels, logits.shape[1]).float()
