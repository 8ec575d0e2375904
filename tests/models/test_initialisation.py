"""Initialisations by the variance that is measured in what they draw."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from residuum.errors import UserError
from residuum.models.catalogue import create_model
from residuum.models.initialisation import INITIALISATIONS

VARIANCES: dict[str, Callable[[float, float], float]] = {
    "he": lambda fan_in, fan_out: 2 / fan_out,
    "xavier": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "gaussian": lambda fan_in, fan_out: 1e-4,
}


@pytest.mark.parametrize("initialisation", INITIALISATIONS)
@pytest.mark.parametrize("name", ["resnet18", "lenet5", "preact_resnet8"])
def test_weights_have_the_variance_of_the_paper_and_biases_are_zero(name: str, initialisation: str) -> None:
    torch.manual_seed(0)
    network = create_model(name, initialisation=initialisation)
    layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    for layer in layers[:-1]:
        pixels = layer.weight[0, 0].numel() if layer.weight.ndim == 4 else 1
        fans = layer.weight.shape[1] * pixels, layer.weight.shape[0] * pixels
        tolerance = 6 / layer.weight.numel() ** 0.5  # of some four standard errors of a normal's variance
        assert layer.weight.var().item() == pytest.approx(VARIANCES[initialisation](*fans), rel=tolerance)
        errors = layer.weight.mean() / (layer.weight.var() / layer.weight.numel()).sqrt()
        assert errors.abs() < 5, "standard errors from zero"
    assert all(layer.bias is None or not layer.bias.any() for layer in layers)


def test_he_s_is_the_residual_networks_own() -> None:
    torch.manual_seed(0)
    own = create_model("resnet20")
    torch.manual_seed(0)
    he = create_model("resnet20", initialisation="he")
    assert torch.equal(own.fc.weight, he.fc.weight)
    for a, b in zip(own.parameters(), he.parameters(), strict=True):
        assert a.var(correction=0).item() == pytest.approx(b.var(correction=0).item(), rel=0.2, abs=1e-9)


@pytest.mark.parametrize("initialisation", INITIALISATIONS)
def test_the_same_seed_draws_the_same(initialisation: str) -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn.append(create_model("resnet8", initialisation=initialisation).state_dict())
    assert all(torch.equal(value, drawn[1][key]) for key, value in drawn[0].items())


@pytest.mark.parametrize(("shortcut", "bias"), [("gated", -2.0), ("shortcut-gated", -6.0)])
def test_gates_keep_their_bias_and_normalisation_its_scale(shortcut: str, bias: float) -> None:
    network = create_model("resnet8", shortcut=shortcut, initialisation="gaussian")
    assert all((unit.downsample.gate.bias == bias).all() for unit in network.units())
    assert (network.bn1.weight == 1).all()


def test_a_branch_that_starts_at_zero_stays_there() -> None:
    for unit in create_model("preact_resnet8", initialisation="xavier", zero_gamma=True).units():
        assert not unit.conv2.weight.any()


def test_an_unknown_initialisation_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match="did you mean xavier"):
        create_model("resnet8", initialisation="xavie")
