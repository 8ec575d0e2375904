"""Statistics of training images, from which their normalisation is made."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from residuum.errors import UserError


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """Statistics of training images in [0, 1].

    mean, std: (C,) per channel, over all pixels (std: population, at least 1/255); mean_image: float32 (C, S,
    S); eigenvalues (C,), largest first, and eigenvectors (C, C), one a column, of the channels' covariance.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    mean_image: NDArray[np.float32]
    eigenvalues: NDArray[np.float64]
    eigenvectors: NDArray[np.float64]


def statistics(batches: Iterable[Tensor]) -> ChannelStatistics:
    """Statistics of all images in `batches` of uint8 (N, C, S, S), taken in one pass.

    The sums are whole numbers below 2**53, so float64 holds them exactly: the result does not depend on how
    the images are grouped. Raises UserError when there is no image.
    """
    images, image_sum, products = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        for start in range(0, len(batch), 64):  # float64 is eight times the size of uint8
            values = batch[start : start + 64].cpu().double()
            pixels = values.transpose(0, 1).flatten(1)
            image_sum = image_sum + values.sum(0)
            products = products + pixels @ pixels.T
            images += len(values)
    if images == 0:
        raise UserError("no readable training image; run `residuum check` on the data")
    height, width = image_sum.shape[1:]
    count = images * height * width
    mean = image_sum.sum((1, 2)).numpy() / count
    covariance = products.numpy() / count - np.outer(mean, mean)
    eigenvalues, eigenvectors = np.linalg.eigh(covariance / 255**2)
    std = np.sqrt(np.clip(np.diag(covariance), 1.0, None))
    return ChannelStatistics(
        mean=tuple((mean / 255).tolist()),
        std=tuple((std / 255).tolist()),
        mean_image=(image_sum.numpy() / (255 * images)).astype(np.float32),
        eigenvalues=np.clip(eigenvalues[::-1], 0, None),
        eigenvectors=np.ascontiguousarray(eigenvectors[:, ::-1]),
    )
