from collections import OrderedDict

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from residuum.training.bn_statistics import recompute_bn
from residuum.training.freezing import freeze_until


def small_network() -> nn.Module:
    torch.manual_seed(0)
    parts: dict[str, nn.Module] = {}
    for number, channels in enumerate([(1, 3), (3, 2)], start=1):
        parts[f"conv{number}"] = nn.Conv2d(*channels, 3)
        parts[f"bn{number}"] = nn.BatchNorm2d(channels[1])
    return nn.Sequential(OrderedDict(parts))


def batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(6, 1, 7, 7, generator=generator) * scale for scale in (1.0, 2.0, 5.0)]


def test_first_layers_statistics_are_the_plain_average_of_the_batches() -> None:
    network = small_network()
    recompute_bn(network, batches())
    outputs = [network.get_submodule("conv1")(images) for images in batches()]
    bn = network.get_submodule("bn1")
    assert isinstance(bn, nn.BatchNorm2d)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    mean = torch.stack([output.mean((0, 2, 3)) for output in outputs]).mean(0)
    variance = torch.stack([output.var((0, 2, 3)) for output in outputs]).mean(0)
    torch.testing.assert_close(bn.running_mean, mean)
    torch.testing.assert_close(bn.running_var, variance)


def test_a_plain_network_gets_what_torchs_update_bn_gives() -> None:
    ours, theirs = small_network(), small_network()
    recompute_bn(ours, batches())
    update_bn(batches(), theirs)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, msg=name)
    assert not ours.training
    assert [bn.momentum for bn in ours.modules() if isinstance(bn, nn.BatchNorm2d)] == [0.1, 0.1]


def test_frozen_layers_keep_their_statistics() -> None:
    network = small_network()
    network(torch.randn(4, 1, 7, 7))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    freeze_until(network, "conv2")
    recompute_bn(network, batches())
    after = network.state_dict()
    assert torch.equal(before["bn1.running_mean"], after["bn1.running_mean"])
    assert not torch.equal(before["bn2.running_mean"], after["bn2.running_mean"])


def test_dropout_is_off() -> None:
    plain = small_network()
    noisy = nn.Sequential(OrderedDict(drop=nn.Dropout(0.9), net=small_network()))
    recompute_bn(plain, batches())
    recompute_bn(noisy, batches())
    torch.testing.assert_close(noisy.state_dict()["net.bn1.running_var"], plain.state_dict()["bn1.running_var"])
