"""The networks against what the papers print of them."""

import pytest
import torch

from residuum.models.catalogue import create_model
from residuum.models.published import MULTIPLY_ADDS, PARAMETERS
from residuum.models.summary import paper_input, summarise

# He et al. 2015, table 6 with option A, computed: `PARAMETERS` holds the same to the paper's two or three
# digits.
EXACT_PARAMETERS = {
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "resnet1202": 19_421_274,
}


def measured(name):
    size = paper_input(name)
    with torch.device("meta"):
        network = create_model(name, in_channels=size[0])
    return summarise(network, size)


def parameters(name, **options):
    with torch.device("meta"):
        return sum(p.numel() for p in create_model(name, **options).parameters())


@pytest.mark.parametrize(("name", "count"), EXACT_PARAMETERS.items())
def test_parameters_of_table_6_to_the_digit(name, count):
    assert parameters(name) == count
    assert count == pytest.approx(PARAMETERS[name], rel=0.02)


@pytest.mark.parametrize(("name", "printed"), MULTIPLY_ADDS.items())
def test_multiply_adds_of_table_1_within_its_last_digit(name, printed):
    assert measured(name).multiply_adds == pytest.approx(printed, abs=0.1e9)


def test_v1_5_costs_about_4_1_billion_multiply_adds():
    assert measured("resnet50_v1_5").multiply_adds == pytest.approx(4.1e9, abs=0.05e9)


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_a_residual_net_has_its_plain_twin_s_parameters(depth):
    assert parameters(f"resnet{depth}") == parameters(f"plain{depth}")


@pytest.mark.parametrize("depth", [18, 34])
def test_option_a_adds_no_parameters_on_imagenet(depth):
    assert parameters(f"resnet{depth}", shortcut="A") == parameters(f"plain{depth}")


def test_options_grow_from_a_to_c():
    a, b, c = (parameters("resnet34", shortcut=option) for option in "ABC")
    assert a < b < c


@pytest.mark.parametrize("depth", [20, 56, 110])
def test_depth_counts_weighted_layers(depth):
    with torch.device("meta"):
        network = create_model(f"resnet{depth}")
    layers = [m for m in network.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    assert len(layers) == depth


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("preact_resnet110", 110),
        ("preact_resnet164", 164),
        ("preact_resnet1001", 1001),
        ("preact_resnet200", 200),
    ],
)
def test_pre_activation_depth_counts_the_layers_of_the_branches(name, depth):
    with torch.device("meta"):
        network = create_model(name, shortcut="A")
    layers = [m for m in network.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    assert len(layers) == depth


def test_lenet5_has_60_000_trainable_parameters_up_to_f6():
    """LeCun et al. 1998, section II.B; the output units are fixed there and trained here."""
    network = create_model("lenet5", in_channels=1)
    counts = [sum(p.numel() for p in child.parameters()) for child in network.children()]
    assert [count for count in counts if count] == [156, 12, 1_516, 32, 48_120, 10_164, 850]
    assert sum(counts) - 850 == 60_000
