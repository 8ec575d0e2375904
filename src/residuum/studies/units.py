"""`units`: the order of convolution, normalisation, ReLU and addition in a residual unit."""

from residuum.data.facts import DataFacts
from residuum.records import Cell
from residuum.studies.ranking import order_in_words, ranked
from residuum.studies.results import Results, arms_table, contrast, error_chart, in_words
from residuum.studies.settings import WARM_UP_OF_2016
from residuum.studies.small_images import cifar_plan, cifar_run
from residuum.studies.study import Arm, Finding, Plan, ScaleName, Study

_ORIGINAL, _FULL, _AFTER_RELU = "original", "full pre-activation", "BN after ReLU"
_MODELS = {
    _ORIGINAL: "resnet{}",
    "BN after addition": "resnet{}_bn_after_addition",
    "ReLU before addition": "resnet{}_relu_before_addition",
    "ReLU-only pre-activation": "resnet{}_relu_preact",
    _FULL: "preact_resnet{}",
    _AFTER_RELU: "resnet{}_bn_after_relu",
}
_DEPTHS: dict[ScaleName, int] = {"smoke": 20, "small": 56, "paper": 110}
PUBLISHED = {
    _ORIGINAL: 6.61,
    "BN after addition": 8.17,
    "ReLU before addition": 7.84,
    "ReLU-only pre-activation": 6.71,
    _FULL: 6.37,
}
"""He et al. 2016, table 2: test error, %, of networks of 110 layers on CIFAR-10, the median of five runs."""

_SETTINGS: dict[ScaleName, tuple[str, ...]] = {"smoke": ("epochs=8",), "small": (), "paper": WARM_UP_OF_2016}


def plan(scale: ScaleName, facts: DataFacts) -> Plan:
    """A network an order, of equal depth: 20 layers, 56, or the paper's 110 with five seeds."""
    arms = tuple(
        Arm(name, cifar_run(scale, facts, model.format(_DEPTHS[scale]), *_SETTINGS[scale]))
        for name, model in _MODELS.items()
    )
    return cifar_plan(scale, arms, seeds=5 if scale == "paper" else None)


def answer(results: Results) -> Finding:
    """Which order has the lowest test error; full pre-activation, and BN after the ReLU, against the original."""
    as_published = results.scale == "paper" and results.data == "cifar10"
    published: dict[str, Cell] = {**PUBLISHED} if as_published else {}
    extra = {"published [%]": published.get} if as_published else {}
    order = ranked(results)
    compared = [arm for arm in (_FULL, _AFTER_RELU) if arm in order and _ORIGINAL in order]
    sentences = [in_words(contrast(results, _ORIGINAL, arm)) + "." for arm in compared]
    return Finding(
        verdict=" ".join([order_in_words(results), *sentences]),
        table=arms_table(results, "Orders within the unit", extra),
        charts=(error_chart(results),),
        notes=_notes(results.scale, as_published),
    )


def _notes(scale: ScaleName, as_published: bool) -> tuple[str, ...]:
    if as_published:
        return ("published: He et al. 2016, table 2, the median of five runs; BN after ReLU is not among them",)
    depth = _DEPTHS[scale]
    return (f"He et al. 2016 compare the orders at 110 layers; these networks have {depth}",)


STUDY = Study(
    name="units",
    question="In which order do convolution, batch normalisation, ReLU and addition train a residual network best?",
    source="He et al. 2016, section 4 and table 2",
    plan=plan,
    answer=answer,
)
