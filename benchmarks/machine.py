"""What a machine can do through PyTorch: arithmetic, memory, and the cost of an operator that has nothing to do."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from traffic import training_operators
from training_step import random_batch, training_step

ROUNDS = 5
SECONDS_A_ROUND = 0.05
MIB = 2**20
WORKING_SETS = (1, 4, 16, 64, 256)  # MiB: from what a cache holds to what none does
SIDE = {"cpu": 2048, "cuda": 8192}  # of the matrices
IMAGES = {"cpu": 32, "cuda": 1024}  # of the convolution, 256 channels at 14x14
UNITS = 32  # of the network that has nothing to do


@dataclass(frozen=True)
class Machine:
    """The best sustained speeds, medians of several rounds.

    arithmetic: by dtype and operation, GFLOP/s. bandwidth: by the MiB moved in one call and operation, GB/s read and
    written together. operator_us: microseconds an operator of a training step takes on next to no data.
    """

    arithmetic: dict[str, dict[str, float]]
    bandwidth: dict[int, dict[str, float]]
    operator_us: float

    def operations_per_second(self, dtype: str) -> float:
        """The peak for operands of `dtype`; of a type that was not probed, that of float32."""
        return 1e9 * max(self.arithmetic.get(dtype, self.arithmetic["float32"]).values())

    def bytes_per_second(self, moved: float) -> float:
        """The best speed seen by anything that moved as many bytes or more: what fits a cache may stay in it."""
        largest = max((size for size in self.bandwidth if size * MIB <= moved), default=min(self.bandwidth))
        return 1e9 * max(speed for size in self.bandwidth if size >= largest for speed in self.bandwidth[size].values())

    def record(self) -> dict[str, Any]:
        return asdict(self)


def probe(device: torch.device) -> Machine:
    """Measure this machine; a few seconds."""
    types = (torch.float32, torch.bfloat16)
    return Machine(
        {str(dtype).removeprefix("torch."): arithmetic_speed(device, dtype) for dtype in types},
        {size: memory_speed(device, size * MIB) for size in WORKING_SETS},
        1e6 * seconds_of_an_operator(device),
    )


def arithmetic_speed(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """GFLOP/s of a square matrix product and of a 3x3 convolution with 256 channels at 14x14, channels last."""
    side, images = SIDE.get(device.type, 2048), IMAGES.get(device.type, 32)
    left, right = torch.rand(2, side, side, device=device).to(dtype)
    maps = torch.rand(images, 256, 14, 14, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.rand(256, 256, 3, 3, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    product = seconds_each(lambda: torch.mm(left, right), device)
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        convolution = seconds_each(lambda: F.conv2d(maps, weight, padding=1), device)
    return {
        "matrix product": 2e-9 * side**3 / product,
        "3x3 convolution": 2e-9 * maps.numel() * weight[0].numel() / convolution,
    }


def memory_speed(device: torch.device, moved: int) -> dict[str, float]:
    """GB/s of a copy and of an addition in place, each reading half of the `moved` bytes and writing half."""
    source, target = torch.ones(2, moved // 2 // 4, device=device)
    works = {"copy": lambda: target.copy_(source), "add_": lambda: target.add_(1.0)}
    return {name: 1e-9 * moved / seconds_each(work, device) for name, work in works.items()}


def seconds_of_an_operator(device: torch.device) -> float:
    """Seconds an operator of a training step takes on next to no data: 3x3 convolution, batch norm, ReLU; 8 channels.

    PyTorch's own work, autograd's and the launch, none of which depends on the size of the images.
    """
    units = (nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(True)) for _ in range(UNITS))
    network = nn.Sequential(*units, nn.Flatten()).to(device, memory_format=torch.channels_last)
    batch = random_batch(2, (8, 2, 2), device)
    count = len(training_operators(network, (8, 2, 2), torch.float32))
    return seconds_each(training_step(network, *batch, torch.float32), device) / count


def seconds_each(work: Callable[[], object], device: torch.device, rounds: int = ROUNDS) -> float:
    """The median over `rounds` of the seconds of one call, as many calls to a round as fill its time."""
    return statistics.median(seconds_of_rounds(work, device, rounds))


def seconds_of_rounds(work: Callable[[], object], device: torch.device, rounds: int) -> list[float]:
    """The seconds of one call, in each of `rounds` rounds of as many calls as fill 0.05 s; two calls to warm up."""
    work()
    calls = max(1, round(SECONDS_A_ROUND / _seconds(work, device, 1)))
    return [_seconds(work, device, calls) / calls for _ in range(rounds)]


def _seconds(work: Callable[[], object], device: torch.device, calls: int) -> float:
    synchronise(device)
    start = time.perf_counter()
    for _ in range(calls):
        work()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    """Wait for what the GPU has been given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
