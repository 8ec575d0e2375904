"""Going on with a run: what it was, what may have changed since, and its state."""

from collections.abc import Sequence
from pathlib import Path

from residuum.distributed import world_from_environment
from residuum.errors import UserError
from residuum.training.checkpoints import load_checkpoint, newest_checkpoint
from residuum.training.job import Job
from residuum.training.overrides import apply_overrides, describe_difference, naming
from residuum.training.run import Run
from residuum.training.run_folder import RunFolder

HARMLESS = ("device", "data.workers", "data.loader", "capture", "checkpoint_every", "keep_checkpoints")
"""The fields that decide where, how fast and how safely a run is computed, not what comes out."""

FIXED = ("recipe", "model.", "data.channels", "optimizer.name", "optimizer.decay_norm_and_bias", "ema", "batch_size")
"""The fields without which the saved state has no meaning."""


class FinishedRunError(UserError):
    """There is nothing left to do."""


def recorded_run(
    out: Path, recipe: str | Run | None, model: str | None, overrides: Sequence[str], allow_changes: bool
) -> tuple[Run, list[str]]:
    """The run that `out` recorded, with the overrides; and what of them changes its result.

    A `recipe` that is a whole run takes the place of the recorded one. Raises UserError for such changes unless they
    are allowed, and always where the saved state would not fit.
    """
    manifest = RunFolder(out).read_manifest()
    if manifest.get("status") == "finished":
        raise FinishedRunError(f"{out} is finished; there is nothing to resume; start a new run in another folder")
    recorded = Run.from_dict(manifest["run"])
    given = recipe if isinstance(recipe, Run) else recorded
    run = apply_overrides(given, naming(model, overrides))
    changes = [line for line in describe_difference(recorded, run) if not line.startswith(HARMLESS)]
    if recipe not in (None, given, recorded.recipe):
        changes.append(f"recipe: {recorded.recipe} -> {recipe}")
    processes = world_from_environment().size
    if run.batch_size * processes == recorded.batch_size * manifest["hardware"]["processes"]:
        changes = [line for line in changes if not line.startswith("batch_size:")]
    fixed = [line for line in changes if line.startswith(FIXED)]
    if fixed:
        raise UserError(f"{out} cannot go on otherwise ({'; '.join(fixed)}); leave this out, or start a new run")
    if changes and not allow_changes:
        raise UserError(
            f"{out} was started otherwise ({'; '.join(changes)}); leave these out, start a new run, "
            "or go on all the same with --allow-changes"
        )
    _check_processes(out, recorded, manifest["hardware"]["processes"], run.batch_size * processes)
    return run, changes


def _check_processes(out: Path, recorded: Run, processes: int, images: int) -> None:
    before = recorded.batch_size * processes
    if images != before:
        here = world_from_environment().size
        way = f", or -b {before // here} on the {here} there are now" if before % here == 0 else ""
        raise UserError(
            f"{out} took {before} images a step, this would take {images}; go on with {processes} processes{way}"
        )


def restore(job: Job) -> None:
    """Bring the job to the newest sound checkpoint; to the run's start where it was cut before its first."""
    checkpoint, notes = job.world.from_main(lambda: _newest(job.folder))
    for note in notes:
        job.reporter.line(note)
    if checkpoint is not None:
        job.restore(load_checkpoint(checkpoint))
        _check_duration(job)
    job.reporter.line(f"resumed at update {job.position.step:,}")


def _newest(folder: RunFolder) -> tuple[Path | None, list[str]]:
    checkpoint, notes = newest_checkpoint(folder.checkpoints)
    if checkpoint is None and (folder.read_metrics() or folder.best.exists()):
        raise UserError(
            f"{folder.path} has recorded epochs and no checkpoint to go on from; bring checkpoints/ back, or start "
            "a new run in another folder"
        )
    return checkpoint, notes


def _check_duration(job: Job) -> None:
    """A changed duration must still lie ahead; an epoch that was cut short by the end of the run cannot be taken up."""
    step, total = job.position.step, job.total_steps
    if step > total or (step < total and step < job.epoch_start):
        raise UserError(
            f"{job.folder.path} has come to update {step:,}, from where {total:,} cannot be reached; leave "
            "epochs and iterations as they were"
        )
