"""One forward and one backward pass of a batch, looked on at, of any network; nothing of the network changes."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from residuum.diagnosis.facts import JoinFacts, LayerFacts, Probe
from residuum.diagnosis.functions import first_of_numbers
from residuum.diagnosis.numbers import moments, norm, spread, variation
from residuum.diagnosis.watch import SeenJoin, SeenLayer, Watch
from residuum.errors import UserError

Loss = Callable[[Any, Tensor], Tensor]


def probe(
    network: nn.Module, images: Tensor, labels: Tensor, *, loss: Loss = F.cross_entropy, training: bool = True
) -> Probe:
    """What goes through the network, forward and backward, layer by layer in order of execution.

    images: (N, ...) as the network takes them, on its device; labels: what `loss(output, labels)` takes beside the
    network's output, to give the mean over images. training: compute as in training (batch statistics, dropout drawn
    from a seed of its own), or as in evaluation. In the precision of the weights: an autocast around it is lifted.
    Gradients, buffers, modes and PyTorch's random state are afterwards as they were, also after a failure; so are the
    weights, unless the network itself changes them in its forward pass. A compiled network computes uncompiled.
    Raises UserError for a batch of fewer than 2 images, for modules whose weights have no shape yet or no values, for
    those that cannot be looked into (TorchScript), and where no layer was seen; what the network raises comes through.
    """
    if images.ndim < 1 or len(images) < 2:
        raise UserError(f"a batch of shape {tuple(images.shape)}; give at least 2 images, better 32 or more")
    _check(network)
    watch = Watch(network, len(images))
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    with torch.inference_mode(False), torch.enable_grad(), _unchanged(network, images, training):
        # Channels last, PyTorch 2.15's CPU kernels write past their memory in the backward pass of some networks.
        leaf = images.detach().clone(memory_format=torch.contiguous_format)
        if leaf.is_floating_point():
            leaf.requires_grad_()  # so that there are gradients also where weights are frozen
        given = leaf.clone()  # which may be changed in place
        with watch:
            watch.follow(given)
            output = network(given)
        result = result_of(output)
        if not watch.layers:
            raise UserError(
                "no layer was seen in the network: what is exported, quantised or made of functions alone hides its "
                "own; give the nn.Module that it was made of"
            )
        said = moments(result).std, variation(result, len(images)), spread(result, len(images))
        value = loss(output, labels.clone())  # which no inference mode made
        wanted = [*parameters, *([leaf] if leaf.requires_grad else [])]
        slopes = torch.autograd.grad(value, wanted, allow_unused=True) if value.requires_grad else []
    by_parameter = {id(one): slope for one, slope in zip(wanted, slopes, strict=False)}
    return Probe(
        layers=tuple(_layer(seen, by_parameter) for seen in watch.layers),
        joins=tuple(_join(seen) for seen in watch.joins),
        loss=value.item(),
        images=len(images),
        input_std=moments(images).std,
        input_variation=variation(images, len(images)),
        output_std=said[0],
        output_variation=said[1],
        input_spread=spread(images, len(images)),
        output_spread=said[2],
    )


def _check(network: nn.Module) -> None:
    if any(isinstance(module, LazyModuleMixin) for module in network.modules()):
        raise UserError("some weights of the network have no shape yet; call it once on a batch, then diagnose it")
    for path, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            part = f"its part {path}" if path else "the network"
            raise UserError(f"{part} is TorchScript, which cannot be looked into; give the nn.Module it was made of")
    if any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers())):
        raise UserError("the network is on the meta device, without values; build it on the CPU or a GPU")


def result_of(output: Any) -> Tensor:
    """The first tensor of numbers in what a network returned. Raises UserError if there is none."""
    found = first_of_numbers(output)
    if found is None:
        raise UserError(f"the network returned {type(output).__name__} without a tensor of numbers; wrap it in one")
    return found


def _layer(seen: SeenLayer, slopes: Mapping[int, Tensor | None]) -> LayerFacts:
    weight = _weight(seen.module)
    slope = slopes.get(id(weight))
    return LayerFacts(
        name=seen.name,
        call=seen.call,
        kind=seen.kind,
        kernel=tuple(seen.module.kernel_size) if seen.kind == "convolution" else (),  # type: ignore[arg-type]
        mean=seen.moments.mean,
        std=seen.moments.std,
        variation=seen.variation,
        gradient_std=seen.gradient_std,
        sensitivity=seen.sensitivity,
        weight_norm=math.nan if weight is None else norm(weight),
        weight_gradient_norm=math.nan if slope is None else norm(slope),
        activation=seen.activation,
        dead=seen.dead,
        saturated=seen.saturated,
        normaliser=seen.normaliser,
    )


def _weight(module: nn.Module) -> Tensor | None:
    """The module's weight; of an attention its first projection; else the largest of its own parameters."""
    for name in ("weight", "in_proj_weight"):
        found = getattr(module, name, None)
        if isinstance(found, Tensor):
            return found
    return max(module.parameters(recurse=False), key=lambda one: one.numel(), default=None)


def _join(seen: SeenJoin) -> JoinFacts:
    branch, carried = seen.branch.rms**2, seen.carried.rms**2
    share = branch / (branch + carried) if branch + carried else math.nan
    return JoinFacts(seen.name, seen.after, seen.branch.std, seen.carried.std, seen.std, share, seen.gradient_std)


@contextmanager
def _unchanged(network: nn.Module, images: Tensor, training: bool) -> Iterator[None]:
    """The network in one mode for a while, in full precision; afterwards all is as it was."""
    modes = [(module, module.training) for module in network.modules()]
    full = torch.autocast(images.device.type, enabled=False)
    with _random_state(network, images), full, _eager(), _copied_buffers(network):
        network.train(training)
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode


@contextmanager
def _copied_buffers(network: nn.Module) -> Iterator[None]:
    """Buffers are copies for a while: the originals are not written to, and are there again afterwards."""
    originals = [(module, dict(module._buffers)) for module in network.modules()]
    copies: dict[int, Tensor] = {}  # one of a buffer that several modules share
    for module, buffers in originals:
        for name, buffer in buffers.items():
            if buffer is not None:
                module._buffers[name] = copies.setdefault(id(buffer), buffer.detach().clone())
    try:
        yield
    finally:
        for module, buffers in originals:
            module._buffers.clear()
            module._buffers.update(buffers)


@contextmanager
def _random_state(network: nn.Module, images: Tensor) -> Iterator[None]:
    """A seed of our own on the CPU and on the GPUs that take part; others are left alone."""
    held = {tensor.device for tensor in (images, *network.parameters(), *network.buffers())}
    gpus = sorted(device.index for device in held if device.type == "cuda")
    with torch.random.fork_rng(gpus):
        for generator in (torch.default_generator, *(torch.cuda.default_generators[gpu] for gpu in gpus)):
            generator.manual_seed(0)
        yield


def _eager() -> AbstractContextManager[object]:
    """Compiled networks compute as they were written. Where nothing was compiled, the compiler is not imported."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
