"""Signals through depth: are plain networks hard to train because gradients vanish? (He et al. 2015, section 4.1)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from residuum.data.facts import DataFacts
from residuum.diagnosis.probe import probe
from residuum.distributed import World
from residuum.hardware import choose_device
from residuum.records import Cell, Chart, Series, Table
from residuum.studies.measured import sizes
from residuum.studies.probing import training_batch
from residuum.studies.results import Outcome, Results
from residuum.studies.settings import base_run, is_large
from residuum.studies.small_images import cifar_plan
from residuum.studies.study import RUN, Arm, Finding, Plan, ScaleName, Study, Subject
from residuum.training.checkpoints import list_checkpoints, load_checkpoint, step_of
from residuum.training.preparation import prepare_data, prepare_network
from residuum.training.progress import Reporter
from residuum.training.run import Run
from residuum.training.run_folder import RunFolder
from residuum.weights import load

_UNTRAINED = ", untrained"
_ALL_CHECKPOINTS = 100_000
_IMAGES = 128
_VANISHED = (
    1e-5  # of a layer's gradient over its weights: ten thousand updates at a rate of 0.1 change it by a hundredth
)
_EXPLODED = 10.0

Floats = NDArray[np.float64]


# What is run.


def plan(scale: ScaleName, facts: DataFacts) -> Plan:
    """A plain and a residual network of 56 layers (34 on images above 64 pixels), each with BN and without.

    Each is measured untrained, and trained with all checkpoints kept: 4 networks, some 1 GB a run at paper scale.
    """
    depth = 34 if is_large(facts) else 56
    arms: list[Arm] = []
    for kind in ("plain", "resnet"):
        for words, normalisation in (("BN", "batch"), ("no BN", "none")):
            run = _run(scale, facts, f"{kind}{depth}", normalisation)
            name = f"{kind}-{depth}, {words}"
            start = {RUN: run.to_dict(), "images": _IMAGES}
            arms += [
                Arm(f"{name}{_UNTRAINED}", measure=measure_untrained, settings=start),
                Arm(name, run, measure, {"images": _IMAGES}),
            ]
    return cifar_plan(scale, tuple(arms), seeds=1)


def _run(scale: ScaleName, facts: DataFacts, model: str, normalisation: str) -> Run:
    short = ("optimizer.lr=0.02", "epochs=3") if scale == "smoke" and not is_large(facts) else ()
    kept = (f"keep_checkpoints={_ALL_CHECKPOINTS}", f"model.normalisation={normalisation}")
    return base_run(scale, facts, model, *short, *kept)


# What is measured.


def measure(subject: Subject) -> Mapping[str, Any]:
    """The signals at every kept checkpoint of a trained run; see `measure_untrained`. The weights at `steps` 0 are new.

    The batch is the same at all steps, batch statistics are its own, as in training.
    """
    assert subject.folder is not None
    assert subject.run is not None
    classifier = load(subject.folder)
    batch = training_batch(subject.dataset, classifier.preprocessing, subject.settings["images"])
    return _record(subject.run, batch, _checkpoints(classifier.network, RunFolder(subject.folder).checkpoints))


def _checkpoints(network: nn.Module, folder: Path) -> Iterator[tuple[int, nn.Module]]:
    for checkpoint in list_checkpoints(folder):
        network.load_state_dict(load_checkpoint(checkpoint)["network"])
        yield step_of(checkpoint), network


def measure_untrained(subject: Subject) -> Mapping[str, Any]:
    """The signals in the network as the run in `settings` would start with it.

    steps: (T,) updates before each measurement; layers: (L,) names of the convolutions in order; std: (T, L) standard
    deviations of their outputs; gradient: (T, L) norms of the gradients of their weights over those of the weights.
    """
    run = replace(Run.from_dict(subject.settings[RUN]), seed=subject.seed)
    device, quiet = choose_device(run.device), Reporter(Console(quiet=True))
    network = prepare_network(run, subject.dataset, device, quiet)
    preprocessing = prepare_data(run, subject.dataset, device, World(), quiet).preprocessing
    return _record(run, training_batch(subject.dataset, preprocessing, subject.settings["images"]), [(0, network)])


def _record(run: Run, batch: tuple[Tensor, Tensor], networks: Iterable[tuple[int, nn.Module]]) -> dict[str, Any]:
    device = choose_device(run.device)
    images, labels = (tensor.to(device) for tensor in batch)
    record: dict[str, Any] = {"steps": [], "layers": [], "std": [], "gradient": []}
    for step, network in networks:
        found = probe(network.to(device), images, labels)
        layers = [one for one in found.layers if one.kind == "convolution" and one.kernel != (1, 1)]
        record["steps"].append(step)
        record["layers"] = [one.name for one in layers]
        record["std"].append([one.std for one in layers])
        record["gradient"].append([one.update_ratio(lr=1.0) for one in layers])
    return record


# What it says.


class _Signals(NamedTuple):
    """A network's signals, means over the seeds: `std` and `gradient` (T, L), over `steps` (T,) that all have."""

    steps: tuple[int, ...]
    std: Floats
    gradient: Floats

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> "_Signals":
        measured = [outcome.measured for outcome in outcomes]
        steps = sorted(set.intersection(*(set(one["steps"]) for one in measured)))
        std, gradient = (np.array([_at(one, key, steps) for one in measured]) for key in ("std", "gradient"))
        return cls(tuple(steps), std.mean(axis=0), gradient.mean(axis=0))

    def kind(self, step: int) -> str:
        """What the gradients of one measurement are like, in a word; infinite ones explode, whatever others do."""
        gradient = self.gradient[step]
        if np.isfinite(gradient).all() and gradient.min() < _VANISHED:
            return "vanishing"
        return "exploding" if gradient.max() > _EXPLODED else "healthy"


