"""A probe in the few numbers that a verdict rests on."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from residuum.diagnosis.facts import LayerFacts, Probe

_WEIGHTED = ("convolution", "linear", "attention", "other")


@dataclass(frozen=True)
class Signs:
    """What a network's facts come to. NaN where nothing tells.

    depth: the layers, in calls of convolutions, linear layers and the like, those side by side, too. growth: the median
    sensitivity of the first quarter of the layers over that of the last: how much the gradient grows on its way back,
    free of how each layer is scaled. blocked: whether no gradient at all comes to the first quarter. told: how far
    outputs are apart from image to image (root mean square); what all have in common does not count. alike: 1 - the
    variation between images in the last quarter before the output (its median). swelling: the largest standard
    deviation within the network over the input's (or over 1).
    dead, dead_layers: the mean share of dead units over the rectified layers, and the share of these layers of which
    nine tenths are dead. saturated: the mean share of saturated outputs over all layers with an activation.
    unnormalised: the median over batch normalisations of the share of channels whose variance is below eps.
    shift, stretch: the medians over them of what their running statistics differ by.
    """

    depth: int
    growth: float
    blocked: bool
    told: float
    alike: float
    swelling: float
    dead: float
    dead_layers: float
    saturated: float
    unnormalised: float
    shift: float
    stretch: float


def signs_of(probe: Probe) -> Signs:
    """The signs of a probe."""
    body, activated = probe.layers[:-1], [layer for layer in probe.layers if layer.activation]
    shares = [layer.dead for layer in rectified(probe.layers)]
    kept = [layer.normaliser for layer in probe.layers if layer.normaliser is not None]
    variation = median_of(layer.variation for layer in last_quarter(body))
    return Signs(
        depth=sum(layer.kind in _WEIGHTED for layer in probe.layers),
        growth=_growth(probe.layers),
        blocked=_is_blocked(probe.layers),
        told=probe.output_spread,
        alike=1 - variation,
        swelling=max((layer.std for layer in body), default=math.nan) / max(probe.input_std, 1.0),
        dead=sum(shares) / len(shares) if shares else math.nan,
        dead_layers=sum(share >= NEARLY_ALL for share in shares) / len(shares) if shares else math.nan,
        saturated=sum(_known(layer.saturated) for layer in activated) / len(activated) if activated else math.nan,
        unnormalised=median_of(one.small for one in kept),
        shift=median_of(one.shift for one in kept),
        stretch=median_of(one.stretch for one in kept),
    )


NEARLY_ALL = 0.9
"""Of a layer's units, dead: more than the 7 in 8 that a zero-padded shortcut leaves at zero beside a zero branch."""

_LOST = 1e-20  # the smallest float32 is 1e-45, and rounding takes from sums of products long before that


def last_quarter(layers: tuple[LayerFacts, ...]) -> tuple[LayerFacts, ...]:
    """The last quarter of the layers, one at least."""
    return layers[-max(1, len(layers) // 4) :]


def first_quarter(layers: tuple[LayerFacts, ...]) -> tuple[LayerFacts, ...]:
    """The first quarter of the layers, one at least."""
    return layers[: max(1, len(layers) // 4)]


def rectified(layers: tuple[LayerFacts, ...]) -> tuple[LayerFacts, ...]:
    """The layers whose units may die; not those whose signal is so small that float32 makes it zero by itself."""
    return tuple(layer for layer in layers if layer.dead >= 0 and max(layer.std, abs(layer.mean)) > _LOST)


def flowing(layers: tuple[LayerFacts, ...]) -> tuple[LayerFacts, ...]:
    """The layers that the loss depends on: not those before a weight of zero, in a branch that starts at zero."""
    return tuple(layer for layer in layers if layer.sensitivity > 0 and math.isfinite(layer.sensitivity))


def median_of(values: Iterable[float]) -> float:
    """The median of the numbers among the values; NaN of none."""
    known = [value for value in values if not math.isnan(value)]
    return median(known) if known else math.nan


def _growth(layers: tuple[LayerFacts, ...]) -> float:
    found = flowing(layers)
    if len(found) < 2:
        return math.nan
    first, last = (median(one.sensitivity for one in part) for part in (first_quarter(found), last_quarter(found)))
    return first / last


def _is_blocked(layers: tuple[LayerFacts, ...]) -> bool:
    known = [layer.gradient_std for layer in first_quarter(layers) if not math.isnan(layer.gradient_std)]
    return bool(known) and max(known) == 0.0


def _known(value: float) -> float:
    return 0.0 if math.isnan(value) else value
