"""`normalisation`: batch, layer, group or no normalisation in the same network."""

from residuum.data.facts import DataFacts
from residuum.studies.ranking import chance_error, order_in_words
from residuum.studies.results import Results, arms_table, contrast, error_chart, in_words
from residuum.studies.small_images import cifar_plan, cifar_run
from residuum.studies.study import Arm, Finding, Plan, ScaleName, Study

_MODEL = "resnet20"
_NONE, _SLOWER = "none", "none, a tenth of the rate"
_SETTINGS: dict[ScaleName, tuple[str, ...]] = {"smoke": ("epochs=10",), "small": (), "paper": ()}


def plan(scale: ScaleName, facts: DataFacts) -> Plan:
    """ResNet-20 with each normalisation at one rate; without any also at a tenth of it."""
    common = cifar_run(scale, facts, _MODEL, *_SETTINGS[scale])
    choices: dict[str, tuple[str, ...]] = {
        kind: (f"model.normalisation={kind}",) for kind in ("batch", "layer", "group", _NONE)
    }
    choices[_SLOWER] = (f"model.normalisation={_NONE}", f"optimizer.lr={common.optimizer.lr / 10:g}")
    arms = tuple(
        Arm(name, cifar_run(scale, facts, _MODEL, *_SETTINGS[scale], *changes)) for name, changes in choices.items()
    )
    return cifar_plan(scale, arms)


def answer(results: Results) -> Finding:
    """Each kind against batch normalisation by test error, and what becomes of the network without."""
    compared = [in_words(contrast(results, "batch", kind)) + "." for kind in ("layer", "group")]
    return Finding(
        verdict=" ".join([order_in_words(results), *compared, _without(results)]),
        table=arms_table(results, "Normalisations"),
        charts=(error_chart(results),),
        notes=(
            "layer: over all channels and pixels of an image; group: over each group of channels; batch normalisation "
            "alone depends on the other images of the batch",
            "the rate is the one that batch normalisation is used to; the others were given no rate of their own",
        ),
    )


def _without(results: Results) -> str:
    return (
        f"Without normalisation it {_fate(results, _NONE)} at the same rate and {_fate(results, _SLOWER)} at a tenth."
    )


def _fate(results: Results, arm: str) -> str:
    """ "diverges", "stays at chance", "trains to 12.30 % training error", by the arm's mean over its seeds."""
    outcomes, error = results.outcomes[arm], results.spread(arm, "train_error")
    if not error.n:
        return "diverges"
    lost = f" (of {len(outcomes)} seeds {len(outcomes) - error.n} diverged)" if error.n < len(outcomes) else ""
    if error.mean > 0.95 * chance_error(len(outcomes[0].classes)):
        return f"stays at chance{lost}"
    return f"trains to {error} % training error{lost}"


STUDY = Study(
    name="normalisation",
    question="Does it have to be batch normalisation, and what happens without any?",
    source="Ioffe & Szegedy 2015; Ba, Kiros & Hinton 2016; Wu & He 2018",
    plan=plan,
    answer=answer,
)
