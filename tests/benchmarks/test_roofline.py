"""The counts of the roofline against counts by hand, and the cost model against speeds that are known."""

import argparse
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from residuum.errors import UserError
from residuum.models.catalogue import create_model
from residuum.models.published import MULTIPLY_ADDS

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import roofline
from cost import NetCost, Speeds, Work, errors_left_out, fit, net_cost, predict
from machine import Machine
from traffic import Operator, size_in_bytes, training_operators
from training_step import random_batch, training_step

CPU = torch.device("cpu")
MACHINE = Machine(
    arithmetic={"float32": {"matrix product": 1.0, "3x3 convolution": 2.0}, "bfloat16": {"matrix product": 4.0}},
    bandwidth={1: {"copy": 8.0, "add_": 4.0}, 64: {"copy": 1.0, "add_": 2.0}},
    operator_us=10.0,
)
PLANTED = Speeds(2e-12, 3e-11, 4e-5)
SIZES = [
    NetCost(41_000_000, 9e6, 20, 270_000),
    NetCost(254_000_000, 47e6, 110, 1_700_000),
    NetCost(1_800_000_000, 160e6, 21, 11_700_000),
    NetCost(3_800_000_000, 560e6, 54, 25_600_000),
]
BATCHES = [Work(128, 1), Work(128, 1), Work(64, 1), Work(32, 1)]


def tiny_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(256, 5)
    )


def of_kind(kind: str, operators: list[Operator]) -> list[Operator]:
    return [operator for operator in operators if operator.kind == kind]


def planted_seconds() -> list[float]:
    return [predict(PLANTED, net, work) for net, work in zip(SIZES, BATCHES, strict=True)]


def test_arithmetic_by_hand():
    operators = training_operators(tiny_net(), (3, 8, 8), torch.float32)
    convolution, linear = 4 * 64 * 27, 256 * 5  # multiply-adds of an image
    assert [operator.arithmetic for operator in of_kind("convolution", operators)] == [2 * convolution, 2 * convolution]
    assert [operator.arithmetic for operator in of_kind("fully connected", operators)] == [2 * linear] * 3
    assert sum(operator.arithmetic for operator in operators) == 4 * convolution + 6 * linear


@pytest.mark.parametrize(
    ("name", "size", "first"), [("resnet18", 224, 64 * 112**2 * 147), ("resnet20", 32, 16 * 32**2 * 27)]
)
def test_arithmetic_is_three_forward_passes_less_the_gradient_of_the_images(name, size, first):
    network = create_model(name)
    operators = training_operators(network, (3, size, size), torch.float32)
    net = net_cost(network, (3, size, size), operators)
    assert sum(operator.arithmetic for operator in operators) == 2 * (3 * net.multiply_adds - first)
    assert net.multiply_adds == pytest.approx(MULTIPLY_ADDS.get(name, 41e6), rel=0.02)


def test_grouped_convolutions_count_their_own_channels_only():
    grouped = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False), nn.Flatten())
    forward, backward = of_kind("convolution", training_operators(grouped, (8, 4, 4), torch.float32))
    assert forward.arithmetic == backward.arithmetic == 2 * (8 * 16) * (2 * 9)


def test_bytes_by_hand():
    """Float32: 3x8x8 images, 4x8x8 activations, 432 bytes of the convolution's weights."""
    image, activation, logits, kernel = 4 * 192, 4 * 256, 4 * 5, 4 * 4 * 27
    operators = training_operators(tiny_net(), (3, 8, 8), torch.float32)
    forward, backward = of_kind("convolution", operators)
    assert (forward.bytes_fixed, forward.bytes_per_image) == (kernel, image + activation)
    # Reads the gradient, the images and (its arguments name them) the weights, and writes the weights' gradient.
    assert (backward.bytes_fixed, backward.bytes_per_image) == (2 * kernel, activation + image)
    relu, relu_backward = of_kind("ReLU", operators)
    assert (relu.bytes_fixed, relu.bytes_per_image) == (0, 2 * activation)
    assert (relu_backward.bytes_fixed, relu_backward.bytes_per_image) == (0, 3 * activation)
    product = of_kind("fully connected", operators)[0]
    assert (product.bytes_fixed, product.bytes_per_image) == (4 * (256 * 5 + 5), activation + logits)
    (optimiser,) = of_kind("optimiser", operators)
    assert (optimiser.bytes_fixed, optimiser.bytes_per_image) == (5 * (kernel + 4 * (256 * 5 + 5)), 0)


