"""The arguments and options of the verbs, each with one spelling and one help text."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_VAL_FRACTION = 0.2
DEFAULT_SPLIT_SEED = 0

_RECIPE = "Changes to the recipe"
_COMPUTING = "Computing"

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder of images, or a pack of them; digits, mnist, fashion-mnist, cifar10 or cifar100; a CSV or JSONL "
        "list; parquet files; or hf:owner/name.",
    ),
]
TrainedModel = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="A run folder, its model/ folder, a folder in the Hub layout, hf:owner/name, or an export.",
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="What computes an export: auto, openvino, onnxruntime or torch.",
        rich_help_panel=_COMPUTING,
    ),
]
Root = Annotated[
    Path | None,
    typer.Option("--root", metavar="DIR", help="Where named data sets lie, or are downloaded to."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]

ModelName = Annotated[
    str | None, typer.Option("-m", "--model", metavar="NAME", help="The network; see: residuum models.")
]
Recipe = Annotated[
    str | None,
    typer.Option(
        "-r",
        "--recipe",
        metavar="NAME",
        help="How to train: quick, the default, suits most images; he2015-cifar, he2015-imagenet, he2016-cifar, "
        "d2l-fashion-mnist, fast-cifar, modern-imagenet.",
    ),
]
RunFolder = Annotated[
    Path | None,
    typer.Option("-o", "--out", metavar="DIR", help="The run folder; by default runs/MODEL-DATA."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run that lies in --out.")]
AutoResume = Annotated[
    bool, typer.Option("--auto-resume", help="Go on with the run in --out where there is one, else start it.")
]
AllowChanges = Annotated[
    bool, typer.Option("--allow-changes", help="Go on although the configuration is not as it was.")
]
_VAL_FRACTION = typer.Option(
    "--val-fraction", metavar="F", help="Share kept for validation where the data has no split."
)
_SPLIT_SEED = typer.Option("--split-seed", metavar="N", help="Seed of that split.")
ValFraction = Annotated[float, _VAL_FRACTION]
SplitSeed = Annotated[int, _SPLIT_SEED]
ModelValFraction = Annotated[float | None, _VAL_FRACTION]
ModelSplitSeed = Annotated[int | None, _SPLIT_SEED]

Epochs = Annotated[
    int | None, typer.Option("--epochs", metavar="N", help="Passes over the data.", rich_help_panel=_RECIPE)
]
RunBatchSize = Annotated[
    int | None,
    typer.Option("-b", "--batch-size", metavar="N", help="Images a step, in each process.", rich_help_panel=_RECIPE),
]
LearningRate = Annotated[
    float | None, typer.Option("--lr", metavar="X", help="The peak learning rate.", rich_help_panel=_RECIPE)
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", help="Decides every random choice.", rich_help_panel=_RECIPE),
]
Shortcut = Annotated[
    str | None,
    typer.Option(
        "--shortcut",
        metavar="KIND",
        help="A, B, C, none, gated, shortcut-gated, constant or dropout.",
        rich_help_panel=_RECIPE,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="FROM",
        help="Start from a run, a model folder, hf:owner/name or a weight file.",
        rich_help_panel=_RECIPE,
    ),
]
FreezeUntil = Annotated[
    str | None,
    typer.Option(
        "--freeze-until",
        metavar="LAYER",
        help="Leave as it is what comes before LAYER.",
        rich_help_panel=_RECIPE,
    ),
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Stop at a damaged image instead of leaving it out.", rich_help_panel=_RECIPE),
]
OnNan = Annotated[
    str | None,
    typer.Option(
        "--on-nan",
        metavar="WHAT",
        help="stop, or rollback: to the epoch's start, with half the rate.",
        rich_help_panel=_RECIPE,
    ),
]
SyncBN = Annotated[
    bool,
    typer.Option("--sync-bn", help="Normalise over all processes' batches together.", rich_help_panel=_RECIPE),
]
Deterministic = Annotated[
    bool,
    typer.Option("--deterministic", help="On a GPU, repeat results bit for bit.", rich_help_panel=_COMPUTING),
]
CheckpointEvery = Annotated[
    tuple[float, str] | None,
    typer.Option(
        "--checkpoint-every",
        metavar="N steps|minutes",
        help="Save within epochs, too; by default every 10 minutes.",
        rich_help_panel=_COMPUTING,
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Change any field; may be repeated.", rich_help_panel=_RECIPE),
]

_DEVICE = typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=_COMPUTING)
_PRECISION = typer.Option("--precision", metavar="NAME", help="auto, fp32 or bf16.", rich_help_panel=_COMPUTING)
Device = Annotated[str, _DEVICE]
RunDevice = Annotated[str | None, _DEVICE]
Precision = Annotated[str, _PRECISION]
RunPrecision = Annotated[str | None, _PRECISION]
BatchSize = Annotated[
    int,
    typer.Option(
        "-b",
        "--batch-size",
        min=1,
        metavar="N",
        help="Images a step, in each process.",
        rich_help_panel=_COMPUTING,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "-j",
        "--workers",
        min=0,
        metavar="N",
        help="How many decode images at once.",
        rich_help_panel=_COMPUTING,
    ),
]
Loader = Annotated[
    str | None,
    typer.Option(
        "--loader",
        metavar="KIND",
        help="auto, memory (all at once) or file (as needed).",
        rich_help_panel=_COMPUTING,
    ),
]

Seeds = Annotated[
    int | None, typer.Option("--seeds", min=1, metavar="N", help="Runs of each arm; by default the study's own number.")
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "-j",
        "--jobs",
        min=1,
        metavar="N",
        help="Members run side by side; by default one a CPU core, or four a GPU.",
        rich_help_panel=_COMPUTING,
    ),
]
StudiesFolder = Annotated[
    Path, typer.Option("-o", "--out", metavar="DIR", help="Where studies lie, and the members that they share.")
]
On = Annotated[
    str | None,
    typer.Option("--on", metavar="WHERE", help="ray: on a Ray cluster.", rich_help_panel=_COMPUTING),
]
NProc = Annotated[
    int,
    typer.Option(
        "--nproc",
        min=1,
        metavar="N",
        help="Processes, or GPUs, that train one member together, its batch shared out among them.",
        rich_help_panel=_COMPUTING,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would run and what it costs, and stop.")]
