"""The papers' tables and figures, trained whole: what was measured beside what was published, and how far apart."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from residuum.data.facts import DataFacts
from residuum.errors import UserError
from residuum.evaluation.published import CIFAR_10, IMAGENET, PUBLISHED, SINGLE_VIEW, TEN_CROPS
from residuum.studies import degradation, responses, shortcuts, units
from residuum.studies.against_published import Figure, compared, measured_as_published
from residuum.studies.settings import WARM_UP_OF_2016, base_run, is_large
from residuum.studies.small_images import cifar_run, reduced
from residuum.studies.study import Arm, Plan, ScaleName, Study

_FULL_164 = "full pre-activation, 164"

Plans = Callable[[ScaleName, DataFacts], Plan]


@dataclass(frozen=True)
class Reproduction:
    """A published result as a study at paper scale; the data it is of (None: to be named); in what ours differs.

    What options decide, the seeds and the precision, is told by `settled`.
    """

    study: Study
    data: str | None
    differs: tuple[str, ...]


def settled(plan: Plan) -> tuple[str, ...]:
    """How many seeds and which number format the plan has by now, in words."""
    precisions = dict.fromkeys(arm.run.precision for arm in plan.arms if arm.run is not None)
    seeds = "one seed; more with --seeds" if plan.seeds == 1 else f"the mean of {plan.seeds} seeds"
    return f"{' and '.join(precisions)} on today's kernels", seeds


# The published figures.


def _printed(arms: Mapping[str, tuple[str, str]], data: str, protocol: str, *sources: str) -> tuple[Figure, ...]:
    """What the sources print of each arm's (model, shortcut): top-1, and where there is one top-5."""
    found = {
        (one.model, one.shortcut): one
        for one in PUBLISHED
        if one.source in sources and (one.data, one.protocol) == (data, protocol)
    }
    return tuple(
        Figure(arm, value, top)
        for arm, network in arms.items()
        for top, value in (("top-1", found[network].top1_error), ("top-5", found[network].top5_error))
        if value is not None
    )


def _arm_names(plain: Iterable[int], residual: Iterable[int]) -> dict[str, tuple[str, str]]:
    return {
        **{f"plain-{depth}": (f"plain{depth}", "none") for depth in plain},
        **{f"resnet-{depth}": (f"resnet{depth}", "A") for depth in residual},
    }


_TABLES_2_AND_3 = "He et al. 2015, tables 2 and 3"
_TABLE_2 = tuple(
    figure
    for figure in _printed(
        _arm_names((18, 34), (18, 34)), IMAGENET, TEN_CROPS, "He et al. 2015, table 2", _TABLES_2_AND_3
    )
    if figure.top == "top-1"  # table 2 prints no others
)
_TABLE_3_ARMS = {
    "plain-34": ("plain34", "none"),
    **{f"resnet-34 {kind}": ("resnet34", kind) for kind in "ABC"},
    **{f"resnet-{depth}": (f"resnet{depth}", "B") for depth in (50, 101, 152)},
}
_TABLE_3 = _printed(_TABLE_3_ARMS, IMAGENET, TEN_CROPS, "He et al. 2015, table 3", _TABLES_2_AND_3)
_TABLE_6 = (
    *_printed(_arm_names((), (20, 32, 44, 56)), CIFAR_10, SINGLE_VIEW, "He et al. 2015, table 6"),
    Figure("resnet-110", 6.61, std=0.16, runs=5),  # printed beside the best of them, 6.43
)
_TABLE_1_OF_2016 = tuple(
    Figure(kind, value, runs=5, is_median=True) if isinstance(value, float) else Figure(kind, None, word=str(value))
    for kind in shortcuts.KINDS
    if (value := shortcuts.published(kind)) is not None
)
_TABLE_2_OF_2016 = tuple(
    Figure(arm, value, runs=5, is_median=True) for arm, value in {**units.PUBLISHED, _FULL_164: 5.46}.items()
)


# What is trained.


def _cifar(plan: Plans, arms: Sequence[str] | None = None) -> Plans:
    def chosen(scale: ScaleName, facts: DataFacts) -> Plan:
        whole = plan(scale, reduced(facts))
        wanted = tuple(arm for arm in whole.arms if arms is None or arm.name in arms)
        return measured_as_published(replace(whole, arms=wanted), "1-crop")

    return chosen


def _of_photographs(plan: Plans) -> Plans:
    def checked(scale: ScaleName, facts: DataFacts) -> Plan:
        if not is_large(facts):
            size = f"{facts.width}x{facts.height}"
            raise UserError(
                f"this is a result on ImageNet, and these images have {size} pixels; name ImageNet's folder"
            )
        return plan(scale, facts)

    return checked


def _twins(scale: ScaleName, facts: DataFacts) -> Plan:
    """The networks of table 2 and figure 4, once each, as in the paper."""
    return replace(degradation.plan(scale, facts), seeds=1)


