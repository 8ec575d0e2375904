"""Deep residual networks: build, train, measure, explain and deploy them.

The public names are imported when they are first used: `import residuum` itself costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from residuum.data.doctor import check_data
    from residuum.data.sources import DataSet, open_data
    from residuum.diagnosis.diagnose import diagnose
    from residuum.errors import UserError
    from residuum.evaluation.scores import Evaluation
    from residuum.evaluation.views import Protocol
    from residuum.inference.evaluate import evaluate, measure
    from residuum.inference.predict import Prediction, predict
    from residuum.models.catalogue import create_model, list_models
    from residuum.models.summary import summarise
    from residuum.studies.engine import run_study
    from residuum.training.train import TrainResult, train
    from residuum.weights import Classifier, load, save_model

__version__ = "0.1.0"

__all__ = [
    "Classifier",
    "DataSet",
    "Evaluation",
    "Prediction",
    "Protocol",
    "TrainResult",
    "UserError",
    "check_data",
    "create_model",
    "diagnose",
    "evaluate",
    "list_models",
    "load",
    "measure",
    "open_data",
    "predict",
    "run_study",
    "save_model",
    "summarise",
    "train",
]

_HOMES = {
    "Classifier": "residuum.weights",
    "DataSet": "residuum.data.sources",
    "Evaluation": "residuum.evaluation.scores",
    "Prediction": "residuum.inference.predict",
    "Protocol": "residuum.evaluation.views",
    "TrainResult": "residuum.training.train",
    "UserError": "residuum.errors",
    "check_data": "residuum.data.doctor",
    "create_model": "residuum.models.catalogue",
    "diagnose": "residuum.diagnosis.diagnose",
    "evaluate": "residuum.inference.evaluate",
    "list_models": "residuum.models.catalogue",
    "load": "residuum.weights",
    "measure": "residuum.inference.evaluate",
    "open_data": "residuum.data.sources",
    "predict": "residuum.inference.predict",
    "run_study": "residuum.studies.engine",
    "save_model": "residuum.weights",
    "summarise": "residuum.models.summary",
    "train": "residuum.training.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'residuum' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
