"""What computes an exported model: ONNX Runtime, OpenVINO, or PyTorch; each imported when it is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from residuum.errors import missing_extra
from residuum.inference.exported import Exported
from residuum.processor import cores

Logits = NDArray[np.float32]  # (N, K)


@dataclass(frozen=True)
class Engine:
    """words: what computes; called with normalised images (N, C, S, S) float32 it gives the logits.

    features: of the same images the last features by position (N, F, h, w), where the file gives them.
    """

    words: str
    run: Callable[[NDArray[np.float32]], Logits]
    features: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None

    def __call__(self, images: NDArray[np.float32]) -> Logits:
        return self.run(images)


def open_engine(exported: Exported, name: str = "auto") -> Engine:
    """The engine called `name` with the exported file, on all cores. Raises UserError where it is not installed."""
    return _by_onnxruntime(exported)


def _by_onnxruntime(exported: Exported) -> Engine:
    try:
        import onnxruntime
    except ImportError:
        raise missing_extra("onnxruntime", "export", "an exported model") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    session = onnxruntime.InferenceSession(exported.file, options, providers=["CPUExecutionProvider"])

    def output(name: str, images: NDArray[np.float32]) -> NDArray[np.float32]:
        (found,) = session.run([name], {"images": images})
        values: NDArray[np.float32] = found
        return values

    has_features = "features" in [output.name for output in session.get_outputs()]
    return Engine(
        f"ONNX Runtime {onnxruntime.__version__}, {exported.number}, {cores()} threads",
        partial(output, "logits"),
        partial(output, "features") if has_features else None,
    )
