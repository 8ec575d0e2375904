"""What one pass of one batch shows of a network: of each layer, of each place where two paths are added."""

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["convolution", "linear", "normalisation", "attention", "other"]


@dataclass(frozen=True)
class Normaliser:
    """What a batch normalisation keeps beside what this batch has, by channel.

    eps: what it adds to the variance; small: the share of channels whose variance in the batch is below eps, so that
    they are not normalised; flat: that of channels without any. shift: the root of the mean over channels of
    (batch mean - running mean)^2 / running variance; stretch: the median over channels of batch variance / running
    variance. Both NaN where nothing was counted yet or nothing is kept. momentum: None is the mean of all batches.
    """

    eps: float
    small: float
    flat: float
    shift: float
    stretch: float
    momentum: float | None


@dataclass(frozen=True)
class LayerFacts:
    """One call of a convolution, a linear or a normalisation layer, or of another module with weights of its own.

    name: its path in the network; call: how many times it was called before, in this pass. kernel: (h, w) of a
    convolution, else ().
    mean, std: of its output over all elements. variation: how much the outputs for different images differ in
    direction, in [0, 1]: the mean over pairs of 1 - cosine; 0 where every image gives the same.
    gradient_std: the standard deviation of dLoss/d(output), times the number of images.
    sensitivity: the mean over images of |output| |dLoss/d(output)|: what the loss would change by, at most, were the
    output changed by its own size [nats].
    weight_norm, weight_gradient_norm: of its weight (of a layer that is called several times: of all calls together).
    activation: what follows it ("relu", "tanh", ...), "" for nothing; dead: the share of units (channels) that are
    zero after it for the whole batch; saturated: the share of outputs of tanh or sigmoid within 0.01 of an end.
    NaN stands for what there is not.
    """

    name: str
    call: int
    kind: Kind
    kernel: tuple[int, ...]
    mean: float
    std: float
    variation: float
    gradient_std: float
    sensitivity: float
    weight_norm: float
    weight_gradient_norm: float
    activation: str = ""
    dead: float = math.nan
    saturated: float = math.nan
    normaliser: Normaliser | None = None

    def update_ratio(self, lr: float) -> float:
        """The length of one step of plain gradient descent over that of the weight; NaN without gradient or weight."""
        return lr * self.weight_gradient_norm / self.weight_norm if self.weight_norm else math.nan


@dataclass(frozen=True)
class JoinFacts:
    """One addition of two activations: a residual sum.

    name: the module it happens in; after: how many layers were called before it. branch: the operand with more layers
    on its path; carried: the other one. The stds are over all elements; share: of the branch in the sum of both
    mean squares, in [0, 1]. gradient_std: as a layer's, of the sum.
    """

    name: str
    after: int
    branch_std: float
    carried_std: float
    std: float
    share: float
    gradient_std: float


@dataclass(frozen=True)
class Probe:
    """Facts of one forward and one backward pass, in order of execution.

    loss: its value, per image; images: how many there were; input_std and input_variation: of the batch itself, as a
    layer's; output_std, output_variation: of what the network returned (a first tensor, where several). input_spread,
    output_spread: the root mean square of how far elements are from their mean over images, in their own units.
    """

    layers: tuple[LayerFacts, ...]
    joins: tuple[JoinFacts, ...]
    loss: float
    images: int
    input_std: float
    input_variation: float
    output_std: float
    output_variation: float
    input_spread: float
    output_spread: float
