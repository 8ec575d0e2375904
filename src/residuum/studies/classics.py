"""`classics`: the networks before and after residual learning, on one data set with one budget."""

from collections.abc import Callable
from typing import NamedTuple

from residuum.data.facts import DataFacts
from residuum.records import Cell, Chart
from residuum.studies.effort import multiply_adds
from residuum.studies.ranking import order_in_words, ranked
from residuum.studies.results import Results, arms_table, error_chart, over, parameters
from residuum.studies.settings import base_run, is_large
from residuum.studies.study import Arm, Finding, Plan, ScaleName, Study
from residuum.training.run import Run


class _Classic(NamedTuple):
    """A network by its name in the catalogue; its learning rate, as a share of what ResNet takes."""

    model: str
    rate: float


_CLASSICS = {
    "LeNet-5": _Classic("lenet5", 0.5),
    "AlexNet": _Classic("torchvision/alexnet", 0.1),
    "VGG-11": _Classic("torchvision/vgg11", 0.1),
    "GoogLeNet": _Classic("torchvision/googlenet", 0.25),
    "ResNet-18": _Classic("resnet18", 1.0),
    "DenseNet-121": _Classic("torchvision/densenet121", 1.0),
    "ResNeXt-50": _Classic("resnext50_32x4d", 1.0),
}
_SMOKE = ("LeNet-5", "GoogLeNet", "ResNet-18", "DenseNet-121")  # the others take too long on a CPU, or too much disk
_SIDE = 64  # pixels: small images are enlarged to it, since AlexNet cannot take less

_SETTINGS: dict[ScaleName, tuple[str, ...]] = {
    "smoke": ("epochs=4", "batch_size=16", "optimizer.lr=0.02"),
    "small": ("epochs=5", "batch_size=32", "optimizer.lr=0.05"),
    "paper": (),
}
_IMAGES: dict[ScaleName, tuple[int | None, int | None]] = {
    "smoke": (300, 200),
    "small": (1_500, 1_000),
    "paper": (None, None),
}


def plan(scale: ScaleName, facts: DataFacts) -> Plan:
    """Seven networks (four on the digits), equally many epochs on the same images, each at the rate of its kind."""
    names = _SMOKE if scale == "smoke" else tuple(_CLASSICS)
    arms = tuple(Arm(name, _run(scale, facts, _CLASSICS[name])) for name in names)
    return Plan(arms, *_IMAGES[scale], seeds=1 if scale == "smoke" else 3)


def _run(scale: ScaleName, facts: DataFacts, classic: _Classic) -> Run:
    size = () if is_large(facts) else (f"data.size={_SIDE}",)
    highest = base_run(scale, facts, classic.model, *_SETTINGS[scale]).optimizer.lr
    rate = f"optimizer.lr={highest * classic.rate:g}"
    return base_run(scale, facts, classic.model, *size, *_SETTINGS[scale], rate)


def answer(results: Results) -> Finding:
    """Error, parameters, multiply-adds and speed of each; which errs least, which is smallest and fastest."""
    work = {arm: multiply_adds(results, arm) for arm in results.outcomes}
    extra: dict[str, Callable[[str], Cell]] = {
        "multiply-adds": work.get,
        "images/s": lambda arm: _speed(results, arm),
        "rate": lambda arm: _rate(results, arm),
    }
    points = {arm: (arm,) for arm in results.outcomes}
    millions = {arm: count / 1e6 for arm, count in work.items()}
    lines = over(results, millions, points, "test_error", "multiply-adds [millions]", "test error [%]")
    alt = "Test error over the multiply-adds of an image, a point a network"
    return Finding(
        verdict=f"{order_in_words(results)} {_economy(results)}".strip(),
        table=arms_table(results, "Classics", extra),
        charts=(error_chart(results), *((Chart("Error over cost", (lines,), alt),) if lines else ())),
        notes=_notes(results.scale),
    )


def _speed(results: Results, arm: str) -> float | None:
    """Training images a second, over all epochs and seeds."""
    lines = [line for outcome in results.outcomes[arm] for line in outcome.metrics]
    seconds = sum(line["seconds"] for line in lines)
    return sum(line["images"] for line in lines) / seconds if seconds else None


def _rate(results: Results, arm: str) -> float | None:
    run = results.outcomes[arm][0].run
    return None if run is None else run.optimizer.lr


def _economy(results: Results) -> str:
    """The smallest network and the fastest, with their errors."""
    order = [arm for arm in ranked(results) if _speed(results, arm)]
    if not order:
        return ""
    smallest = min(order, key=lambda arm: parameters(results, arm) or 0)
    fastest = max(order, key=lambda arm: _speed(results, arm) or 0)
    small = f"{smallest} has the fewest parameters, {parameters(results, smallest) or 0:,}"
    fast = f"trains fastest, {_speed(results, fastest) or 0:,.0f} images/s"
    if smallest == fastest:
        return f"{small}, and {fast}, with {results.spread(fastest, 'test_error')} %."
    errors = [f"{results.spread(arm, 'test_error')} %" for arm in (smallest, fastest)]
    return f"{small}, with {errors[0]}; {fastest} {fast}, with {errors[1]}."


def _notes(scale: ScaleName) -> tuple[str, ...]:
    rule = (
        "momentum 0.9 for all; ResNet, DenseNet and ResNeXt at one rate; AlexNet and VGG at a tenth of it, as their "
        "papers have 0.01 and 0.1; LeNet-5 at a half and GoogLeNet at a quarter, found by trying three rates on the "
        "digits; so few epochs favour what learns quickly"
    )
    images = f"images are enlarged to {_SIDE} pixels where they are smaller, since AlexNet takes no less"
    lost = [name for name in _CLASSICS if name not in _SMOKE]
    left_out = f"{', '.join(lost)} join at the larger scales: they are too slow or too large for this one"
    return (rule, images, left_out) if scale == "smoke" else (rule, images)


STUDY = Study(
    name="classics",
    question="LeNet, AlexNet, VGG, GoogLeNet, DenseNet, ResNet, ResNeXt: which is best on the same data and budget?",
    source="LeCun et al. 1998; Krizhevsky et al. 2012; Simonyan & Zisserman 2015; Szegedy et al. 2015; He et al. 2015; "
    "Huang et al. 2017; Xie et al. 2017",
    plan=plan,
    answer=answer,
)
