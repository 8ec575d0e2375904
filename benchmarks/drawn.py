"""Networks for diagnosis.py whose kind, depth, width and strength of fault are drawn, so that nobody chose them.

Written down when the thresholds were final, and run once.
"""

from collections.abc import Callable
from functools import partial
from random import Random

from diagnosed import DIES, EXPLODES, FORWARD, SATURATES, STALE, own
from planted import (
    Case,
    Growing,
    Tokens,
    biased,
    forgotten,
    gaussian,
    he,
    momentum,
    named,
    perceptron,
    plain,
    shifted,
    sums,
    with_eps,
)
from torch import nn

SEED, EACH = 20261121, 5
ZOO = [
    "resnet18",
    "resnet50",
    "wide_resnet50_2",
    "vgg11",
    "vgg13_bn",
    "vgg16",
    "densenet121",
    "densenet161",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "efficientnet_b2",
    "regnet_x_800mf",
    "regnet_y_1_6gf",
    "convnext_tiny",
    "swin_v2_t",
    "shufflenet_v2_x1_5",
    "mnasnet0_75",
]

Draw = Callable[[Random], Case]


def drawn() -> list[Case]:
    """Five of every kind: 55 with a fault, 50 healthy."""
    chance = Random(SEED)
    return [kind(chance) for kind in (*FAULTS, *HEALTHY) for _ in range(EACH)]


def _log_uniform(chance: Random, low: float, high: float) -> float:
    return low * (high / low) ** chance.random()


def _cifar(chance: Random, kind: str, least: int, most: int) -> str:
    return f"{kind}{6 * chance.randint(least, most) + 2}"


# With a fault.


def _small_weights(chance: Random) -> Case:
    depth, width, std = chance.randint(8, 60), chance.randint(16, 64), _log_uniform(chance, 0.001, 0.012)
    name = f"drawn: {depth} convolutions of {width}, gaussian {std:.2g}"
    changed = partial(gaussian, std=std)
    return own(name, partial(plain, depth, width), changed, fault="small weights", expected=FORWARD)


def _large_weights(chance: Random) -> Case:
    depth, width, gain = chance.randint(12, 40), chance.randint(16, 64), chance.uniform(2.5, 6)
    name = f"drawn: {depth} convolutions of {width}, {gain:.2g} He"
    return own(name, partial(plain, depth, width), partial(he, gain=gain), fault="large weights", expected=EXPLODES)


def _bare_plain(chance: Random) -> Case:
    depth, width = chance.randint(46, 80), chance.randint(16, 64)
    name = f"drawn: {depth} convolutions of {width} as PyTorch starts them"
    return own(name, partial(plain, depth, width), fault="50 plain layers", expected=FORWARD)


def _normalised_plain(chance: Random) -> Case:
    name = _cifar(chance, "plain", 8, 18)
    return Case(f"drawn: {name}", named(name), fault="50 plain layers, BN", expected=EXPLODES)


def _saturated(chance: Random) -> Case:
    depth, gain = chance.randint(5, 24), chance.uniform(6, 20)
    kind = chance.choice([nn.Tanh, nn.Sigmoid])
    gain = gain if kind is nn.Tanh else 2 * gain
    name = f"drawn: {depth} {kind.__name__}, {gain:.2g} He"
    return own(name, partial(plain, depth, 32, kind), partial(he, gain=gain), fault="saturated", expected=SATURATES)


def _sums(chance: Random) -> Case:
    units, width = chance.randint(25, 80), chance.randint(16, 48)
    name = f"drawn: {units} sums of {width}, He"
    return own(name, partial(sums, units, width), he, fault="residual sums", expected=EXPLODES)


def _bare_resnet(chance: Random) -> Case:
    name = _cifar(chance, "resnet", 8, 18)
    build = named(name, normalisation="none")
    return Case(f"drawn: {name} without normalisation", build, fault="residual sums", expected=EXPLODES)


def _dead(chance: Random) -> Case:
    if chance.random() < 0.5:
        name, value = _cifar(chance, "resnet", 2, 10), -chance.uniform(6, 30)
        change = partial(shifted, value=value)
        return own(f"drawn: {name}, BN shift {value:.2g}", named(name), change, fault="dead ReLUs", expected=DIES)
    depth, value = chance.randint(4, 8), -chance.uniform(20, 60)
    change = partial(biased, value=value, start=1, stop=3)
    name = f"drawn: MLP of {depth}, biases {value:.2g}"
    return own(name, partial(perceptron, depth, 128), change, fault="dead ReLUs", expected=DIES)


