"""`residuum.diagnose`: any module and a batch to a verdict."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residuum.diagnosis.probe import Loss, probe, result_of
from residuum.diagnosis.verdict import Diagnosis, judge
from residuum.errors import UserError
from residuum.randomness import derived_seed

Batch = Tensor | Sequence[Tensor]


def diagnose(
    module: nn.Module,
    batch: Batch,
    *,
    labels: Tensor | None = None,
    lr: float | None = None,
    loss: Loss | None = None,
) -> Diagnosis:
    """Whether a network is fit to be trained, and if not, why and what helps: one forward and one backward pass.

    module: any that takes one tensor; one of several inputs is wrapped in a module that takes one and fills in the
    others. Nothing of it changes, but what it does itself to its weights in its forward pass. batch: what it takes,
    (N, ...) with N of at least 2, better 32 or more, not all the same, moved to its device and floating type; or a
    pair of that and labels, as a DataLoader gives it. labels: for `loss(output, labels)`, a mean over images; without
    a loss, cross-entropy of whole numbers (N,) for an output (N, K), K of at least 2. Without labels such an output is
    measured against labels drawn at random (seeded), as in an untrained network they might as well be; any other
    output against a random direction in its space, the mean over images of its product with one of length one. lr: the
    learning rate that it is to be trained with: then the length of a step is judged, too.
    Raises UserError for a batch, labels or a rate that are none, and for modules that cannot be looked into, or whose
    weights do not have a shape or values yet.
    """
    if lr is not None and not 0 <= lr < math.inf:
        raise UserError(f"a learning rate of {lr}; give a finite number of at least 0, or leave lr out")
    images, given = _pair(batch, labels)
    images = _as_taken(module, images)
    if given is None and loss is not None:
        raise UserError("a loss of its own, and no labels to measure against; give both, or neither")
    if given is None:
        return judge(probe(module, images, torch.empty(0), loss=_without_labels), lr)
    return judge(probe(module, images, given, loss=_cross_entropy if loss is None else _with_labels_there(loss)), lr)


def _pair(batch: Batch, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Images and labels, if any."""
    parts: Sequence[object] = batch if isinstance(batch, (list, tuple)) else [batch]
    if len(parts) not in (1, 2):
        raise UserError(f"a batch of {len(parts)} parts; give a tensor (N, ...), or a pair of it and labels")
    if len(parts) == 2 and labels is not None:
        raise UserError("labels in the batch and labels= beside it; give one of them")
    images, given = parts if len(parts) == 2 else (parts[0], labels)
    if not isinstance(images, Tensor):
        raise UserError(f"a batch of {type(images).__name__}; give a tensor (N, ...), or a pair of it and labels")
    if given is not None and not isinstance(given, Tensor):
        raise UserError(f"labels of {type(given).__name__}; give a tensor: torch.as_tensor(labels)")
    return images, given


def _as_taken(module: nn.Module, images: Tensor) -> Tensor:
    """The images where the network is and, if floating, of its type. Raises UserError if all are the same."""
    if images.ndim and len(images) > 1 and (images == images[:1]).all():
        example = ", ".join(map(str, (32, *images.shape[1:])))
        raise UserError(f"all images of the batch are the same; give different ones, such as torch.randn({example})")
    weight = next((one for one in module.parameters() if one.is_floating_point() and not one.is_meta), images)
    return images.to(weight.device, weight.dtype if images.is_floating_point() else images.dtype)


def _with_labels_there(loss: Loss) -> Loss:
    return lambda output, labels: loss(output, labels.to(result_of(output).device))


def _cross_entropy(output: object, labels: Tensor) -> Tensor:
    """Of the first tensor of the output. Raises UserError where it is no classifier's, or where labels do not fit."""
    values = result_of(output)
    shape, is_whole = tuple(labels.shape), not (labels.is_floating_point() or labels.is_complex())
    if values.ndim != 2 or values.shape[1] < 2 or not is_whole or labels.dtype == torch.bool or labels.ndim != 1:
        raise UserError(
            f"labels {shape} of {labels.dtype} for an output {tuple(values.shape)}; cross-entropy takes whole numbers "
            "(N,) for (N, K), K of at least 2; else give a loss of your own: loss=F.mse_loss, or "
            "loss=F.cross_entropy for an output of more dimensions"
        )
    if len(labels) != len(values):
        raise UserError(f"{len(labels)} labels for {len(values)} outputs; give one for each")
    low, high, classes = int(labels.min()), int(labels.max()), values.shape[1]
    if low < 0 or high >= classes:
        raise UserError(f"labels from {low} to {high} for {classes} outputs; give numbers from 0 to {classes - 1}")
    return F.cross_entropy(values, labels.to(values.device, torch.int64))


def _without_labels(output: object, labels: Tensor) -> Tensor:
    values, draw = result_of(output), torch.Generator().manual_seed(derived_seed(0, "diagnosis"))
    if not values.ndim:
        raise UserError("the network returns one number for all images; give the part of it that returns one for each")
    if values.ndim == 2 and values.shape[1] > 1:
        drawn = torch.randint(values.shape[1], (len(values),), generator=draw)
        return F.cross_entropy(values, drawn.to(values.device))
    direction = torch.randn(values.shape, generator=draw).to(values)
    lengths = torch.linalg.vector_norm(direction.reshape(len(direction), -1), dim=1)
    return (values * direction).sum() / lengths.sum()
