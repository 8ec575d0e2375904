"""`residuum train`: from images to a model in a run folder."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from residuum.cli import options
from residuum.cli.curves import draw_curves
from residuum.cli.options import DEFAULT_SPLIT_SEED, DEFAULT_VAL_FRACTION
from residuum.cli.report import REPORT, insights_of, write_report
from residuum.cli.results import summary
from residuum.cli.run_records import read_run
from residuum.cli.startup import import_torch
from residuum.errors import UserError

if TYPE_CHECKING:
    from residuum.data.sources import DataSet
    from residuum.training.train import TrainResult

CURVES = "curves.png"


def train(
    data: options.Data,
    model: options.ModelName = None,
    recipe: options.Recipe = None,
    out: options.RunFolder = None,
    resume: options.Resume = False,
    auto_resume: options.AutoResume = False,
    allow_changes: options.AllowChanges = False,
    root: options.Root = None,
    val_fraction: options.ValFraction = DEFAULT_VAL_FRACTION,
    split_seed: options.SplitSeed = DEFAULT_SPLIT_SEED,
    epochs: options.Epochs = None,
    batch_size: options.RunBatchSize = None,
    lr: options.LearningRate = None,
    seed: options.Seed = None,
    shortcut: options.Shortcut = None,
    weights: options.Weights = None,
    freeze_until: options.FreezeUntil = None,
    strict: options.Strict = False,
    on_nan: options.OnNan = None,
    sync_bn: options.SyncBN = False,
    changes: options.Changes = None,
    device: options.RunDevice = None,
    precision: options.RunPrecision = None,
    workers: options.Workers = None,
    loader: options.Loader = None,
    deterministic: options.Deterministic = False,
    checkpoint_every: options.CheckpointEvery = None,
) -> None:
    """Train a network on images; leave its model, curves and scores in a run folder.

    Example: residuum train photos/ -o runs/photos --epochs 20
    """
    from residuum.data.sources import open_data

    flags = {
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer.lr": lr,
        "seed": seed,
        "model.shortcut": shortcut,
        "model.weights": weights,
        "model.freeze_until": freeze_until,
        "data.strict": strict or None,
        "on_nan": on_nan,
        "sync_bn": sync_bn or None,
        "device": device,
        "precision": precision,
        "data.workers": workers,
        "data.loader": loader,
        "deterministic": deterministic or None,
        "checkpoint_every": f"{checkpoint_every[0]:.15g} {checkpoint_every[1]}" if checkpoint_every else None,
    }
    overrides = [f"{field}={value}" for field, value in flags.items() if value is not None] + (changes or [])
    data_flags = _data_flags(root, val_fraction, split_seed)
    dataset = open_data(data, root=root, val_fraction=val_fraction, split_seed=split_seed)
    how = {"recipe": recipe, "model": model, "out": out, "allow_changes": allow_changes, "overrides": overrides}
    result = _run(dataset, data, data_flags, resume="auto" if auto_resume else resume, **how)
    if result is not None:
        _draw_curves(result.folder, data, dataset)
        _tell(result, data, data_flags)
        _write_report(result.folder, dataset)


def _run(dataset: "DataSet", data: str, data_flags: list[str], **how: Any) -> "TrainResult | None":
    """Train, or say how the run ended before its time; None where another process says the rest, or nothing is left."""
    import_torch()
    from residuum.distributed import world_from_environment
    from residuum.training.faults import FaultError
    from residuum.training.interruption import Interrupted
    from residuum.training.resuming import FinishedRunError
    from residuum.training.train import train

    is_main = world_from_environment().is_main
    try:
        result = train(dataset, **how)
    except Interrupted as interruption:
        if is_main:
            print(f"{interruption}; {_go_on(data, data_flags, interruption.folder)}", file=sys.stderr)
        raise typer.Exit(interruption.exit_code) from None
    except FaultError as fault:
        raise UserError(f"{fault}; {_go_on(data, data_flags, fault.folder)}") from fault
    except FinishedRunError as finished:
        if how["resume"] is True:
            raise
        if is_main:
            _complete(Path(how["out"]), data, dataset)
            print(str(finished), file=sys.stderr)
        return None
    return result if is_main else None


def _complete(folder: Path, data: str, dataset: "DataSet") -> None:
    """Draw the curves, and write the report, of a finished run that was killed before."""
    from residuum.training.run_folder import RunFolder

    with RunFolder(folder).locked():
        if not (folder / CURVES).exists():
            _draw_curves(folder, data, dataset)
        if not (folder / REPORT).exists():
            _write_report(folder, dataset)


def _draw_curves(folder: Path, data: str, dataset: "DataSet") -> None:
    from residuum.training.run_folder import RunFolder

    run = RunFolder(folder)
    title = f"{run.read_manifest()['run']['model']['name']} on {Path(data).name}"
    draw_curves(run.read_metrics(), folder / CURVES, held_out=dataset.monitored()[0], title=title)


def _write_report(folder: Path, dataset: "DataSet") -> None:
    """The run's page; the run is finished without it, so that what it cannot show is no failure of the run."""
    try:
        record = read_run(folder)
        device = record.manifest["run"].get("device", "auto")
        write_report([record], folder / REPORT, insights_of(record, lambda classes: dataset, device=device))
        print(f"report    {folder / REPORT}")
    except (UserError, OSError) as reason:
        print(f"note: no report: {reason}", file=sys.stderr)


def _go_on(data: str, data_flags: list[str], folder: Path) -> str:
    """ "go on with: residuum train photos --resume --out runs/photos"."""
    from residuum.distributed import world_from_environment

    again = ["residuum", "train", data, *data_flags, "--resume", "--out", str(folder)]
    how = "under torchrun as before" if world_from_environment().size > 1 else "with"
    return f"go on {how}: {shlex.join(again)}"


def _data_flags(root: Path | None, val_fraction: float, split_seed: int) -> list[str]:
    """The flags without which another command would see other data than this run."""
    flags = {
        "--root": (root, None),
        "--val-fraction": (val_fraction, DEFAULT_VAL_FRACTION),
        "--split-seed": (split_seed, DEFAULT_SPLIT_SEED),
    }
    return [part for flag, (value, usual) in flags.items() if value != usual for part in (flag, str(value))]


def _tell(result: "TrainResult", data: str, flags: list[str]) -> None:
    """Say what came out, where it lies and what to do next."""
    folder = str(result.folder)
    for split, evaluation in result.evaluations.items():
        print(summary(f"{data}, {split}", evaluation))
    print()
    print(f"model     {result.folder / 'model'}")
    print(f"curves    {result.folder / CURVES}")
    print(f"evaluate  {shlex.join(['residuum', 'evaluate', folder, data, *flags])}")
    print(f"predict   {shlex.join(['residuum', 'predict', folder])} IMAGE...")
