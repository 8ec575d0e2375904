"""Losses, each with its gradient by the network's outputs.

Those of classes take logits (N, K) and targets (N, K) and are means over the N images; those of numbers take
predictions and targets of one shape and are means over all elements. All are in nats or in the targets' unit.
"""

import numpy as np

from residuum.reference.activations import sigmoid
from residuum.reference.arrays import Floats, Integers


def one_hot(labels: Integers, classes: int) -> Floats:
    """Labels (N,) in 0 ... classes - 1 to targets (N, classes)."""
    return np.eye(classes)[labels]


def smooth_labels(targets: Floats, smoothing: float) -> Floats:
    """Targets (N, K) with a share of `smoothing` spread over all classes. Szegedy et al. 2016, section 7."""
    return (1 - smoothing) * targets + smoothing / targets.shape[1]


def log_softmax(logits: Floats) -> Floats:
    """The log-probabilities (N, K) of logits (N, K); the largest logit is taken off first, lest exp overflow."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def cross_entropy(logits: Floats, targets: Floats) -> float:
    """Softmax cross-entropy: the mean over images of -sum over k of t_k log p_k [nats].

    Every row of targets (N, K) sums to one. Bishop 2006, section 4.3.4, equation 4.108.
    """
    return float(-(targets * log_softmax(logits)).sum(axis=1).mean())


def cross_entropy_gradient(logits: Floats, targets: Floats) -> Floats:
    """(p - t) / N: (N, K), never larger than 1 / N however wrong the network. Bishop 2006, equation 4.109."""
    return (np.exp(log_softmax(logits)) - targets) / len(logits)


def logistic_loss(logits: Floats, targets: Floats) -> float:
    """Sigmoid cross-entropy, mean over all elements [nats]: -t log p - (1 - t) log(1 - p) with p = sigmoid(z).

    Logits and targets in [0, 1] of one shape. Bishop 2006, section 4.3.2, equation 4.90; written so that neither
    logarithm meets a 0.
    """
    return float((np.logaddexp(0, logits) - targets * logits).mean())


def logistic_loss_gradient(logits: Floats, targets: Floats) -> Floats:
    """(p - t) / count, of the logits' shape. Bishop 2006, equation 4.91."""
    return (sigmoid(logits) - targets) / logits.size


def squared_error(predictions: Floats, targets: Floats) -> float:
    """L2: the mean of (y - t)^2. Its best constant is the mean; one outlier moves it. Bishop 2006, section 1.5.5."""
    return float(((predictions - targets) ** 2).mean())


def squared_error_gradient(predictions: Floats, targets: Floats) -> Floats:
    """2 (y - t) / count: grows with the error."""
    return 2 * (predictions - targets) / predictions.size


def absolute_error(predictions: Floats, targets: Floats) -> float:
    """L1: the mean of |y - t|. Its best constant is the median. Bishop 2006, section 1.5.5."""
    return float(np.abs(predictions - targets).mean())


def absolute_error_gradient(predictions: Floats, targets: Floats) -> Floats:
    """sign(y - t) / count: the same for every error, and 0 at none."""
    return np.sign(predictions - targets) / predictions.size


def smooth_l1(predictions: Floats, targets: Floats, beta: float = 1.0) -> float:
    """Mean of e^2 / (2 beta) where |e| < beta, |e| - beta / 2 elsewhere, with e = y - t.

    L2 for small errors, L1 for large ones. Girshick 2015, "Fast R-CNN", section 2.3, equation 3, where beta is 1.
    """
    error = np.abs(predictions - targets)
    return float(np.where(error < beta, error**2 / (2 * beta), error - beta / 2).mean())


def smooth_l1_gradient(predictions: Floats, targets: Floats, beta: float = 1.0) -> Floats:
    """e / beta, held within -1 and 1, / count: an outlier pulls no harder than an error of beta."""
    return np.clip((predictions - targets) / beta, -1, 1) / predictions.size
