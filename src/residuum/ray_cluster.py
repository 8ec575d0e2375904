"""Work on a Ray cluster: the one that RAY_ADDRESS names, or one of this machine's own."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from residuum.errors import missing_extra

GOES_ON = "what is done is kept, the same command goes on from there"
_LOOK_SECONDS = 1.0
_Task = TypeVar("_Task")


@contextmanager
def ray_cluster(purpose: str) -> Iterator[Any]:
    """Ray, connected while the block runs. Raises UserError where it is not installed, which `purpose` needs."""
    try:
        import ray
    except ImportError:
        raise missing_extra("ray", "cluster", purpose) from None
    started = not ray.is_initialized()
    ray.init(ignore_reinit_error=True, log_to_driver=False, include_dashboard=False)
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()


def answers(ray: Any, tasks: Mapping[Any, _Task], look: Callable[[list[_Task]], None]) -> Iterator[tuple[_Task, Any]]:
    """Each task with what it returned, as they end; with a text that says why, where the cluster lost it.

    tasks: by what `remote` gave for them. `look` is told about once a second which are still waited for.
    """
    waiting = dict(tasks)
    while waiting:
        ready, _ = ray.wait(list(waiting), timeout=_LOOK_SECONDS)
        for one in ready:
            task = waiting.pop(one)
            try:
                found = ray.get(one)
            except ray.exceptions.RayError as error:
                found = f"the cluster lost it ({str(error).splitlines()[0]}); {GOES_ON}"
            yield task, found
        look(list(waiting.values()))
