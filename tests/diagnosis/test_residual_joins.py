"""Residual sums are found in anybody's code, and the branch is told from what is carried."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residuum.diagnosis.facts import JoinFacts
from residuum.diagnosis.probe import probe
from residuum.models.catalogue import create_model


def joins_of(network: nn.Module, images: Tensor) -> tuple[JoinFacts, ...]:
    labels = torch.arange(len(images)) % 5
    return probe(network, images, labels, loss=lambda output, labels: output.square().mean()).joins


def images(size: int = 32, count: int = 4, channels: int = 3) -> Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def in_place(out: Tensor, identity: Tensor) -> Tensor:
    out += identity
    return out


class Block(nn.Module):
    """A branch ten times as large as what is carried."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.branch, self.join = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1, bias=False), join
        self.sizes: tuple[float, float] = (0.0, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        identity = self.stem(x)
        out = 10 * self.branch(identity)
        self.sizes = out.std(correction=0).item(), identity.std(correction=0).item()
        return self.join(out, identity)


@pytest.mark.parametrize(
    "join",
    [
        in_place,
        lambda out, identity: out + identity,
        lambda out, identity: identity + out,
        lambda out, identity: torch.add(identity, out),
        lambda out, identity: out.add_(identity),
        lambda out, identity: F.relu(out + F.dropout(identity, 0.0)),
    ],
)
def test_a_sum_is_found_however_it_is_written(join: Callable[[Tensor, Tensor], Tensor]) -> None:
    network = Block(join)
    (found,) = joins_of(network, images())
    assert (found.branch_std, found.carried_std) == pytest.approx(network.sizes, rel=1e-4)
    assert found.gradient_std > 0
    assert found.after == 2


def test_the_share_is_that_of_mean_squares() -> None:
    class Ones(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Linear(4, 4, bias=False)
            nn.init.eye_(self.branch.weight)

        def forward(self, x: Tensor) -> Tensor:
            return 3 * self.branch(x) + x

    (found,) = joins_of(Ones(), torch.ones(4, 4))
    assert found.share == pytest.approx(0.9)
    assert found.std == 0.0


@pytest.mark.parametrize(
    "forward",
    [
        lambda x, layer: layer(x) + 1,
        lambda x, layer: layer(x) + layer.bias,
        lambda x, layer: layer(x) + torch.ones(4, 4),
        lambda x, layer: layer(x) * x,
        lambda x, layer: layer(x) - x,
    ],
)
def test_other_sums_are_no_joins(forward: Callable[[Tensor, nn.Linear], Tensor]) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return forward(x, self.layer)

    assert joins_of(Network(), torch.randn(4, 4)) == ()


def test_torchvisions_blocks_have_one_join_each() -> None:
    from torchvision.models.resnet import resnet18

    torch.manual_seed(0)
    found = joins_of(resnet18(num_classes=5), images())
    assert [join.name for join in found] == [f"layer{stage}.{unit}" for stage in range(1, 5) for unit in range(2)]
    assert all(join.branch_std == pytest.approx(1.0, abs=0.1) for join in found)  # a batch normalisation ends it
    assert found[0].carried_std < 0.9  # a ReLU came last


@pytest.mark.parametrize(("name", "units"), [("resnet14", 6), ("preact_resnet18", 8), ("resnet50", 16)])
def test_our_own_units_have_one_join_each(name: str, units: int) -> None:
    torch.manual_seed(0)
    found = joins_of(create_model(name, num_classes=5), images())
    assert len(found) == units
    assert all(0 < join.share < 1 for join in found)


def test_a_branch_that_starts_at_zero_has_no_share() -> None:
    found = joins_of(create_model("resnet14", num_classes=5, zero_gamma=True), images())
    assert [join.share for join in found] == [0.0] * 6


def test_plain_networks_have_none() -> None:
    assert joins_of(create_model("plain14", num_classes=5), images()) == ()


@pytest.mark.parametrize(("name", "joins"), [("densenet121", 0), ("convnext_tiny", 18), ("mobilenet_v2", 10)])
def test_networks_of_torchvision_are_followed(name: str, joins: int) -> None:
    assert len(joins_of(create_model(f"torchvision/{name}", num_classes=5), images(count=2))) == joins


def test_a_transformers_sums_are_found() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    network = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    found = joins_of(network, torch.randn(4, 5, 16))
    assert len(found) == 6
    assert all(0 < join.share < 0.5 for join in found)
