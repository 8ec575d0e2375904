"""How fast a model is by every engine at hand: latency at one image, throughput at a batch.

The engines take turns, so that a machine that slows down does so for all; ratios are taken within a round.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from residuum.data.preprocessing import Preprocessing
from residuum.errors import UserError, unknown_name
from residuum.inference.engines import ENGINES, engines_at_hand, open_engine
from residuum.inference.exported import Exported, export_folder, read_exported
from residuum.model_config import CONFIG, model_folder, preprocessing_of, read_config
from residuum.processor import cores, processor_name

if TYPE_CHECKING:
    import torch
    from torch import nn

Images = NDArray[np.float32]  # (N, C, S, S), normalised
Run = Callable[[Images], object]
Make = Callable[[Exported], "nn.Module"]

BASE = "eager"
OF_RUNS = (BASE, "compiled", "eager-bf16", "compiled-bf16")
"""What computes a run: PyTorch as it is and compiled, in float32 and, where the processor has it, in bfloat16."""
BESIDE_EXPORTS = frozenset({BASE, "compiled"})
"""What is measured of PyTorch where only exports are."""
NAMES = (*OF_RUNS, *ENGINES)
_WARM_CALLS = 3
_LEAST_CALLS = 3  # of a round


@dataclass(frozen=True)
class Arm:
    """One way to compute one model. open: what computes, in words, and what does it."""

    model: str
    engine: str
    preprocessing: Preprocessing
    open: Callable[[], tuple[str, Run]]


@dataclass
class Speed:
    """What was measured of an arm, times in seconds.

    ready: from nothing to the first answer, at one image and then at a batch, compilation included; latencies: of each
    call with one image, round by round; rates: images a second at a batch, one a round; error: why there is no more.
    """

    model: str
    engine: str
    words: str = ""
    ready: float | None = None
    latencies: list[list[float]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    error: str | None = None

    def latency(self, percentile: float) -> float:
        """Over the calls of all rounds."""
        return float(np.percentile([seconds for one in self.latencies for seconds in one], percentile))

    @property
    def rate(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.rates)


def arms_of(path: Path, engines: Sequence[str] = (), device: str = "auto") -> list[Arm]:
    """Every way to compute the model at `path` here, or those of `engines` alone, PyTorch's first.

    A run is computed by PyTorch on `device`, an export by the engines that are installed for its kind. Raises UserError
    where there is no model, for an engine that there is not, and where none of the `engines` is for this model.
    """
    for name in engines:
        if name not in NAMES:
            raise unknown_name("engine", name, NAMES)
    folder = export_folder(path)
    made = _of_run(path, device) if folder is None else _of_export(path, read_exported(folder))
    return [arm for arm in made if not engines or arm.engine in engines]


def measure(
    arms: Sequence[Arm], *, batch_size: int = 32, rounds: int = 5, seconds: float = 1.0, look: Callable[[str], None]
) -> list[Speed]:
    """The speed of each arm, in their order, measured in turns; `look` is told what is done now.

    seconds: how long an arm is measured at one image and again at a batch, in each round. Each is opened and warmed up
    before the first round, and called once more before it is timed, after the others had the processor. An arm that
    fails says why and is left out from there on. Images are noise: what they show takes no time.
    """
    speeds = [Speed(arm.model, arm.engine) for arm in arms]
    running = [(speed, *_opened(arm, speed, batch_size, look)) for arm, speed in zip(arms, speeds, strict=True)]
    for number in range(rounds):
        first = number % len(running)  # none is always the first, or always after the same other's warmth
        for speed, run, images in [*running[first:], *running[:first]]:
            if run is not None and speed.error is None:
                look(f"round {number + 1} of {rounds}: {speed.engine}")
                with _told_in(speed):
                    speed.latencies.append(timed(partial(run, images[:1]), seconds))
                    speed.rates.append(images_per_second(timed(partial(run, images), seconds), batch_size))
    return speeds


def _opened(arm: Arm, speed: Speed, batch_size: int, look: Callable[[str], None]) -> tuple[Run | None, Images]:
    look(f"opening {arm.engine}")
    images = _noise(arm.preprocessing, batch_size)
    run: Run | None = None
    with _told_in(speed):
        began = time.perf_counter()
        speed.words, run = arm.open()
        for part in (images[:1], images):
            run(part)
        speed.ready = time.perf_counter() - began
        for _ in range(_WARM_CALLS):
            run(images[:1])
            run(images)
    return run, images


@contextmanager
def _told_in(speed: Speed) -> Iterator[None]:
    """What goes wrong is said in the speed, and the other arms go on."""
    try:
        yield
    except Exception as error:  # not Ctrl-C
        lines = str(error).strip().splitlines() or [""]
        speed.error = lines[0] if isinstance(error, UserError) else f"{type(error).__name__}: {lines[0]}"


def timed(work: Callable[[], object], seconds: float) -> list[float]:
    """How long each call took, for so many seconds, after one that is not counted."""
    work()
    times: list[float] = []
    while len(times) < _LEAST_CALLS or sum(times) < seconds:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return times


def images_per_second(times: Sequence[float], batch_size: int) -> float:
    """Of calls with a batch each: over all their time, so that slow calls count."""
    return batch_size * len(times) / sum(times)


def _noise(preprocessing: Preprocessing, count: int) -> Images:
    size = (count, preprocessing.channels, preprocessing.size, preprocessing.size)
    return np.random.default_rng(0).standard_normal(size, dtype=np.float32)


# What computes


def _of_export(path: Path, exported: Exported) -> Iterator[Arm]:
    for name in engines_at_hand(exported):
        yield Arm(str(path), name, exported.preprocessing, partial(_open_export, exported, name))


def _open_export(exported: Exported, name: str) -> tuple[str, Run]:
    engine = open_engine(exported, name)
    return engine.words, engine


def _of_run(path: Path, device: str) -> Iterator[Arm]:
    folder = model_folder(path)
    handling = preprocessing_of(read_config(folder / CONFIG), folder)
    for name in OF_RUNS:
        if not name.endswith("bf16") or _has_bf16(device):
            yield Arm(str(path), name, handling, partial(_open_pytorch, partial(_loaded, folder), name, device))


def beside_exports(paths: Sequence[Path], make: Make, engines: Sequence[str] = (), device: str = "auto") -> list[Arm]:
    """PyTorch, eager and compiled, with the network of each export: once for those that are of the same.

    make: builds a network that has the name, the arguments, so many classes and channels. Its weights are as
    initialised, which changes no speed.
    """
    arms: dict[str, list[Arm]] = {}
    for path in paths:
        exported = read_exported(export_folder(path) or path)
        network = cache(partial(make, exported))
        arms.setdefault(
            f"{exported.architecture} {exported.model_args} {len(exported.classes)} {exported.input_shape}",
            [
                Arm(str(path), name, exported.preprocessing, partial(_open_initialised, network, name, device))
                for name in OF_RUNS
                if name in BESIDE_EXPORTS and (not engines or name in engines)
            ],
        )
    return [arm for made in arms.values() for arm in made]


def _has_bf16(device: str) -> bool:
    import torch

    from residuum.hardware import choose_device, choose_precision

    return choose_precision("auto", choose_device(device)) is torch.bfloat16


@cache
def _loaded(folder: Path) -> "nn.Module":
    from residuum.weights import load

    return load(folder).network


def _open_initialised(network: Callable[[], "nn.Module"], name: str, device: str) -> tuple[str, Run]:
    words, run = _open_pytorch(network, name, device)
    return f"{words}, weights as initialised", run


def _open_pytorch(make: Callable[[], "nn.Module"], name: str, device: str) -> tuple[str, Run]:
    import torch

    from residuum.evaluation.evaluate import predictor
    from residuum.hardware import choose_device

    kind, _, bf16 = name.partition("-")
    where, dtype = choose_device(device), torch.bfloat16 if bf16 else torch.float32
    network: Any = make().to(where).eval()
    if kind == "compiled":
        network = torch.compile(network, dynamic=False)  # once for one image, and once for a batch
    predict = predictor(network, where, dtype)
    return f"{_pytorch(where)}, {bf16 or 'fp32'}", lambda images: predict(torch.from_numpy(images)).cpu()


def _pytorch(where: "torch.device") -> str:
    import torch

    version = torch.__version__.partition("+")[0]
    threads = torch.get_num_threads()
    return f"PyTorch {version} on {where}" + f", {threads} thread{'s' * (threads > 1)}" * (where.type == "cpu")


# What came of it


def base_of(speeds: Sequence[Speed]) -> Speed | None:
    """What the others are compared with: PyTorch eager, or the first that was measured where that is not there."""
    measured = [speed for speed in speeds if speed.error is None]
    return next((speed for speed in measured if speed.engine == BASE), measured[0] if measured else None)


def speedups(speed: Speed, base: Speed) -> tuple[list[float], list[float]]:
    """How many times as fast as the base, round by round: at one image, by the medians, and at a batch."""
    pairs = zip(speed.latencies, base.latencies, strict=True)
    alone = [statistics.median(other) / statistics.median(own) for own, other in pairs]
    return alone, [own / other for own, other in zip(speed.rates, base.rates, strict=True)]


def band(values: Iterable[float]) -> dict[str, Any]:
    """Each round's value, and their median, least and most."""
    every = list(values)
    return {"median": statistics.median(every), "least": min(every), "most": max(every), "per_round": every}


def setting() -> dict[str, Any]:
    """The machine that is measured on; its load before is that of others."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"processor": processor_name(), "cores": cores(), "load_before": load}


def record(speed: Speed, base: Speed | None) -> dict[str, Any]:
    """The figures of one arm by name, with their units."""
    about = {"model": speed.model, "engine": speed.engine, "computed_by": speed.words, "ready_seconds": speed.ready}
    if speed.error is not None or base is None:
        return {**about, "error": speed.error}
    alone, at_a_batch = speedups(speed, base)
    return {
        **about,
        "latency_ms": {
            "p50": 1000 * speed.latency(50),
            "p99": 1000 * speed.latency(99),
            "calls": sum(map(len, speed.latencies)),
            "median_per_round": band(1000 * statistics.median(one) for one in speed.latencies),
        },
        "images_per_second": band(speed.rates),
        "speedup_at_1": band(alone),
        "speedup_at_batch": band(at_a_batch),
        "error": None,
    }
