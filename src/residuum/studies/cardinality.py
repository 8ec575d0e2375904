"""`cardinality`: many narrow paths or few wide ones, at equal cost."""

from residuum.data.facts import DataFacts
from residuum.records import Chart
from residuum.studies.effort import multiply_adds
from residuum.studies.ranking import order_in_words
from residuum.studies.results import Results, arms_table, contrast, error_chart, in_words, over
from residuum.studies.small_images import cifar_run
from residuum.studies.study import Arm, Finding, Plan, ScaleName, Study

_TEMPLATES = ("1x64d", "2x40d", "4x24d", "8x14d", "32x4d")  # Xie et al. 2017, table 2
_SETTINGS: dict[ScaleName, tuple[str, ...]] = {
    # Half the side of a digit: such networks cost much on a CPU. Few updates of small batches bear no higher rate.
    "smoke": ("data.size=4", "epochs=4", "batch_size=16", "optimizer.lr=0.005"),
    "small": ("data.size=16", "epochs=6", "batch_size=32", "optimizer.lr=0.02", "data.augmentation.pad_and_crop=2"),
    "paper": (),
}
_IMAGES: dict[ScaleName, tuple[int | None, int | None]] = {
    "smoke": (320, 250),
    "small": (1_500, 1_000),
    "paper": (None, None),
}


def plan(scale: ScaleName, facts: DataFacts) -> Plan:
    """ResNeXt-29 with 1 to 32 groups of such a width that all cost about the same."""
    arms = tuple(Arm(name, cifar_run(scale, facts, f"resnext29_{name}", *_SETTINGS[scale])) for name in _TEMPLATES)
    return Plan(arms, *_IMAGES[scale], seeds=1 if scale == "smoke" else 3)


def answer(results: Results) -> Finding:
    """The test error over the cardinality; 32 paths against one."""
    costs = {name: multiply_adds(results, name) for name in _TEMPLATES}
    x = {name: float(name.partition("x")[0]) for name in _TEMPLATES}
    lines = over(results, x, {"test error": _TEMPLATES}, "test_error", "cardinality", "test error [%]")
    alt = "Test error over the cardinality, at about equal multiply-adds"
    chart = (Chart("Error over the cardinality", (lines,), alt),) if lines else ()
    few, many = min(costs.values()), max(costs.values())
    return Finding(
        verdict=f"{order_in_words(results)} {in_words(contrast(results, _TEMPLATES[0], _TEMPLATES[-1]))}.",
        table=arms_table(results, "ResNeXt-29 at equal cost", {"multiply-adds": costs.get}),
        charts=(*chart, error_chart(results)),
        notes=(
            f"an image costs {few / 1e6:,.1f} to {many / 1e6:,.1f} million multiply-adds",
            "Xie et al. 2017 found 23.9, 23.0, 22.6, 22.3 and 22.2 % top-1 error in this order, of 50 layers on "
            "ImageNet: other networks on other images, whose order is the question here and whose numbers are not",
        ),
    )


STUDY = Study(
    name="cardinality",
    question="At equal cost, are many narrow paths in a residual unit better than a few wide ones?",
    source="Xie et al. 2017, section 5.1 and tables 2 and 3",
    plan=plan,
    answer=answer,
)
