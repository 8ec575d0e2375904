"""What a measure of a network starts from: images as the network sees them, always the same ones."""

import numpy as np
import torch
from torch import Tensor

from residuum.data.decoding import BadImage
from residuum.data.preprocessing import Preprocessing
from residuum.data.sources import DataSet
from residuum.errors import UserError


def training_batch(dataset: DataSet, preprocessing: Preprocessing, count: int) -> tuple[Tensor, Tensor]:
    """At most `count` evenly spaced training images, (N, C, S, S) float32 normalised, and their labels, (N,) int64.

    Centre views, on the CPU; what cannot be read is left out. Raises UserError where that is everything.
    """
    split = dataset.train
    views, labels = [], []
    for index in np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(int).tolist():
        try:
            views.append(preprocessing.view(split.read(index, preprocessing.channels)))
        except BadImage:
            continue
        labels.append(int(split.labels[index]))
    if not views:
        raise UserError(f"none of the training images of {dataset.spec} can be read; run residuum check on them")
    images = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)
    return preprocessing.normalise(images), torch.tensor(labels)
