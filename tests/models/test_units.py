import pytest
import torch

from residuum.models.catalogue import create_model
from residuum.models.units import DropPath


def test_drop_path_keeps_the_expectation_and_drops_whole_images():
    torch.manual_seed(0)
    out = DropPath(0.3)(torch.ones(20_000, 2, 1, 1))
    assert out.mean().item() == pytest.approx(1.0, abs=0.02)
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert torch.equal(out[:, 0], out[:, 1])


def test_drop_path_does_nothing_in_evaluation():
    x = torch.randn(4, 2, 3, 3)
    assert torch.equal(DropPath(0.9).eval()(x), x)


def test_drop_path_rates_grow_linearly_to_the_given_one():
    rates = [unit.drop_path.rate for unit in create_model("resnet20", drop_path=0.9).units()]
    assert rates == pytest.approx([0.9 * number / 9 for number in range(1, 10)])


@pytest.mark.parametrize(
    "name",
    [
        "resnet20",
        "preact_resnet110",
        "wide_resnet10_1",
        "resnext29_8x64d",
        "resnet8_bn_after_addition",
        "resnet8_relu_before_addition",
        "resnet8_relu_preact",
        "resnet8_bn_after_relu",
    ],
)
def test_zero_gamma_makes_every_branch_return_zero(name):
    activation = "tanh" if name.endswith("relu_before_addition") else "relu"  # which cannot learn with ReLU
    network = create_model(name, zero_gamma=True, activation=activation).eval()
    for unit in network.units():
        x = torch.randn(1, unit.conv1.in_channels, 8, 8)
        assert not unit.residual(x).any()


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("resnet50", (2, 1)),
        ("resnet50_v1_5", (1, 2)),
        ("preact_resnet50", (1, 2)),
        ("preact_resnet164", (2, 1)),
        ("resnext50_32x4d", (1, 2)),
    ],
)
def test_the_stride_sits_where_the_source_puts_it(name, strides):
    with torch.device("meta"):
        unit = create_model(name).layer2[0]
    assert (unit.conv1.stride[0], unit.conv2.stride[0]) == strides


def test_pre_activation_carries_identity_raw_except_past_the_first_activation():
    network = create_model("preact_resnet110").eval()
    first, second = network.layer1[0], network.layer1[1]
    for unit in (first, second):
        unit.zero_residual()
    x = torch.randn(1, 16, 4, 4)
    assert torch.equal(second(x), x)
    assert torch.equal(first(x), torch.relu(first.bn1(x)))


def test_initialisation_is_he_fan_out_with_zero_classifier_bias():
    torch.manual_seed(0)
    network = create_model("resnet18")
    conv = network.layer4[0].conv2.weight
    assert conv.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.01)
    assert not network.fc.bias.any()
    assert (network.bn1.weight == 1).all()
    assert (network.bn1.bias == 0).all()