def _large_eps(chance: Random) -> Case:
    name, eps = _cifar(chance, "resnet", 2, 8), _log_uniform(chance, 100, 1e5)
    change = partial(with_eps, eps=eps)
    return own(f"drawn: {name}, eps {eps:.2g}", named(name), change, fault="broken BN", expected=FORWARD)


def _stale(chance: Random) -> Case:
    name = _cifar(chance, chance.choice(["resnet", "plain"]), 1, 4)
    if chance.random() < 0.5:
        still = partial(momentum, value=0.0)
        return own(f"drawn: {name}, momentum 0", named(name), still, fault="broken BN", expected=STALE, updates=150)
    return own(
        f"drawn: {name}, statistics lost", named(name), fault="broken BN", expected=STALE, updates=150, change=forgotten
    )


def _reckless(chance: Random) -> Case:
    rate, depth = _log_uniform(chance, 2, 30), chance.randint(3, 10)
    name = f"drawn: MLP of {depth}, trained at {rate:.2g}"
    facts = {"fault": "huge rate", "expected": (*DIES, *EXPLODES), "updates": 30, "rate": rate}
    return own(name, partial(perceptron, depth, 128), **facts)


FAULTS: tuple[Draw, ...] = (
    _small_weights,
    _large_weights,
    _bare_plain,
    _normalised_plain,
    _saturated,
    _sums,
    _bare_resnet,
    _dead,
    _large_eps,
    _stale,
    _reckless,
)


# Healthy.


def _residual(chance: Random) -> Case:
    name = _cifar(chance, chance.choice(["resnet", "preact_resnet"]), 1, 18)
    return Case(f"drawn: {name}", named(name))


def _residual_told_a_rate(chance: Random) -> Case:
    name, lr = _cifar(chance, "resnet", 1, 10), _log_uniform(chance, 0.001, 0.1)
    return Case(f"drawn: {name} for a rate of {lr:.2g}", named(name), lr=lr)


def _other_parts(chance: Random) -> Case:
    name, part = _cifar(chance, "resnet", 1, 9), chance.choice(["layer", "group"])
    return Case(f"drawn: {name}, {part} normalisation", named(name, normalisation=part))


def _shallow_plain(chance: Random) -> Case:
    name = _cifar(chance, "plain", 1, 4)
    return Case(f"drawn: {name}", named(name))


def _convolutions(chance: Random) -> Case:
    depth, width = chance.randint(3, 20), chance.randint(16, 64)
    return own(f"drawn: {depth} convolutions of {width}, He", partial(plain, depth, width), he)


def _quiet_sums(chance: Random) -> Case:
    units, width = chance.randint(5, 50), chance.randint(16, 48)
    return own(f"drawn: {units} sums of {width} as PyTorch starts them", partial(sums, units, width))


def _perceptron(chance: Random) -> Case:
    depth, kind = chance.randint(2, 6), chance.choice([nn.ReLU, nn.GELU, nn.Tanh])
    return own(f"drawn: MLP of {depth}, {kind.__name__}", partial(perceptron, depth, 128, kind))


def _others(chance: Random) -> Case:
    if chance.random() < 0.5:
        layers, first = chance.randint(2, 10), chance.random() < 0.5
        return own(f"drawn: transformer of {layers}, pre-norm {first}", partial(Tokens, layers, 64, first))
    layers = chance.randint(5, 24)
    return own(f"drawn: dense, {layers}", partial(Growing, layers, 12))


def _zoo(chance: Random) -> Case:
    name = chance.choice(ZOO)
    return Case(f"drawn: {name}", named(f"torchvision/{name}"), size=96, images=8)


def _trained(chance: Random) -> Case:
    name, updates = _cifar(chance, chance.choice(["resnet", "plain"]), 1, 3), chance.randint(100, 250)
    return Case(f"drawn: {name}, trained for {updates}", named(name), updates=updates)


HEALTHY: tuple[Draw, ...] = (
    _residual,
    _residual_told_a_rate,
    _other_parts,
    _shallow_plain,
    _convolutions,
    _quiet_sums,
    _perceptron,
    _others,
    _zoo,
    _trained,
)
