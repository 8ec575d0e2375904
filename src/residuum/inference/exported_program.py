"""A network as PyTorch's own exported program, a `.pt2` file: folded, saved, and opened without trust.

PyTorch's reader executes what a hostile file asks for: pickled tensors, compiled libraries, functions by any name,
sizes and conditions as Python expressions, and names that it writes into source code. What `save_program` writes has
none of it, and nothing else is opened.
"""

import io
import json
import logging
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._ops import OpOverload
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.optimization import fuse
from torch.fx.proxy import TraceError

from residuum.errors import UserError, listed, printable
from residuum.inference.exported import IMAGES

BATCH = "batch"
_ENTRIES = re.compile(
    r"[^/]+/(data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config"
    r"\.json)|models/model\.json|data/sample_inputs/model\.pt|archive_(format|version)|byteorder|\.data/\w+)"
)
_ATEN = (
    "adaptive_avg_pool2d.default add.Tensor add_.Tensor avg_pool2d.default batch_norm.default cat.default "
    "chunk.default clone.default constant_pad_nd.default contiguous.default conv1d.default conv2d.default div.Tensor "
    "div_.Tensor dropout.default dropout_.default eq.Scalar expand.default expand_as.default fill_.Scalar "
    "flatten.using_ints gelu.default group_norm.default hardsigmoid.default hardswish.default hardswish_.default "
    "hardtanh.default hardtanh_.default index.Tensor index_select.default layer_norm.default lift_fresh_copy.default "
    "linear.default masked_fill.Scalar matmul.default max_pool2d.default mean.dim mul.Tensor mul_.Tensor ne.Scalar "
    "new_zeros.default pad.default permute.default relu.default relu_.default reshape.default roll.default "
    "rsub.Scalar scaled_dot_product_attention.default select.int sigmoid.default sigmoid_.default silu.default "
    "silu_.default slice.Tensor softmax.int split.Tensor squeeze.dim sub.Tensor sym_size.int tanh.default "
    "transpose.int unbind.int unflatten.int unsqueeze.default view.default"
)
"""What networks for images are made of. Not all of ATen: it can also map and overwrite files."""
_FUNCTIONS = re.compile(
    rf"torch\.ops\.aten\.({'|'.join(map(re.escape, _ATEN.split()))})"
    r"|_operator\.(add|sub|mul|floordiv|mod|neg|ge|gt|le|lt|eq|ne|and_|getitem)|torch\.sym_(int|float|max|min|not)"
)
_SIZES = re.compile(  # as SymPy writes them, which evaluates what it reads
    r"(?:(?:Symbol|Integer|Add|Mul|Pow|Max|Min|FloorDiv|Mod)\(|'\w+'|(?:positive|nonnegative|integer)=True"
    r"|-?\d+|[), ])*"
)
_TREES = re.compile(r'(?:"(?:type|context|children_spec|builtins\.(?:tuple|dict|list)|null|\[\])"|null|1|[][{}:, ])*')
_PLAIN = re.compile(r"[\w.+]*")
_TEXTS = {
    "target": _FUNCTIONS,
    "expr_str": _SIZES,
    "in_spec": _TREES,
    "out_spec": _TREES,
    "nn_module_stack": re.compile(r"[\w.,;]*"),
    "torch_fn": re.compile(r"[\w.;]*"),
}
"""By key what the JSON's texts may be; all others are plain."""
_LONGEST = 2**26  # bytes of JSON: a network of 1,202 layers has 6 MB


def fold(network: nn.Module) -> nn.Module:
    """A copy with each normalisation folded into the convolution before it, by PyTorch's own pass.

    Where that cannot follow the network's code, which depends on more than its layers, the network as it is.
    """
    try:
        with silenced():
            return fuse(network)
    except (TraceError, TypeError, RuntimeError):
        return network


def save_program(network: nn.Module, input_shape: tuple[int, int, int], file: Path) -> None:
    """Write the folded network, for any number of images; the network is in evaluation mode, on the CPU.

    Raises UserError for a network that PyTorch cannot export, or of operators that `open_program` refuses.
    """
    named = _Named(fold(network))
    try:
        with torch.no_grad(), silenced():
            sizes = {IMAGES: {0: Dim(BATCH, min=1)}}
            program = torch.export.export(named, (torch.zeros(2, *input_shape),), dynamic_shapes=sizes)
    except Exception as error:
        raise cannot_export(error) from error
    _refuse_other_operators(program)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # the folders of whoever exports
    program.example_inputs = None
    torch.export.save(program, file)


def _refuse_other_operators(program: ExportedProgram) -> None:
    names = {str(node.target) for node in program.graph.nodes if isinstance(node.target, OpOverload)}
    if odd := sorted(name for name in names if not _FUNCTIONS.fullmatch(f"torch.ops.{name}")):
        raise UserError(f"the network computes {listed(odd, 3)}, which no export to torch has; try another --to")


def cannot_export(error: Exception) -> UserError:
    """For a network that PyTorch's exporter refuses."""
    reason = printable(" ".join(str(error).split()), longest=200)
    return UserError(f"the network cannot be exported: {type(error).__name__}: {reason}; try another --to")


@contextmanager
def silenced() -> Iterator[None]:
    """Without what exporters say of their own insides; what matters is checked, or raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


class _Named(nn.Module):
    """The network with an input called "images"."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> Any:
        return self.network(images)


def open_program(file: Path) -> ExportedProgram:
    """What `save_program` has written. Raises UserError for a file with anything that could run code."""
    content = _checked(file)
    with silenced():
        return torch.export.load(content)


def _checked(file: Path) -> io.BytesIO:
    """The archive packed anew from what was checked: of two entries of a name, readers take either."""
    with zipfile.ZipFile(file) as archive:
        odd = _odd_entries(archive, file.stat().st_size)
        entries = {} if odd else {name: archive.read(name) for name in archive.namelist()}
    odd += [found for name in entries if name.endswith(".json") for found in _odd(json.loads(entries[name]))]
    if odd:
        what = listed(map(printable, odd), 3)
        raise UserError(f"{file} holds more than a network ({what}), which could run code and is not opened")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        while entries:  # each is held once
            archive.writestr(*entries.popitem())
    packed.seek(0)
    return packed


def _odd_entries(archive: zipfile.ZipFile, size: int) -> list[str]:
    """What is not written by `save_program`; it compresses nothing, so that the whole is no larger than the file."""
    entries = archive.infolist()
    if sum(entry.file_size for entry in entries) > size:
        return ["packed entries"]
    known = {entry.filename for entry in entries if _ENTRIES.fullmatch(entry.filename)}
    samples = {entry.filename for entry in entries if "/sample_inputs/" in entry.filename and entry.file_size}
    long = {entry.filename for entry in entries if entry.filename.endswith(".json") and entry.file_size > _LONGEST}
    return [entry.filename for entry in entries if entry.filename in samples | long or entry.filename not in known]


def _odd(content: Any) -> Iterator[str]:
    """What in the JSON the reader would unpickle, call or evaluate."""
    level = [("", content)]
    while level:
        key, item = level.pop()
        if isinstance(item, dict):
            level += [*item.items(), *(("", name) for name in item)]
            if item.get("use_pickle"):
                yield "pickles"
        elif isinstance(item, list):
            level += [(key, one) for one in item]
        elif isinstance(item, str) and not _TEXTS.get(key, _PLAIN).fullmatch(item):
            yield item
