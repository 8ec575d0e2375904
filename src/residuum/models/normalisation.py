"""What stands where a network was defined with batch normalisation: one function for any network, built already."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from residuum.errors import UserError, unknown_name

MOST_GROUPS = 32


class Shift(nn.Module):
    """(N, C, H, W) plus a trainable number a channel: what is left of a normalisation that does not normalise.

    Convolutions that a normalisation follows have no bias of their own; without the shift the network would have none.
    """

    def __init__(self, bias: nn.Parameter) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias[:, None, None]


def groups_of(channels: int) -> int:
    """How many groups group normalisation makes of `channels`: 32 as Wu and He 2018, or as many as fit.

    Groups are equally large and have at least two channels, as few as theirs get (64 channels in ResNet-50's first
    stage): one channel alone would be instance normalisation. 16 channels are 8 groups, 32 are 16, 64 and more 32.
    """
    return next(groups for groups in range(min(MOST_GROUPS, max(1, channels // 2)), 0, -1) if channels % groups == 0)


def _grouped(groups: Callable[[int], int], batch_norm: nn.BatchNorm2d) -> nn.Module:
    channels = batch_norm.num_features
    norm = nn.GroupNorm(groups(channels), channels, batch_norm.eps)
    norm.weight, norm.bias = batch_norm.weight, batch_norm.bias
    return norm


def _shift(batch_norm: nn.BatchNorm2d) -> nn.Module:
    return Shift(batch_norm.bias)


REPLACEMENTS: dict[str, Callable[[nn.BatchNorm2d], nn.Module]] = {
    "layer": partial(_grouped, lambda channels: 1),
    "group": partial(_grouped, groups_of),
    "none": _shift,
}
NORMALISATIONS = ("batch", *REPLACEMENTS)


def replace_normalisation(network: nn.Module, normalisation: str, name: str) -> None:
    """Put another normalisation in the place of each `nn.BatchNorm2d` of `network`; it takes over scale and shift.

    "layer": over (C, H, W) of an image (Ba et al. 2016), with a scale and a shift a channel: group normalisation with
    one group. "group": Wu and He 2018, see `groups_of`. "none": `Shift`. "batch" changes nothing. The names in the
    state dict stay. name: the network's, for the message. Raises UserError for an unknown normalisation, and for a
    network without batch normalisation or with a kind that does more than normalise (timm's with an activation in it).
    """
    if normalisation not in NORMALISATIONS:
        raise unknown_name("normalisation", normalisation, NORMALISATIONS)
    if normalisation == "batch":
        return
    found = [(parent, key, child) for parent in network.modules() for key, child in parent.named_children()]
    norms = [(parent, key, child) for parent, key, child in found if isinstance(child, _BatchNorm)]
    others = {type(child).__name__ for _, _, child in norms if type(child) is not nn.BatchNorm2d}
    if others or not norms:
        reason = f"{min(others)}, which cannot be replaced" if others else "no batch normalisation to replace"
        raise UserError(f"{name} has {reason}; leave out normalisation={normalisation}, or take another network")
    for parent, key, child in norms:
        assert isinstance(child, nn.BatchNorm2d)
        setattr(parent, key, REPLACEMENTS[normalisation](child))
