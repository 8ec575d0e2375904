"""Whether an exported model is the network that it came from: logits on real images, and accuracy."""

import math
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from residuum.data.decoding import BadImage
from residuum.data.preprocessing import Preprocessing
from residuum.data.sources import DataSet
from residuum.data.splits import Split, SubSplit
from residuum.errors import UserError
from residuum.evaluation.evaluate import predictor
from residuum.evaluation.views import Protocol
from residuum.inference.engines import Engine, Name, engines_at_hand, open_engine
from residuum.inference.evaluate import measure
from residuum.inference.exported import Exported, read_head
from residuum.inference.predictors import Model
from residuum.model_config import public_name
from residuum.weights import Classifier

TOLERANCE = 1e-3
"""By how much a logit may differ at most, in standard deviations of the logits over the images.

float32 in another order of summation gives some 1e-6, through a thousand layers 1e-4. Folding, padding, an operator or
the order of channels gone wrong gives 1e-2 and more. And two classes must lie within twice of it to change places.
"""
_ROUNDINGS, _MOST = 4.0, 1e-2
"""Of a network that makes more of a rounding: so many times what PyTorch's own do in it, but never more than that."""
_CONSTANT = 1e-4
"""Share of their size by which logits at least differ between images, where that is more than roundings."""
BATCHES = (1, 32)
IMAGES = 64
MOST_JUDGED = 5000
"""Images that accuracy is measured on, drawn evenly where a split has more: half a point is then 25 of them."""

Images = NDArray[np.float32]
Logits = NDArray[np.float32]
_Numbers = NDArray[Any]


@dataclass(frozen=True)
class Parity:
    """One engine at one batch size beside PyTorch in float32, on the same images.

    images: how many distinct ones. difference: the largest of a logit; rms: the root of the mean square; both in
    standard deviations of PyTorch's logits over the images. agreement: share of the images with the same first class,
    in %.
    """

    engine: str
    batch: int
    images: int
    difference: float
    rms: float
    agreement: float


@dataclass(frozen=True)
class Worth:
    """One engine's accuracy beside PyTorch's in float32, on the same images, in %; drop in points, below 0 a gain."""

    engine: str
    images: int
    measure: str
    before: float
    after: float

    @property
    def drop(self) -> float:
        return self.before - self.after


@dataclass(frozen=True)
class Checks:
    """What was measured of an export: on which data and split, seen how, by every engine at hand; worth: of int8."""

    data: str
    split: str
    protocol: str
    parity: tuple[Parity, ...]
    worth: tuple[Worth, ...] = ()

    def record(self) -> dict[str, Any]:
        """As JSON."""
        found = asdict(self)
        found["worth"] = [{**asdict(one), "drop": one.drop} for one in self.worth]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


def check(classifier: Classifier, exported: Exported, dataset: DataSet, max_drop: float) -> Checks:
    """Compare an export with its network on the held-out images of a data set, opened with the model's classes.

    By every installed engine that runs it. Raises UserError where one gives other logits than PyTorch: past the
    tolerance, or, of int8, where the accuracy drops by more than `max_drop` points.
    """
    split, images = dataset.held_out(None)
    shown = real_images(images, classifier.preprocessing, IMAGES)
    reference = _Reference(classifier.network, shown)
    engines = {name: open_engine(exported, name) for name in engines_at_hand(exported)}
    parity = [row for engine in engines.values() for row in _compared(exported, engine, reference)]
    worth = _worth(classifier, exported, engines, dataset, split) if exported.number == "int8" else []
    if lost := [one for one in worth if not one.drop <= max_drop]:
        raise _too_much_lost(max(lost, key=lambda one: one.drop), max_drop)
    protocol = Protocol().name(classifier.preprocessing)
    return Checks(public_name(dataset.spec), split, protocol, tuple(parity), tuple(worth))


def real_images(split: Split, handling: Preprocessing, count: int) -> Images:
    """Up to `count` images drawn evenly from a split, as the network sees them: (N, C, S, S) float32, normalised.

    What cannot be read is left out. Raises UserError where nothing can.
    """
    views = [view for index in evenly(len(split), count) for view in _view(split, int(index), handling)]
    if not views:
        raise UserError("none of the images can be read; run `residuum check` on the data")
    return handling.normalise_views(np.stack(views))


