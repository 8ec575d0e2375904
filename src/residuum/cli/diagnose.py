"""`residuum diagnose`: why a network does not train, or that it will."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from residuum.cli import options
from residuum.cli.messages import print_first, print_notes, printable_table
from residuum.cli.startup import import_torch
from residuum.errors import UserError, printable
from residuum.files import refuse_read_only, write_text
from residuum.records import Page

if TYPE_CHECKING:
    from torch import Tensor

    from residuum.data.sources import DataSet
    from residuum.diagnosis.verdict import Diagnosis
    from residuum.weights import Classifier


def diagnose(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A run folder, a folder of a model, or a network's name.")
    ],
    data: options.Data,
    images: Annotated[
        int, typer.Option("--images", min=2, metavar="N", help="How many training images to look with.")
    ] = 64,
    lr: Annotated[
        float | None, typer.Option("--lr", min=0.0, metavar="X", help="The rate to train with: is a step too long?")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write an HTML page, too.")] = None,
    root: options.Root = None,
    val_fraction: options.ValFraction = options.DEFAULT_VAL_FRACTION,
    split_seed: options.SplitSeed = options.DEFAULT_SPLIT_SEED,
    as_json: options.AsJson = False,
    device: options.Device = "auto",
) -> None:
    """Say whether a network is fit to be trained, and if not, why and what helps.

    One forward and one backward pass: signal, gradient, dead units and residual branches layer by layer. A network
    given by name is newly initialised, for the classes of the data.

    Example: residuum diagnose plain56 cifar10 -o plain56.html
    """
    import_torch()
    from functools import partial

    import torch

    from residuum.cli.testing import open_models
    from residuum.data.sources import open_data
    from residuum.diagnosis.diagnose import diagnose as diagnosis_of
    from residuum.hardware import choose_device
    from residuum.model_config import refuse_exported
    from residuum.weights import Classifier

    refuse_exported(Path(model))
    if out is not None:
        _check_page(out)
    opened = partial(open_data, data, root=root, val_fraction=val_fraction, split_seed=split_seed)
    torch.manual_seed(0)  # a network that is newly initialised is the same every time
    (classifier,), dataset = open_models([model], None, opened)
    assert isinstance(classifier, Classifier), "no export"
    shown, labels = _batch(dataset, classifier, images)
    network = classifier.network.to(choose_device(device))
    if classifier.multi_label:
        import torch.nn.functional as F

        found = diagnosis_of(network, shown, labels=labels, lr=lr, loss=F.binary_cross_entropy_with_logits)
    else:
        found = diagnosis_of(network, shown, labels=labels, lr=lr)
    print_notes(dataset.notes)
    _print(found, as_json)
    if out is not None:
        _write(out, found, f"{model} on {data}")


def _check_page(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the file to write with -o FILE")
    refuse_read_only(path)


def _batch(dataset: "DataSet", classifier: "Classifier", count: int) -> "tuple[Tensor, Tensor]":
    """Training images (else of the split there is) at random, as the network sees them in evaluation, and labels."""
    import numpy as np
    import torch

    from residuum.data.decoding import BadImage

    split = dataset.splits.get("train") or dataset.held_out()[1]
    known = split.labels >= 0 if split.labels.ndim == 1 else np.ones(len(split), bool)
    views, chosen, bad = [], [], []
    for index in np.random.default_rng(0).permutation(np.flatnonzero(known)).tolist():
        try:
            views.append(classifier.preprocessing.view(split.read(index, classifier.preprocessing.channels)))
            chosen.append(index)
        except BadImage as error:
            bad.append(str(error))
        if len(views) == count:
            break
    print_first("unreadable", bad)
    if len(views) < 2:
        raise UserError(f"{dataset.spec} has {len(views)} images to look with; give at least 2 that can be read")
    labels = torch.from_numpy(split.labels[chosen])
    images = classifier.preprocessing.normalise(torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2))
    return images, labels.long() if labels.ndim == 1 else labels.float()


def _print(found: "Diagnosis", as_json: bool) -> None:
    from residuum.diagnosis.page import short_table
    from residuum.report.terminal import print_json, print_table

    if as_json:
        print_json(found)
        return
    for word, sentence in (("verdict", found.verdict), ("reason", found.reason), ("remedy", found.remedy)):
        print(f"{word:8} {printable(sentence, longest=None)}")
    print()
    print_table(printable_table(short_table(found)))


def _write(path: Path, found: "Diagnosis", title: str) -> None:
    import sys

    from residuum.diagnosis.page import sections
    from residuum.report.page import page_html

    write_text(path, page_html(Page(f"Diagnosis of {title}", f"{found.probe.images} images", sections(found))))
    print(f"page: {path}", file=sys.stderr)
