"""The temperature of a model: fitted on held-out images, kept with the model, applied wherever it predicts."""

from dataclasses import replace

import torch

from residuum.data.sources import DataSet
from residuum.distributed import World
from residuum.errors import UserError
from residuum.evaluation.calibration import fit_temperature
from residuum.evaluation.evaluate import yes_or_no
from residuum.evaluation.views import Protocol
from residuum.hardware import choose_device
from residuum.inference.evaluate import Panel, check_labels
from residuum.inference.predictors import Model
from residuum.model_config import public_name
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
    as for `evaluate`. Raises UserError for what `evaluate` refuses, for images that training has or may have seen,
    which a model is too sure of to tell, and where they determine no temperature.
    """
    check_labels([classifier], dataset)
    _check_unseen(classifier, dataset, split)
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
    truth = torch.cat(labels)
    if classifier.multi_label:
        truth = yes_or_no(truth, dataset.classes)
    return fit_temperature(torch.cat(logits).numpy(), truth.numpy())


def _check_unseen(classifier: Classifier, dataset: DataSet, split: str) -> None:
    if split in ("train", "all"):
        raise UserError(
            f"a temperature is fitted on images that training has not seen, not on {split!r}; name val, say"
        )
    if is_divided_otherwise(classifier, dataset):
        raise UserError(
            f"{dataset.spec} changed since training or is divided otherwise: the model may have seen the images of "
            f"{split!r}; divide it as it was, or calibrate on other data"
        )


def is_divided_otherwise(classifier: Model, dataset: DataSet) -> bool:
    """Whether the data that the model was trained on are no longer, or not divided, as they were."""
    trained_on, spec = classifier.provenance, dataset.spec.rstrip("/")
    is_same_place = str(trained_on.get("data")).rstrip("/") in (spec, public_name(spec))  # an export has the name alone
    return is_same_place and trained_on.get("fingerprint") != dataset.fingerprint()
