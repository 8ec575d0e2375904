"""What computes an exported model: ONNX Runtime, OpenVINO, or PyTorch; each imported when it is asked for."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from residuum.errors import missing_extra
from residuum.inference.exported import Exported
from residuum.processor import cores

Logits = NDArray[np.float32]  # (N, K)


@dataclass(frozen=True)
class Engine:
    """words: what computes; called with normalised images (N, C, S, S) float32 it gives the logits.

    features: gives the logits and the last features by position (N, F, h, w), where the export has them.
    """

    words: str
    run: Callable[[NDArray[np.float32]], Logits]
    features: Callable[[NDArray[np.float32]], tuple[Logits, NDArray[np.float32]]] | None = None

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

    def run(images: NDArray[np.float32]) -> Logits:
        (logits,) = session.run(["logits"], {"images": images})
        found: Logits = logits
        return found

    def features(images: NDArray[np.float32]) -> tuple[Logits, NDArray[np.float32]]:
        logits, found = session.run(["logits", "features"], {"images": images})
        return logits, found

    has_features = "features" in [output.name for output in session.get_outputs()]
    return Engine(
        f"ONNX Runtime {onnxruntime.__version__}, {exported.number}, {cores()} threads",
        run,
        features if has_features else None,
    )
