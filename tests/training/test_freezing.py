import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn

from residuum.errors import UserError
from residuum.models.catalogue import create_model
from residuum.training.freezing import freeze_until
from residuum.training.optimizers import build_optimizer
from residuum.training.run import OptimizerChoice


def block(channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.Dropout(0.5))


def small_network() -> nn.Module:
    torch.manual_seed(0)
    parts = {
        "conv1": nn.Conv2d(1, 2, 3),
        "layer1": block(2),
        "layer2": block(2),
        "pool": nn.AdaptiveAvgPool2d(1),
    }
    return nn.Sequential(OrderedDict(parts, flatten=nn.Flatten(), fc=nn.Linear(2, 3)))


def train_one_step(network: nn.Module) -> None:
    network.train()
    optimizer = build_optimizer(OptimizerChoice("momentum", lr=0.1, weight_decay=0.1), network)
    network(torch.randn(4, 1, 6, 6)).square().sum().backward()
    optimizer.step()


def changed_children(network: nn.Module) -> set[str]:
    before = copy.deepcopy(network.state_dict())
    train_one_step(network)
    after = network.state_dict()
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


def test_everything_before_the_child_keeps_weights_and_statistics() -> None:
    network = small_network()
    freeze_until(network, "layer2")
    assert changed_children(network) == {"layer2", "fc"}


def test_frozen_children_stay_in_evaluation_mode_when_the_network_trains() -> None:
    network = small_network()
    freeze_until(network, "layer2")
    network.train()
    assert not any(module.training for module in network.get_submodule("layer1").modules())
    assert all(module.training for module in network.get_submodule("layer2").modules())


def test_a_copy_of_a_frozen_network_is_frozen_by_itself() -> None:
    network = small_network()
    freeze_until(network, "layer2")
    twin = copy.deepcopy(network)
    assert twin.get_submodule("layer1").train() is twin.get_submodule("layer1")
    assert changed_children(twin) == {"layer2", "fc"}


def test_a_residual_network_is_frozen_up_to_a_stage() -> None:
    network = create_model("resnet20", num_classes=3)
    freeze_until(network, "layer3")
    trained = {name.split(".")[0] for name, value in network.named_parameters() if value.requires_grad}
    assert trained == {"layer3", "fc"}


def test_the_first_child_freezes_nothing() -> None:
    network = small_network()
    freeze_until(network, "conv1")
    assert changed_children(network) == {"conv1", "layer1", "layer2", "fc"}


def test_parameters_outside_any_child_are_frozen() -> None:
    network = small_network()
    network.register_parameter("position", nn.Parameter(torch.zeros(2)))
    freeze_until(network, "fc")
    assert not network.get_parameter("position").requires_grad


def test_an_unknown_child_is_refused_with_the_children() -> None:
    with pytest.raises(UserError, match=r"unknown child to freeze until 'layer5'.*layer2.*fc"):
        freeze_until(small_network(), "layer5")


def test_leaving_nothing_to_train_is_refused() -> None:
    network = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3), pool=nn.MaxPool2d(2)))
    with pytest.raises(UserError, match="leaves nothing to train"):
        freeze_until(network, "pool")
