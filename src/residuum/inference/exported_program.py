"""A network as PyTorch's own exported program, a `.pt2` file: folded, saved, and opened without trust.

PyTorch's reader executes what a hostile file asks for: pickled tensors, compiled libraries, functions by any name, and
sizes as Python expressions. What `save_program` writes has none of it, and nothing else is opened.
"""

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
_FUNCTIONS = re.compile(
    r"torch\.ops\.aten\.\w+\.\w+|_operator\.(add|sub|mul|floordiv|mod|neg|ge|gt|le|lt|eq|ne|and_|getitem)"
    r"|torch\.sym_(int|float|max|min|not)"
)
_SIZES = re.compile(  # as SymPy writes them, which evaluates what it reads
    r"(?:(?:Symbol|Integer|Add|Mul|Pow|Max|Min|FloorDiv|Mod)\(|'\w+'|(?:positive|nonnegative|integer)=True"
    r"|-?\d+|[), ])*"
)
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

    Raises UserError for a network that PyTorch cannot export.
    """
    named = _Named(fold(network))
    try:
        with torch.no_grad(), silenced():
            sizes = {IMAGES: {0: Dim(BATCH, min=1)}}
            program = torch.export.export(named, (torch.zeros(2, *input_shape),), dynamic_shapes=sizes)
    except Exception as error:
        raise cannot_export(error) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # the folders of whoever exports
    program.example_inputs = None
    torch.export.save(program, file)


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
    _refuse_code(file)
    return torch.export.load(file)


def _refuse_code(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        odd = [entry.filename for entry in archive.infolist() if not _ENTRIES.fullmatch(entry.filename)]
        packed = sum(entry.file_size for entry in archive.infolist()) > file.stat().st_size
        texts = [archive.getinfo(name) for name in archive.namelist() if name.endswith(".json") and not odd]
        too_long = any(text.file_size > _LONGEST for text in texts) or packed
        odd += [
            entry.filename for entry in archive.infolist() if "/sample_inputs/" in entry.filename and entry.file_size
        ]
        odd += [] if odd or too_long else [found for text in texts for found in _odd(json.loads(archive.read(text)))]
    if odd or too_long:
        what = f" ({listed(map(printable, odd), 3)})" if odd else ""
        raise UserError(f"{file} holds more than a network{what}, which could run code and is not opened")


def _odd(content: Any) -> Iterator[str]:
    """What in the JSON the reader would unpickle, call or evaluate."""
    level = [content]
    while level:
        item = level.pop()
        level += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        if not isinstance(item, dict):
            continue
        if item.get("use_pickle"):
            yield "pickles"
        if "target" in item and "inputs" in item and not _FUNCTIONS.fullmatch(str(item["target"])):
            yield str(item["target"])
        if "expr_str" in item and not _SIZES.fullmatch(str(item["expr_str"])):
            yield str(item["expr_str"])
