"""Rows of the GPU benchmark on whole training runs: seconds and errors against the issue's goals."""

import statistics
import time
from collections.abc import Mapping
from typing import Any

from gpu_record import Line, Piece, Pieces, Record, Row, one_by_one
from gpu_setting import Setting, quiet_train, timed_train, wait_for
from peers.gpu_cifar import accuracy, train_resnet9

from residuum.data.splits import ArraySplit

RECIPE = "he2015-cifar"
ESTIMATES = {"resnet20": 60, "resnet32": 80, "resnet44": 100, "resnet56": 130, "resnet110": 230}
PUBLISHED_ERROR = 8.75  # %, ResNet-20 in table 6 of He et al. 2015
RESNET20_GOAL, NETS_GOAL, FASHION_GOAL, FAST_GOAL = 30, 600, 15, 15  # seconds


def resnet20_row(setting: Setting) -> Row:
    """ResNet-20 on CIFAR-10, all iterations, in a process that has trained before."""
    net = setting.sizes.nets[0]

    def first() -> dict[str, Any]:
        setting.need_gpu()
        start = time.perf_counter()
        quiet_train(setting, setting.cifar, RECIPE, net, [f"iterations={setting.sizes.warm_up}"])
        wait_for(setting.device)
        cold = time.perf_counter() - start
        return {"warm_up_s": cold, **_whole(setting, net, 0)}

    def lines(done: Pieces) -> list[Line]:
        run = done.get("seed 0", {})
        note = f"epochs alone {run['epochs_s']:.1f} s; {run['updates']:,} updates" if run else ""
        error = f"published {PUBLISHED_ERROR}; one seed"
        return [
            Line("whole run", run.get("seconds"), "s", RESNET20_GOAL, note=note),
            Line("test error", _error(run), "%", note=error),
        ]

    return Row("resnet20", one_by_one([Piece("seed 0", ESTIMATES["resnet20"], first)]), lines)


def seeds_row(setting: Setting, record: Record) -> Row:
    """The mean over seeds, the first of which is the row above's."""
    net, seeds = setting.sizes.nets[0], setting.sizes.seeds

    def measure(seed: int) -> Mapping[str, Any]:
        setting.need_gpu()
        return record.pieces("resnet20").get(f"seed {seed}") or _whole(setting, net, seed)

    def next_piece(done: Pieces) -> Piece | None:
        seconds = max((run["seconds"] + 5 for run in record.pieces("resnet20").values()), default=ESTIMATES["resnet20"])
        return one_by_one([Piece(f"seed {n}", seconds, lambda n=n: measure(n)) for n in range(seeds)])(done)

    def lines(done: Pieces) -> list[Line]:
        errors = [100 - run["accuracy"] for run in done.values()]
        if len(errors) < 2:
            return [Line("mean test error", None, "%", PUBLISHED_ERROR)]
        spread = f"{len(errors)} seeds, standard deviation {statistics.stdev(errors):.2f}"
        times = [run["seconds"] for run in done.values()]
        return [
            Line("mean test error", statistics.mean(errors), "%", PUBLISHED_ERROR, note=spread),
            Line("mean of whole runs", statistics.mean(times), "s", RESNET20_GOAL, note=f"most {max(times):.1f} s"),
        ]

    return Row("resnet20-seeds", next_piece, lines)


def nets_row(setting: Setting, record: Record) -> Row:
    """All the small nets of the paper, one after another."""
    nets = setting.sizes.nets

    def measure(net: str) -> Mapping[str, Any]:
        setting.need_gpu()
        known = record.pieces("resnet20").get("seed 0") if net == nets[0] else None
        return known or _whole(setting, net, 0)

    def lines(done: Pieces) -> list[Line]:
        total = sum(run["seconds"] for run in done.values()) if len(done) == len(nets) else None
        each = [
            Line(net, run["seconds"], "s", note=f"test error {_error(run):.2f} %; epochs alone {run['epochs_s']:.1f} s")
            for net, run in done.items()
        ]
        return [Line("together", total, "s", NETS_GOAL, note=f"{len(done)} of {len(nets)} nets"), *each]

    pieces = [Piece(net, ESTIMATES.get(net, 60), lambda net=net: measure(net)) for net in nets]
    return Row("nets", one_by_one(pieces), lines)


def _whole(setting: Setting, net: str, seed: int) -> dict[str, Any]:
    """One run of the paper's recipe, timed."""
    return timed_train(setting, setting.cifar, RECIPE, net, [f"iterations={setting.sizes.iterations}", f"seed={seed}"])


