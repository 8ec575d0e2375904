"""A bulk prediction in a process of its own that kills itself: `killed_job.py MODEL OUT MOMENT PATH...`.

Moments are all places where the disk is touched: before a write, in its midst, after it, and around each flush and each
change of a name. MOMENT 0 is never. The model is a function of the pixels, so that nothing waits for PyTorch.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from residuum.data.preprocessing import Preprocessing
from residuum.inference import bulk, journal
from residuum.inference.bulk import How, Job, predict_into
from residuum.inference.deployed import Deployed, Features, Probabilities, Views

CLASSES = ("dark", "middling", "bright")
BATCH = 4


def made_up_model() -> Deployed:
    """Three classes by the mean of the pixels, which are the features, too."""

    def with_features(views: Views) -> tuple[Probabilities, Features]:
        means = views.mean(axis=(1, 2)).astype(np.float32)
        shares = np.abs(means + np.arange(3, dtype=np.float32) * 40) % 255
        return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32), means

    preprocessing = Preprocessing(3, 8)
    return Deployed(
        "made up", "NumPy", CLASSES, preprocessing, False, lambda views: with_features(views)[0], with_features
    )


def job(model: Path, out: Path, paths: list[str]) -> Job:
    return Job(model, tuple(paths), out, top=2, features=out.suffix != ".csv", how=How(BATCH, 1))


class Clock:
    """Counts moments, and kills this process at one of them."""

    def __init__(self, last: int) -> None:
        self.left = last

    def tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def ticking(*arguments: Any, **named: Any) -> Any:
            self.tick()
            result = function(*arguments, **named)
            self.tick()
            return result

        return ticking

    def in_the_midst_of_writes(self, write: Callable[..., int]) -> Callable[..., int]:
        def ticking(opened: journal.Journal, block: bytes) -> int:
            self.tick()
            written = write(opened, block[: len(block) // 2])
            opened._file.flush()
            self.tick()
            written += write(opened, block[len(block) // 2 :])
            self.tick()
            return written

        return ticking


def main() -> None:
    model, out, moment, *paths = sys.argv[1:]
    clock = Clock(int(moment))
    os.fsync, os.replace = clock.around(os.fsync), clock.around(os.replace)
    journal.Journal.write = clock.in_the_midst_of_writes(journal.Journal.write)  # type: ignore[method-assign]
    Path.unlink = clock.around(Path.unlink)  # type: ignore[method-assign]
    bulk.COMMIT_SECONDS = 0.0
    bulk.deploy = lambda *_, **__: made_up_model()
    predict_into(job(Path(model), Path(out), paths))
    print(1_000_000 - clock.left if not int(moment) else "done")


if __name__ == "__main__":
    main()
