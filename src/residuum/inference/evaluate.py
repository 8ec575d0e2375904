"""A trained model measured on a data set: classes matched by name, preprocessing as in training."""

from residuum.data.loaders import evaluation_loader
from residuum.data.sources import DataSet
from residuum.data.workers import LoaderSettings
from residuum.distributed import process_group, world_from_environment
from residuum.errors import UserError
from residuum.evaluation.evaluate import Evaluation, predictor
from residuum.evaluation.evaluate import evaluate as evaluate_predictions
from residuum.hardware import choose_device, choose_precision, default_workers
from residuum.weights import Classifier


def evaluate(
    classifier: Classifier,
    dataset: DataSet,
    *,
    split: str | None = None,
    batch_size: int = 256,
    workers: int | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> Evaluation:
    """Score a model on a split of a data set: test, else val, else the only one; or the one named; or "all".

    The data set must be opened with the model's classes, `open_data(spec, classes=classifier.classes)`, which
    matches them by name. Images stream, each through the model's own preprocessing. Under torchrun each
    process takes its share, and all get the same result.
    Raises UserError for other classes, for several labels an image where the model gives one, for a split that
    is not there and for a device that cannot be had.
    """
    if dataset.classes != classifier.classes:
        raise UserError(
            f"{dataset.spec} was opened under other classes than the model's; open it with "
            "open_data(spec, classes=classifier.classes), which matches them by name"
        )
    if dataset.multi_label and not classifier.multi_label:
        raise UserError(
            f"{dataset.spec} has several labels an image and the model gives one; "
            "evaluate it on data of one label an image, or train a model on such data"
        )
    _, images = dataset.held_out(split)
    where = choose_device(device, world_from_environment().local_rank)
    if precision == "auto":  # the number that training printed is the one to find again
        precision = classifier.provenance.get("precision", "auto")
    predict = predictor(classifier.network, where, choose_precision(precision, where))
    most = len(images) // batch_size  # starting a process for less than a batch takes longer than the batch
    processes = min(default_workers(where), most) if workers is None else workers
    with process_group(where) as world:
        settings = LoaderSettings(device=where, workers=processes, world=world, kind="file")
        loader = evaluation_loader(images, classifier.preprocessing, batch_size=batch_size, settings=settings)
        return evaluate_predictions(
            predict,
            loader,
            classes=classifier.classes,
            multi_label=classifier.multi_label,
            world=world,
        )
