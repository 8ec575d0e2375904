"""What training costs in seconds, from a network's size and a plan, with three speeds fitted to measured networks.

    seconds = images (a x multiply-adds + b x activation bytes) / devices + updates (c x layers + reduction)

images: those seen, epochs included. multiply-adds, activation bytes: of one image, in proportion to its pixels and, in
one family of networks, to the depth; the bytes are those that a step reads and writes. layers: convolutions and fully
connected ones. updates: made by all devices together. reduction: the gradients in float32, sent round a ring of the
devices after the backward pass: an upper bound, since in truth both overlap. Loading and evaluation are not in it.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from traffic import Operator

from residuum.models.summary import summarise


class NetCost(NamedTuple):
    """What the model knows of a network at one input size."""

    multiply_adds: int
    activation_bytes: float
    layers: int
    parameters: int


class Speeds(NamedTuple):
    """The model's coefficients, in seconds; none is negative."""

    per_multiply_add: float
    per_activation_byte: float
    per_layer: float


class Work(NamedTuple):
    """Images seen in a number of updates, which all devices make together; link: bytes/s from device to device."""

    images: int
    updates: int
    devices: int = 1
    link: float = math.inf


def net_cost(network: nn.Module, input_size: tuple[int, int, int], operators: Sequence[Operator]) -> NetCost:
    """`operators` are those of its training step (`training_operators`)."""
    summary = summarise(network, input_size)
    layers = sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in network.modules())
    moved = sum(operator.bytes_per_image for operator in operators)
    return NetCost(summary.multiply_adds, moved, layers, summary.parameters)


def predict(speeds: Speeds, net: NetCost, work: Work) -> float:
    """Seconds of training."""
    return float(np.dot(_amounts(net, work), speeds)) + work.updates * reduction(net, work)


def reduction(net: NetCost, work: Work) -> float:
    """Seconds of one all-reduce: each device sends every gradient 2 (d - 1) / d times."""
    return 2 * (work.devices - 1) / work.devices * net.parameters * torch.float32.itemsize / work.link


def _amounts(net: NetCost, work: Work) -> tuple[float, float, float]:
    images = work.images / work.devices
    return images * net.multiply_adds, images * net.activation_bytes, work.updates * net.layers


def fit(nets: Sequence[NetCost], works: Sequence[Work], seconds: Sequence[float]) -> Speeds:
    """The speeds, none negative, of the least squared relative error over measurements on one device each."""
    amounts = np.array([_amounts(net, work) for net, work in zip(nets, works, strict=True)])
    relative = amounts / np.array(seconds)[:, None]
    scale = relative.max(0)
    best = min(_candidates(relative / scale), key=lambda speeds: float(np.sum((relative / scale @ speeds - 1) ** 2)))
    return Speeds(*(best / scale).tolist())


def _candidates(columns: np.ndarray) -> Iterator[np.ndarray]:
    """The least-squares solutions over each set of columns: the best that is not negative is among them."""
    for used in itertools.product((False, True), repeat=columns.shape[1]):
        if any(used):
            speeds = np.zeros(len(used))
            speeds[list(used)] = np.linalg.lstsq(columns[:, used], np.ones(len(columns)))[0]
            if (speeds >= 0).all():
                yield speeds


def errors_left_out(nets: Sequence[NetCost], works: Sequence[Work], seconds: Sequence[float]) -> list[float]:
    """The error in % of each measurement's prediction by a model fitted to the others."""
    errors = []
    for left in range(len(nets)):
        others = ([*row[:left], *row[left + 1 :]] for row in (nets, works, seconds))
        errors.append(100 * (predict(fit(*others), nets[left], works[left]) / seconds[left] - 1))
    return errors