def _table_2(scale: ScaleName, facts: DataFacts) -> Plan:
    return measured_as_published(_twins(scale, facts), "10-crop")


def _table_3(scale: ScaleName, facts: DataFacts) -> Plan:
    shortcut = {
        arm: () if kind in ("none", "B") else (f"model.shortcut={kind}",) for arm, (_, kind) in _TABLE_3_ARMS.items()
    }
    arms = (Arm(arm, base_run(scale, facts, model, *shortcut[arm])) for arm, (model, _) in _TABLE_3_ARMS.items())
    return measured_as_published(Plan(tuple(arms), seeds=1), "10-crop")


def _units_of_2016(scale: ScaleName, facts: DataFacts) -> Plan:
    whole = units.plan(scale, facts)
    deeper = Arm(_FULL_164, cifar_run(scale, facts, "preact_resnet164", *WARM_UP_OF_2016))
    return replace(whole, arms=(*whole.arms, deeper))


# All of them.

_CIFAR = (
    "one process: batch normalisation over the 128 images of a batch, where the paper had 64 on each of two GPUs "
    "(--nproc 2 is the paper's)",
)
_PHOTOGRAPHS = (
    "one process: batch normalisation over all 256 images of a batch, where the paper's GPUs had a part each",
    "the paper does not say how long it waits on a plateau before it divides the rate: 5 epochs here",
)
_ALONE = "the paper draws curves and prints no figures with them: there is nothing to take a difference from"


def _table(
    name: str, question: str, source: str, plan: Plans, figures: tuple[Figure, ...], data: str, differs: tuple[str, ...]
) -> Reproduction:
    answer = partial(compared, title=f"{source}: published and measured", figures=figures, data=data)
    return Reproduction(Study(name, question, source, plan, answer), "cifar10" if data == CIFAR_10 else None, differs)


def _figure(
    name: str, study: Study, source: str, plan: Plans, data: str | None, differs: tuple[str, ...]
) -> Reproduction:
    return Reproduction(replace(study, name=name, source=source, plan=plan), data, (*differs, _ALONE))


REPRODUCTIONS: dict[str, Reproduction] = {
    "table2": _table(
        "table2",
        "Do plain networks of 18 and 34 layers, and their residual twins, reach the published errors on ImageNet?",
        "He et al. 2015, table 2",
        _of_photographs(_table_2),
        _TABLE_2,
        IMAGENET,
        _PHOTOGRAPHS,
    ),
    "table3": _table(
        "table3",
        "Do residual networks of 34 to 152 layers reach the published errors on ImageNet?",
        "He et al. 2015, table 3",
        _of_photographs(_table_3),
        _TABLE_3,
        IMAGENET,
        (*_PHOTOGRAPHS, "VGG-16, GoogLeNet and PReLU-net, which others trained, are left out"),
    ),
    "table6": _table(
        "table6",
        "Do residual networks of 20 to 110 layers reach the published errors on CIFAR-10?",
        "He et al. 2015, table 6",
        _cifar(degradation.plan, [figure.arm for figure in _TABLE_6]),
        _TABLE_6,
        CIFAR_10,
        (
            *_CIFAR,
            "of ResNet-110 the published mean of five runs stands beside ours, not the best of them, 6.43 %",
            "ResNet-1202 is left out, which costs more than all the others: residuum study depth-1202 --scale paper",
        ),
    ),
    "figure4": _figure(
        "figure4", degradation.STUDY, "He et al. 2015, figure 4", _of_photographs(_twins), None, _PHOTOGRAPHS
    ),
    "figure6": _figure(
        "figure6",
        degradation.STUDY,
        "He et al. 2015, figure 6",
        lambda scale, facts: degradation.plan(scale, reduced(facts)),
        "cifar10",
        _CIFAR,
    ),
    "figure7": _figure(
        "figure7",
        responses.STUDY,
        "He et al. 2015, figure 7",
        lambda scale, facts: responses.plan(scale, reduced(facts)),
        "cifar10",
        (*_CIFAR, "responses are taken of 256 training images, as in evaluation; the paper says neither"),
    ),
    "he2016-table1": _table(
        "he2016-table1",
        "Is the identity the best of He et al. 2016's shortcuts, by the published errors?",
        "He et al. 2016, table 1",
        _cifar(shortcuts.plan, [figure.arm for figure in _TABLE_1_OF_2016]),
        _TABLE_1_OF_2016,
        CIFAR_10,
        (*_CIFAR, "exclusive gating is left out: the highway's gate here starts at another bias than the paper's"),
    ),
    "he2016-table2": _table(
        "he2016-table2",
        "Do the units of He et al. 2016 reach the published errors?",
        "He et al. 2016, table 2",
        _cifar(_units_of_2016, [figure.arm for figure in _TABLE_2_OF_2016]),
        _TABLE_2_OF_2016,
        CIFAR_10,
        (*_CIFAR, "of the networks of 164 layers only full pre-activation is in the catalogue"),
    ),
}
