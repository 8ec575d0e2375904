"""What this machine has: the device to compute on, the precision it is good at, and the facts a run records."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from residuum.errors import UserError
from residuum.processor import cores, processor_name

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h; a trim threshold of -1 is never reached
_NEVER_MAPPED = (2**30, 2**25)  # bytes; the second is the most that some versions of glibc take


def choose_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """The device called `name`: "auto" (CUDA, else Apple's MPS, else the CPU), "cpu", "cuda", "cuda:1" or "mps".

    Raises UserError for an unknown name and for a device this machine lacks.
    """
    kind, _, number = name.partition(":")
    if kind not in DEVICES or (number and not number.isdigit()):
        raise UserError(f"unknown device {name!r}; allowed: auto, cpu, cuda, cuda:N, mps")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if kind == "cuda":
        return _cuda_device(name, int(number) if number else local_rank)
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' was asked for, but this machine has none; use --device cpu")
    return torch.device(kind)


def _cuda_device(name: str, index: int) -> torch.device:
    if not torch.cuda.is_available():
        raise UserError(f"device {name!r} was asked for, but PyTorch finds no CUDA GPU here; use --device cpu")
    count = torch.cuda.device_count()
    if index >= count:
        raise UserError(f"GPU {index} was asked for, but this machine has {count}, numbered from 0")
    return torch.device("cuda", index)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The type the forward pass computes in: "fp32", "bf16", or "auto": bf16 where the processor has it in hardware."""
    if name not in PRECISIONS:
        raise UserError(f"unknown precision {name!r}; allowed: {', '.join(PRECISIONS)}")
    if name == "auto":
        return torch.bfloat16 if _has_fast_bf16(device) else torch.float32
    return torch.bfloat16 if name == "bf16" else torch.float32


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Newer than PyTorch 2.11; without it the CPU is taken to have none.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """The context a forward pass runs in; does nothing for fp32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)


@cache
def keep_freed_memory() -> bool:
    """Let the C library keep big blocks that are freed for those asked for next; True where it can (glibc).

    Each step of training or prediction frees and asks for the same activations. Handed back to the system between
    steps, their pages are mapped and cleared anew every time, which costs more than many a layer. The process then
    holds as much memory as it ever needed at once.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # no glibc; on Windows not even a None to open
        return False
    return any(mallopt(_M_MMAP_THRESHOLD, size) for size in _NEVER_MAPPED) and bool(mallopt(_M_TRIM_THRESHOLD, -1))


def upload(values: NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """A tensor, or an array, as a tensor on `device`; a GPU takes what is not there yet when it has come that far.

    Memory that is not pinned is copied while the process waits, and with it for all that the GPU was told before.
    """
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(values)
    if tensor.device.type == "cpu" and device.type == "cuda" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def default_workers(device: torch.device) -> int:
    """How many processes or threads decode images: one a core, less one where the CPU also computes, at most 16."""
    return max(1, min(16, cores() - (device.type == "cpu")))


def versions() -> dict[str, str]:
    """The versions that decide a result: Python, the libraries and residuum."""
    found = {"python": platform.python_version()}
    for package in ("residuum", "torch", "torchvision", "numpy", "pillow", "simplejpeg", "safetensors"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@contextmanager
def kernel_choice(deterministic: bool) -> Iterator[None]:
    """While the block runs, cuDNN tries its kernels and takes the fastest; or only `deterministic` kernels run.

    Those repeat their results bit for bit; an operation that has none of them raises. Begin before the GPU is first
    used: cuBLAS reads its part of the setting when it starts.
    """
    if deterministic and os.environ.get("CUBLAS_WORKSPACE_CONFIG") not in (":4096:8", ":16:8"):  # which repeat results
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    before = torch.are_deterministic_algorithms_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark = torch.backends.cudnn.benchmark
    if deterministic:
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not deterministic
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark
        torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]


def describe_hardware(device: torch.device) -> dict[str, str | int]:
    """The processor, its instruction set as PyTorch uses it, the core count and the device, in words."""
    is_cuda = device.type == "cuda"
    cudnn = torch.backends.cudnn.version() if is_cuda else None  # type: ignore[no-untyped-call]
    libraries = {"cuda": torch.version.cuda or "", "cudnn": cudnn or 0} if is_cuda else {}
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if is_cuda else device.type,
        **libraries,
    }
