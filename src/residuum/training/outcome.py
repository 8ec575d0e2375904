"""What a run comes to: its measurements, its final model, and what it says of itself in the end."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from residuum.data.loaders import Batch
from residuum.evaluation.answers import Answers, LabelAnswers, write_answers
from residuum.evaluation.evaluate import BadImages, answer, evaluate, predictor
from residuum.evaluation.published import Published, published_on
from residuum.evaluation.scores import Evaluation, evaluation_of, in_full
from residuum.evaluation.views import Predict, Protocol
from residuum.hardware import autocast, versions
from residuum.model_config import SPLIT_SEED, VAL_FRACTION
from residuum.training.bn_statistics import recompute_bn
from residuum.training.context import Context
from residuum.training.interruption import Interrupted
from residuum.training.job import Job
from residuum.training.preparation import PreparedData, model_args
from residuum.training.run import ModelChoice
from residuum.training.updates import MOST_NAMED
from residuum.weights import Classifier, load, save_model


def finish(
    context: Context, data: PreparedData, job: Job
) -> tuple[Mapping[str, Evaluation], tuple[Mapping[str, Any], ...]]:
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
            recompute_bn(network, _images_until_stopped(context, data.train.epoch(job.epochs)), context.world)
    found = {name: _answers(context, network, data, name) for name in data.measured}
    protocol = Protocol().name(data.preprocessing)
    evaluations = {
        name: in_full(evaluation_of(answers, protocol, bad), answers) for name, (answers, bad) in found.items()
    }
    if context.world.is_main:
        scores = {name: evaluation.score for name, evaluation in evaluations.items()}
        save_model(context.folder.model, classifier(context, data, network, scores))
        for name, (answers, _) in found.items():
            write_answers(context.folder.predictions(name), answers)
        context.update_manifest({"published": _published(context, protocol, evaluations)})
    bad = [[bad.name, bad.reason] for bad in data.train.bad[:MOST_NAMED]]
    best = {"epoch": job.position.best_epoch, "score": job.position.best}
    context.update_manifest({"status": "finished", "results": evaluations, "best": best, "bad_images": bad})
    return evaluations, tuple(context.folder.read_metrics())


def _published(context: Context, protocol: str, splits: Iterable[str]) -> dict[str, tuple[Published, ...]]:
    """What is printed of this network, by split."""
    model = context.run.model
    if replace(model, shortcut=None, weights=None, freeze_until=None) != ModelChoice(model.name):  # nobody's but ours
        return dict.fromkeys(splits, ())
    network = (model.name, model.shortcut, protocol)
    return {split: published_on(context.dataset, split, [network])[0] for split in splits}


def measure(context: Context, network: nn.Module, data: PreparedData, split: str) -> Evaluation:
    """Score the network on a split, as far as training has come."""
    return evaluate(
        _predict_until_stopped(context, network),
        data.measured[split],
        classes=context.dataset.classes,
        protocol=Protocol().name(data.preprocessing),
        multi_label=context.dataset.multi_label,
        world=context.world,
    )


def _answers(
    context: Context, network: nn.Module, data: PreparedData, split: str
) -> tuple[Answers | LabelAnswers, BadImages]:
    predict = _predict_until_stopped(context, network)
    (answers,), bad = answer(
        lambda images: (predict(images),),
        data.measured[split],
        models=1,
        classes=context.dataset.classes,
        multi_label=context.dataset.multi_label,
        world=context.world,
    )
    return answers, bad


def _predict_until_stopped(context: Context, network: nn.Module) -> Predict:
    for buffer in network.buffers():  # batch statistics differ between processes; those of the main one are saved
        context.world.share(buffer)
    predict = predictor(network, context.device, context.dtype)

    def predict_until_stopped(images: Tensor) -> Tensor:
        _leave_if_asked(context)
        return predict(images)

    return predict_until_stopped


def _images_until_stopped(context: Context, batches: Iterable[Batch[Tensor]]) -> Iterator[Tensor]:
    for batch in batches:
        _leave_if_asked(context)
        yield batch.images


def _leave_if_asked(context: Context) -> None:
    """Where nothing has changed since the last checkpoint; of several processes each has its own number of steps."""
    if context.stop.signal_number and context.world.size == 1:
        raise Interrupted(context.stop.signal_number, context.folder.path)


def classifier(
    context: Context, data: PreparedData, network: nn.Module, scores: Mapping[str, float] | None = None
) -> Classifier:
    """The network with all that its use needs. scores: by split, in %, once they are known."""
    run, dataset = context.run, context.dataset
    provenance = {
        "recipe": run.recipe,
        "seed": run.seed,
        "precision": run.precision,
        "data": dataset.spec,
        "fingerprint": context.fingerprint,
        **dict(zip((VAL_FRACTION, SPLIT_SEED), dataset.drawn or (), strict=False)),
        "versions": versions(),
        "exact": context.claims_exactness,
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
