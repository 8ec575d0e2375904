"""What stands in the place of batch normalisation, against torch.nn's own."""

import pytest
import torch
from torch import nn

from residuum.errors import UserError
from residuum.models.catalogue import create_model, create_skeleton
from residuum.models.normalisation import NORMALISATIONS, Shift, groups_of, replace_normalisation


def replaced(normalisation: str, channels: int = 8) -> nn.Module:
    network = nn.Sequential(nn.BatchNorm2d(channels, eps=1e-3))
    nn.init.normal_(network[0].weight)
    nn.init.normal_(network[0].bias)
    before = dict(network.named_parameters())
    replace_normalisation(network, normalisation, "test")
    assert all(parameter is before[name] for name, parameter in network.named_parameters())
    return network[0]


def test_layer_normalisation_is_torch_s_over_all_axes_of_an_image() -> None:
    norm, x = replaced("layer"), torch.randn(3, 8, 5, 4)
    expected = nn.LayerNorm([8, 5, 4], eps=1e-3, elementwise_affine=False)(x)
    torch.testing.assert_close(norm(x), expected * norm.weight[:, None, None] + norm.bias[:, None, None])


def test_group_normalisation_is_that_of_each_group_of_channels() -> None:
    norm, x = replaced("group"), torch.randn(3, 8, 5, 4)
    groups = x.reshape(3, 4, -1)
    scaled = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, keepdim=True, unbiased=False) + 1e-3).sqrt()
    expected = scaled.reshape(x.shape) * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected)


def test_without_normalisation_only_the_shift_is_left() -> None:
    norm, x = replaced("none"), torch.randn(3, 8, 5, 4)
    assert torch.equal(norm(x), x + norm.bias.reshape(1, 8, 1, 1))
    assert [name for name, _ in norm.named_parameters()] == ["bias"]


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (2, 1), (7, 1), (6, 3), (16, 8), (32, 16), (64, 32), (96, 32), (256, 32), (80, 20)]
)
def test_groups_divide_the_channels_and_have_two_at_least(channels: int, groups: int) -> None:
    assert groups_of(channels) == groups


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_no_batch_normalisation_is_left_and_the_names_stay(normalisation: str) -> None:
    for name in ("resnet8", "preact_resnet8", "resnet8_relu_preact", "torchvision/resnet18"):
        original, other = create_model(name), create_model(name, normalisation=normalisation)
        kept = [module for module in other.modules() if isinstance(module, nn.BatchNorm2d)]
        assert bool(kept) == (normalisation == "batch")
        names = {key for key, _ in original.named_parameters()}
        lost = names - {key for key, _ in other.named_parameters()}
        assert all(original.get_parameter(key).ndim == 1 and key.endswith(".weight") for key in lost)
        assert bool(lost) == (normalisation == "none")


@pytest.mark.parametrize("normalisation", ["layer", "group", "none"])
def test_one_image_is_treated_as_it_is_in_a_batch(normalisation: str) -> None:
    network = create_model("resnet8", normalisation=normalisation)
    images = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(network(images)[:1], network(images[:1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalisation", ["layer", "group"])
def test_zero_gamma_zeroes_the_normalisation_that_is_there(normalisation: str) -> None:
    for unit in create_model("resnet8", normalisation=normalisation, zero_gamma=True).units():
        assert not unit.bn2.weight.any()
        assert isinstance(unit.bn2, nn.GroupNorm)


def test_zero_gamma_without_a_gamma_is_refused() -> None:
    with pytest.raises(UserError, match="zero_gamma needs a normalisation"):
        create_model("resnet8", normalisation="none", zero_gamma=True)


@pytest.mark.parametrize("normalisation", ["layer", "group", "none"])
@pytest.mark.parametrize("name", ["resnet18", "torchvision/resnet18", "torchvision/regnet_y_400mf"])
def test_it_is_built_on_the_meta_device_as_well(name: str, normalisation: str) -> None:
    norms = [
        module
        for module in create_skeleton(name, normalisation=normalisation).modules()
        if isinstance(module, (nn.GroupNorm, Shift))
    ]
    assert norms
    assert all(parameter.is_meta for norm in norms for parameter in norm.parameters())


@pytest.mark.parametrize("name", ["lenet5", "torchvision/vgg11"])
def test_a_network_without_batch_normalisation_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} has no batch normalisation to replace; leave out normalisation=layer"):
        create_skeleton(name, normalisation="layer")


def test_normalisation_that_does_more_is_refused_and_what_a_library_zeroed_stays_zero() -> None:
    pytest.importorskip("timm")
    with pytest.raises(UserError, match=r"BatchNormAct2d.*cannot be replaced"):
        create_skeleton("timm/efficientnet_b0", normalisation="group")
    assert not create_model("timm/resnet18", normalisation="group").layer1[0].bn2.weight.any()


def test_an_unknown_normalisation_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match="did you mean batch"):
        create_model("resnet8", normalisation="bach")
