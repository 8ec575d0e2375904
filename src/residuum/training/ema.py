"""The exponential moving average of a network's weights."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """A copy of `network` whose weights trail it.

    After each update average = d x average + (1 - d) x weights, with d = min(decay, (1 + t) / (10 + t)) at
    update t, so that a short run does not average in its random start. Running statistics of batch
    normalisation are averaged likewise, as timm and torchvision do; counters are copied. `average.network` is
    the averaged network, in evaluation mode.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights of `network`, the one this is an average of, after an update."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        pairs = list(zip(_tensors(self.network), _tensors(network), strict=True))
        averaged = [(average, source) for average, source in pairs if average.is_floating_point()]
        lerp = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        lerp([average for average, _ in averaged], [source for _, source in averaged], self.updates)
        counters = [(average, source) for average, source in pairs if not average.is_floating_point()]
        if counters:
            torch._foreach_copy_([average for average, _ in counters], [source for _, source in counters])

    def state_dict(self) -> dict[str, Any]:
        """The count of updates and the averaged network's own state dict."""
        return {"updates": self.updates, "network": self.network.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.updates = state["updates"]
        self.network.load_state_dict(state["network"])


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
