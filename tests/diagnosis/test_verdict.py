"""Verdicts: planted faults are found and named, healthy networks are left alone, and each says why in numbers."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residuum import diagnose
from residuum.diagnosis.page import layers_table, sections, short_table
from residuum.diagnosis.signs import signs_of
from residuum.diagnosis.verdict import Diagnosis, judge
from residuum.errors import UserError
from residuum.models.catalogue import create_model
from residuum.records import Page
from residuum.report.page import page_html

Change = Callable[[nn.Module], None]


def smooth(count: int = 16, size: int = 16) -> Tensor:
    """Images whose neighbouring pixels are alike, as those of photographs."""
    coarse = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, size=(size, size), mode="bilinear")


def plain(depth: int, activation: type[nn.Module] = nn.ReLU, norm: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(depth):
        layers.append(nn.Conv2d(16 if index else 3, 16, 3, 2 if index == 0 else 1, padding=1))
        layers += [nn.BatchNorm2d(16), activation()] if norm else [activation()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))


class Unnormalised(nn.Module):
    def __init__(self, units: int) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 1), nn.Linear(16, 5)
        self.branches = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(units))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch in self.branches:
            x = x + branch(F.relu(x))
        return self.head(x.mean(dim=(2, 3)))


def weights(network: nn.Module, gain: float = 1.0, std: float | None = None) -> None:
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight) if std is None else nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)
            module.weight.data.mul_(gain)


def batch_norms(network: nn.Module, **settings: float) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for name, value in settings.items():
                setattr(module, name, value)


def shifts(network: nn.Module, value: float) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, value)


def one_bias(network: nn.Module, value: float) -> None:
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    nn.init.constant_(convolutions[len(convolutions) // 2].bias, value)


def not_a_number(network: nn.Module) -> None:
    next(network.parameters()).data.fill_(float("nan"))


def of(build: Callable[[], nn.Module], change: Change | None = None, seed: int = 0, **told: object) -> Diagnosis:
    torch.manual_seed(seed)
    network = build()
    if change is not None:
        change(network)
    return diagnose(network, smooth(), **told)


FAULTS: dict[str, tuple[Callable[[], nn.Module], Change | None, str, str]] = {
    "small weights": (partial(plain, 20), partial(weights, std=0.01), "vanishing", "nitialise"),
    "large weights": (partial(plain, 20), partial(weights, gain=3.0), "exploding", "fan-in"),
    "zero weights": (partial(plain, 20), partial(weights, std=0.0), "dead", "random"),
    "50 layers": (partial(plain, 50), None, "vanishing", "shortcuts"),
    "50 layers, He": (partial(plain, 50), weights, "vanishing", "shortcuts"),
    "50 layers, BN": (partial(plain, 50, norm=True), weights, "exploding", "shortcuts"),
    "large weights before tanh": (partial(plain, 8, nn.Tanh), partial(weights, gain=6.0), "saturated", "Xavier"),
    "sigmoids": (partial(plain, 12, nn.Sigmoid), None, "vanishing", "ReLU"),
    "sums": (partial(Unnormalised, 50), weights, "exploding", "zero-gamma"),
    "shifted normalisation": (partial(plain, 8, norm=True), partial(shifts, value=-9.0), "dead", "biases"),
    "one dead layer of many": (partial(plain, 16), lambda n: (weights(n), one_bias(n, -50.0)), "dead", "biases"),
    "eps": (partial(plain, 8, norm=True), partial(batch_norms, eps=1e6), "vanishing", "eps"),
    "no number": (partial(plain, 4), not_a_number, "exploding", "lower rate"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_planted_faults_are_named_with_a_remedy(name: str, seed: int) -> None:
    build, change, verdict, remedy = FAULTS[name]
    found = of(build, change, seed)
    assert found.verdict == verdict, found.reason
    assert remedy in found.remedy
    assert found.reason.endswith(".")
    assert found.reason[0].isupper() or found.reason[0].isdigit()


HEALTHY: dict[str, Callable[[], nn.Module]] = {
    "8 layers, BN": partial(plain, 8, norm=True),
    "20 layers, BN": partial(plain, 20, norm=True),
    "6 tanh": partial(plain, 5, nn.Tanh),
    "20 sums as PyTorch starts them": partial(Unnormalised, 20),
    **{
        name: partial(create_model, name, num_classes=5)
        for name in ("resnet20", "plain20", "resnet110", "preact_resnet18", "resnet9_16")
    },
    "zero-gamma": partial(create_model, "resnet32", num_classes=5, zero_gamma=True),
    "gated": partial(create_model, "resnet32", num_classes=5, shortcut="gated"),
    "squeeze and excitation": partial(create_model, "torchvision/mobilenet_v3_small", num_classes=5),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_networks_are_left_alone(name: str) -> None:
    found = of(HEALTHY[name])
    assert found.verdict == "healthy", found.reason
    assert found.remedy == "None is needed."


def test_a_head_of_zeros_is_a_start_and_no_fault() -> None:
    def zero_head(network: nn.Module) -> None:
        nn.init.zeros_(network.fc.weight)

    found = of(partial(create_model, "resnet20", num_classes=5), zero_head)
    assert found.verdict == "healthy"
    assert "first step" in found.reason


def offset(network: nn.Module) -> None:
    with torch.no_grad():
        network.fc.bias.add_(100.0)


def test_what_all_outputs_have_in_common_does_not_hide_how_they_differ() -> None:
    build = partial(create_model, "resnet20", num_classes=5)
    plain_one, shifted = of(build), of(build, offset)
    assert (plain_one.verdict, shifted.verdict) == ("healthy", "healthy"), shifted.reason
    assert shifted.signs.told == pytest.approx(plain_one.signs.told, rel=1e-3)


def test_a_trained_regressor_of_one_positive_number_is_healthy() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))
    x = torch.randn(64, 6)
    y = 20 + x[:, :1] + x[:, 1:2]
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        F.mse_loss(network(x), y).backward()
        optimizer.step()
    for found in (diagnose(network, x), diagnose(network, x, labels=y, loss=F.mse_loss)):
        assert found.verdict == "healthy", found.reason
        assert found.signs.told == pytest.approx(y.std(correction=0).item(), rel=0.3)


def test_images_that_are_alike_from_the_start_are_not_laid_to_the_network() -> None:
    torch.manual_seed(0)
    network = plain(50)
    weights(network)
    facts = diagnose(network, smooth()).probe
    assert judge(facts).verdict == "vanishing"
    told = [replace(layer, variation=0.05, sensitivity=1.0, std=1.0) for layer in facts.layers]
    body = replace(facts, layers=tuple(told), output_spread=0.005)
    assert judge(replace(body, input_variation=0.3)).verdict == "degraded"
    assert judge(replace(body, input_variation=0.06)).verdict == "healthy"


def test_a_frozen_network_is_diagnosed_as_any_other() -> None:
    found = of(partial(plain, 50), lambda network: network.requires_grad_(False))
    assert found.verdict == "vanishing"


def test_a_rate_at_which_a_step_is_longer_than_the_weights_is_told() -> None:
    build = partial(create_model, "resnet20", num_classes=5)
    assert of(build, lr=0.01).verdict == "healthy"
    found = of(build, lr=1000.0)
    assert (found.verdict, found.lr) == ("exploding", 1000.0)
    assert "1000" in found.reason


def test_statistics_that_do_not_belong_to_the_images_are_told() -> None:
    torch.manual_seed(0)
    network, images = plain(4, norm=True), smooth(16)
    for _ in range(60):
        network(images)
    assert diagnose(network, images).verdict == "healthy"
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
            module.running_var.fill_(1.0)
            module.momentum = 0.0
    found = diagnose(network, images)
    assert found.verdict == "degraded"
    assert "evaluation" in found.reason
    assert "momentum is 0" in found.remedy


def test_a_batch_may_bring_its_labels_and_they_count() -> None:
    torch.manual_seed(0)
    network, images = create_model("resnet8", num_classes=5), smooth()
    labels = torch.arange(16) % 5
    expected = F.cross_entropy(network(images), labels).item()
    for found in (diagnose(network, (images, labels)), diagnose(network, images, labels=labels)):
        assert found.probe.loss == pytest.approx(expected, rel=1e-4)
    drawn = diagnose(network, images)
    assert drawn.probe.loss != pytest.approx(expected, rel=1e-4)
    assert repr(drawn) == repr(diagnose(network, images))


def test_a_loss_of_ones_own_is_taken_and_needs_labels() -> None:
    network, images = nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), smooth()
    target = torch.zeros(16, 3)
    found = diagnose(network, images, labels=target, loss=F.mse_loss)
    assert found.probe.loss == pytest.approx(network(images).square().mean().item(), rel=1e-4)
    with pytest.raises(UserError, match="give both"):
        diagnose(network, images, loss=F.mse_loss)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(3, 3, 3, padding=1),
        nn.Sequential(nn.Flatten(), nn.Linear(768, 1)),
        nn.Sequential(nn.Flatten(1, 2), nn.LSTM(16, 8, batch_first=True)),
    ],
    ids=["images", "one number", "a tuple"],
)
def test_any_output_will_do(module: nn.Module) -> None:
    found = diagnose(module, smooth())
    assert found.verdict == "healthy"
    assert found.probe.layers[-1].gradient_std > 0


@pytest.mark.parametrize("batch", [None, [1, 2], "digits"])
def test_what_is_no_batch_is_refused(batch: object) -> None:
    with pytest.raises(UserError, match="give a tensor"):
        diagnose(nn.Linear(3, 2), batch)


def test_an_output_without_numbers_is_refused() -> None:
    class Counting(nn.Module):
        def forward(self, x: Tensor) -> int:
            return len(x)

    with pytest.raises(UserError, match="without a tensor"):
        diagnose(Counting(), smooth())


def test_growth_is_free_of_how_layers_are_scaled() -> None:
    torch.manual_seed(0)
    network = plain(8)
    weights(network)
    before = signs_of(diagnose(network, smooth()).probe).growth
    with torch.no_grad():
        network[0].weight.mul_(100)
        network[4].weight.div_(100)
    assert signs_of(diagnose(network, smooth()).probe).growth == pytest.approx(before, rel=1e-3)


def test_tables_and_page_show_every_layer_and_every_sum() -> None:
    found = of(partial(create_model, "resnet20", num_classes=5), lr=0.1)
    layers, short = layers_table(found), short_table(found)
    assert [row[0] for row in layers.rows] == [layer.name for layer in found.probe.layers]
    assert short.rows[0] == layers.rows[0]
    assert short.rows[-1] == layers.rows[-1]
    assert len(short.rows) <= 10
    page = sections(found)
    titles = ["Verdict", "Through the network", "Layers", "Residual sums", "Batch normalisations"]
    assert [one.title for one in page] == titles
    html = page_html(Page("A network", "", page))
    assert "times as strong on its way back" in html


def test_a_page_of_a_network_without_sums_or_norms_has_neither_table() -> None:
    page = sections(of(partial(plain, 4)))
    assert [one.title for one in page] == ["Verdict", "Through the network", "Layers"]
    assert page_html(Page("A network", "", page))
