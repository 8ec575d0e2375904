"""What a network sees in an image, before it names a class: features, the images nearest in them, a map of them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from residuum.errors import UserError
from residuum.evaluation.evaluate import predictor
from residuum.state_dicts import head

Features = NDArray[np.float32]  # (N, D)

_SIMILARITIES_AT_ONCE = 2**22  # 32 MiB of float64
_DECIMALS = 6  # of a similarity: what float32 features carry
_T_SNE_DIMENSIONS = 50
_LARGEST_PERPLEXITY = 30


def features(network: nn.Module, batches: Iterable[Tensor], device: torch.device, dtype: torch.dtype) -> Features:
    """The features before the classifier of every image, in order: (N, D) float32.

    batches: normalised images (B, C, S, S), taken one batch at a time; device, dtype: what the network computes
    on and in. As for a prediction, the network stays on that device and in evaluation mode. Raises UserError
    when there is no image.
    """
    predict = predictor(network, device, dtype)
    rows = []
    with watched_head(network) as caught:
        for images in batches:
            predict(images)
            rows.append(head_rows(caught.pop()).cpu().numpy())
    if not rows:
        raise UserError("there is no image to take features of; name a split that has some")
    return np.concatenate(rows)


@contextmanager
def watched_head(network: nn.Module) -> Iterator[list[Tensor]]:
    """The list that each forward pass puts the last layer's input into."""
    caught: list[Tensor] = []
    _, layer = head(network)
    hook = layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    try:
        yield caught
    finally:
        hook.remove()


def head_rows(inputs: Tensor) -> Tensor:
    """What the last layer reads, (N, D) float32: an average over the positions where it has some."""
    return (inputs.mean(dim=(2, 3)) if inputs.ndim == 4 else inputs.flatten(1)).float()


def nearest(queries: Features, base: Features, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k rows of `base` (N, D) most similar to each of `queries` (M, D), best first.

    Returns their indices (M, k) and cosine similarities (M, k) in [-1, 1], rounded to six decimals; of equals the
    lower index comes first. To a row of zeros the similarity is 0. Compared are a few million pairs at a time.
    Raises UserError for k outside 1 .. N and for features that are no numbers.
    """
    if not 1 <= k <= len(base):
        raise UserError(f"{k} nearest of {len(base)} images; ask for 1 to {len(base)}")
    sources, targets = _unit(queries), _unit(base)
    step = max(1, _SIMILARITIES_AT_ONCE // len(base))
    found = [
        _largest(row, k) for start in range(0, len(sources), step) for row in sources[start : start + step] @ targets.T
    ]
    indices = np.array([row for row, _ in found], np.int64).reshape(-1, k)
    return indices, np.array([row for _, row in found], np.float32).reshape(-1, k)


def _unit(rows: Features) -> Features:
    _require_numbers(rows)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(lengths, np.finfo(np.float32).tiny)


def _largest(similarities: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The indices and values of the k largest; rounding makes equals equal that summed in another order."""
    values = similarities.astype(np.float64).round(_DECIMALS)
    least = np.partition(values, -k)[-k]
    candidates = np.flatnonzero(values >= least)
    best = candidates[np.argsort(-values[candidates], kind="stable")[:k]]
    return best, values[best]


def embedding(rows: Features, method: Literal["pca", "t-sne"], seed: int = 0) -> NDArray[np.float32]:
    """Features (N, D) as points of the plane (N, 2), the same for the same seed.

    pca: the two directions of most variance, each turned so that its largest loading is positive. t-sne: van der
    Maaten and Hinton 2008, from the first 50 principal components, started from the first two, perplexity 30 or,
    of fewer than 91 images, a third of the others; distances between far groups mean little. Where all rows are
    equal, so are the points.
    Raises UserError for fewer than 3 images, a single feature, or features that are no numbers.
    """
    if len(rows) < 3 or rows.shape[1] < 2:
        raise UserError(f"{len(rows)} images of {rows.shape[1]} features make no picture; take 3 or more of 2 or more")
    _require_numbers(rows)
    if (rows == rows[0]).all():
        return np.zeros((len(rows), 2), np.float32)
    return _principal_components(rows, 2, seed) if method == "pca" else _t_sne(rows, seed)


def _principal_components(rows: Features, count: int, seed: int) -> Features:
    from sklearn.decomposition import PCA

    pca = PCA(count, random_state=seed)
    points = pca.fit_transform(rows)
    largest = np.abs(pca.components_).argmax(axis=1)
    signs = np.sign(pca.components_[np.arange(count), largest])
    return (points * signs).astype(np.float32)


def _t_sne(rows: Features, seed: int) -> Features:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    perplexity = min(_LARGEST_PERPLEXITY, (len(rows) - 1) / 3)
    # Threads add up their shares in the order in which they finish, and a last digit grows into another picture.
    with threadpool_limits(1):
        reduced = _principal_components(rows, min(_T_SNE_DIMENSIONS, *rows.shape), seed)
        points: Features = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    return points


def _require_numbers(rows: Features) -> None:
    odd = int((~np.isfinite(rows)).any(axis=1).sum())
    if odd:
        raise UserError(
            f"the features of {odd} of {len(rows)} images are no numbers; the network has diverged: train it again"
        )
