"""`residuum train`: from images to a model in a run folder."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from residuum.cli import options
from residuum.cli.curves import draw_curves
from residuum.cli.evaluate import summary
from residuum.cli.options import DEFAULT_SPLIT_SEED, DEFAULT_VAL_FRACTION

if TYPE_CHECKING:
    from residuum.training.train import TrainResult


def train(
    data: options.Data,
    model: options.ModelName = None,
    recipe: options.Recipe = None,
    out: options.RunFolder = None,
    resume: options.Resume = False,
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
    changes: options.Changes = None,
    device: options.RunDevice = None,
    precision: options.RunPrecision = None,
    workers: options.Workers = None,
    loader: options.Loader = None,
) -> None:
    """Train a network on images; leave its model, curves and scores in a run folder.

    Example: residuum train photos/ -o runs/photos --epochs 20
    """
    from residuum.data.sources import open_data
    from residuum.distributed import world_from_environment
    from residuum.training.interruption import Interrupted
    from residuum.training.train import train as train_run

    flags = {
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer.lr": lr,
        "seed": seed,
        "model.shortcut": shortcut,
        "model.weights": weights,
        "model.freeze_until": freeze_until,
        "data.strict": strict or None,
        "device": device,
        "precision": precision,
        "data.workers": workers,
        "data.loader": loader,
    }
    overrides = [f"{field}={value}" for field, value in flags.items() if value is not None] + (changes or [])
    data_flags = _data_flags(root, val_fraction, split_seed)
    dataset = open_data(data, root=root, val_fraction=val_fraction, split_seed=split_seed)
    try:
        result = train_run(dataset, recipe=recipe, model=model, out=out, resume=resume, overrides=overrides)
    except Interrupted as interruption:
        if world_from_environment().is_main:
            again = ["residuum", "train", data, *data_flags, "--resume", "--out", str(interruption.folder)]
            how = "under torchrun as before" if world_from_environment().size > 1 else "with"
            print(f"{interruption}; go on {how}: {shlex.join(again)}", file=sys.stderr)
        raise typer.Exit(interruption.exit_code) from None
    if world_from_environment().is_main:
        title = f"{result.run.model.name} on {Path(data).name}"
        draw_curves(result.metrics, result.folder / "curves.png", held_out=dataset.monitored()[0], title=title)
        _report(result, data, data_flags)


def _data_flags(root: Path | None, val_fraction: float, split_seed: int) -> list[str]:
    """The flags without which another command would see other data than this run."""
    flags = {
        "--root": (root, None),
        "--val-fraction": (val_fraction, DEFAULT_VAL_FRACTION),
        "--split-seed": (split_seed, DEFAULT_SPLIT_SEED),
    }
    return [part for flag, (value, usual) in flags.items() if value != usual for part in (flag, str(value))]


def _report(result: "TrainResult", data: str, flags: list[str]) -> None:
    """Say what came out, where it lies and what to do next."""
    folder = str(result.folder)
    for split, evaluation in result.evaluations.items():
        print(summary(f"{data}, {split}", evaluation))
    print()
    print(f"model     {result.folder / 'model'}")
    print(f"curves    {result.folder / 'curves.png'}")
    print(f"evaluate  {shlex.join(['residuum', 'evaluate', folder, data, *flags])}")
    print(f"predict   {shlex.join(['residuum', 'predict', folder])} IMAGE...")
