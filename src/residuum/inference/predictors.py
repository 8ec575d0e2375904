"""A trained model as a function from images to logits, wherever it is put to work."""

import torch

from residuum.errors import UserError
from residuum.evaluation.evaluate import predictor
from residuum.evaluation.views import Predict
from residuum.hardware import choose_precision
from residuum.weights import Classifier


def model_predictor(
    classifier: Classifier, device: torch.device, precision: str = "auto", classes: tuple[str, ...] | None = None
) -> Predict:
    """The model's predict function on `device`, its temperature applied, its scores in the order of `classes`.

    precision: "auto" is that of its training, so that the number which training printed is found again. Raises
    UserError where names of classes stand twice and the order is another.
    """
    if precision == "auto":
        precision = classifier.provenance.get("precision", "auto")
    predict = predictor(classifier.network, device, choose_precision(precision, device), classifier.temperature)
    if classes is None or classes == classifier.classes:
        return predict
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise UserError(
            f"two classes are called {twice!r}, and the order is not the model's; give them names of their own"
        )
    order = [classifier.classes.index(name) for name in classes]
    return lambda images: predict(images)[:, order]
