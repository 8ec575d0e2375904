"""`batch-size`: few large or many small batches in equally many epochs, with and without the linear rule."""

import math

from residuum.data.facts import DataFacts
from residuum.records import Chart
from residuum.studies.effort import effort_in_words, seconds, updates
from residuum.studies.ranking import order_in_words
from residuum.studies.results import Results, arms_table, contrast, in_words, over
from residuum.studies.small_images import cifar_plan, cifar_run
from residuum.studies.study import Arm, Finding, Plan, ScaleName, Study

_SIZES = (16, 64, 256, 1024)
_REFERENCE = 64  # the batch at which both rules have one rate
_RATE = 0.05  # He et al. 2015's 0.1 for 128 images, by the linear rule
_WARM_UP = 5 / 90  # of the run: Goyal et al. 2017, section 2.2
_MODELS: dict[ScaleName, str] = {"smoke": "resnet8", "small": "resnet20", "paper": "resnet20"}
_DURATIONS: dict[ScaleName, str] = {"smoke": "epochs=12", "small": "epochs=12", "paper": "epochs=164"}


def _name(size: int, is_linear: bool) -> str:
    if size == _REFERENCE:
        return f"{size}"
    return f"{size}, rate x {size / _REFERENCE:g}" if is_linear else f"{size}, same rate"


def plan(scale: ScaleName, facts: DataFacts) -> Plan:
    """Batches of 16 to 1,024 images at one rate, and at a rate in proportion; larger ones warm up to that."""
    arms = {_name(size, is_linear): _settings(size, is_linear) for is_linear in (False, True) for size in _SIZES}
    return cifar_plan(
        scale,
        tuple(
            Arm(name, cifar_run(scale, facts, _MODELS[scale], _DURATIONS[scale], *settings))
            for name, settings in arms.items()
        ),
    )


def _settings(size: int, is_linear: bool) -> tuple[str, ...]:
    rate = _RATE * size / _REFERENCE if is_linear else _RATE
    warm_up = (f"schedule.warmup_steps={_WARM_UP}", f"schedule.warmup_lr={_RATE}") if rate > _RATE else ()
    # Few updates leave the running statistics of batch normalisation behind the weights: they are measured anew.
    return f"batch_size={size}", f"optimizer.lr={rate}", "recompute_bn=true", *warm_up


def answer(results: Results) -> Finding:
    """The test error over the batch size by both rules, and the largest batch with the rule against without."""
    same, scaled = (_name(_SIZES[-1], is_linear) for is_linear in (False, True))
    groups = {
        "rate in proportion": [_name(size, True) for size in _SIZES],
        "same rate": [_name(size, False) for size in _SIZES],
    }
    x = {_name(size, is_linear): math.log2(size) for size in _SIZES for is_linear in (False, True)}
    label = "images a batch, as a power of 2"
    panels = (
        over(results, x, groups, "test_error", label, "test error [%]"),
        over(results, x, groups, "train_error", label, "training error [%]"),
    )
    alt = "Test and training error over the logarithm of the batch size, at one rate and at a rate in proportion"
    return Finding(
        verdict=f"{order_in_words(results)} {in_words(contrast(results, same, scaled))}. {_costs(results)}",
        table=arms_table(
            results,
            "Batch sizes in equally many epochs",
            {"updates": lambda arm: updates(results, arm), "seconds": lambda arm: seconds(results, arm)},
        ),
        charts=(Chart("Error over the batch size", tuple(filter(None, panels)), alt),) if any(panels) else (),
        notes=(
            f"rate: {_RATE:g} for {_REFERENCE} images; the linear rule (Goyal et al. 2017) takes it in proportion to "
            "the batch, and larger ones warm up from there over the first 5/90 of the run",
            "what an epoch leaves over after its last full batch is left out; the statistics of batch normalisation "
            "are measured anew before each test, since few updates leave the running ones behind",
        ),
    )


def _costs(results: Results) -> str:
    ends = [_name(size, True) for size in (_SIZES[0], _SIZES[-1])]
    told = [f"{arm}, {effort_in_words(results, arm)}" for arm in ends]
    return f"What the same epochs took: {'; '.join(told)}."


STUDY = Study(
    name="batch-size",
    question="In equally many epochs, do small batches beat large ones, and does the linear rule make up for it?",
    source="Goyal et al. 2017, section 2.1; Keskar et al. 2017",
    plan=plan,
    answer=answer,
)
