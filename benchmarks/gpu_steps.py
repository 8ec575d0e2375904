"""Rows of the GPU benchmark on single training steps: one graph against one kernel after another, and the peers."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from gpu_record import Line, Piece, Pieces, Row, median_of, one_by_one
from gpu_setting import Setting, call_ms, interleaved, quiet_train, step_ms
from measuring import band
from peers.gpu_cifar import PublishedScript
from torch import nn
from torch.autograd import DeviceType
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from residuum.data.splits import ArraySplit
from residuum.models.catalogue import create_model

ESTIMATES = {"resnet20": 30, "resnet32": 35, "resnet44": 40, "resnet56": 50, "resnet110": 80}
"""Seconds for all rounds of one net, with and without a graph."""

COMPILED = ("reduce-overhead", "max-autotune-no-cudagraphs")
COMPILE_ESTIMATES = {"resnet20": 120, "resnet32": 160, "resnet44": 200, "resnet56": 250, "resnet110": 420}


_NO_KERNELS = ("Memcpy", "Memset", "Optimizer.")  # copies, and what only names a span of time


def step_row(setting: Setting) -> Row:
    """A step of each net: its kernels captured in one CUDA graph, against launched one by one."""
    pieces = [Piece(net, ESTIMATES.get(net, 30), lambda net=net: _step(setting, net)) for net in setting.sizes.nets]
    return Row("step", one_by_one(pieces), _step_lines)


def _step(setting: Setting, net: str) -> dict[str, Any]:
    """ms a step by arm and round; and how many kernels a captured step has."""
    setting.need_gpu()
    arms: dict[str, Callable[[], float]] = {
        "captured": lambda: step_ms(setting, net, []),
        "eager": lambda: step_ms(setting, net, ["capture=false"]),
    }
    figures = interleaved(arms, setting.sizes.rounds)
    kernels = kernels_a_step(setting, net) if setting.device.type == "cuda" else None
    rate = kernels / (statistics.median(figures["captured"]) / 1000) if kernels else None
    return {"ms": figures, "kernels": kernels, "kernels_per_second": rate}


def _step_lines(done: Pieces) -> list[Line]:
    lines = []
    for net in done:
        captured, eager = (median_of(done, net, "ms", arm) for arm in ("captured", "eager"))
        assert captured
        assert eager
        kernels, rate = done[net]["kernels"], done[net]["kernels_per_second"]
        note = f"{eager / captured:.2f} times as fast as eager ({eager:.3f} ms)"
        note += f"; {kernels:.0f} kernels, {rate / 1e3:,.0f} thousand a second" if kernels else ""
        lines.append(Line(f"{net}, captured", captured, "ms a step", note=note))
    return lines


def kernels_a_step(setting: Setting, net: str) -> float:
    """How many kernels more a run launches that is longer by so many steps, for each of them."""
    steps = setting.sizes.slow_steps

    def kernels(iterations: int) -> int:
        settings = [f"iterations={iterations}", f"batch_size={setting.sizes.batch}"]
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            quiet_train(setting, setting.short_epochs, "he2015-cifar", net, settings)
        events = [event for event in profiler.events() if event.device_type == DeviceType.CUDA]
        return sum(not event.name.startswith(_NO_KERNELS) for event in events)

    return (kernels(2 * steps) - kernels(steps)) / steps


def compiled_row(setting: Setting) -> Row:
    """A step as residuum makes it, against the same net in a plain loop, as it is and through torch.compile."""
    pieces = [
        Piece(
            f"{net} {mode}", COMPILE_ESTIMATES.get(net, 120), lambda net=net, mode=mode: _compiled(setting, net, mode)
        )
        for net in setting.sizes.nets
        for mode in COMPILED
    ]
    return Row("compiled", one_by_one(pieces), _compiled_lines)


def _compiled(setting: Setting, net: str, mode: str) -> dict[str, Any]:
    """ms a step by arm and round; how long the first steps took, in which torch.compile works."""
    setting.need_gpu()
    steps, device = setting.sizes.slow_steps, setting.device
    plain = plain_step(setting, create_model(net), lambda network: network)
    compiled = plain_step(setting, create_model(net), lambda network: torch.compile(network, mode=mode))
    start = time.perf_counter()
    for _ in range(5):
        compiled()
        plain()
    call_ms(device, compiled, 1)
    compiling = time.perf_counter() - start
    arms: dict[str, Callable[[], float]] = {
        "residuum": lambda: step_ms(setting, net, []),
        "plain loop": lambda: call_ms(device, plain, steps),
        mode: lambda: call_ms(device, compiled, 5 * steps),
    }
    try:
        return {"ms": interleaved(arms, setting.sizes.rounds), "first_steps_s": compiling}
    finally:
        torch.compiler.reset()


def plain_step(setting: Setting, network: nn.Module, wrap: Callable[[nn.Module], Any]) -> Callable[[], None]:
    """A function that makes one update as he2015-cifar has it, on a batch that is there; channels last, fused SGD."""
    device, batch = setting.device, setting.sizes.batch
    network = network.to(device, memory_format=torch.channels_last).train()
    model = wrap(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, fused=True)
    images = torch.randn(batch, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % 10

    def step() -> None:
        torch.compiler.cudagraph_mark_step_begin()
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _compiled_lines(done: Pieces) -> list[Line]:
    lines = []
    for name, piece in done.items():
        net, _, mode = name.partition(" ")
        ours, theirs, plain = (median_of(done, name, "ms", arm) for arm in ("residuum", mode, "plain loop"))
        assert ours
        assert theirs
        note = f"residuum {ours:.3f} ms, data included; plain loop {plain:.3f} ms; "
        note += f"first steps {piece['first_steps_s']:.0f} s"
        lines.append(Line(f"{net}, {mode}", theirs, "ms a step", note=note))
    return lines


def peer_row(setting: Setting) -> Row:
    """An epoch of ResNet-20 by the script that people publish, on the same GPU."""
    return Row("peer", one_by_one([Piece("rounds", 120, lambda: _peer(setting))]), _peer_lines)


def _peer(setting: Setting) -> dict[str, Any]:
    """images/s by arm and round, and seconds of an epoch of 50,000 images by them."""
    setting.need_gpu()
    sizes = setting.sizes
    split = setting.cifar_like.train
    assert isinstance(split, ArraySplit)
    images, labels = split.images[: sizes.part], split.labels[: sizes.part]
    scripts = {
        f"published script, {workers} workers": PublishedScript(images, labels, workers, sizes.batch, setting.device)
        for workers in sizes.workers
    }
    arms: dict[str, Callable[[], float]] = {
        "residuum": lambda: 1000 * sizes.batch / step_ms(setting, sizes.nets[0], []),
        **{name: script.images_per_second for name, script in scripts.items()},
    }
    for arm in arms.values():
        arm()
    rates = interleaved(arms, sizes.rounds)
    seconds = {arm: band([50_000 / rate for rate in figures]) for arm, figures in rates.items()}
    return {
        "images_per_second": rates,
        "seconds_an_epoch": seconds,
        "part": len(images),
        "data": setting.cifar_like.spec,
    }


def _peer_lines(done: Pieces) -> list[Line]:
    if "rounds" not in done:
        return [Line("residuum, an epoch", None, "s")]
    seconds = {arm: band["median"] for arm, band in done["rounds"]["seconds_an_epoch"].items()}
    ours = seconds["residuum"]
    return [
        Line(f"{arm}, an epoch", time, "s", note="" if arm == "residuum" else f"{time / ours:.1f} times as long")
        for arm, time in seconds.items()
    ]
