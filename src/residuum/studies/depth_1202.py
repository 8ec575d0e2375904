"""`depth-1202`: a network of over a thousand layers trains, and tests worse than one of a hundred."""

from residuum.data.facts import DataFacts
from residuum.evaluation.published import CIFAR_10, SINGLE_VIEW, published_for
from residuum.studies.results import Contrast, Results, arms_table, contrast, error_chart, in_words
from residuum.studies.small_images import cifar_plan, cifar_run
from residuum.studies.study import Arm, Finding, Plan, ScaleName, Study

_DEPTHS: dict[ScaleName, tuple[int, int]] = {"smoke": (20, 200), "small": (110, 302), "paper": (110, 1202)}
_WARM_UP = ("schedule.warmup_lr=0.01", "schedule.warmup_until_train_error=0.8")
_SETTINGS: dict[ScaleName, tuple[str, ...]] = {
    "smoke": ("optimizer.lr=0.005", "epochs=6"),
    "small": _WARM_UP,
    "paper": (),
}
_PAPERS_ERROR = 0.1  # %: below it is the training error of ResNet-1202 (section 4.2)
_LEARNS_NOTHING = 50.0  # %: of an error above, nobody says that the network trains


def plan(scale: ScaleName, facts: DataFacts) -> Plan:
    """110 layers and 1202; "small" has 302 in their place, "smoke" 20 and 200 at a rate that both stand."""
    shallow, deep = _DEPTHS[scale]
    runs = {depth: cifar_run(scale, facts, f"resnet{depth}", *_SETTINGS[scale]) for depth in (shallow, deep)}
    return cifar_plan(scale, tuple(Arm(f"resnet-{depth}", run) for depth, run in runs.items()))


def answer(results: Results) -> Finding:
    """Whether the deeper network's training error is as low as the paper's, and its test error higher."""
    shallow, deep = results.outcomes
    extra = {"published test error [%]": _published} if results.scale == "paper" and results.data == "cifar10" else {}
    return Finding(
        verdict=_verdict(results, shallow, deep),
        table=arms_table(results, "Residual networks, deep and very deep", extra),
        charts=(error_chart(results),),
        notes=("He et al. 2015, section 4.2: ResNet-1202 has a training error below 0.1 % and tests worse than 110.",),
    )


def _published(arm: str) -> float:
    model = arm.replace("-", "")
    return published_for(model, "A", CIFAR_10, SINGLE_VIEW)[0].top1_error


def _verdict(results: Results, shallow: str, deep: str) -> str:
    if not results.finished(deep):
        return f"{deep} does not train: its loss is no number."
    error = results.spread(deep, "train_error").mean
    if error < _PAPERS_ERROR:
        trains = f"{deep} trains to an error of {error:.2f} %, below {_PAPERS_ERROR} % as in the paper"
    elif error < _LEARNS_NOTHING:
        trains = f"{deep} trains, to an error of {error:.2f} %, not below {_PAPERS_ERROR} % as in the paper"
    else:
        trains = f"{deep} hardly trains here: its training error is {error:.2f} %"
    if not results.finished(shallow):
        return f"{trains}. {shallow} does not train: its loss is no number."
    trained, tested = (contrast(results, shallow, deep, key) for key in ("train_error", "test_error"))
    overfitting = f" {_overfitting(trained, tested)}." if error < _LEARNS_NOTHING else ""
    return f"{trains}. {in_words(tested)}.{overfitting}"


def _overfitting(trained: Contrast, tested: Contrast) -> str:
    if tested.p is None:
        return "Whether that is more than chance is not tested, so that nothing is said of overfitting"
    if not tested.is_significant:
        return "By this, which of the two tests better may be chance"
    if tested.difference < 0:
        return "Against the paper, the deeper network tests better"
    if trained.difference > _PAPERS_ERROR:
        return f"It also trains worse, by {trained.difference:.2f} points, so that overfitting is not shown"
    return "It trains no worse, so that this is overfitting"


STUDY = Study(
    name="depth-1202",
    question="Does a residual network ten times as deep still train, and does it still get better?",
    source="He et al. 2015, section 4.2 and table 6",
    plan=plan,
    answer=answer,
)
