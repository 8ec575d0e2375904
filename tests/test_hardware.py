"""What is asked of PyTorch for a run is taken back after it."""

import torch

from residuum.hardware import describe_hardware, deterministic_algorithms


def test_deterministic_algorithms_are_chosen_for_the_block_alone() -> None:
    with deterministic_algorithms(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic_algorithms(False):
        assert not torch.are_deterministic_algorithms_enabled()


def test_the_description_names_what_last_bits_depend_on() -> None:
    facts = describe_hardware(torch.device("cpu"))
    assert facts["threads"] == torch.get_num_threads()
    assert facts["instructions"]
    assert facts["processor"]
