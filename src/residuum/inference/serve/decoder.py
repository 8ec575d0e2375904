"""The process that decodes: images come in on stdin, views go out on stdout, and what kills it kills nothing else.

A job is a line of JSON, `{"bytes": N, "preprocessing": {...}}`, and N bytes; the answer a line, `{"shape": [S, S, C]}`
and the view's bytes, or `{"error": "truncated"}`.
"""

import contextlib
import json
import os
import signal
import sys
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from residuum.data.decoding import BadImage, Limits, decode
from residuum.data.preprocessing import Preprocessing

READY = b"ready\n"


def main(seconds: float, memory: int, limits: Limits) -> None:
    """Decode until stdin ends, in at most `seconds` an image and `memory` bytes more than at the start."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which has answers to give first
    jobs, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a library prints is taken for an answer
    decode(_TINY, "first", 3)  # loads what decoding needs while memory is free
    _volunteer()
    _limit_memory(memory)
    answers.write(READY)
    answers.flush()
    _fall_silent()
    while line := jobs.readline():
        job = json.loads(line)
        content = jobs.read(job["bytes"])
        signal.setitimer(signal.ITIMER_REAL, seconds)  # whose signal ends the process, whatever it is at
        _answer(answers, _view(content, json.dumps(job["preprocessing"]), limits))
        signal.setitimer(signal.ITIMER_REAL, 0)


def _view(content: bytes, config: str, limits: Limits) -> NDArray[np.uint8] | str:
    handling = _preprocessing(config)
    try:
        return handling.view(decode(content, "image", handling.channels, limits))
    except BadImage as bad:
        return bad.reason
    except MemoryError:
        return "too big for the memory of this machine"


@lru_cache(maxsize=16)
def _preprocessing(config: str) -> Preprocessing:
    return Preprocessing.from_config(json.loads(config))


def _answer(answers: BinaryIO, view: NDArray[np.uint8] | str) -> None:
    head = {"error": view} if isinstance(view, str) else {"shape": view.shape}
    answers.write(json.dumps(head).encode() + b"\n")
    if not isinstance(view, str):
        answers.write(np.ascontiguousarray(view).tobytes())
    answers.flush()


def _fall_silent() -> None:
    """Nobody reads what libraries print from here on; before, it tells the server why decoding cannot start."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _limit_memory(more: int) -> None:
    """No more than `more` bytes of addresses beyond those in use, no core file, and no file written at all."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    except (ImportError, OSError, ValueError):  # a system without such limits; time and process still are
        return


def _volunteer() -> None:
    """Where memory runs out on Linux, this process is ended before the server."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


_TINY = b"P6 1 1 255\n\0\0\0"

if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), Limits(int(sys.argv[3]), int(sys.argv[4])))
