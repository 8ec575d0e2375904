"""Layer responses: how much each 3x3 layer of a trained network changes its signal (He et al. 2015, figure 7)."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from residuum.data.facts import DataFacts
from residuum.diagnosis.facts import LayerFacts
from residuum.diagnosis.probe import probe
from residuum.hardware import choose_device
from residuum.records import Cell, Chart, Series, Table
from residuum.studies import degradation
from residuum.studies.degradation import PLAIN, RESIDUAL, kind_and_depth
from residuum.studies.probing import training_batch
from residuum.studies.results import Results, Spread, spread
from residuum.studies.study import Finding, Plan, ScaleName, Study, Subject
from residuum.weights import load

_DEPTHS = (18, 20, 34, 56, 110)  # those of figure 7, and of images above 64 pixels
_IMAGES = 256

Rows = NDArray[np.float64]  # (seeds, layers)
Means = Mapping[int, float]  # by seed, over the layers


def plan(scale: ScaleName, facts: DataFacts) -> Plan:
    """The networks of `degradation` with the depths of figure 7; what that study has trained is not trained again.

    The paper's figure has no plain network of 110 layers.
    """
    whole = degradation.plan(scale, facts)
    arms = (arm for arm in whole.arms if kind_and_depth(arm.name)[1] in _DEPTHS and arm.name != "plain-110")
    measured = tuple(replace(arm, measure=measure, settings={"images": _IMAGES}) for arm in arms)
    return replace(whole, arms=measured)


def measure(subject: Subject) -> Mapping[str, Any]:
    """Names and standard deviations of the responses of all 3x3 layers of the trained network, in order.

    A response is a layer's output after its normalisation, where it has one, before nonlinearity or addition: over all
    channels, positions and `images` training images, computed as in evaluation.
    """
    assert subject.folder is not None
    assert subject.run is not None
    classifier = load(subject.folder)
    device = choose_device(subject.run.device)
    images, labels = training_batch(subject.dataset, classifier.preprocessing, subject.settings["images"])
    found = probe(classifier.network.to(device), images.to(device), labels.to(device), training=False)
    responses = list(_responses(found.layers))
    return {"layers": [one.name for one in responses], "std": [one.std for one in responses]}


def _responses(layers: Sequence[LayerFacts]) -> Iterator[LayerFacts]:
    """What follows each 3x3 convolution: its normalisation, or where there is none the convolution itself."""
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if layer.kernel == (3, 3):
            is_normalised = following is not None and following.kind == "normalisation"
            yield following if is_normalised and following is not None else layer


def answer(results: Results) -> Finding:
    """Whether residual responses are smaller than plain ones, and those of deeper residual networks smaller still."""
    rows = {arm: found for arm in results.outcomes if len(found := _rows(results, arm))}
    table = Table(
        "Standard deviation of the responses of the 3x3 layers",
        ("arm", "layers", "mean", "± mean", "median", "smallest", "largest", "seeds"),
        tuple((arm, *_numbers(found)) for arm, found in rows.items()),
    )
    means = {arm: _by_seed(results, arm) for arm in rows}
    claims = [*_twins(means), *_deeper(means)]
    verdict = " ".join(claims) or "No two networks have been trained to an end, so there is nothing to compare."
    return Finding(verdict, table, _charts(rows))


def _rows(results: Results, arm: str) -> Rows:
    return np.array([outcome.measured["std"] for outcome in results.finished(arm)], np.float64)  # None becomes NaN


def _by_seed(results: Results, arm: str) -> Means:
    outcomes = results.finished(arm)
    return {one.seed: mean for one, mean in zip(outcomes, _rows(results, arm).mean(axis=1).tolist(), strict=True)}


def _mean(rows: Rows) -> Spread:
    """Over the seeds, of the mean over the layers."""
    return spread(rows.mean(axis=1).tolist())


def _numbers(rows: Rows) -> tuple[Cell, ...]:
    mean = _mean(rows)
    typical = rows.mean(axis=0)
    numbers = (mean.mean, mean.std, *(float(one(typical)) for one in (np.median, np.min, np.max)))
    return rows.shape[1], *(value if math.isfinite(value) else None for value in numbers), mean.n


# In words.


def _twins(means: Mapping[str, Means]) -> Iterator[str]:
    for arm in means:
        kind, depth = kind_and_depth(arm)
        if kind == RESIDUAL and (plain := f"{PLAIN}-{depth}") in means:
            yield f"{_compared(means, arm, plain)}."


def _deeper(means: Mapping[str, Means]) -> Iterator[str]:
    depths = sorted((arm for arm in means if kind_and_depth(arm)[0] == RESIDUAL), key=kind_and_depth)
    if len(depths) > 1:
        parts = "; ".join(_compared(means, deep, shallow) for shallow, deep in pairwise(depths))
        yield f"Over depth: {parts}."


def _compared(means: Mapping[str, Means], arm: str, other: str) -> str:
    """ "resnet-56 responds less than plain-56 (0.61 against 0.93 on average, with every one of 3 seeds)"."""
    pairs = [(ours, means[other][seed]) for seed, ours in means[arm].items() if seed in means[other]]
    known = [pair for pair in pairs if all(map(math.isfinite, pair))]
    if not known:
        return f"{arm} cannot be compared with {other}: no seed of both has finite responses"
    seeds, less = len(known), sum(ours < theirs for ours, theirs in known)
    if less not in (0, seeds):
        how, sure = "does not clearly respond less than", f"less with {less} of {seeds} seeds"
    else:
        how = "responds less than" if less else "does not respond less than"
        sure = f"with each of {seeds} seeds" if seeds > 1 else "one seed"
    if seeds < len(pairs):
        sure += f", {len(pairs) - seeds} more beyond all numbers"
    ours, theirs = (sum(values) / seeds for values in zip(*known, strict=True))
    return f"{arm} {how} {other} ({ours:.3f} against {theirs:.3f} on average, {sure})"


# Figure 7.


def _charts(rows: Mapping[str, Rows]) -> tuple[Chart, ...]:
    if not rows:
        return ()
    panels = (_panel(rows, "layer", lambda one: one), _panel(rows, "layer, sorted", lambda one: -np.sort(-one, axis=1)))
    means = ", ".join(f"{arm} {_mean(found).mean:.2f}" for arm, found in rows.items())
    alt = f"Standard deviation of each 3x3 layer's response, in order and sorted. Mean over the layers: {means}"
    return (Chart("Responses of the 3x3 layers: in order, and sorted by size", panels, alt),)


def _panel(rows: Mapping[str, Rows], x_label: str, ordered: Callable[[Rows], Rows]) -> tuple[Series, ...]:
    return tuple(_series(arm, ordered(found), x_label, number) for number, (arm, found) in enumerate(rows.items()))


def _series(arm: str, rows: Rows, x_label: str, number: int) -> Series:
    return Series(
        name=arm,
        x=tuple(float(layer) for layer in range(1, rows.shape[1] + 1)),
        y=tuple(rows.mean(axis=0).tolist()),
        x_label=x_label,
        y_label="standard deviation",
        run=number,
        spread=tuple(rows.std(axis=0, ddof=1).tolist()) if len(rows) > 1 else (),
    )


STUDY = Study(
    name="responses",
    question="Do the layers of a residual network change their signal less than those of a plain one?",
    source="He et al. 2015, section 4.2, figure 7",
    plan=plan,
    answer=answer,
)