def test_second_convolution_also_makes_the_gradient_of_its_input():
    network = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.Conv2d(2, 3, 1, bias=False), nn.Flatten())
    _, _, backward, first_backward = of_kind("convolution", training_operators(network, (2, 4, 4), torch.float32))
    x, y = 4 * 2 * 16, 4 * 3 * 16  # bytes of the second convolution's input and output
    assert backward.bytes_per_image == 2 * y + 2 * x  # the gradient is read for both; x is read, its gradient written
    assert backward.arithmetic == 2 * 2 * (3 * 16 * 2)
    assert first_backward.arithmetic == 2 * (2 * 16 * 2)


def test_batch_norm_reads_its_activations_twice():
    network = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1), nn.Flatten())
    forward, backward = of_kind("batch norm", training_operators(network, (4, 8, 8), torch.float32))
    activation = 4 * 256
    assert forward.bytes_per_image == 3 * activation  # read twice, written once
    assert backward.bytes_per_image in (4 * activation, 5 * activation)  # images need no gradient, which may be written


def test_autocast_halves_activations_but_no_master_weights():
    in_bf16 = training_operators(tiny_net(), (3, 8, 8), torch.bfloat16)
    in_fp32 = training_operators(tiny_net(), (3, 8, 8), torch.float32)
    for kind in ("convolution", "ReLU"):
        half, whole = (sum(operator.bytes(7) for operator in of_kind(kind, found)) for found in (in_bf16, in_fp32))
        assert 2 * half == whole
        assert {operator.dtype for operator in of_kind(kind, in_bf16)} == {"bfloat16"}
    assert of_kind("cast", in_bf16)
    assert not of_kind("cast", in_fp32)
    assert of_kind("optimiser", in_bf16) == of_kind("optimiser", in_fp32)


def test_what_is_only_expanded_is_in_memory_once():
    assert size_in_bytes(torch.zeros(3, 1).expand(3, 50)) == 12
    assert size_in_bytes(torch.zeros(0, 4)) == 0
    assert size_in_bytes(torch.zeros(8, 8)[::2, ::2]) == 64


def test_roofline_is_the_sum_of_each_operators_longer_time():
    convolution = Operator("convolution", "float32", 2e9, 0.0, 1e6)  # 1 s an image at 2 GFLOP/s
    relu = Operator("ReLU", "float32", 0.0, 0.0, 512e6)  # 0.256 s an image at 2 GB/s
    result = roofline.roofline([convolution, relu], 2, MACHINE)
    assert result["seconds"]["roofline"] == pytest.approx(2.0 + 0.512)
    assert result["seconds"]["by_kind"] == pytest.approx({"convolution": 2.0, "ReLU": 0.512})
    assert result["seconds"]["launches"] == pytest.approx(20e-6)
    assert result["memory_share"] == pytest.approx(0.512 / 2.512)
    assert (result["gflop"], result["gigabytes"]) == pytest.approx((4.0, 1.026))
    assert result["bound"] == "arithmetic"


@pytest.mark.parametrize(
    ("times", "expected"), [((3, 2, 1), "arithmetic"), ((2, 3, 1), "memory"), ((2, 1, 3), "launches")]
)
def test_longest_of_three_times_is_the_bound(times, expected):
    assert roofline.bound(*times) == expected


def test_few_bytes_move_at_the_speed_of_the_cache_and_many_at_that_of_memory():
    mib = 2**20
    assert MACHINE.bytes_per_second(100) == MACHINE.bytes_per_second(63 * mib) == 8e9
    assert MACHINE.bytes_per_second(64 * mib) == MACHINE.bytes_per_second(1e12) == 2e9


def test_type_that_was_not_probed_has_the_peak_of_float32():
    assert MACHINE.operations_per_second("bfloat16") == 4e9
    assert MACHINE.operations_per_second("float64") == MACHINE.operations_per_second("float32") == 2e9