def evenly(length: int, count: int) -> NDArray[np.int64]:
    """Up to `count` of `length` indices, in order and as far apart as can be: of every class where they are sorted."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(np.int64))


def _view(split: Split, index: int, handling: Preprocessing) -> Iterator[NDArray[np.uint8]]:
    try:
        yield handling.view(split.read(index, handling.channels))
    except BadImage:
        return


class _Reference:
    """What PyTorch gives on the CPU, without the temperature, and how far from it an export may be.

    images: those given, repeated where they do not fill the largest batch; distinct: how many they are. Raises
    UserError for a network whose own logits are no numbers.
    """

    def __init__(self, network: nn.Module, images: Images) -> None:
        self.distinct = len(images)
        self.images = images[np.arange(max(len(images), *BATCHES)) % len(images)]
        self._network = network
        self.logits = _logits(network, self.images)
        if not np.isfinite(self.logits).all():
            raise UserError("the network's own logits are no numbers on some of the images; train it again")

    @cached_property
    def allowed(self) -> float:
        return allowed_difference(self._network, self.images, self.logits)

    def beside(self, engine: str, batch: int, logits: Logits) -> Parity:
        """What an engine gives of the same images."""
        return replace(parity_of(engine, batch, logits, self.logits), images=self.distinct)

    def is_met(self, row: Parity) -> bool:
        """Whether what is computed in float32 is this network."""
        return row.difference <= TOLERANCE or row.difference <= self.allowed


def allowed_difference(network: nn.Module, images: Images, logits: Logits) -> float:
    """By how much of their standard deviation a logit may differ from PyTorch's `logits` in float32.

    `TOLERANCE`, but for networks in which the roundings of float32 grow past it, as in deep plain ones: of those as
    much as a few times the distance of PyTorch's own logits from what it gives in float64.
    """
    exact = _logits(deepcopy(network).double(), images.astype(np.float64))
    own = parity_of("float64", len(logits), logits, exact).difference
    return min(_MOST, max(TOLERANCE, _ROUNDINGS * own))


def _logits(network: nn.Module, images: _Numbers) -> Logits:
    predict = predictor(network, torch.device("cpu"), torch.float32)
    return np.concatenate([predict(torch.from_numpy(part)).numpy() for part in _batches(images, max(BATCHES))])


def _batches(images: _Numbers, size: int) -> Iterator[_Numbers]:
    return (images[start : start + size] for start in range(0, len(images), size))


def _compared(exported: Exported, engine: Engine, reference: _Reference) -> Iterator[Parity]:
    for size in BATCHES:
        logits = np.concatenate([engine(part) for part in _batches(reference.images, size)])
        row = reference.beside(engine.words, size, logits)
        if exported.number == "fp32" and not reference.is_met(row):
            raise _other_logits(row, reference.allowed)
        if not math.isfinite(row.difference):
            raise _no_numbers(row)
        yield row
    if engine.features is not None and exported.number == "fp32":
        _check_features(exported, engine, reference)


def parity_of(engine: str, batch: int, logits: Logits, reference: Logits) -> Parity:
    """How far logits (N, K) are from those they should be; infinitely, where some are no numbers."""
    if logits.shape != reference.shape:
        raise UserError(f"{engine} gives {logits.shape} logits for {reference.shape}; export the run again")
    apart = np.abs(logits.astype(np.float64) - reference) / spread(reference)
    apart[~np.isfinite(apart)] = np.inf
    agreement = 100 * float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean())
    return Parity(engine, batch, len(logits), float(apart.max()), math.sqrt(float((apart**2).mean())), agreement)


def spread(logits: Logits) -> float:
    """What differences are measured in: the standard deviation of a logit over the images, the classes' root mean
    square. Where logits are the same for all images, that of all logits, and where all are one, their size.
    """
    size, over_images = float(np.abs(logits).max()), math.sqrt(float(logits.var(axis=0, dtype=np.float64).mean()))
    return over_images if over_images > _CONSTANT * size else float(logits.std(dtype=np.float64)) or size or 1.0


def _check_features(exported: Exported, engine: Engine, reference: _Reference) -> None:
    """The mean of what is drawn as activation maps must be the logits."""
    head = read_head(exported)
    assert engine.features is not None
    assert head is not None
    _, features = engine.features(reference.images)
    row = reference.beside(engine.words, len(features), features.mean(axis=(2, 3)) @ head[0].T + head[1])
    if not reference.is_met(row):
        raise _other_logits(row, reference.allowed, " from its features")


def _other_logits(row: Parity, allowed: float, what: str = "") -> UserError:
    return UserError(
        f"the export is not the network: {row.engine} gives other logits{what} than PyTorch at batch {row.batch}, "
        f"{row.difference:.2g} of their standard deviation apart (allowed: {allowed:.2g}; the same first class for "
        f"{row.agreement:.1f} % of {row.images} images); nothing was written: try another --to"
    )


def _no_numbers(row: Parity) -> UserError:
    return UserError(
        f"int8 gives logits that are no numbers at batch {row.batch} ({row.engine}); nothing was written: keep layers "
        "in float, first of all the first and the last (--keep-float conv1 --keep-float fc), or leave out --int8"
    )


def _worth(
    classifier: Classifier, exported: Exported, engines: Mapping[Name, Engine], dataset: DataSet, split: str
) -> list[Worth]:
    images = dataset.splits[split]
    chosen = SubSplit(images, evenly(len(images), MOST_JUDGED)) if len(images) > MOST_JUDGED else images
    models: list[Model] = [classifier, *[exported] * len(engines)]
    by: list[str | Engine] = ["auto", *engines.values()]
    judged = replace(dataset, splits={split: chosen})
    before, *after = measure(
        models, judged, split=split, device="cpu", precision="fp32", engines=by, batch_size=max(BATCHES)
    )
    kind = "mean average precision" if classifier.multi_label else "top-1 accuracy"
    return [
        Worth(engine.words, len(chosen), kind, before.evaluation.score, one.evaluation.score)
        for engine, one in zip(engines.values(), after, strict=True)
    ]


def _too_much_lost(one: Worth, max_drop: float) -> UserError:
    return UserError(
        f"int8 costs {one.drop:.2f} points of {one.measure} ({one.before:.2f} to {one.after:.2f} % of {one.images:,} "
        f"images, {one.engine}), more than --max-drop {max_drop:g}; nothing was written: keep layers in float, first "
        "of all the first and the last (--keep-float conv1 --keep-float fc), take more --calibration-images, or allow "
        "the drop"
    )
