"""From facts to a verdict in words, with the reason in numbers and a remedy.

The thresholds were chosen on the first set of networks of benchmarks/diagnosis.py. The notes on them tell what all
three showed (tuning, judgement and drawn: benchmarks/results/diagnosis.json); only the last is a fair judge.
KEPT and what `told` measures came after it; no verdict on the networks drawn changed by them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from residuum.diagnosis.facts import LayerFacts, Probe
from residuum.diagnosis.signs import (
    Signs,
    first_quarter,
    flowing,
    last_quarter,
    median_of,
    rectified,
    signs_of,
)

Verdict = Literal["healthy", "vanishing", "exploding", "degraded", "dead", "saturated"]

GROWS = 500.0
"""Of `growth`: healthy networks of up to 156 layers with batch normalisation showed up to 280, plain ones of 32 layers
180, of 51 layers and more 1,700 and more: the growth per layer is a constant above 1 (Yang et al. 2019, "A Mean Field
Theory of Batch Normalization")."""
SHRINKS = 0.05
"""Of `growth`: healthy ones showed 0.15 and more, twelve sigmoids and fifty plain layers as PyTorch initialises them
5e-9 and less."""
SILENT, SILENT_IN_DEPTH = 1e-4, 1e-3
"""Of `told`, the latter from DEEP layers on: healthy ones showed 0.003 and more, faulty ones up to 0.0011, those
of fewer layers up to 1e-10."""
ALIKE, FAINT, DEEP, VERY_DEEP = 0.9, 0.01, 10, 40
"""Of `alike`, with a `told` of at most FAINT in DEEP networks and whatever it is in VERY_DEEP ones: fifty convolutions
and more by He's initialisation without normalisation showed 0.94 and more, healthy networks of 40 layers and more up to
0.84, but 0.96 and 0.98 two with layer normalisation, which are the false alarms of the set drawn. Fewer layers that
look so at first, such as SqueezeNet's 26 (0.99), are healthy."""
KEPT = 0.5
"""Of 1 - `alike`, as a share of the input's: images that are alike from the start are not made so by the network."""
UNNORMALISED = 0.5
"""Of `unnormalised`, where `told` is at most FAINT: healthy ones showed 0, those with a huge eps 1. An eps that is
larger than every variance does no harm as long as the output tells images apart."""
SWOLLEN = 100.0
"""Of `swelling`: healthy ones showed up to 34, 50 convolutions in residual sums without normalisation 3,500, a residual
network of 56 layers without normalisation 820."""
SATURATED = 0.5
"""Of `saturated`: healthy ones showed up to 0.35 (trained), weights too large 0.60 and more."""
MOSTLY_DEAD, DEAD_LAYERS = 0.5, 0.1
"""Of `dead` and `dead_layers`: healthy ones showed up to 0.20 and 0, those with dead ReLUs 0.30 and 0.29 at least."""
STALE_SHIFT, STALE_STRETCH = 0.3, 3.0
"""Of `shift` and of `stretch` or its reciprocal: trained ones showed up to 0.07 and 1.02, those whose
statistics were lost or stood still shifts of 0.62 at least, stretches from 0.94 to 4.4."""
RECKLESS = 1.0
"""Of the median update over weight: a step as long as the weights leaves nothing of them. Usual is 0.001 to 0.1."""


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a network, if anything. reason and remedy are sentences; lr: the rate it was judged for."""

    verdict: Verdict
    reason: str
    remedy: str
    signs: Signs
    probe: Probe
    lr: float | None = None


class Finding(NamedTuple):
    """A reason and a remedy."""

    reason: str
    remedy: str


Rule = Callable[[Probe, Signs, float | None], Finding | None]


def judge(probe: Probe, lr: float | None = None) -> Diagnosis:
    """The verdict on a probe: that of the first rule that speaks. lr: the learning rate to be trained with, if any."""
    signs = signs_of(probe)
    for verdict, rule in RULES:
        found = rule(probe, signs, lr)
        if found is not None:
            return Diagnosis(verdict, *found, signs, probe, lr)
    return Diagnosis("healthy", _health(probe, signs), "None is needed.", signs, probe, lr)


def _no_numbers(probe: Probe, signs: Signs, lr: float | None) -> Finding | None:
    odd = [layer for layer in probe.layers if not math.isfinite(layer.std)]
    steep = [layer for layer in probe.layers if math.isinf(layer.gradient_std)]
    if not odd and not steep and math.isfinite(probe.loss):
        return None
    where = f"The output of {odd[0].name}" if odd else f"The gradient of {steep[-1].name}" if steep else "The loss"
    return Finding(
        f"{where} is no finite number.",
        "Train again from before it happened with a lower rate, a warm-up or clipped gradients; check the images for "
        "values that are no numbers.",
    )


def _dead(probe: Probe, signs: Signs, lr: float | None) -> Finding | None:
    weighted = [layer for layer in probe.layers if layer.kind in ("convolution", "linear")]
    if weighted and not any(layer.weight_norm for layer in weighted):
        return Finding("All weights are zero.", "Initialise them at random: by He's initialisation with ReLUs.")
    is_cut = signs.blocked and signs.dead_layers > 0
    if not (is_cut or signs.dead_layers >= DEAD_LAYERS or signs.dead >= MOSTLY_DEAD):
        return None
    worst = max(rectified(probe.layers), key=lambda layer: layer.dead)
    reached = " and no gradient reaches the first layers" if signs.blocked else ""
    return Finding(
        f"{100 * worst.dead:.0f} % of the units of {worst.name} are zero after {worst.activation} for every image, "
        f"{100 * signs.dead_layers:.0f} % of the layers with one are all but dead{reached}.",
        "They cannot come back: initialise again with biases of zero, train with a lower rate or a warm-up, or put a "
        "normalisation before the activation.",
    )


def _saturated(probe: Probe, signs: Signs, lr: float | None) -> Finding | None:
    if not signs.saturated >= SATURATED:
        return None
    worst = max((layer for layer in probe.layers if layer.saturated >= 0), key=lambda layer: layer.saturated)
    return Finding(
        f"{100 * worst.saturated:.0f} % of what {worst.activation} makes of {worst.name} lies within 0.01 of its ends, "
        f"where it passes on 2 % of a gradient at most; over all layers {100 * signs.saturated:.0f} %.",
        "Start from smaller weights (Xavier's initialisation), normalise before the activation, or use ReLUs.",
    )


def _swollen(probe: Probe, signs: Signs, lr: float | None) -> Finding | None:
    if not signs.swelling >= SWOLLEN:
        return None
    largest = max(probe.layers[:-1], key=lambda layer: layer.std)
    share = median_of(join.share for join in probe.joins)
    in_sums = f", and each residual branch adds {100 * share:.0f} % of its sum" if probe.joins else ""
    return Finding(
        f"The signal grows from a standard deviation of {probe.input_std:.2g} to {largest.std:.2g} at "
        f"{largest.name}{in_sums}.",
        "Normalise within the branches, or let them start at zero (zero-gamma)."
        if probe.joins
        else "Initialise by fan-in (He with ReLUs, Xavier with tanh), or normalise after each layer.",
    )


def _grows_back(probe: Probe, signs: Signs, lr: float | None) -> Finding | None:
    if not signs.growth >= GROWS:
        return None
    return Finding(
        f"The gradient grows on its way back: {_way_back(probe)}.",
        "Add shortcuts, take fewer layers, or train with a warm-up from a lower rate."
        if not probe.joins
        else "Let the branches start at zero (zero-gamma), or train with a warm-up from a lower rate.",
    )


def _reckless(probe: Probe, signs: Signs, lr: float | None) -> Finding | None:
    ratios = [layer.update_ratio(lr) for layer in probe.layers if layer.kind != "normalisation"] if lr else []
    middle = median_of(ratios)
    if not middle >= RECKLESS:
        return None
    return Finding(
        f"At a rate of {lr:g} one step is {middle:.2g} times as long as the weights it changes (median over layers).",
        "Lower the rate until that is 0.01 or less, or begin with a warm-up.",
    )


def _vanishing(probe: Probe, signs: Signs, lr: float | None) -> Finding | None:
    if _starts_at_zero(probe):
        return None
    if signs.blocked:
        return Finding("No gradient at all reaches the first layers.", _cure(probe, signs))
    if signs.growth <= SHRINKS:
        return Finding(f"The gradient shrinks on its way back: {_way_back(probe)}.", _cure(probe, signs))
    least = SILENT_IN_DEPTH if signs.depth >= DEEP else SILENT
    if signs.told <= least or (signs.told <= FAINT and signs.unnormalised >= UNNORMALISED):
        return Finding(
            f"The output hardly depends on the image: what differs between images falls from a standard deviation of "
            f"{probe.input_spread:.2g} to {signs.told:.1e}.",
            _cure(probe, signs),
        )
    return None


def _cure(probe: Probe, signs: Signs) -> str:
    if signs.unnormalised >= UNNORMALISED:
        return "Lower the eps of the batch normalisations: it is larger than the variances it is added to."
    if any(layer.activation in ("sigmoid", "tanh") for layer in probe.layers):
        return "Use ReLUs with He's initialisation, or normalise before each activation; add shortcuts."
    if any(layer.kind == "normalisation" for layer in probe.layers):
        return "Add shortcuts, or initialise by fan-in (He)."
    return "Initialise by fan-in (He with ReLUs), normalise after each layer, and add shortcuts."


def _degraded(probe: Probe, signs: Signs, lr: float | None) -> Finding | None:
    is_faint = signs.depth >= DEEP and signs.told <= FAINT
    is_loss = 1 - signs.alike <= KEPT * probe.input_variation
    if not (signs.alike >= ALIKE and is_loss and (is_faint or signs.depth >= VERY_DEEP)) or _starts_at_zero(probe):
        return None
    return Finding(
        f"Images become alike on their way: 1 - cosine between two of them is {probe.input_variation:.2f} at the input "
        f"and {1 - signs.alike:.3f} in the last quarter of {signs.depth} layers; the output differs by "
        f"{signs.told:.1e}.",
        "Add shortcuts, or normalise after each layer; fewer layers would do as well.",
    )


def _stale(probe: Probe, signs: Signs, lr: float | None) -> Finding | None:
    apart = max(signs.stretch, 1 / signs.stretch) if signs.stretch > 0 else math.nan
    if not (signs.shift >= STALE_SHIFT or apart >= STALE_STRETCH):
        return None
    still = any(layer.normaliser is not None and layer.normaliser.momentum == 0 for layer in probe.layers)
    return Finding(
        "The running statistics of the batch normalisations are not those of these images: in the middle layer the "
        f"means are {signs.shift:.2g} standard deviations apart, the variances {signs.stretch:.2g}-fold; in evaluation "
        "the network computes something else than in training.",
        "Their momentum is 0: set it to 0.1 and train on, or run some batches through in training mode."
        if still
        else "Run some batches of the training images through in training mode; check that the images are prepared as "
        "in training.",
    )


def _starts_at_zero(probe: Probe) -> bool:
    """Whether only the last layer is zero, as some start: then no gradient reaches the others before the first step."""
    *body, last = probe.layers or (None,)
    return last is not None and last.weight_norm == 0 and any(layer.std > 0 for layer in body if layer)


def _way_back(probe: Probe) -> str:
    """From the middle of the last quarter to that of the first."""
    found = flowing(probe.layers)
    (first, front), (last, back) = _middle(first_quarter(found)), _middle(last_quarter(found))
    times = front / back
    fold = f"{times:,.0f}-fold" if times >= 10 else f"to {times:.1e} of it"
    return f"the loss's relative sensitivity is {back:.2g} at {last} and {front:.2g} at {first}, {fold}"


def _middle(layers: tuple[LayerFacts, ...]) -> tuple[str, float]:
    ordered = sorted(layers, key=lambda layer: layer.sensitivity)
    chosen = ordered[len(ordered) // 2]
    return chosen.name, chosen.sensitivity


def _health(probe: Probe, signs: Signs) -> str:
    if _starts_at_zero(probe):
        return "The last layer's weights are zero, so that gradients reach the others only after a first step."
    parts = [f"over {signs.depth} layers the gradient becomes {signs.growth:.2g} times as strong on its way back"]
    if math.isnan(signs.growth):
        parts = [f"{signs.depth} layers"]
    if not math.isnan(signs.told):
        parts.append(f"the output differs between images by {signs.told:.2g}")
    if not math.isnan(signs.dead):
        parts.append(f"{100 * signs.dead:.0f} % of the units are dead")
    return f"{parts[0][0].upper()}{'; '.join(parts)[1:]}."


RULES: tuple[tuple[Verdict, Rule], ...] = (
    ("exploding", _no_numbers),
    ("dead", _dead),
    ("saturated", _saturated),
    ("exploding", _swollen),
    ("exploding", _grows_back),
    ("exploding", _reckless),
    ("vanishing", _vanishing),
    ("degraded", _degraded),
    ("degraded", _stale),
)
"""In the order in which they are asked: a cause comes before what it leads to."""
