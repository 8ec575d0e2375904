"""The activation as a part of trunk and units: what is called, seen from PyTorch's dispatcher."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from residuum.errors import UserError
from residuum.models.catalogue import CATALOGUE, create_model, find

SMALL = ["resnet8", "plain8", "preact_resnet8", "wide_resnet10_1", "resnet8_bn_after_addition"]
SMALL += ["resnet8_relu_before_addition", "resnet8_relu_preact", "resnet8_bn_after_relu", "resnext29_2x4d"]


class Called(TorchDispatchMode):
    """The names of the operations, counted."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__.rstrip("_"))
        return func(*args, **(kwargs or {}))


def activations(name: str, **options: Any) -> dict[str, int]:
    network = create_model(name, **options)
    with Called() as called:
        network(torch.randn(2, 3, 8, 8))
    return {kind: called.names.count(kind) for kind in ("relu", "tanh")}


@pytest.mark.parametrize("name", SMALL)
def test_a_tanh_network_has_no_relu_and_as_many_tanh(name: str) -> None:
    count = activations(name)["relu"]
    assert activations(name) == {"relu": count, "tanh": 0}
    assert activations(name, activation="tanh") == {"relu": 0, "tanh": count}
    assert count >= 6


@pytest.mark.parametrize("name", SMALL)
def test_the_activation_changes_neither_weights_nor_their_names(name: str) -> None:
    torch.manual_seed(0)
    relu = create_model(name).state_dict()
    torch.manual_seed(0)
    tanh = create_model(name, activation="tanh").state_dict()
    assert [*relu] == [*tanh]
    assert all(torch.equal(relu[key], tanh[key]) for key in relu)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_network_is_copied_and_pickled_with_its_activation(activation: str) -> None:
    network = create_model("resnet8", activation=activation).eval()
    images = torch.randn(2, 3, 8, 8)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(images), network(images))


@pytest.mark.parametrize("name", ["lenet5", "resnet9", "resnet9_16", "torchvision/resnet18"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_networks_without_a_choice_of_activations_say_so(name: str, activation: str) -> None:
    with pytest.raises(UserError, match=f"{name} has no choice of activations; leave out activation='{activation}'"):
        create_model(name, activation=activation)


def test_all_other_networks_of_ours_have_the_choice() -> None:
    assert [name for name in CATALOGUE if not find(name).has_activation] == ["resnet9", "resnet9_16", "lenet5"]


def test_an_unknown_activation_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match="allowed: relu, tanh"):
        create_model("resnet8", activation="gelu")
