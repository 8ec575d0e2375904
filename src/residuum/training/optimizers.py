"""torch.optim's optimisers over the trained parameters of a network."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from residuum.training.run import OptimizerChoice

_FUSED = ("sgd", "momentum", "nesterov", "adagrad", "adam", "adamw")


def build_optimizer(choice: OptimizerChoice, network: nn.Module) -> torch.optim.Optimizer:
    """The chosen optimiser over the parameters that require a gradient.

    What `choice` does not name stays at torch.optim's default. L-BFGS (with strong-Wolfe line search) needs a
    closure at each step. The fused version is taken where the device has one.
    """
    groups = parameter_groups(choice, network)
    build = _builder(choice)
    if choice.name == "lbfgs":
        return build([parameter for group in groups for parameter in group["params"]])
    if choice.name in _FUSED:
        try:
            return build(groups, fused=True)
        except RuntimeError:  # this device has no fused version of it
            pass
    return build(groups)


def _builder(choice: OptimizerChoice) -> Callable[..., torch.optim.Optimizer]:
    lr, eps, betas = choice.lr, choice.eps, choice.betas
    builders: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "sgd": partial(torch.optim.SGD, lr=lr),
        "momentum": partial(torch.optim.SGD, lr=lr, momentum=choice.momentum),
        "nesterov": partial(torch.optim.SGD, lr=lr, momentum=choice.momentum, nesterov=choice.momentum > 0),
        "adagrad": partial(torch.optim.Adagrad, lr=lr, eps=eps),
        "adadelta": partial(torch.optim.Adadelta, lr=lr, eps=eps),
        "rmsprop": partial(torch.optim.RMSprop, lr=lr, eps=eps),
        "adam": partial(torch.optim.Adam, lr=lr, betas=betas, eps=eps),
        "adamw": partial(torch.optim.AdamW, lr=lr, betas=betas, eps=eps),
        "nadam": partial(torch.optim.NAdam, lr=lr, betas=betas, eps=eps),
        "lbfgs": partial(torch.optim.LBFGS, lr=lr, line_search_fn="strong_wolfe"),
    }
    return builders[choice.name]


def parameter_groups(choice: OptimizerChoice, network: nn.Module) -> list[dict[str, Any]]:
    """The trained parameters with their weight decay: two groups where norms and biases are spared."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if choice.decay_norm_and_bias:
        return [{"params": trained, "weight_decay": choice.weight_decay}]
    decayed = [parameter for parameter in trained if parameter.ndim > 1]
    spared = [parameter for parameter in trained if parameter.ndim <= 1]
    groups = [(decayed, choice.weight_decay), (spared, 0.0)]
    return [{"params": members, "weight_decay": decay} for members, decay in groups if members]
