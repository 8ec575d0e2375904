"""How a run can end before its time: what `run.json` keeps of it, and the line for the person."""

from pathlib import Path
from typing import Any

from residuum.data.workers import WorkerDiedError
from residuum.distributed import World, tells_of_a_lost_peer
from residuum.errors import NO_ROOM, RefusedByMainError, UserError, in_words, listed, tells_of_no_memory
from residuum.training.checkpoints import SaveError
from residuum.training.interruption import Interrupted
from residuum.training.run import Run
from residuum.training.run_folder import RunFolder
from residuum.training.updates import NonFiniteError


class FaultError(UserError):
    """Training was stopped by a fault of its surroundings; the run in `folder` can go on from what it saved last."""

    def __init__(self, message: str, folder: Path) -> None:
        self.folder = folder
        super().__init__(message)


def ending(error: BaseException) -> dict[str, Any]:
    """How a run ended before its time, for `run.json`."""
    if isinstance(error, (Interrupted, KeyboardInterrupt)):
        return {"status": "interrupted"}
    failure: dict[str, Any] = {"message": str(error)}
    if isinstance(error, NonFiniteError):
        failure |= {"step": error.step, "images": error.images}
    return {"status": "failed", "failure": failure}


def explained(error: BaseException, run: Run, folder: RunFolder, world: World) -> UserError | None:
    """The fault in a line that says what to do next; None where it needs no more words than it has."""
    if isinstance(error, NonFiniteError):
        if not world.is_main:
            return RefusedByMainError(str(error))
        rollback = "--on-nan rollback, " if run.on_nan == "stop" else ""
        return UserError(
            f"{error}, before the update; its images: {listed(error.images, 3)} (all in run.json); "
            f"try a lower --lr, --set clip_norm=1, {rollback}or --precision fp32"
        )
    if isinstance(error, (WorkerDiedError, SaveError)):
        line = str(error)
    elif "does not have a deterministic implementation" in str(error):
        return UserError(f"{run.model.name} cannot be computed repeatably ({error}); leave out --deterministic")
    elif run.capture and "captur" in str(error):
        return UserError(f"{run.model.name} cannot be recorded as a CUDA graph ({error}); add --set capture=false")
    elif tells_of_no_memory(error):
        line = (
            f"memory ran out with {run.batch_size // run.accumulate} images at once; "
            f"take fewer with --set accumulate={min(2 * run.accumulate, run.batch_size)}, where the run goes on with "
            "--allow-changes, too; or choose a smaller data.size"
        )
    elif isinstance(error, OSError) and error.errno in NO_ROOM:
        line = f"cannot write in {folder.path} ({in_words(error)}); make room there"
    elif world.size > 1 and tells_of_a_lost_peer(error):
        line = "another process of this run is gone; torchrun --max-restarts N starts it again and the run goes on"
    else:
        return None
    return FaultError(line, folder.path) if folder.holds_work else UserError(line)
