"""`additive-gradient`: why y = x + g(x) keeps the gradient alive where y = g(x) does not; measured, nothing trained."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from residuum.data.decoding import BadImage
from residuum.data.facts import DataFacts
from residuum.data.preprocessing import Preprocessing
from residuum.models.catalogue import create_model
from residuum.models.trunk import ResNet
from residuum.randomness import derived_seed
from residuum.records import Cell, Chart, Series, Table
from residuum.studies.measured import sizes
from residuum.studies.results import Results, spread
from residuum.studies.study import Arm, Finding, Plan, ScaleName, Study, Subject

Function = Callable[[Tensor], Tensor]

_COMPOSED, _ADDED = "y = g(x)", "y = x + g(x)"
_GAINS = (0.2, 0.8, 1.25)
_UNITS = {"with BN": "batch", "without BN": "none"}
_SETTINGS: dict[str, Any] = {
    "layers": [2, 4, 8, 16, 32, 64, 100],
    "side": 16,  # pixels: an image is 256 numbers to a linear layer
    "images": 16,
}
_LOST = 1e-3  # a gradient below this share of itself has vanished, above its inverse exploded


def plan(scale: ScaleName, facts: DataFacts) -> Plan:
    """Chains of the same functions, composed and added: layers of three gains, basic units with and without BN."""
    linear: dict[str, dict[str, Any]] = {f"linear, gain {gain:g}": {"kind": "linear", "gain": gain} for gain in _GAINS}
    units: dict[str, dict[str, Any]] = {
        f"basic unit, {name}": {"kind": "unit", "normalisation": kind} for name, kind in _UNITS.items()
    }
    arms = tuple(
        Arm(f"{name}: {joined}", measure=measure, settings={**_SETTINGS, **settings, "added": joined == _ADDED})
        for name, settings in {**linear, **units}.items()
        for joined in (_COMPOSED, _ADDED)
    )
    return Plan(arms, seeds=3)


def measure(subject: Subject) -> Mapping[str, Any]:
    """The gradient at the input of chains of `layers`, over the one put in at their output.

    "layers" and "gradient" over the depth, in float64; "factor": the fitted growth a layer. The first L functions of
    one chain are the chain of L layers.
    """
    settings, images = subject.settings, _images(subject)
    depths, added = settings["layers"], settings["added"]
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(subject.seed, "additive-gradient"))
        if settings["kind"] == "linear":
            x, step = images.flatten(1), 1
            chain: Sequence[Function] = linear_chain(max(depths), x.shape[1], settings["gain"], added=added)
        else:
            x, step, chain = *_stem(images), _unit_chain(max(depths) // 2, settings["normalisation"], added=added)
        direction = torch.randn_like(x)
    gradients = [gradient_ratio(chain[: depth // step], x, direction) for depth in depths]
    return {"layers": depths, "gradient": gradients, "factor": growth(depths, gradients)}


def gradient_ratio(chain: Sequence[Function], x: Tensor, direction: Tensor) -> float:
    """|J^T v| / |v| for the chain's Jacobian J at x and v = `direction`: what a gradient becomes on its way back."""
    start = x.detach().requires_grad_()
    y = start
    for function in chain:
        y = function(y)
    (gradient,) = torch.autograd.grad((y * direction).sum(), start)
    return float(gradient.norm() / direction.norm())


def growth(layers: Sequence[int], gradients: Sequence[float]) -> float:
    """The factor a layer of the exponential that fits best in the logarithm (least squares).

    NaN where a gradient is 0 or infinite.
    """
    if min(gradients) <= 0 or not all(map(math.isfinite, gradients)):
        return math.nan
    return float(np.exp(np.polyfit(layers, np.log(gradients), 1)[0]))


def linear_chain(length: int, width: int, gain: float, *, added: bool) -> list[Function]:
    """g(x) = gain * W ReLU(x), or x + that; W normal with variance 2 / width: g multiplies a gradient by `gain`.

    He et al. 2015b (arXiv 1502.01852), section 2.2; the ReLU comes first, as in He et al. 2016.
    """
    weights = gain * math.sqrt(2 / width) * torch.randn(length, width, width, dtype=torch.float64)
    composed = [partial(_rectified, weight) for weight in weights]
    return [partial(_plus_input, g) for g in composed] if added else [*composed]


def _rectified(weight: Tensor, x: Tensor) -> Tensor:
    return torch.relu(x) @ weight.T


def _plus_input(g: Function, x: Tensor) -> Tensor:
    return x + g(x)


def _unit_chain(units: int, normalisation: str, *, added: bool) -> list[nn.Module]:
    """Basic units of one width, of two layers each, with their shortcut or without."""
    shortcut = "A" if added else "none"
    network = create_model(f"resnet{6 * units + 2}", shortcut=shortcut, normalisation=normalisation)
    assert isinstance(network, ResNet)
    return [*network.stages()[0].double()]


def _stem(images: Tensor) -> tuple[Tensor, int]:
    """What the stem of a CIFAR network makes of the images, and how many layers a unit has."""
    network = create_model("resnet8", in_channels=1).double()
    assert isinstance(network, ResNet)
    return network.stem(images).detach(), 2


def _images(subject: Subject) -> Tensor:
    """(N, 1, S, S) float64: `images` test images in grey of `side` pixels, of mean 0 and variance 1 in all."""
    _, split = subject.dataset.held_out()
    view = Preprocessing(1, subject.settings["side"], mean=(0.0,), std=(1.0,)).view
    pictures: list[NDArray[np.uint8]] = []
    for index in np.random.default_rng(subject.seed).permutation(len(split)):
        with suppress(BadImage):  # another one will do
            pictures.append(view(split.read(int(index), 1)))
        if len(pictures) == subject.settings["images"]:
            break
    images = torch.from_numpy(np.stack(pictures)).double()
    return ((images - images.mean()) / images.std()).permute(0, 3, 1, 2)


