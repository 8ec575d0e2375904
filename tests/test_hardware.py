"""What is asked of PyTorch for a run is taken back after it."""

import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

from residuum.hardware import describe_hardware, kernel_choice, upload


def test_repeatable_kernels_are_chosen_for_the_block_alone() -> None:
    with kernel_choice(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()
    with kernel_choice(False):
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.benchmark


# Blocks of 40 MB, written to and freed in turn: how often the system had to hand out pages anew.
FAULTS = """
import resource, sys
import torch
from residuum.hardware import keep_freed_memory
print(keep_freed_memory() if sys.argv[1] == "kept" else None)
for _ in range(20):
    torch.ones(10_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="for glibc's allocator")
def test_freed_memory_is_kept_for_what_is_asked_for_next() -> None:
    def faults(arm: str) -> tuple[str, int]:
        took_effect, count = subprocess.check_output([sys.executable, "-c", FAULTS, arm], text=True).split()
        return took_effect, int(count)

    kept, usual = faults("kept"), faults("usual")
    assert kept[0] == "True"
    assert 10 * kept[1] < usual[1]


def test_what_is_uploaded_is_what_was_given() -> None:
    values = np.arange(6).reshape(2, 3)
    assert upload(values, torch.device("cpu")).tolist() == values.tolist()
    tensor = torch.rand(2, 3)
    assert torch.equal(upload(tensor, torch.device("cpu")), tensor)


def test_the_description_names_what_last_bits_depend_on() -> None:
    facts = describe_hardware(torch.device("cpu"))
    assert facts["threads"] == torch.get_num_threads()
    assert facts["instructions"]
    assert facts["processor"]


def test_what_lies_on_the_device_is_not_pinned_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
        raise AssertionError("only memory of the CPU can be pinned")

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *_, **__: tensor)
    tensor = torch.empty(3, device="meta")
    assert upload(tensor, torch.device("cuda")) is tensor
    with pytest.raises(AssertionError, match="only memory of the CPU"):
        upload(torch.empty(3), torch.device("cuda"))
