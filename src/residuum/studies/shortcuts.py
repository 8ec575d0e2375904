"""Shortcuts: what is best carried past a residual unit's layers, and how (He et al. 2015, 3.3; He et al. 2016, 3)."""

from residuum.data.facts import DataFacts
from residuum.errors import counted
from residuum.evaluation.published import CIFAR_10, SINGLE_VIEW, published_for
from residuum.records import Cell
from residuum.studies.ranking import holm, order_in_words, ranked
from residuum.studies.results import SIGNIFICANT, Contrast, Results, arms_table, contrast, error_chart
from residuum.studies.settings import WARM_UP_OF_2016
from residuum.studies.small_images import cifar_plan, cifar_run
from residuum.studies.study import Arm, Finding, Plan, ScaleName, Study

KINDS = ("A", "B", "C", "none", "gated", "constant", "shortcut-gated", "dropout")
_IDENTITY = "A"
_MODELS: dict[ScaleName, str] = {"smoke": "resnet20", "small": "resnet20", "paper": "resnet110"}
_SETTINGS: dict[ScaleName, tuple[str, ...]] = {
    "smoke": ("optimizer.lr=0.02", "epochs=6"),
    "small": (),
    "paper": WARM_UP_OF_2016,
}

FIGURES_OF_2016: dict[str, float] = {"C": 12.22, "constant": 12.35, "shortcut-gated": 6.91}
"""He et al. 2016, table 1: test error, %, of ResNet-110 on CIFAR-10, the median of five runs, beside the identity's.

Dropout on the shortcut fails to converge there. Its exclusive gates start at other biases than the highway's here.
"""
FAILED_IN_2016 = "dropout"


def plan(scale: ScaleName, facts: DataFacts) -> Plan:
    """One network (20 layers; paper: 110) with each kind of shortcut, all else alike."""
    overrides = {kind: (*_SETTINGS[scale], f"model.shortcut={kind}") for kind in KINDS}
    arms = tuple(Arm(kind, cifar_run(scale, facts, _MODELS[scale], *changes)) for kind, changes in overrides.items())
    return cifar_plan(scale, arms)


def answer(results: Results) -> Finding:
    """Which shortcut has the lowest test error, and what each change of the identity costs."""
    as_published = results.scale == "paper" and results.data == "cifar10"
    extra = {"published [%]": published} if as_published else {}
    notes = ("published: He et al. 2016, table 1, the median of five runs; its dropout fails to converge",)
    order = ranked(results)
    found = [contrast(results, _IDENTITY, arm) for arm in order if arm != _IDENTITY and _IDENTITY in order]
    table = arms_table(results, f"{_MODELS[results.scale]} with different shortcuts", extra)
    return Finding(
        verdict=" ".join([order_in_words(results), *([_against_identity(found)] if found else [])]),
        table=table,
        charts=(error_chart(results),),
        notes=notes if as_published else (),
    )


def published(kind: str) -> Cell:
    """The printed test error of ResNet-110 with this shortcut on CIFAR-10, in %, or what is printed in its place."""
    if kind == FAILED_IN_2016:
        return "fails"
    if kind == _IDENTITY:
        found = published_for("resnet110", kind, CIFAR_10, SINGLE_VIEW)
        return next(one.top1_error for one in found if one.source == "He et al. 2016")
    return FIGURES_OF_2016.get(kind)


def _against_identity(found: list[Contrast]) -> str:
    """Which kinds are worse or better than the identity by more than chance, the widest difference first."""
    tested = [(one, one.p) for one in found if one.p is not None]
    if not tested:
        return "Whether any differs from the identity (A) by more than chance is not tested."
    corrected = holm([p for _, p in tested])
    clear = [one for (one, _), p in zip(tested, corrected, strict=True) if p < SIGNIFICANT]
    clear.sort(key=lambda one: -abs(one.difference))
    groups = {
        "worse": [f"{one.second} (by {one.difference:.2f} points)" for one in clear if one.difference > 0],
        "better": [f"{one.second} (by {-one.difference:.2f} points)" for one in clear if one.difference < 0],
    }
    said = [f"{word} than the identity (A): {', '.join(kinds)}" for word, kinds in groups.items() if kinds]
    # Of one seed the test is of these very networks: it knows nothing of the luck of training.
    luck = "the luck of the test images" if any(one.seeds == 1 for one, _ in tested) else "chance"
    tests = " or ".join(dict.fromkeys(one.test for one, _ in tested))
    how = f"({tests}; Holm's correction for {counted(len(tested), 'comparison')})"
    if not said:
        return f"None differs from the identity (A) by more than {luck} {how}."
    return f"By more than {luck}, {'; '.join(said)} {how}."


STUDY = Study(
    name="shortcuts",
    question="Which shortcut trains a residual network best: identity, projections, gates, scaling, dropout, or none?",
    source="He et al. 2015, section 3.3; He et al. 2016, section 3 and table 1",
    plan=plan,
    answer=answer,
)
