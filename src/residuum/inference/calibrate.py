"""The temperature of a model: fitted on held-out images, kept with the model, applied wherever it predicts."""

from dataclasses import replace

import torch

from residuum.data.sources import DataSet
from residuum.distributed import World
from residuum.errors import UserError
from residuum.evaluation.calibration import fit_temperature
from residuum.evaluation.views import Protocol
from residuum.hardware import choose_device
from residuum.inference.evaluate import Panel
from residuum.weights import Classifier


def calibrate(
    classifier: Classifier,
    dataset: DataSet,
    split: str,
    *,
    batch_size: int = 256,
    workers: int | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> float:
    """The temperature by which the model's logits on a split have the least cross-entropy (Guo et al. 2017).

    Images are seen from the centre; what cannot be read, or is of an unknown class, is left out. The data set is opened
    as for `evaluate`. Raises UserError for the split that the model was trained on, which it is too sure of to tell.
    """
    trained_on = classifier.provenance.get("fingerprint")
    if split in ("train", "all") and trained_on in (None, dataset.fingerprint()):
        raise UserError(
            f"a temperature is fitted on images that training has not seen, not on {split!r}; name val, say"
        )
    where = choose_device(device)
    bare = replace(classifier, temperature=1.0)
    panel = Panel.of([bare], dataset.classes, Protocol(), where, precision, batch_size)
    loader = panel.loader(dataset.held_out(split)[1], batch_size, workers, where, World())
    logits, labels = [], []
    for batch in loader.epoch(0):
        if len(batch.indices):
            logits.append(panel(batch.images)[0].cpu())
            labels.append(batch.labels.cpu())
    if not logits:
        raise UserError(f"none of the images of {split!r} can be read; run `residuum check` on the data")
    return fit_temperature(torch.cat(logits).numpy(), torch.cat(labels).numpy())
