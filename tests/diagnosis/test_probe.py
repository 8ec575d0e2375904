"""What goes through a network, measured: equal to a computation by hand, and nothing of the network changed."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residuum.diagnosis.facts import LayerFacts, Probe
from residuum.diagnosis.numbers import spread
from residuum.diagnosis.probe import probe
from residuum.errors import UserError
from residuum.models.catalogue import create_model


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels_of(images: Tensor, classes: int = 5) -> Tensor:
    return torch.arange(len(images)) % classes


def seen(network: nn.Module, images: Tensor, training: bool = True) -> Probe:
    return probe(network, images, labels_of(images), training=training)


def by_name(found: Probe) -> dict[str, LayerFacts]:
    return {layer.name: layer for layer in found.layers}


def test_facts_of_a_small_network_are_those_computed_by_hand() -> None:
    torch.manual_seed(0)
    first, last, images = nn.Linear(6, 8), nn.Linear(8, 5), drawn(12, 6)
    found = seen(nn.Sequential(first, nn.ReLU(inplace=True), last), images)
    hidden = (images @ first.weight.T + first.bias).detach().requires_grad_()
    logits = hidden.relu() @ last.weight.T + last.bias
    loss = F.cross_entropy(logits, labels_of(images))
    slope, weight = torch.autograd.grad(loss, [hidden, last.weight])
    layer, head = found.layers
    assert (layer.name, head.name) == ("0", "2")
    assert found.loss == pytest.approx(loss.item(), rel=1e-5)
    assert layer.mean == pytest.approx(hidden.mean().item(), rel=1e-4)
    assert layer.std == pytest.approx(hidden.std(correction=0).item(), rel=1e-5)
    assert layer.gradient_std == pytest.approx(12 * slope.std(correction=0).item(), rel=1e-4)
    assert layer.sensitivity == pytest.approx((hidden.norm(dim=1) * 12 * slope.norm(dim=1)).mean().item(), rel=1e-4)
    assert head.weight_norm == pytest.approx(last.weight.norm().item(), rel=1e-5)
    assert head.weight_gradient_norm == pytest.approx(weight.norm().item(), rel=1e-4)
    assert head.update_ratio(0.5) == pytest.approx(0.5 * (weight.norm() / last.weight.norm()).item(), rel=1e-4)
    units = F.normalize(hidden.detach(), dim=1)
    assert layer.variation == pytest.approx(1 - (units @ units.T).mean().item(), abs=1e-5)


def test_the_spread_is_the_distance_from_the_mean_over_images() -> None:
    values = drawn(12, 3, 4) + 50
    expected = (values - values.mean(dim=0)).square().mean().sqrt().item()
    assert spread(values, 12) == pytest.approx(expected, rel=1e-5)
    assert spread(values.transpose(0, 1), 12) == pytest.approx(expected, rel=1e-5)
    assert spread(torch.ones(4, 2), 4) == 0
    assert math.isnan(spread(torch.ones(5, 3), 4))


def test_a_convolution_counts_its_kernel_and_its_dead_channels() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, (3, 1)), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    images = drawn(6, 3, 5, 5)
    network(images)
    with torch.no_grad():
        network[0].bias[1] = -100.0
    layer, head = seen(network, images).layers
    assert (layer.kind, layer.kernel, layer.activation, layer.dead) == ("convolution", (3, 1), "relu", 0.25)
    assert (head.kind, head.kernel, head.activation) == ("linear", (), "")
    assert math.isnan(head.dead)


@pytest.mark.parametrize(
    ("activate", "name", "dies", "saturates"),
    [
        (nn.ReLU(inplace=True), "relu", True, False),
        (nn.ReLU6(), "relu", True, False),
        (F.relu, "relu", True, False),
        (torch.relu, "relu", True, False),
        (torch.relu_, "relu", True, False),
        (lambda x: x.clamp(0, 6), "relu", True, False),
        (lambda x: x.clamp(min=0), "relu", True, False),
        (nn.GELU(), "gelu", True, False),
        (F.silu, "silu", True, False),
        (nn.LeakyReLU(), "leaky_relu", False, False),
        (nn.Tanh(), "tanh", False, True),
        (nn.Hardtanh(), "hardtanh", False, True),
        (lambda x: x.sigmoid(), "sigmoid", False, True),
    ],
)
def test_activations_are_seen_however_they_are_written(
    activate: Callable[[Tensor], Tensor], name: str, dies: bool, saturates: bool
) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(activate(self.first(x)))

    layer = seen(Network(), drawn(12, 6)).layers[0]
    assert layer.activation == name
    assert (not math.isnan(layer.dead), not math.isnan(layer.saturated)) == (dies, saturates)


def test_saturation_is_the_share_within_a_hundredth_of_the_ends() -> None:
    network = nn.Sequential(nn.Linear(1, 4, bias=False), nn.Tanh(), nn.Linear(4, 5))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[0.1], [1.0], [3.0], [-9.0]]))
    assert seen(network, torch.ones(2, 1)).layers[0].saturated == 0.5


def test_a_layer_that_is_called_twice_has_two_lines() -> None:
    shared = nn.Linear(6, 6)
    found = seen(nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(6, 5)), drawn(8, 6))
    assert [(layer.name, layer.call) for layer in found.layers] == [("0", 0), ("0", 1), ("3", 0)]
    assert found.layers[0].std != found.layers[1].std
    assert found.layers[0].weight_gradient_norm == found.layers[1].weight_gradient_norm


def test_layers_come_in_the_order_in_which_they_compute() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(4, 5), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x))

    assert [layer.name for layer in seen(Backwards(), drawn(4, 6)).layers] == ["first", "last"]


def test_batch_statistics_stand_beside_the_running_ones() -> None:
    norm = nn.BatchNorm2d(2, eps=0.5)
    with torch.no_grad():
        norm.running_mean.copy_(torch.tensor([1.0, 0.0]))
        norm.running_var.fill_(3.5)
        norm.num_batches_tracked.fill_(100)
    images = drawn(8, 2, 6, 6) * torch.tensor([2.0, 0.1])[:, None, None]
    facts = by_name(seen(nn.Sequential(norm, nn.Flatten(), nn.Linear(72, 5)), images))["0"].normaliser
    assert facts is not None
    mean, variance = images.mean(dim=(0, 2, 3)), images.var(dim=(0, 2, 3), correction=0)
    expected = ((mean - torch.tensor([1.0, 0.0])) ** 2 / 4).mean().sqrt()
    assert (facts.eps, facts.small, facts.flat) == (0.5, 0.5, 0.0)
    assert facts.shift == pytest.approx(expected.item(), rel=1e-4)
    assert facts.stretch == pytest.approx(((variance + 0.5) / 4).median().item(), rel=1e-4)


def test_statistics_of_hardly_any_batches_are_not_judged() -> None:
    network = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 5))
    for _ in range(49):
        network(drawn(8, 6))
    facts = seen(network, drawn(8, 6)).layers[0].normaliser
    assert facts is not None
    assert math.isnan(facts.shift)
    assert math.isnan(facts.stretch)


def test_frozen_weights_do_not_stop_the_gradient_of_outputs() -> None:
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)).requires_grad_(False)
    layer, _ = seen(network, drawn(8, 6)).layers
    assert layer.gradient_std > 0
    assert math.isnan(layer.weight_gradient_norm)


def test_whole_numbers_may_be_given_to_an_embedding() -> None:
    network = nn.Sequential(nn.Embedding(9, 6), nn.Flatten(), nn.Linear(18, 5))
    table, head = seen(network, torch.arange(24).reshape(8, 3) % 9).layers
    assert (table.kind, head.kind) == ("other", "linear")
    assert table.gradient_std > 0


def state(network: nn.Module) -> dict[str, object]:
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {
        "values": {name: tensor.detach().clone() for name, tensor in tensors.items()},
        "places": {name: tensor.data_ptr() for name, tensor in tensors.items()},
        "gradients": {name: copy.copy(one.grad) for name, one in network.named_parameters()},
        "modes": [module.training for module in network.modules()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules()],
        "random": torch.get_rng_state(),
    }


def assert_same(before: dict[str, object], after: dict[str, object]) -> None:
    torch.testing.assert_close(after, before, rtol=0, atol=0, equal_nan=True)


def stirred() -> nn.Module:
    """A network with running statistics, dropout, a gradient from before, a frozen weight and modules in both modes."""
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 5)
    )
    network(drawn(4, 3, 8, 8)).sum().backward()
    network[1].eval()
    network[0].bias.requires_grad_(False)
    return network


@pytest.mark.parametrize("training", [True, False])
def test_nothing_of_the_network_changes(training: bool) -> None:
    network, images = stirred(), drawn(4, 3, 8, 8)
    before, given = state(network), images.clone()
    seen(network, images, training)
    assert_same(before, state(network))
    assert torch.equal(images, given)
    assert not images.requires_grad


def test_nothing_changes_when_the_network_raises() -> None:
    network = stirred()
    network.append(nn.Linear(7, 7))
    before = state(network)
    with pytest.raises(RuntimeError):
        seen(network, drawn(4, 3, 8, 8))
    assert_same(before, state(network))


def test_a_module_that_replaces_its_buffer_gets_it_back() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.head = nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            self.calls = self.calls + 1
            return self.head(x)

    network = Counting()
    before = state(network)
    seen(network, drawn(4, 6))
    assert_same(before, state(network))


def test_a_probe_repeats_itself_and_works_within_no_grad_and_inference_mode() -> None:
    network, images = stirred(), drawn(4, 3, 8, 8)
    first = seen(network, images)
    with torch.no_grad():
        assert repr(seen(network, images)) == repr(first)
    with torch.inference_mode():
        assert repr(seen(network, images.clone())) == repr(first)


def test_evaluation_mode_uses_the_running_statistics() -> None:
    network, images = stirred(), drawn(4, 3, 8, 8)
    with torch.no_grad():
        network[1].running_var.fill_(100.0)
    training, evaluation = (by_name(seen(network, images, mode))["1"] for mode in (True, False))
    assert training.std == pytest.approx(1.0, rel=1e-3)
    assert evaluation.std == pytest.approx(by_name(seen(network, images))["0"].std / 10, rel=0.3)


@pytest.mark.parametrize("shape", [(1, 6), ()])
def test_a_single_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="at least 2"):
        probe(nn.Linear(6, 5), torch.zeros(shape), torch.zeros(1, dtype=torch.int64))


def test_weights_without_a_shape_are_refused() -> None:
    with pytest.raises(UserError, match="no shape yet"):
        seen(nn.Sequential(nn.LazyLinear(5)), drawn(4, 6))


def test_every_layer_of_a_residual_network_is_there_once() -> None:
    network = create_model("resnet8", num_classes=5)
    found = seen(network, drawn(4, 3, 16, 16))
    layers = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear, nn.BatchNorm2d))]
    assert len({layer.name for layer in found.layers}) == len(found.layers) == len(layers)
    assert all(layer.gradient_std > 0 for layer in found.layers)
