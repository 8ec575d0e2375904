"""The orders of He et al. 2016, figure 4, against forward passes written out by hand, in training."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residuum.errors import UserError
from residuum.models.catalogue import create_model
from residuum.models.he2016_units import BNAfterAddition, BNAfterReLU, ReLUBeforeAddition, ReLUPreActivation
from residuum.models.shortcuts import option_a, option_b
from residuum.models.units import Basic


def bn(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
    scaled = (x - mean) / (var + layer.eps).sqrt()
    return scaled * layer.weight[:, None, None] + layer.bias[:, None, None]


def carried(unit: Basic, x: Tensor) -> Tensor:
    stride = unit.conv1.stride[0]
    missing = unit.out_channels - x.shape[1]
    return torch.cat(
        [x[:, :, ::stride, ::stride], x.new_zeros(len(x), missing, *x[:, 0, ::stride, ::stride].shape[1:])], 1
    )


def figure_4a(u: Basic, x: Tensor) -> Tensor:
    return torch.relu(bn(u.bn2, u.conv2(torch.relu(bn(u.bn1, u.conv1(x))))) + carried(u, x))


def figure_4b(u: Basic, x: Tensor) -> Tensor:
    return torch.relu(bn(u.bn2, u.conv2(torch.relu(bn(u.bn1, u.conv1(x)))) + carried(u, x)))


def figure_4c(u: Basic, x: Tensor) -> Tensor:
    return torch.relu(bn(u.bn2, u.conv2(torch.relu(bn(u.bn1, u.conv1(x)))))) + carried(u, x)


def figure_4d(u: Basic, x: Tensor) -> Tensor:
    return bn(u.bn2, u.conv2(torch.relu(bn(u.bn1, u.conv1(torch.relu(x)))))) + carried(u, x)


def turned(u: Basic, x: Tensor) -> Tensor:
    return bn(u.bn2, torch.relu(u.conv2(bn(u.bn1, torch.relu(u.conv1(x)))))) + carried(u, x)


UNITS: list[tuple[type[Basic], Callable[[Basic, Tensor], Tensor]]] = [
    (Basic, figure_4a),
    (BNAfterAddition, figure_4b),
    (ReLUBeforeAddition, figure_4c),
    (ReLUPreActivation, figure_4d),
    (BNAfterReLU, turned),
]


def randomised(network: nn.Module) -> nn.Module:
    """With scales and shifts that are not 1 and 0, so that their places show."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return network.double()


@pytest.mark.parametrize(("in_channels", "stride"), [(6, 1), (4, 2)])
@pytest.mark.parametrize(("unit_type", "by_hand"), UNITS, ids=lambda value: value.__name__)
def test_output_and_gradient_of_a_unit_are_those_of_its_figure(
    unit_type: type[Basic], by_hand: Callable[[Basic, Tensor], Tensor], in_channels: int, stride: int
) -> None:
    torch.manual_seed(0)
    unit = randomised(unit_type(in_channels, 6, stride, option_a, 0.0))
    x = torch.randn(3, in_channels, 6, 6, dtype=torch.float64, requires_grad=True)
    before = x.detach().clone()
    weights = torch.randn(3, 6, 6 // stride, 6 // stride, dtype=torch.float64)
    results = []
    for forward in (unit, lambda x: by_hand(unit, x)):
        out = forward(x)
        results.append((out, *torch.autograd.grad((out * weights).sum(), [x, *unit.parameters()])))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)
    assert torch.equal(x, before), "what is carried must not be overwritten"


def through(units: list[Basic], figure: Callable[[Basic, Tensor], Tensor], x: Tensor) -> Tensor:
    for unit in units:
        x = figure(unit, x)
    return x


def features(name: str, network: nn.Module, images: Tensor) -> Tensor:
    """What is averaged, with the surroundings that the paper's appendix gives the units."""
    x, units, relu = network.conv1(images), network.units(), torch.relu
    if name == "resnet8_relu_preact":  # the first unit's ReLU comes before the split into two paths
        return relu(through(units, figure_4d, relu(bn(network.bn1, x))))
    if name == "resnet8_bn_after_relu":
        return through(units, turned, bn(network.bn1, relu(x)))
    return through(units, FIGURES[name], relu(bn(network.bn1, x)))


FIGURES = {
    "resnet8": figure_4a,
    "resnet8_bn_after_addition": figure_4b,
    "resnet8_relu_before_addition": figure_4c,
    "resnet8_relu_preact": figure_4d,
    "resnet8_bn_after_relu": turned,
}


@pytest.mark.parametrize("name", FIGURES)
def test_stem_and_head_are_those_of_the_paper_s_appendix(name: str) -> None:
    torch.manual_seed(0)
    network = randomised(create_model(name))
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    expected = network.fc(features(name, network, images).mean((2, 3)))
    torch.testing.assert_close(network(images), expected)


@pytest.mark.parametrize("name", FIGURES)
def test_every_order_has_the_parameters_of_the_original_and_their_names(name: str) -> None:
    original, other = create_model("resnet20"), create_model(name.replace("8", "20"))
    assert {key: value.shape for key, value in other.state_dict().items()} == {
        key: value.shape for key, value in original.state_dict().items()
    }


@pytest.mark.parametrize("name", [*FIGURES, "preact_resnet8"])
def test_a_member_of_option_a_has_as_many_parameters_as_the_plain_net_of_its_depth(name: str) -> None:
    def count(name: str) -> int:
        return sum(parameter.numel() for parameter in create_model(name).parameters())

    assert count(name.replace("8", "20")) == count("plain20") == 269_722


def test_projections_of_relu_only_pre_activation_read_the_activated_input() -> None:
    unit = ReLUPreActivation(4, 4, 2, option_b, 0.0).eval()
    unit.zero_residual()
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(unit(x), unit.downsample[1](F.conv2d(x.relu(), unit.downsample[0].weight, stride=2)))


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        *((name, "relu") for name in FIGURES if name != "resnet8_relu_before_addition"),
        ("resnet8_relu_before_addition", "tanh"),
        ("preact_resnet8", "relu"),
        ("wide_resnet10_1", "relu"),
        ("resnext29_1x4d", "relu"),
    ],
)
def test_branches_that_start_at_zero_learn(name: str, activation: str) -> None:
    torch.manual_seed(0)
    network = create_model(name, zero_gamma=True, activation=activation)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(network(torch.randn(4, 3, 8, 8)), torch.arange(4)).backward()
        optimizer.step()
    still = [key for key, value in network.named_parameters() if torch.equal(value, before[key])]
    assert not still


def test_zero_gamma_is_refused_where_relu_would_keep_the_branch_at_zero_for_good() -> None:
    with pytest.raises(UserError, match="no gradient would ever reach the branches; leave zero_gamma out"):
        create_model("resnet8_relu_before_addition", zero_gamma=True)
