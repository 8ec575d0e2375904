"""Logits as they are given, in the place of images: what is done with the answers of a model, without one."""

from collections.abc import Iterator

import numpy as np
import torch

from residuum.data.loaders import Batch
from residuum.evaluation.answers import Answers, LabelAnswers
from residuum.evaluation.evaluate import answer


class Given:
    """A loader whose images are logits (N, K), in batches of `size`."""

    def __init__(self, logits: torch.Tensor, labels: np.ndarray, size: int = 16) -> None:
        self._logits, self._size = logits, size
        names = [f"{index}.png" for index in range(len(labels))]
        self.split = _Split(labels, names)

    def epoch(self, epoch: int) -> Iterator[Batch[torch.Tensor]]:
        for start in range(0, len(self._logits), self._size):
            chosen = np.arange(start, min(start + self._size, len(self._logits)))
            labels = torch.from_numpy(self.split.labels[chosen])
            yield Batch(self._logits[chosen], labels, chosen, (), np.empty(0, np.int64))


class _Split:
    def __init__(self, labels: np.ndarray, names: list[str]) -> None:
        self.labels, self.names = labels, names

    def __len__(self) -> int:
        return len(self.labels)


def answers_of(logits: torch.Tensor, labels: torch.Tensor | np.ndarray, size: int = 16) -> Answers | LabelAnswers:
    """What a model has said that gave these logits (N, K). labels: (N,) int64, or (N, K) uint8 of several labels."""
    truth = np.asarray(labels)
    classes = tuple(f"class {index}" for index in range(logits.shape[1]))
    loader, several = Given(logits, truth, size), truth.ndim == 2
    (answers,), _ = answer(lambda batch: (batch,), loader, models=1, classes=classes, multi_label=several)
    return answers
