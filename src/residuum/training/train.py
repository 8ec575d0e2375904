"""`train`: from a data spec and a recipe to a run folder with a model in it."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from torch import nn

from residuum.data.facts import DataFacts, data_facts
from residuum.data.sources import DataSet, open_data
from residuum.distributed import (
    is_restarted,
    launch,
    may_be_restarted,
    process_group,
    world_from_environment,
)
from residuum.errors import UserError
from residuum.evaluation.scores import Evaluation
from residuum.hardware import (
    choose_device,
    choose_precision,
    describe_hardware,
    keep_freed_memory,
    kernel_choice,
    versions,
)
from residuum.models.catalogue import is_foreign
from residuum.training.captured import can_be_captured
from residuum.training.checkpoints import CheckpointWriter, list_checkpoints
from residuum.training.context import Context
from residuum.training.ema import WeightAverage
from residuum.training.exactness import changed_conditions, claim, first_doubts
from residuum.training.faults import ending, explained
from residuum.training.gradients import share_gradients
from residuum.training.interruption import listen_for_stop
from residuum.training.job import Job
from residuum.training.loop import fit
from residuum.training.losses import build_loss
from residuum.training.optimizers import build_optimizer
from residuum.training.outcome import classifier, finish, measure
from residuum.training.overrides import apply_overrides, naming
from residuum.training.preparation import (
    PreparedData,
    blank_images,
    class_counts,
    prepare_data,
    prepare_network,
)
from residuum.training.progress import Reporter
from residuum.training.recipes import make_run
from residuum.training.resuming import recorded_run, restore
from residuum.training.run import Run
from residuum.training.run_folder import RunFolder, free_run_folder
from residuum.training.schedules import build_schedule
from residuum.training.speed import means_of_speed
from residuum.training.sync_bn import synchronise_bn
from residuum.training.unseen import Unseen, can_be_unseen
from residuum.weights import save_model


@dataclass(frozen=True)
class TrainResult:
    """A finished run: its folder, what it was, what it scored by split, and a record of each epoch."""

    folder: Path
    run: Run
    evaluations: Mapping[str, Evaluation]
    metrics: tuple[Mapping[str, Any], ...]


def train(
    data: str | DataSet,
    *,
    recipe: str | Run | None = None,
    model: str | None = None,
    out: str | Path | None = None,
    resume: bool | Literal["auto"] = False,
    allow_changes: bool = False,
    overrides: Sequence[str] = (),
) -> TrainResult:
    """Train a classifier on `data` (a data spec, or what `open_data` returned) and save it with all its use needs.

    `recipe` is a name, by default "quick", or a whole `Run`; `overrides` are `"field=value"` changes to it, as after
    `--set`. `out` is the run folder, by default the first free `runs/MODEL-DATA`; with `resume` it is a run to go on
    with, whose recorded configuration holds, unless `allow_changes`. "auto" goes on with what `out` holds, or starts
    there; a process that torchrun has restarted goes on with the run that it began.

    Raises UserError for what the caller can mend, FaultError where a fault has stopped a run that can go on, and
    Interrupted (state saved) on the first SIGINT or SIGTERM.
    """
    dataset = open_data(data) if isinstance(data, str) else data
    if may_be_restarted() and out is None:
        raise UserError("torchrun --max-restarts needs a folder to come back to; name it with --out")
    dataset.monitored()  # refuses data without a split to watch before anything is read
    facts = data_facts(dataset.train, dataset.classes, dataset.multi_label)
    resumes = resume is True or _resumes_by_itself(out, resume)
    changes: list[str] = []
    if resumes:
        run, changes = recorded_run(_named(out), recipe, model, overrides, allow_changes)
    else:
        run = _new_run(facts, recipe or "quick", model, overrides)
    device = choose_device(run.device, world_from_environment().local_rank)
    dtype = choose_precision(run.precision, device)
    keep_freed_memory()
    with kernel_choice(run.deterministic), process_group(device) as world, ExitStack() as stack:
        reporter = Reporter(Console(stderr=True, quiet=not world.is_main))
        has_state = resumes and bool(list_checkpoints(RunFolder(_named(out)).checkpoints))
        network = _network(run, dataset, device, reporter, has_state)  # what does not fit leaves no folder
        path = world.from_main(lambda: _take_folder(out, resumes, _folder_name(run, dataset), stack))
        folder = RunFolder(path)
        stack.callback(folder.close)
        context = Context(run, dataset, dataset.fingerprint(), folder, device, dtype, world, reporter)
        _record_start(context, facts, resumes, changes)
        try:
            return _carry_out(context, network, resumes)
        except (Exception, KeyboardInterrupt) as error:
            with suppress(OSError):  # a full disk must not hide what it broke
                context.update_manifest(ending(error))
            if told := explained(error, run, folder, world):
                raise told from error
            raise


def _resumes_by_itself(out: str | Path | None, resume: bool | Literal["auto"]) -> bool:
    """Whether `out` holds a run that "auto" goes on with, or that torchrun began and now has restarted."""
    if resume != "auto" and not is_restarted():
        return False
    folder = RunFolder(_named(out))
    return folder.holds_run and (resume == "auto" or folder.read_manifest().get("launch") == launch())


def _named(out: str | Path | None) -> Path:
    if out is None:
        raise UserError("to resume, name the run's folder with --out")
    return Path(out)


def _folder_name(run: Run, dataset: DataSet) -> str:
    return f"{run.model.name}-{Path(dataset.spec).name}".replace("/", "-")


def _network(run: Run, dataset: DataSet, device: torch.device, reporter: Reporter, has_state: bool) -> nn.Module:
    """The network to train. Where a state is at hand it needs no weights to start from; they may be gone by now."""
    begins = replace(run, model=replace(run.model, weights=None)) if has_state else run
    network = prepare_network(begins, dataset, device, reporter)
    return synchronise_bn(network, device) if run.sync_bn else network


def _take_folder(out: str | Path | None, resumes: bool, name: str, stack: ExitStack) -> Path:
    """The run's folder, locked until `stack` ends. Raises UserError where another run's work lies there."""
    folder = RunFolder(Path(out)) if out is not None else free_run_folder(name)
    stack.enter_context(folder.locked())
    if not resumes and folder.holds_work:
        raise UserError(f"{folder.path} already holds a run; continue it with --resume, or choose another --out")
    return folder.path


def _new_run(facts: DataFacts, recipe: str | Run, model: str | None, overrides: Sequence[str]) -> Run:
    if isinstance(recipe, Run):
        return apply_overrides(recipe, naming(model, overrides))
    return make_run(recipe, facts, model, overrides)


def _record_start(context: Context, facts: DataFacts, resumes: bool, changes: Sequence[str]) -> None:
    """Write into `run.json` what is about to run, and whether it is claimed to be exact.

    Raises UserError when a resumed run was begun on other data.
    """
    dataset = context.dataset
    data = {
        "spec": dataset.spec,
        "fingerprint": context.fingerprint,
        "classes": list(dataset.classes),
        "images": {name: len(split) for name, split in dataset.splits.items()},
        "facts": asdict(facts),
        "notes": list(dataset.notes),
    }
    conditions = {
        "versions": versions(),
        "hardware": {
            **describe_hardware(context.device),
            "precision": context.precision,
            "processes": context.world.size,
        },
    }
    doubts = first_doubts(context.run, context.device)
    if resumes:
        recorded = context.folder.read_manifest()
        _check_same_data(context, recorded)
        doubts = _grown_doubts(context, recorded, [*changes, *changed_conditions(recorded, conditions)])
    elif context.world.is_main:
        context.folder.clear()
    start = {
        "status": "running",
        "failure": None,
        "run": context.run.to_dict(),
        "data": data,
        "launch": launch(),
        **conditions,
    }
    context.world.barrier()  # all have read what is now written anew
    context.update_manifest({**start, "exact": claim(doubts)})


def _check_same_data(context: Context, recorded: Mapping[str, Any]) -> None:
    if recorded["data"]["fingerprint"] != context.fingerprint:
        raise UserError(
            f"{context.folder.path} was trained on other data than {context.dataset.spec} holds now; "
            "name the same data, unchanged"
        )


def _grown_doubts(context: Context, recorded: Mapping[str, Any], changes: Sequence[str]) -> list[str]:
    """The doubts that were recorded and the new ones; of the new ones the person is told."""
    if changes:
        context.reporter.line(
            f"goes on under other conditions ({'; '.join(changes)}): "
            "the result is no longer claimed to equal, bit for bit, that of a run nothing interrupted"
        )
    return [*recorded["exact"]["doubts"], *(f"resumed with {change}" for change in changes)]


def _carry_out(context: Context, network: nn.Module, resumes: bool) -> TrainResult:
    run = context.run
    data = prepare_data(run, context.dataset, context.device, context.world, context.reporter)
    with (
        listen_for_stop(context.stop),
        CheckpointWriter(context.folder.checkpoints, run.keep_checkpoints) as checkpoints,
    ):
        job = _job(context, data, network, checkpoints)
        _introduce(context, data, job)
        if resumes:
            restore(job)
        with context.reporter.training(job.total_steps, job.position.step):
            fit(job, context.stop)
        checkpoints.wait()  # a run that says it is finished has its last checkpoint
        return TrainResult(context.folder.path, run, *finish(context, data, job))


def _job(context: Context, data: PreparedData, network: nn.Module, checkpoints: CheckpointWriter) -> Job:
    run, world, classes = context.run, context.world, context.dataset.classes
    counts = class_counts(context.dataset.train, len(classes))
    loss = build_loss(run.loss, len(classes), counts, context.device)
    total_steps = run.total_iterations(len(data.train))
    optimizer = build_optimizer(run.optimizer, network)
    is_unseen = world.size == 1 and can_be_unseen(optimizer, context.device)
    return Job(
        run=run,
        network=share_gradients(network, blank_images(run, context.device)) if world.size > 1 else network,
        optimizer=optimizer,
        schedule=build_schedule(run.schedule, run.optimizer.lr, total_steps),
        loss=loss,
        loader=data.train,
        watched=data.watched,
        evaluate=lambda network: measure(context, network, data, data.watched),
        save_best=lambda network: save_model(context.folder.best, classifier(context, data, network)),
        folder=context.folder,
        checkpoints=checkpoints,
        reporter=context.reporter,
        device=context.device,
        dtype=context.dtype,
        single_label=not context.dataset.multi_label,
        world=world,
        average=WeightAverage(network, run.ema) if run.ema else None,
        draws=is_foreign(run.model.name) or run.model.draws,
        unseen=Unseen(optimizer, context.device) if is_unseen else None,
        captures=is_unseen and run.capture and can_be_captured(optimizer) and not is_foreign(run.model.name),
    )


def _introduce(context: Context, data: PreparedData, job: Job) -> None:
    """Say in a few lines what is about to happen."""
    run, line = context.run, context.reporter.line
    parameters = sum(parameter.numel() for parameter in job.network.parameters())
    size = f"{data.preprocessing.channels}x{data.preprocessing.size}x{data.preprocessing.size}"
    images = ", ".join(f"{len(split):,} {name}" for name, split in context.dataset.splits.items())
    line(
        f"data: {context.dataset.spec}: {images} images of {len(context.dataset.classes)} classes, in {data.train.kind}"
    )
    for note in context.dataset.notes:
        line(f"  {note}")
    for bad in data.train.bad[:5]:
        line(f"  left out: {bad}")
    if len(data.train.bad) > 5:
        line(f"  and {len(data.train.bad) - 5:,} more that cannot be read")
    line(f"model: {run.model.name}, {parameters:,} parameters, input {size}")
    steps = f"{job.epochs} epochs, {job.total_steps:,} updates of {run.batch_size} images"
    line(f"recipe: {run.recipe}: {steps} on {context.world.size} x {context.device} in {context.precision}")
    line(f"speed: {', '.join(means_of_speed(job))}")
    line(f"run: {context.folder.path}")
