"""Two processes that each hold a share of the images against PyTorch's own layers on all of them."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from residuum.errors import UserError
from residuum.models.catalogue import create_model
from residuum.training.bn_statistics import recompute_bn
from residuum.training.freezing import freeze_until
from residuum.training.sync_bn import GlobalBatchNorm, synchronise_bn

CPU = torch.device("cpu")
Measured = dict[str, Tensor]


def train(network: nn.Module, batches: list[Tensor]) -> Measured:
    """Forward and backward on each batch, with a loss that weighs every image differently."""
    measured = {}
    for step, images in enumerate(batches):
        images = images.detach().requires_grad_()
        output = network.train()(images)
        weight = images.detach().flatten(1).mean(1).view(-1, *[1] * (output.ndim - 1))
        (output * weight).square().sum().backward()
        assert images.grad is not None
        measured |= {f"rows: output {step}": output.detach(), f"rows: input gradient {step}": images.grad}
    parts = {f"sum: {name}": p.grad for name, p in network.named_parameters() if p.grad is not None}
    return measured | parts | dict(network.named_buffers())


def train_and_evaluate(network: nn.Module, batches: list[Tensor]) -> Measured:
    return train(network, batches) | {"rows: in evaluation": network.eval()(batches[0]).detach()}


def recompute(network: nn.Module, batches: list[Tensor]) -> Measured:
    recompute_bn(network, batches)
    return dict(network.named_buffers())


@dataclass(frozen=True)
class Case:
    """A network, and batches of images of `size` (C, ...) that two processes share as `shares` says."""

    make: Callable[[], nn.Module]
    size: tuple[int, ...] = (5, 6, 7)
    shares: tuple[int, int] = (3, 5)
    dtype: torch.dtype = torch.float32
    work: Callable[[nn.Module, list[Tensor]], Measured] = train_and_evaluate
    brightness: float = 0.0

    def alone(self, device: torch.device) -> Measured:
        """What one process measures with all the images."""
        return self.work(self.network(device), self.batches(device))

    def together(self, device: torch.device, rank: int) -> Measured:
        """What one of two processes measures with its share."""
        start = self.shares[0] * rank
        batches = [images[start : start + self.shares[rank]] for images in self.batches(device)]
        return self.work(synchronise_bn(self.network(device), device), batches)

    def network(self, device: torch.device) -> nn.Module:
        torch.manual_seed(0)
        return self.make().to(device, torch.promote_types(self.dtype, torch.float32))

    def batches(self, device: torch.device) -> list[Tensor]:
        """Each channel of another mean and deviation, each image brighter than the one before it."""
        generator = torch.Generator().manual_seed(1)
        images = torch.randn(2, sum(self.shares), *self.size, generator=generator, dtype=torch.float64)
        by_channel = torch.arange(1.0, self.size[0] + 1).view(-1, *[1] * (len(self.size) - 1))
        by_image = torch.linspace(-2, 2, sum(self.shares)).view(-1, *[1] * len(self.size))
        images = (images * by_channel + by_image + 3 * by_channel + self.brightness).to(device, self.dtype)
        memory = torch.channels_last if len(self.size) == 3 else torch.contiguous_format
        return [batch.contiguous(memory_format=memory) for batch in images]


def layer(kind: type[_BatchNorm] = nn.BatchNorm2d, **settings: float | bool | None) -> nn.Module:
    """A batch normalisation of 5 channels whose weight and bias are not those of the start."""
    made = kind(5, **settings)  # type: ignore[arg-type]
    for parameter in made.parameters():
        nn.init.uniform_(parameter, 0.5, 2.0)
    return made


def small(name: str) -> nn.Module:
    return create_model(name, num_classes=3)


def frozen() -> nn.Module:
    network = small("resnet8")
    freeze_until(network, "layer2")
    return network


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    return [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]


COLOUR, EXACT = (3, 32, 32), torch.float64
TOLERANCES = {torch.float64: 1e-11, torch.float32: 5e-6, torch.bfloat16: 1e-2}
"""Of the greatest value of a tensor, or of 1 where all are less."""

LAYERS = {
    "images": Case(layer, shares=(4, 4)),
    "uneven shares": Case(layer),
    "one image and seven": Case(layer, shares=(1, 7)),
    "no image and eight": Case(layer, shares=(0, 8)),
    "one value of a channel each": Case(partial(layer, nn.BatchNorm1d), (5,), (1, 1), EXACT),
    "vectors": Case(partial(layer, nn.BatchNorm1d), (5,)),
    "sequences": Case(partial(layer, nn.BatchNorm1d), (5, 9)),
    "volumes": Case(partial(layer, nn.BatchNorm3d), (5, 3, 4, 2)),
    "cumulative average": Case(partial(layer, momentum=None)),
    "momentum and eps": Case(partial(layer, momentum=0.7, eps=0.5)),
    "no affine map": Case(partial(layer, affine=False)),
    "no running statistics": Case(partial(layer, track_running_stats=False), work=train),
    "a mean that would cancel the variance": Case(layer, work=recompute, brightness=300.0),
    "bfloat16": Case(layer, dtype=torch.bfloat16),
}
NETWORKS = {
    "resnet8": Case(partial(small, "resnet8"), COLOUR, dtype=EXACT),
    "pre-activation": Case(partial(small, "wide_resnet10_1"), COLOUR, dtype=EXACT),
    "torchvision": Case(partial(small, "torchvision/shufflenet_v2_x0_5"), COLOUR, dtype=EXACT),
    "timm, layers with activations": Case(partial(small, "timm/test_efficientnet"), COLOUR, dtype=EXACT),
    "frozen layers": Case(frozen, COLOUR, dtype=EXACT),
    "recomputed statistics": Case(partial(small, "resnet8"), COLOUR, dtype=EXACT, work=recompute),
}
CASES = LAYERS | NETWORKS


def measure_every_case(rank: int, folder: Path, kind: str) -> None:
    """What each of the two processes does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(folder / "meeting").as_uri(), rank=rank, world_size=2)
    measured = {name: case.together(torch.device(kind), rank) for name, case in CASES.items()}
    torch.save(measured, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(
    scope="module",
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
        ),
    ],
)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(scope="module")
def shares(device: torch.device, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Measured]]:
    """What the first and what the second process measured, by case."""
    folder = tmp_path_factory.mktemp("shares")
    mp.spawn(measure_every_case, (folder, device.type), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_get_what_one_gets_with_all_the_images(
    name: str, device: torch.device, shares: list[dict[str, Measured]]
) -> None:
    one, (first, second) = CASES[name].alone(device), (share[name] for share in shares)
    assert first.keys() == second.keys() == one.keys()
    for what, expected in one.items():
        if what.startswith("rows"):
            got = torch.cat([first[what], second[what]])
        elif what.startswith("sum"):
            got = first[what] + second[what]
        else:
            got = first[what]
            assert torch.equal(got, second[what]), what
        tolerance = TOLERANCES[CASES[name].dtype] * max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(got, expected, rtol=0, atol=tolerance, msg=lambda m: f"{what}: {m}")  # noqa: B023


def test_the_shares_differ_enough_to_tell_the_layers_apart(
    device: torch.device, shares: list[dict[str, Measured]]
) -> None:
    """Without reduction each process would get what its own share gives alone: far from what it got."""
    case = CASES["uneven shares"]
    alone = train(case.network(device), [batch[:3] for batch in case.batches(device)])
    got = shares[0]["uneven shares"]
    for what in ("rows: output 0", "rows: input gradient 0", "sum: weight", "running_mean", "running_var"):
        assert not torch.allclose(got[what], alone[what], rtol=0.05), what


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("name", ["resnet8", "wide_resnet10_1", "torchvision/resnet18", "timm/test_efficientnet"])
def test_every_layer_is_changed_and_weights_go_both_ways(name: str, kind: str) -> None:
    plain, synchronised = small(name), synchronise_bn(small(name), torch.device(kind))
    wanted = GlobalBatchNorm if kind == "cpu" else nn.SyncBatchNorm
    before, after = batch_norms(plain), batch_norms(synchronised)
    assert len(before) == len(after) > 0
    assert all(isinstance(each, wanted) for each in after)
    for giver, taker in ((synchronised, plain), (plain, synchronised)):
        for value in giver.state_dict().values():
            value.add_(1)
        taker.load_state_dict(giver.state_dict(), strict=True)
        assert all(torch.equal(value, giver.state_dict()[name]) for name, value in taker.state_dict().items())


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("name", [*LAYERS, "timm, layers with activations"])
def test_in_one_process_it_is_the_plain_layer_to_the_bit(name: str, kind: str) -> None:
    case = CASES[name]
    plain = case.alone(CPU)
    synchronised = case.work(synchronise_bn(case.network(CPU), torch.device(kind)), case.batches(CPU))
    assert plain.keys() == synchronised.keys()
    for what, expected in plain.items():
        assert torch.equal(synchronised[what], expected), what


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_frozen_layers_stay_frozen_also_in_a_copy(kind: str) -> None:
    network = small("resnet8")
    freeze_until(network, "layer1")  # freezes bn1, a batch normalisation by itself
    network = synchronise_bn(network, torch.device(kind))
    for twin in (network, copy.deepcopy(network)):
        bn1, *later = batch_norms(twin.train())
        assert bn1 is twin.get_submodule("bn1")
        assert not bn1.training
        assert not any(parameter.requires_grad for parameter in bn1.parameters())
        assert all(each.training for each in later)


def test_a_copy_has_statistics_of_its_own() -> None:
    network = synchronise_bn(layer(), CPU)
    twin = copy.deepcopy(network)
    twin(CASES["images"].batches(CPU)[0])
    assert torch.equal(network.get_buffer("running_mean"), torch.zeros(5))
    assert not torch.equal(twin.get_buffer("running_mean"), torch.zeros(5))


def test_an_unknown_kind_of_batch_normalisation_is_refused_and_nothing_changed() -> None:
    class Shifted(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) + 1

    network = nn.Sequential(nn.BatchNorm2d(3), Shifted(3))
    with pytest.raises(UserError, match=r"cannot synchronise Shifted .*--sync-bn"):
        synchronise_bn(network, CPU)
    assert type(network[0]) is nn.BatchNorm2d
