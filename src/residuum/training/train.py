"""`train`: from a data spec and a recipe to a run folder with a model in it."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from residuum.data.facts import data_facts
from residuum.data.sources import DataSet, open_data
from residuum.distributed import World, process_group, world_from_environment
from residuum.errors import UserError, listed
from residuum.evaluation.evaluate import Evaluation, evaluate, predictor
from residuum.hardware import autocast, choose_device, choose_precision, describe_hardware, versions
from residuum.records import plain
from residuum.training.bn_statistics import recompute_bn
from residuum.training.checkpoints import list_checkpoints, load_checkpoint
from residuum.training.ema import WeightAverage
from residuum.training.interruption import Interrupted, listen_for_stop
from residuum.training.loop import Job, NonFiniteLossError, fit
from residuum.training.losses import build_loss
from residuum.training.optimizers import build_optimizer
from residuum.training.overrides import apply_overrides, describe_difference
from residuum.training.preparation import (
    PreparedData,
    class_counts,
    model_args,
    prepare_data,
    prepare_network,
)
from residuum.training.progress import Reporter
from residuum.training.recipes import make_run
from residuum.training.run import Run
from residuum.training.run_folder import RunFolder, new_run_folder
from residuum.training.schedules import build_schedule
from residuum.weights import Classifier, load, save_model

RESUMABLE = ("device", "data.workers", "data.loader")
"""The fields that may change when a run goes on: they decide where and how fast, not what."""


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
    recipe: str | None = None,
    model: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overrides: Sequence[str] = (),
) -> TrainResult:
    """Train a classifier on `data` (a data spec, or what `open_data` returned) and save it with all its use needs.

    `recipe` is "quick" unless named; `overrides` are `"field=value"` changes to it, as after `--set`. `out` is the run
    folder, by default the first free `runs/MODEL-DATA`; with `resume` it is a run to go on with, whose recorded
    configuration holds.

    Raises UserError for what the caller can mend, Interrupted (state saved) on the first SIGINT or SIGTERM.
    """
    dataset = open_data(data) if isinstance(data, str) else data
    if resume:
        run = _recorded_run(out, recipe, model, overrides)
    else:
        run = _new_run(dataset, recipe or "quick", model, overrides)
    device = choose_device(run.device, world_from_environment().local_rank)
    dtype = choose_precision(run.precision, device)
    with process_group(device) as world:
        reporter = Reporter(Console(stderr=True, quiet=not world.is_main))
        network = prepare_network(run, dataset, device, reporter)  # refuses what does not fit before a folder is made
        name = f"{run.model.name}-{Path(dataset.spec).name}".replace("/", "-")
        folder = _open_folder(out, resume, name, world)
        context = _Context(run, dataset, dataset.fingerprint(), folder, device, dtype, world, reporter)
        _record_start(context, resume)
        try:
            return _carry_out(context, network, resume)
        except NonFiniteLossError as error:
            context.update_manifest(_ending(error, dataset))
            raise UserError(_explain(error, dataset)) from None
        except Exception as error:
            with suppress(OSError):  # a full disk must not hide what it broke
                context.update_manifest(_ending(error, dataset))
            raise
        finally:
            folder.close()


@dataclass(frozen=True)
class _Context:
    """What every part of a run needs to know."""

    run: Run
    dataset: DataSet
    fingerprint: str
    folder: RunFolder
    device: torch.device
    dtype: torch.dtype
    world: World
    reporter: Reporter

    @property
    def precision(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def update_manifest(self, changes: Mapping[str, Any]) -> None:
        if self.world.is_main:
            self.folder.update_manifest(changes)


def _new_run(dataset: DataSet, recipe: str, model: str | None, overrides: Sequence[str]) -> Run:
    dataset.monitored()  # refuses data without a split to watch before anything is read
    facts = data_facts(dataset.train, dataset.classes, dataset.multi_label)
    return make_run(recipe, facts, model, overrides)


def _recorded_run(out: str | Path | None, recipe: str | None, model: str | None, overrides: Sequence[str]) -> Run:
    """The run that `out` recorded, with changes that do not change its result. Raises UserError for any other."""
    if out is None:
        raise UserError("--resume needs the run to go on with; name its folder with --out")
    manifest = RunFolder(Path(out)).read_manifest()
    if manifest.get("status") == "finished":
        raise UserError(f"{out} is finished; there is nothing to resume; start a new run in another folder")
    recorded = Run.from_dict(manifest["run"])
    run = apply_overrides(recorded, [*([f"model.name={model}"] if model else []), *overrides])
    changes = [line for line in describe_difference(recorded, run) if not line.startswith(RESUMABLE)]
    if recipe not in (None, recorded.recipe):
        changes.append(f"recipe: {recorded.recipe} -> {recipe}")
    if changes:
        raise UserError(f"{out} was started otherwise ({'; '.join(changes)}); leave these out, or start a new run")
    return run


def _open_folder(out: str | Path | None, resume: bool, name: str, world: World) -> RunFolder:
    """The run's folder, the same in every process: the recorded one, or one that the main process makes."""
    if resume:
        assert out is not None
        return RunFolder(Path(out))
    path = Path(out) if out is not None else None
    made = str(new_run_folder(path, name).path) if world.is_main else ""
    return RunFolder(Path(world.agree(made)))