def _at(measured: Mapping[str, Any], key: str, steps: Sequence[int]) -> list[list[float]]:
    """The layers' values after each of these updates."""
    rows = dict(zip(measured["steps"], measured[key], strict=True))
    return [sizes(rows[step]) for step in steps]


def answer(results: Results) -> Finding:
    """Whether forward signals die and gradients vanish in plain networks with BN, against the other three."""
    untrained = {
        arm.removesuffix(_UNTRAINED): _Signals.of(outcomes)
        for arm, outcomes in results.outcomes.items()
        if arm.endswith(_UNTRAINED)
    }
    trained = {arm: _Signals.of(done) for arm in untrained if (done := results.finished(arm))}
    plain = next(arm for arm in untrained if arm.startswith("plain"))
    others = [_described(arm, signals, 0) for arm, signals in untrained.items() if arm != plain]
    check = _check(plain, [untrained[plain], *([trained[plain]] if plain in trained else [])])
    charts = [_by_layer("At initialisation, by layer", untrained, 0)]
    if trained:
        charts += [_by_layer("At the end of training, by layer", trained, -1), _over_updates(trained)]
    notes = ("signal: standard deviation of a convolution's output; gradient: its norm over that of the weights.",)
    verdict = f"{check} Untrained, {'; '.join(others)}."
    return Finding(verdict, _table(results, untrained, trained), tuple(charts), notes)


def _check(name: str, seen: Sequence[_Signals]) -> str:
    """He et al.'s check of the plain network with BN, from the numbers: untrained, and trained where it could be."""
    when = "at initialisation or at any checkpoint" if len(seen) > 1 else "at initialisation"
    least = min(float(one.gradient.min()) for one in seen)
    weakest = min(float(one.std.min()) for one in seen)
    do = "vanish" if least < _VANISHED else "do not vanish"
    return (
        f"In {name}, gradients {do}: the smallest of any layer, {when}, is {least:.1e} of the layer's weights, "
        f"and the weakest forward signal has a standard deviation of {weakest:.2g}."
        f"{_growth(seen)}"
    )


