"""The weights that a network starts from, where not those of its own definition."""

from collections.abc import Callable

from torch import Tensor, nn

from residuum.errors import unknown_name
from residuum.models.shortcuts import Gate

GAUSSIAN_STD = 0.01


def he(weight: Tensor) -> None:
    """Normal with variance 2 / fan-out: He et al. 2015, arXiv 1502.01852, equation 14."""
    nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")


def xavier(weight: Tensor) -> None:
    """Uniform with variance 2 / (fan-in + fan-out): Glorot and Bengio 2010, equation 16."""
    nn.init.xavier_uniform_(weight)


def gaussian(weight: Tensor) -> None:
    """Normal with standard deviation 0.01 in every layer: Krizhevsky et al. 2012, section 5."""
    nn.init.normal_(weight, std=GAUSSIAN_STD)


INITIALISATIONS: dict[str, Callable[[Tensor], None]] = {"he": he, "xavier": xavier, "gaussian": gaussian}


def initialise_by(network: nn.Module, initialisation: str) -> None:
    """Draw the weights of every convolution and linear layer of `network` anew; their biases become zero.

    initialisation: "he", "xavier" or "gaussian". The last linear layer has no rectifier behind it: "he" leaves its
    weights as they are, so that it is the residual networks' own initialisation. Gates keep the bias that they are
    defined with. Raises UserError for an unknown name.
    """
    if initialisation not in INITIALISATIONS:
        raise unknown_name("initialisation", initialisation, INITIALISATIONS)
    layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    classifier = next((layer for layer in reversed(layers) if isinstance(layer, nn.Linear)), None)
    for layer in layers:
        keeps_weights = layer is classifier and initialisation == "he"
        if not keeps_weights and not layer.weight.is_meta:  # drawing nothing takes its time, too
            INITIALISATIONS[initialisation](layer.weight)
        if layer.bias is not None and not isinstance(layer, Gate):
            nn.init.zeros_(layer.bias)