def _record_start(context: _Context, resume: bool) -> None:
    """Write into `run.json` what is about to run. Raises UserError when a resumed run began under other conditions."""
    dataset = context.dataset
    if resume:
        _check_same_conditions(context)
    elif context.world.is_main:
        context.folder.clear()
    data = {
        "spec": dataset.spec,
        "fingerprint": context.fingerprint,
        "classes": list(dataset.classes),
        "images": {name: len(split) for name, split in dataset.splits.items()},
        "notes": list(dataset.notes),
    }
    context.update_manifest(
        {
            "status": "running",
            "failure": None,
            "run": context.run.to_dict(),
            "data": data,
            "versions": versions(),
            "hardware": {
                **describe_hardware(context.device),
                "precision": context.precision,
                "processes": context.world.size,
            },
        }
    )


def _check_same_conditions(context: _Context) -> None:
    folder = context.folder
    recorded = folder.read_manifest()
    if recorded["data"]["fingerprint"] != context.fingerprint:
        raise UserError(
            f"{folder.path} was trained on other data than {context.dataset.spec}; name the same data, unchanged"
        )
    hardware = recorded["hardware"]
    if hardware["processes"] != context.world.size:
        raise UserError(
            f"{folder.path} ran on {hardware['processes']} processes, now there are {context.world.size}; "
            f"go on with {hardware['processes']}"
        )
    if hardware["precision"] != context.precision:
        raise UserError(
            f"{folder.path} computed in {hardware['precision']}, which here would be {context.precision}; "
            f"go on with the device it began on ({hardware['device']})"
        )


def _carry_out(context: _Context, network: nn.Module, resume: bool) -> TrainResult:
    data = prepare_data(context.run, context.dataset, context.device, context.world, context.reporter)
    job = _job(context, data, network)
    _introduce(context, data, job)
    if resume:
        _restore(job)
    with context.reporter.training(job.total_steps, job.position.step), listen_for_stop() as stop:
        fit(job, stop)
    return _finish(context, data, job)


def _job(context: _Context, data: PreparedData, network: nn.Module) -> Job:
    run, world, classes = context.run, context.world, context.dataset.classes
    counts = class_counts(context.dataset.train, len(classes))
    loss = build_loss(run.loss, len(classes), counts, context.device)
    total_steps = run.total_iterations(len(data.train))
    return Job(
        run=run,
        network=DistributedDataParallel(network) if world.size > 1 else network,
        optimizer=build_optimizer(run.optimizer, network),
        schedule=build_schedule(run.schedule, run.optimizer.lr, total_steps),
        loss=loss,
        loader=data.train,
        watched=data.watched,
        evaluate=lambda network: _measure(context, network, data, data.watched),
        save_best=lambda network: save_model(context.folder.best, _classifier(context, data, network)),
        folder=context.folder,
        reporter=context.reporter,
        device=context.device,
        dtype=context.dtype,
        single_label=not context.dataset.multi_label,
        world=world,
        average=WeightAverage(network, run.ema) if run.ema else None,
    )


