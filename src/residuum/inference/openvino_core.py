"""The one core of OpenVINO that this process has."""

from threading import Lock
from typing import Any

_made: list[Any] = []
_making = Lock()


def openvino_core(openvino: Any) -> Any:
    """The core, made when it is first asked for and kept until the process ends. openvino: the module.

    A core that computes on the processor gives the thread that it first does so in a stack for signals, and takes it
    away when it goes (openvino pull request 11894). Cores that go in another order than they came in, or in another
    thread, leave one that is no more: the next signal, Ctrl-C say, then ends the process without a word.
    """
    with _making:
        if not _made:
            _made.append(openvino.Core())
        return _made[0]