def test_fit_finds_the_speeds_that_made_the_times():
    assert fit(SIZES, BATCHES, planted_seconds()) == pytest.approx(PLANTED, rel=1e-6)
    assert errors_left_out(SIZES, BATCHES, planted_seconds()) == pytest.approx([0, 0, 0, 0], abs=1e-6)


def test_no_speed_is_negative_where_plain_least_squares_has_a_negative_one():
    seconds = [
        5e-12 * work.images * net.multiply_adds - 1e-5 * net.layers for net, work in zip(SIZES, BATCHES, strict=True)
    ]
    speeds = fit(SIZES, BATCHES, seconds)
    assert min(speeds) == 0
    assert speeds.per_multiply_add == pytest.approx(5e-12, rel=0.1)


def test_error_of_a_network_left_out_does_not_see_its_own_time():
    seconds = planted_seconds()
    seconds[1] *= 2
    assert errors_left_out(SIZES, BATCHES, seconds)[1] == pytest.approx(-50)


def test_cost_grows_with_images_and_updates_and_falls_with_devices():
    net = SIZES[0]
    one = predict(PLANTED, net, Work(images=1000, updates=10))
    assert predict(PLANTED, net, Work(images=2000, updates=20)) == pytest.approx(2 * one)
    assert predict(PLANTED, net, Work(images=2000, updates=10, devices=2)) == pytest.approx(one)
    # A ring of 4 sends 6/4 of the gradients at each update.
    slow = predict(PLANTED, net, Work(images=4000, updates=10, devices=4, link=1e6))
    assert slow - one == pytest.approx(10 * 1.5 * 4 * net.parameters / 1e6)


def test_step_is_plain_sgd_with_momentum():
    torch.manual_seed(0)
    network, images, labels = tiny_net(), *random_batch(4, (3, 8, 8), CPU)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    gradients = torch.autograd.grad(nn.functional.cross_entropy(network(images), labels), network.parameters())
    training_step(network, images, labels, torch.float32)()
    for old, gradient, new in zip(before, gradients, network.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old - 1e-3 * (gradient + 1e-4 * old))


@pytest.fixture(scope="module")
def result() -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roofline, "probe", lambda device: MACHINE)
        cases = [roofline.parse_case(text) for text in ("resnet8@8/4", "resnet14@8/4")]
        return json.loads(json.dumps(roofline.measure_all(cases, "fp32", CPU, rounds=1)))


def test_table_has_a_cell_under_every_column(result):
    table = roofline.rows(result)
    assert [row[:3] for row in table] == [("resnet8", "8x8", "4"), ("resnet14", "8x8", "4")]
    assert {len(row) for row in table} == {len(roofline.COLUMNS)}
    assert "convolution" in {row[1] for row in roofline.kind_rows(result)}  # others may take next to no time
    assert ("an operator on next to no data", "10.0 us") in roofline.machine_rows(result)


def test_prediction_for_a_network_that_was_not_measured(result):
    options = argparse.Namespace(images=1000, epochs=3, devices=2, link=math.inf)
    found = roofline.predicted(result, roofline.Case("resnet20", 32, 100), options, CPU)
    assert (found["images"], found["updates"], found["multiply_adds"]) == (3000, 15, 40_551_040)
    assert found["seconds"] > 0


@pytest.mark.parametrize("text", ["resnet20", "resnet20@32", "resnet20@0/128", "resnet20@32/-1"])
def test_malformed_case_is_refused_with_the_form(text):
    with pytest.raises(UserError, match="resnet20@32/128"):
        roofline.parse_case(text)


def test_one_network_alone_is_refused():
    with pytest.raises(UserError, match="at least 2"):
        roofline.measure_all([roofline.Case("resnet8", 8, 2)], "fp32", CPU, rounds=1)


@pytest.mark.parametrize(("seconds", "text"), [(1.23456, "1235"), (0.0123456, "12.3"), (0.000123456, "0.123")])
def test_milliseconds_have_three_digits(seconds, text):
    assert roofline.milliseconds(seconds) == text