def _introduce(context: _Context, data: PreparedData, job: Job) -> None:
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
    line(f"run: {context.folder.path}")


def _restore(job: Job) -> None:
    """Go on from the newest checkpoint; from the start when the run was cut before its first."""
    checkpoints = list_checkpoints(job.folder.checkpoints)
    if checkpoints:
        job.restore(load_checkpoint(checkpoints[-1]))
    else:
        job.folder.truncate_metrics(0)
    job.reporter.line(f"resumed at update {job.position.step:,}")


def _finish(context: _Context, data: PreparedData, job: Job) -> TrainResult:
    """Settle the final weights, measure them on every held-out split, and save them with what they scored."""
    network = job.evaluated_network
    if context.run.early_stopping:
        context.reporter.line(
            f"the weights are those of epoch {job.position.best_epoch}, chosen on {data.watched}: "
            f"its score flatters them a little"
        )
        context.world.barrier()
        network.load_state_dict(load(context.folder.best).network.state_dict())
    if context.run.recompute_bn:
        with autocast(context.device, context.dtype):
            batches = (batch.images for batch in data.train.epoch(job.epochs))
            recompute_bn(network, batches, context.world)
    evaluations = {name: _measure(context, network, data, name) for name in data.measured}
    results = {name: plain(evaluation) for name, evaluation in evaluations.items()}
    if context.world.is_main:
        scores = {name: evaluation.score for name, evaluation in evaluations.items()}
        save_model(context.folder.model, _classifier(context, data, network, scores))
    bad = [[bad.name, bad.reason] for bad in data.train.bad]
    best = {"epoch": job.position.best_epoch, "score": job.position.best}
    context.update_manifest({"status": "finished", "results": results, "best": best, "bad_images": bad})
    return TrainResult(context.folder.path, context.run, evaluations, tuple(context.folder.read_metrics()))


def _measure(context: _Context, network: nn.Module, data: PreparedData, split: str) -> Evaluation:
    dataset = context.dataset
    for buffer in network.buffers():  # batch statistics differ between processes; those of the main one are saved
        context.world.share(buffer)
    return evaluate(
        predictor(network, context.device, context.dtype),
        data.measured[split],
        classes=dataset.classes,
        multi_label=dataset.multi_label,
        world=context.world,
    )


def _classifier(
    context: _Context, data: PreparedData, network: nn.Module, scores: Mapping[str, float] | None = None
) -> Classifier:
    run, dataset = context.run, context.dataset
    provenance = {
        "recipe": run.recipe,
        "seed": run.seed,
        "precision": run.precision,
        "data": dataset.spec,
        "fingerprint": context.fingerprint,
        "versions": versions(),
        "scores": dict(scores or {}),
    }
    return Classifier(
        network=network,
        architecture=run.model.name,
        classes=dataset.classes,
        preprocessing=data.preprocessing,
        model_args=model_args(run.model),
        multi_label=dataset.multi_label,
        provenance=provenance,
    )


def _ending(error: Exception, dataset: DataSet) -> dict[str, Any]:
    """How a run ended before its time, for `run.json`."""
    if isinstance(error, Interrupted):
        return {"status": "interrupted"}
    failure: dict[str, Any] = {"message": str(error)}
    if isinstance(error, NonFiniteLossError):
        failure |= {"step": error.step, "images": [dataset.train.names[index] for index in error.indices]}
    return {"status": "failed", "failure": failure}


def _explain(error: NonFiniteLossError, dataset: DataSet) -> str:
    names = [dataset.train.names[index] for index in error.indices]
    return (
        f"{error}, before the update; its images: {listed(names, 3)} (all in run.json); "
        "try a lower --lr, --set clip_norm=1, or --precision fp32"
    )
