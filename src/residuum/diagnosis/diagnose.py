"""`residuum.diagnose`: any module and a batch to a verdict."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residuum.diagnosis.functions import tensors
from residuum.diagnosis.probe import Loss, probe
from residuum.diagnosis.verdict import Diagnosis, judge
from residuum.errors import UserError
from residuum.randomness import derived_seed

Batch = Tensor | tuple[Tensor, Tensor]


def diagnose(
    module: nn.Module,
    batch: Batch,
    *,
    labels: Tensor | None = None,
    lr: float | None = None,
    loss: Loss | None = None,
) -> Diagnosis:
    """Whether a network is fit to be trained, and if not, why and what helps: one forward and one backward pass.

    module: any; nothing of it changes. batch: what it takes, (N, ...) with N of at least 2, better 32 or more; or a
    pair of that and labels. labels: for `loss(output, labels)`, a mean over images; without a loss, cross-entropy of
    labels (N,). Without labels an output (N, K) is measured against labels drawn at random (seeded), as in an
    untrained network they might as well be; any other output against a random direction in its space, the mean over
    images of its product with one of length one. lr: the learning rate that it is to be trained with: then the length
    of a step is judged, too.
    Raises UserError for a batch that is none, and for modules whose weights do not have a shape yet.
    """
    images, given = batch if isinstance(batch, tuple) else (batch, labels)
    if not isinstance(images, Tensor):
        raise UserError(f"a batch of {type(images).__name__}; give a tensor (N, ...), or a pair of it and labels")
    device = next((parameter.device for parameter in module.parameters()), images.device)
    images = images.to(device)
    if given is None and loss is not None:
        raise UserError("a loss of its own, and no labels to measure against; give both, or neither")
    if given is None:
        return judge(probe(module, images, torch.empty(0), loss=_without_labels), lr)
    return judge(probe(module, images, given.to(device), loss=loss or _of_first), lr)


def _of_first(output: object, labels: Tensor) -> Tensor:
    """Cross-entropy of the first tensor of the output."""
    return F.cross_entropy(_first(output), labels)


def _without_labels(output: object, labels: Tensor) -> Tensor:
    values, draw = _first(output), torch.Generator().manual_seed(derived_seed(0, "diagnosis"))
    if values.ndim == 2 and values.shape[1] > 1:
        drawn = torch.randint(values.shape[1], (len(values),), generator=draw)
        return F.cross_entropy(values, drawn.to(values.device))
    direction = torch.randn(values.shape, generator=draw).to(values)
    lengths = torch.linalg.vector_norm(direction.reshape(len(direction), -1), dim=1)
    return (values * direction).sum() / lengths.sum()


def _first(output: object) -> Tensor:
    return next(value for value in tensors(output) if value.is_floating_point())
