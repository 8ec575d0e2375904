"""Three processes: with two, a sum has but one rounding, and the order would not show."""

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from residuum.training.gradients import share_gradients


def network() -> nn.Module:
    torch.manual_seed(0)
    convolution = nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten())
    return nn.Sequential(convolution, nn.Linear(16 * 36, 40), nn.ReLU(), nn.Linear(40, 10))


def gradients(wrapped: nn.Module, images: Tensor) -> list[Tensor]:
    wrapped.zero_grad()
    wrapped(images).square().mean().backward()
    return [parameter.grad.clone() for parameter in wrapped.parameters() if parameter.grad is not None]


def measure(rank: int, folder: Path) -> None:
    """What each of the three processes does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(folder / "meeting").as_uri(), rank=rank, world_size=3)
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(rank))
    plain, alone = network(), network()
    shared = share_gradients(plain, torch.zeros(2, 1, 8, 8))
    same_state = all(torch.equal(value, alone.state_dict()[name]) for name, value in plain.state_dict().items())
    no_gradient = all(parameter.grad is None for parameter in plain.parameters())
    measured = {"untouched": same_state and no_gradient, "shared": [gradients(shared, images) for _ in range(3)]}
    torch.save(measured | {"own": gradients(alone, images)}, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_the_first_update_is_rounded_as_all_later_ones(tmp_path: Path) -> None:
    mp.spawn(measure, (tmp_path,), nprocs=3)
    processes = [torch.load(tmp_path / f"{rank}.pt") for rank in range(3)]
    for process in processes:
        assert process["untouched"]
        first, second, third = process["shared"]
        for one, two, three in zip(first, second, third, strict=True):
            assert torch.equal(two, one)
            assert torch.equal(three, one)
    for number, shared in enumerate(processes[0]["shared"][0]):
        mean = torch.stack([process["own"][number] for process in processes]).mean(0)
        torch.testing.assert_close(shared, mean)
