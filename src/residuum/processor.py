"""What the processor is and has, without PyTorch."""

import os
import platform
from functools import cache
from pathlib import Path

_FACTS = Path("/proc/cpuinfo")
_INT8 = {"amx_int8": "AMX", "avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX VNNI", "asimddp": "dot products"}
"""The flags of instructions that multiply 8-bit integers, best first, and what they are called."""


def cores() -> int:
    """How many of the processor's cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def own_cores() -> int:
    """This process's share of them, where torchrun has started several on one machine."""
    return max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@cache
def int8_instructions() -> str | None:
    """What the processor multiplies 8-bit integers with, such as "AVX-512 VNNI"; None: nothing, or it is not known."""
    if not _FACTS.is_file():  # elsewhere than on Linux
        return None
    lines = _FACTS.read_text(encoding="utf-8", errors="replace").splitlines()
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
    return next((name for flag, name in _INT8.items() if flag in flags), None)


def processor_name() -> str:
    """What the system calls the processor."""
    lines = _FACTS.read_text(encoding="utf-8", errors="replace").splitlines() if _FACTS.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
