"""What every network of the catalogue keeps."""

import re

import pytest
import torch
from safetensors.torch import load, save

from residuum.errors import UserError
from residuum.models.catalogue import CATALOGUE, create_model, find
from residuum.models.normalisation import NORMALISATIONS
from residuum.models.shortcuts import SHORTCUTS

SMALL = ["resnet8", "resnet18", "plain8", "plain18", "preact_resnet18", "wide_resnet10_2", "lenet5"]
ORDERS = [f"resnet8_{order}" for order in ("bn_after_addition", "relu_before_addition", "relu_preact", "bn_after_relu")]
FAMILIES = [*ORDERS, "preact_resnet8", "resnext29_2x4d"]
BOTTLENECKS = ["resnet50", "resnet50_v1_5", "preact_resnet50", "resnext50_32x4d"]
WITH_SHORTCUTS = [name for name in CATALOGUE if find(name).has_shortcuts]
# The same units again, more of them.
DEEP = re.compile(r".*(101|110|152|200|1001|1202)")


def built_on_meta(name, **options):
    with torch.device("meta"):
        return create_model(name, **options)


@pytest.mark.parametrize("name", CATALOGUE)
def test_any_channels_and_classes_give_logits_from_fc(name):
    network = built_on_meta(name, in_channels=5, num_classes=3).to_empty(device="cpu").eval()
    with torch.inference_mode():
        assert network(torch.empty(0, 5, 64, 64)).shape == (0, 3)
    assert network.conv1.in_channels == 5
    assert network.fc.out_features == 3


@pytest.mark.parametrize(("name", "classes"), [("resnet18", 1000), ("resnet20", 10), ("lenet5", 10)])
def test_the_paper_s_number_of_classes_is_the_default(name, classes):
    assert built_on_meta(name).fc.out_features == classes


@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("name", [name for name in WITH_SHORTCUTS if not DEEP.match(name)])
def test_every_shortcut_works_on_every_network_of_ours(name, shortcut):
    network = built_on_meta(name, shortcut=shortcut).to_empty(device="cpu").eval()
    with torch.inference_mode():
        assert network(torch.empty(0, 3, 64, 64)).shape == (0, find(name).task.classes)


@pytest.mark.parametrize("name", SMALL + FAMILIES + BOTTLENECKS)
def test_every_parameter_gets_a_finite_gradient_that_is_not_zero(name):
    torch.manual_seed(0)
    network = create_model(name, num_classes=3)
    network(torch.randn(4, 3, 40, 40)).square().sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name


@pytest.mark.parametrize(
    "options", [{"normalisation": one} for one in NORMALISATIONS[1:]] + [{"activation": "tanh"}], ids=str
)
@pytest.mark.parametrize("name", ["resnet8", "plain8", *FAMILIES])
def test_every_part_trains_in_every_order(name, options):
    torch.manual_seed(0)
    network = create_model(name, num_classes=3, in_channels=1, **options)
    logits = network(torch.randn(4, 1, 16, 16))
    assert logits.shape == (4, 3)
    logits.square().sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name


@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("name", ["resnet8", "wide_resnet10_1", "preact_resnet18", *ORDERS])
def test_every_shortcut_trains(name, shortcut):
    torch.manual_seed(0)
    network = create_model(name, shortcut=shortcut, num_classes=3, drop_path=0.0 if shortcut == "none" else 0.2)
    network(torch.randn(4, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("name", SMALL + FAMILIES)
def test_state_dict_survives_safetensors_to_the_bit(name):
    network, copy = create_model(name).eval(), create_model(name).eval()
    copy.load_state_dict(load(save(network.state_dict())), strict=True)
    images = torch.randn(2, 3, 40, 40)
    with torch.inference_mode():
        assert torch.equal(copy(images), network(images))


@pytest.mark.parametrize("name", [name for name in CATALOGUE if not find(name).has_shortcuts])
def test_networks_without_shortcuts_refuse_them(name):
    with pytest.raises(UserError):
        create_model(name, shortcut="B")


@pytest.mark.parametrize("name", ["resnet8", "preact_resnet18", "lenet5"])
def test_same_seed_gives_the_same_weights(name):
    networks = []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(create_model(name).state_dict())
    assert all(torch.equal(value, networks[1][key]) for key, value in networks[0].items())


@pytest.mark.parametrize("size", [1, 2, 7, 33])
@pytest.mark.parametrize("name", ["resnet8", "resnet18", "preact_resnet18", "lenet5", *FAMILIES])
def test_any_image_size_goes_through(name, size):
    with torch.inference_mode():
        assert create_model(name).eval()(torch.randn(1, 3, size, size + 1)).isfinite().all()