def _growth(seen: Sequence[_Signals]) -> str:
    """How far the gradient explodes, untrained or beyond all numbers at any time; nothing where it does not."""
    start = seen[0].gradient[0]
    if not all(np.isfinite(one.gradient).all() for one in seen):
        when = "while training" if np.isfinite(start).all() else "untrained"
        return f" But it explodes: {when} it is beyond all numbers."
    if start.max() <= _EXPLODED:
        return ""
    ratio = f", {start.max() / start.min():,.0f} times as large in one layer as in another" if start.min() > 0 else ""
    return f" But it explodes: untrained it is up to {start.max():,.0f} times the weights{ratio}."


def _described(name: str, signals: _Signals, step: int) -> str:
    std, gradient = signals.std[step], signals.gradient[step]
    return (
        f"{name} has {signals.kind(step)} gradients ({gradient.min():.1e} to {gradient.max():.1e} of the weights) "
        f"and a signal from {std[0]:.2g} in the first layer to {std[-1]:.2g} in the last"
    )


def _table(results: Results, untrained: Mapping[str, _Signals], trained: Mapping[str, _Signals]) -> Table:
    quantities = ("signal, first", "signal, last", "gradient, first", "gradient, last")
    columns = ("arm", *quantities, *(f"trained: {name}" for name in quantities), "train error [%]", "seeds")
    rows = tuple(
        (name, *_ends(signals, 0), *_ends(trained.get(name), -1), *_errors(results, name))
        for name, signals in untrained.items()
    )
    notes = dict.fromkeys(f"{arm}: {one.reason}" for arm in untrained for one in results.outcomes[arm] if one.reason)
    return Table("Signals and gradients in the first and the last convolution", columns, rows, tuple(notes))


def _ends(signals: _Signals | None, step: int) -> tuple[Cell, ...]:
    if signals is None:
        return (None,) * 4
    return tuple(f"{values[step][layer]:.1e}" for values in (signals.std, signals.gradient) for layer in (0, -1))


def _errors(results: Results, name: str) -> tuple[Cell, Cell]:
    error = results.spread(name, "train_error")
    return (error.mean if error.n else None), error.n


# Figures.


def _by_layer(title: str, networks: Mapping[str, _Signals], step: int) -> Chart:
    panels = tuple(
        tuple(
            _series(name, range(1, values.shape[1] + 1), values[step], "layer", label, number)
            for number, (name, values) in enumerate((name, getattr(one, kind)) for name, one in networks.items())
        )
        for kind, label in (("std", "signal"), ("gradient", "gradient"))
    )
    described = "; ".join(_described(name, one, step) for name, one in networks.items())
    return Chart(title, panels, f"{title}: {described}", log_y=True, log_first=True)


def _over_updates(networks: Mapping[str, _Signals]) -> Chart:
    panels = tuple(
        tuple(
            _series(name, one.steps, getattr(one, kind).min(axis=1), "updates", label, number)
            for number, (name, one) in enumerate(networks.items())
        )
        for kind, label in (("std", "weakest signal"), ("gradient", "smallest gradient"))
    )
    title = "While training: the weakest signal and the smallest gradient of any layer"
    return Chart(title, panels, title, log_y=True, log_first=True)


def _series(name: str, x: Iterable[int], y: Floats, x_label: str, y_label: str, number: int) -> Series:
    drawn = np.where(np.isfinite(y), y, np.nan)  # a gap
    return Series(name, tuple(map(float, x)), tuple(drawn.tolist()), x_label, y_label, run=number)


STUDY = Study(
    name="signal",
    question="Do signals die or gradients vanish in deep plain networks, with and without batch normalisation?",
    source="He et al. 2015, section 4.1",
    plan=plan,
    answer=answer,
)