def _error(run: Mapping[str, Any]) -> float | None:
    return 100 - run["accuracy"] if run else None


def fashion_row(setting: Setting) -> Row:
    """ResNet-18 on Fashion-MNIST at 96x96, as the textbook has it."""
    sizes = setting.sizes
    settings = [f"batch_size={sizes.fashion_batch}", f"data.size={sizes.fashion_size}"]

    def measure() -> dict[str, Any]:
        setting.need_gpu()
        dataset = setting.fashion
        quiet_train(setting, dataset, "d2l-fashion-mnist", None, [*settings, f"iterations={min(100, sizes.warm_up)}"])
        epochs = f"epochs={sizes.fashion_epochs}"
        return timed_train(setting, dataset, "d2l-fashion-mnist", None, [*settings, epochs])

    def lines(done: Pieces) -> list[Line]:
        run = done.get("seed 0", {})
        note = f"epochs alone {run['epochs_s']:.1f} s; test accuracy {run['accuracy']:.1f} %" if run else ""
        return [Line(f"{sizes.fashion_epochs} epochs", run.get("seconds"), "s", FASHION_GOAL, note=note)]

    return Row("fashion-mnist", one_by_one([Piece("seed 0", 60, measure)]), lines)


def fast_row(setting: Setting) -> Row:
    """`fast-cifar` by epochs, the published ResNet-9 beside it; more seeds of what reached 94 % and 96 % soonest."""
    sizes = setting.sizes

    def ours(epochs: int, seed: int) -> dict[str, Any]:
        setting.need_gpu()
        settings = [f"epochs={epochs}", f"seed={seed}", *([f"batch_size={sizes.batch}"] if setting.is_smoke else [])]
        return {"epochs": epochs, **timed_train(setting, setting.cifar, "fast-cifar", sizes.fast_model, settings)}

    def piece(epochs: int, seed: int) -> Piece:
        name = f"{epochs} epochs, seed {seed}"
        return Piece(name, 8 + 1.2 * epochs, lambda: ours(epochs, seed))

    def next_piece(done: Pieces) -> Piece | None:
        pieces = [piece(epochs, 0) for epochs in sizes.fast_epochs]
        pieces.insert(1, Piece("ResNet-9, seed 0", 60, lambda: _resnet9(setting)))
        soonest = {run["epochs"] for percent in (94, 96) if (run := _soonest(done, percent))}
        pieces += [piece(epochs, seed) for epochs in sorted(soonest) for seed in (1, 2)]
        return one_by_one(pieces)(done)

    return Row("fast-cifar", next_piece, _fast_lines)


def _resnet9(setting: Setting) -> dict[str, Any]:
    """The whole of the published recipe, as often as it takes to be warm: twice."""
    setting.need_gpu()
    sizes, device = setting.sizes, setting.device
    train, test = setting.cifar.train, setting.cifar.splits["test"]
    assert isinstance(train, ArraySplit)
    assert isinstance(test, ArraySplit)
    batch = sizes.batch if setting.is_smoke else 512
    seconds = 0.0
    for epochs in (1, sizes.peer_epochs):
        start = time.perf_counter()
        model = train_resnet9(train.images, train.labels, epochs, batch, device, seed=0)
        wait_for(device)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "accuracy": accuracy(model, test.images, test.labels, device)}


def _soonest(done: Pieces, percent: float) -> Mapping[str, Any] | None:
    """The quickest of the runs with seed 0 that reached so many per cent."""
    reached = [
        run for name, run in done.items() if "epochs" in run and name.endswith("seed 0") and run["accuracy"] >= percent
    ]
    return min(reached, key=lambda run: run["seconds"], default=None)


def _fast_lines(done: Pieces) -> list[Line]:
    lines = []
    peer = done.get("ResNet-9, seed 0")
    for percent, goal in ((94, peer["seconds"] if peer and peer["accuracy"] >= 94 else None), (96, FAST_GOAL)):
        run = _soonest(done, percent)
        seeds = [other["accuracy"] for other in done.values() if run and other.get("epochs") == run["epochs"]]
        note = f"{run['epochs']} epochs; seeds: {', '.join(f'{one:.2f}' for one in seeds)} %" if run else ""
        lines.append(Line(f"{percent} %", run["seconds"] if run else None, "s", goal, note=note))
    for name, run in done.items():
        lines.append(Line(name, run["seconds"], "s", note=f"{run['accuracy']:.2f} %"))
    return lines