def answer(results: Results) -> Finding:
    """What the deepest chains leave of the gradient, composed and added, and the growth a layer that fits."""
    pairs = [arm.removesuffix(f": {_COMPOSED}") for arm in results.outcomes if arm.endswith(_COMPOSED)]
    return Finding(
        verdict=_verdict(results, pairs),
        table=_table(results),
        charts=(_chart(results, pairs),),
        notes=(
            "the gradient at the chain's input over the one at its output, on images of the data, at the first "
            f"weights; it has vanished below {_LOST:g} and exploded above {1 / _LOST:g}",
            "linear: g(x) = a W ReLU(x) of gain a; expected: the square of a gradient is multiplied by a^2 a layer, "
            "and by 1 + a^2 where x is added, since what passes the identity and what passes g are uncorrelated",
            "basic unit: two 3x3 convolutions, and the ReLU that follows the addition, as in He et al. 2015",
            "an addition cannot make the gradient vanish, but nothing keeps it from growing: that is the part of "
            "normalisation, or of a small g",
        ),
    )


def _deepest(results: Results, arm: str) -> float:
    """The geometric mean over the seeds, after the most layers."""
    return float(_means(results, arm)[-1])


def _means(results: Results, arm: str) -> NDArray[np.float64]:
    """The geometric mean over the seeds at each depth: 0 where one is 0, infinite where one is beyond all numbers."""
    gradients = np.array([sizes(one.measured["gradient"]) for one in results.outcomes[arm]])
    with np.errstate(divide="ignore"):
        logarithms = np.log(gradients)
    # Of 0 and infinity there is no mean: that it exploded at all is what counts.
    return np.exp(np.where(np.isposinf(logarithms).any(axis=0), np.inf, logarithms).mean(axis=0))


def _fate(ratio: float) -> str:
    return "vanishes" if ratio < _LOST else "explodes" if ratio > 1 / _LOST else "stays alive"


def _verdict(results: Results, pairs: Sequence[str]) -> str:
    depth = max(results.outcomes[f"{pairs[0]}: {_COMPOSED}"][0].measured["layers"])
    told = []
    for joined in (_COMPOSED, _ADDED):
        ratios = {name: _deepest(results, f"{name}: {joined}") for name in pairs}
        fates = [
            f"{fate} in {', '.join(f'{name} (x {ratios[name]:.1e})' for name in names)}"
            for fate in ("vanishes", "stays alive", "explodes")
            if (names := [name for name in pairs if _fate(ratios[name]) == fate])
        ]
        told.append(f"Over {depth} layers of {joined} the gradient {'; '.join(fates)}.")
    return " ".join([*told, _never_vanishes(results, pairs)])


def _never_vanishes(results: Results, pairs: Sequence[str]) -> str:
    lost = [name for name in pairs if _fate(_deepest(results, f"{name}: {_ADDED}")) == "vanishes"]
    if lost:
        return f"Even with the input added it vanishes in {', '.join(lost)}."
    return "With the input added it vanishes in none."


def _table(results: Results) -> Table:
    columns = ("arm", "gradient after 100 layers", "factor a layer", "± factor", "expected", "seeds")
    rows = tuple(_row(results, arm) for arm in results.outcomes)
    return Table("The gradient at the input of a chain", columns, rows)


def _row(results: Results, arm: str) -> tuple[Cell, ...]:
    outcomes = results.outcomes[arm]
    factor = spread(_known(outcome.measured["factor"]) for outcome in outcomes)
    settings = next(one.settings for one in results.plan.arms if one.name == arm)
    std = None if math.isnan(factor.std) else factor.std
    mean = factor.mean if factor.n else None
    return arm, f"{_deepest(results, arm):.1e}", mean, std, _expected(settings), len(outcomes)


def _known(factor: float | None) -> float:
    return math.nan if factor is None else factor


def _expected(settings: Mapping[str, Any]) -> float | None:
    if settings["kind"] != "linear":
        return None
    gain: float = settings["gain"]
    return math.sqrt(1 + gain**2) if settings["added"] else gain


def _chart(results: Results, pairs: Sequence[str]) -> Chart:
    panels = tuple(
        tuple(_line(results, f"{name}: {joined}", name, number) for number, name in enumerate(pairs))
        for joined in (_COMPOSED, _ADDED)
    )
    alt = f"The gradient at the input over the depth, on the left of {_COMPOSED}, on the right of {_ADDED}"
    return Chart("What is left of the gradient", panels, alt, log_y=True, log_first=True)


def _line(results: Results, arm: str, name: str, number: int) -> Series:
    """The geometric mean over the seeds, depth by depth."""
    layers, means = results.outcomes[arm][0].measured["layers"], _means(results, arm)
    means = np.where(np.isfinite(means), means, np.nan)  # a gap
    joined = arm.removeprefix(f"{name}: ")
    label = f"gradient at the input over that at the output, {joined}"
    return Series(name, tuple(map(float, layers)), tuple(means.tolist()), "layers", label, run=number, has_markers=True)


STUDY = Study(
    name="additive-gradient",
    question="Why does y = x + g(x) keep the gradient alive over many layers where y = g(x) does not?",
    source="He et al. 2016, section 2, equation 5; He et al. 2015b (arXiv 1502.01852), section 2.2",
    plan=plan,
    answer=answer,
)
