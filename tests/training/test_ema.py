import copy

import torch
from torch import nn

from residuum.training.ema import WeightAverage


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU())


def train_a_little(network: nn.Module) -> None:
    network(torch.randn(4, 1, 5, 5))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))


def test_average_follows_the_plain_formula_with_its_rising_decay() -> None:
    network = small_network()
    average = WeightAverage(network, decay=0.3)
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    for update in range(6):
        train_a_little(network)
        average.update(network)
        decay = min(0.3, (1 + update) / (10 + update))
        for name, value in network.state_dict().items():
            moving = value.is_floating_point()
            expected[name] = decay * expected[name] + (1 - decay) * value if moving else value.clone()
    assert decay == 0.3
    for name, value in average.network.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)


def test_average_evaluates_without_gradients_and_leaves_the_network_alone() -> None:
    network = small_network()
    average = WeightAverage(network, decay=0.9)
    before = copy.deepcopy(network.state_dict())
    average.update(network)
    assert not average.network.training
    assert network.training
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_resumed_average_equals_uninterrupted_average() -> None:
    torch.manual_seed(1)
    network = small_network()
    whole = WeightAverage(network, decay=0.99)
    for _ in range(3):
        train_a_little(network)
        whole.update(network)
    resumed = WeightAverage(small_network(), decay=0.99)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for _ in range(3):
        train_a_little(network)
        whole.update(network)
        resumed.update(network)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
