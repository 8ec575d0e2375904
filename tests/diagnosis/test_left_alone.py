"""What a diagnosis must not touch: buffers of any kind, other GPUs' random state, hooks, compiled code."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from residuum import diagnose
from residuum.diagnosis import watch
from residuum.diagnosis.probe import probe


def images(count: int = 8) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(0))


class Keeping(nn.Module):
    """Writes to a buffer that is one number seen as six, and to one that it shares with its part."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("wide", torch.ones(1).expand(6))
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("late", None)
        self.part = nn.Linear(6, 5)
        self.part.register_buffer("count", self.count)
        self.seen = (0.0, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.late = x.detach().mean()
        self.register_buffer("new", torch.zeros(3))
        self.seen = self.count.item(), self.part.count.item()
        return self.part(x * self.wide)


def test_buffers_are_the_same_objects_afterwards_and_were_never_written_to() -> None:
    network = Keeping()
    wide, count, version = network.wide, network.count, network.count._version
    diagnose(network, images())
    assert network.wide is wide
    assert network.count is network.part.count is count
    assert count._version == version
    assert network.late is None
    assert list(network._buffers) == ["wide", "count", "late"]


def test_a_buffer_that_two_modules_share_is_one_in_the_pass_too() -> None:
    network = Keeping()
    diagnose(network, images())
    assert network.seen == (1.0, 1.0)


def test_running_statistics_may_be_written_to_where_the_caller_is_in_inference_mode() -> None:
    network = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 5))
    with torch.inference_mode():
        found = diagnose(network, images())
    assert repr(found) == repr(diagnose(network, images()))
    assert network[1].num_batches_tracked == 0


def test_gpus_that_take_no_part_are_not_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    def seeded(seed: int) -> None:
        raise AssertionError("all GPUs were seeded")

    for name in ("manual_seed_all", "manual_seed"):
        monkeypatch.setattr(torch.cuda, name, seeded)
    network, batch = nn.Sequential(nn.Linear(6, 16), nn.Dropout(), nn.Linear(16, 5)), images()
    before = torch.get_rng_state()
    assert repr(diagnose(network, batch)) == repr(diagnose(network, batch))
    assert torch.equal(torch.get_rng_state(), before)


def test_no_hook_is_left_where_one_cannot_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5))

    def fails(*arguments: object, **named: object) -> None:
        raise RuntimeError("no hooks here")

    monkeypatch.setattr(network[2], "register_forward_hook", fails)
    with pytest.raises(RuntimeError, match="no hooks here"), watch.Watch(network, 8):
        pass
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.fixture
def compiled() -> Iterator[nn.Module]:
    """A network whose compilation fails: diagnosing it must not try."""

    def fails(graph: object, inputs: object) -> None:
        raise AssertionError("it was compiled")

    torch.manual_seed(0)
    yield torch.compile(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)), backend=fails)
    torch.compiler.reset()


def test_a_compiled_network_is_looked_at_as_it_was_written(compiled: nn.Module) -> None:
    found, plain = (diagnose(network, images()) for network in (compiled, compiled._orig_mod))
    assert [layer.name.removeprefix("_orig_mod.") for layer in found.probe.layers] == ["0", "2"]
    assert (found.verdict, found.signs) == (plain.verdict, plain.signs)


def test_weights_that_the_network_changes_itself_stay_changed() -> None:
    class Normed(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.weight.div_(self.weight.norm())
            return super().forward(x)

    network = Normed(6, 5)
    probe(network, images(), torch.arange(8) % 5)
    assert network.weight.norm().item() == pytest.approx(1.0)
