"""What a study costs before it starts: runs, updates, images, multiply-adds, and a guess at the time here."""

import time
from dataclasses import dataclass, replace
from statistics import median

import torch
import torch.nn.functional as F

from residuum.errors import counted
from residuum.hardware import autocast, choose_device, choose_precision
from residuum.models.catalogue import create_model
from residuum.studies.engine import Prepared
from residuum.studies.members import end_of
from residuum.studies.work import BACKWARD, size_of, training_work
from residuum.training.preparation import model_args
from residuum.training.run import Run

_MOST_ON_A_CPU = 32  # images: enough to keep it busy
_WARM_UPS, _LEAST, _SECONDS = 2, 3, 1.0
_UNITS = (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0))


@dataclass(frozen=True)
class Cost:
    """What is still to be trained: how many runs, updates, images seen, and multiply-adds forward and backward.

    Evaluations are left out. cheapest: the run with the smallest network, None where nothing is left to train; classes:
    its outputs. seconds: how long all runs take here, one after another, by `timed`; None: not measured.
    """

    runs: int
    updates: int
    images: int
    multiply_adds: int
    classes: int
    cheapest: Run | None
    seconds: float | None = None

    def lines(self) -> tuple[str, ...]:
        """For a person to read before it starts."""
        if self.cheapest is None:
            return ("nothing is left to train; measuring untrained networks is not counted",)
        work = f"{counted(self.runs, 'run')}, {self.updates:,} updates, {self.images:,} images seen"
        sums = f"{self.multiply_adds:.2g} multiply-adds, the backward pass counted as {BACKWARD} forward ones"
        if self.seconds is None:
            return work, sums
        guess = (
            f"about {in_units(self.seconds)} here, one run after another: guessed from a few updates of "
            f"{self.cheapest.model.name} on {choose_device(self.cheapest.device)}; other networks, reading, evaluating "
            "and CUDA graphs can make it half as long or twice"
        )
        return work, sums, guess


def cost(prepared: Prepared) -> Cost:
    """What the members that are not trained yet come to; each that studies share counts once. Nothing is computed."""
    folders = {folder: member for member, folder in prepared.members}
    runs = [member.run for folder, member in folders.items() if member.run is not None and end_of(folder) is None]
    images = prepared.counts["train"]
    updates = [(run, run.total_iterations(images // min(run.batch_size, images))) for run in runs]
    return Cost(
        runs=len(runs),
        updates=sum(number for _, number in updates),
        images=sum(number * min(run.batch_size, images) for run, number in updates),
        multiply_adds=sum(training_work(run, prepared.classes, images) for run in runs),
        classes=prepared.classes,
        cheapest=min(runs, key=lambda run: size_of(run, prepared.classes).multiply_adds, default=None),
    )


def timed(found: Cost) -> Cost:
    """With `seconds`: a few updates of the cheapest network on random images, in proportion to the multiply-adds.

    Takes some seconds. Raises UserError for a device that cannot be had.
    """
    if found.cheapest is None:
        return replace(found, seconds=0.0)
    images, seconds = _time_of_an_update(found.cheapest, found.classes)
    work = (1 + BACKWARD) * size_of(found.cheapest, found.classes).multiply_adds * images
    return replace(found, seconds=seconds * found.multiply_adds / work)


def _time_of_an_update(run: Run, classes: int) -> tuple[int, float]:
    """How many images, and the median of the seconds that a forward pass, a backward pass and a step took."""
    device = choose_device(run.device)
    dtype = choose_precision(run.precision, device)
    number = run.batch_size if device.type == "cuda" else min(run.batch_size, _MOST_ON_A_CPU)
    with torch.random.fork_rng([]):
        options = model_args(run.model)
        network = create_model(run.model.name, num_classes=classes, in_channels=run.data.channels, **options)
        images = torch.randn(number, run.data.channels, run.data.size, run.data.size)
    network = network.to(device).to(memory_format=torch.channels_last)
    images = images.to(device).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(number, dtype=torch.int64, device=device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)

    def update() -> float:
        began = time.perf_counter()
        optimizer.zero_grad()
        with autocast(device, dtype):
            logits = network(images)
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    for _ in range(_WARM_UPS):
        update()
    durations: list[float] = []
    while len(durations) < _LEAST or sum(durations) < _SECONDS:
        durations.append(update())
    return number, median(durations)


def in_units(seconds: float) -> str:
    """ "40 seconds", "12 minutes", "3.2 hours", "5 days": two digits, since it is a guess."""
    name, length = next(((name, length) for name, length in _UNITS if seconds >= 1.5 * length), ("seconds", 1.0))
    number = seconds / length
    return f"{number:.0f} {name}" if number >= 10 or name == "seconds" else f"{number:.1f} {name}"
