"""`initialisation`: from which first weights a plain network trains at all."""

from itertools import product

from residuum.data.facts import DataFacts
from residuum.errors import listed
from residuum.records import Chart
from residuum.studies.ranking import chance_error
from residuum.studies.results import Results, arms_table, error_chart
from residuum.studies.small_images import cifar_plan, cifar_run
from residuum.studies.study import Arm, Finding, Plan, ScaleName, Study

_MODELS: dict[ScaleName, str] = {"smoke": "plain14", "small": "plain20", "paper": "plain20"}
_WEIGHTS = {"He": "he", "Xavier": "xavier", "Gaussian 0.01": "gaussian"}
_ACTIVATIONS = {"ReLU": "relu", "tanh": "tanh"}
_NORMALISATIONS = {"BN": "batch", "no BN": "none"}
_RATE = 0.03  # low, for the sake of those without normalisation
_SETTINGS: dict[ScaleName, tuple[str, ...]] = {
    "smoke": ("epochs=5", "batch_size=32", "schedule.name=constant"),  # enough updates to leave the plateau
    "small": (),
    "paper": (),
}


def _name(weights: str, activation: str, normalisation: str) -> str:
    return f"{weights}, {activation}, {normalisation}"


def plan(scale: ScaleName, facts: DataFacts) -> Plan:
    """Twelve plain networks of 20 layers (14 on the digits) at one rate: first weights x activation x normalisation."""
    arms = tuple(
        Arm(
            _name(weights, activation, normalisation),
            cifar_run(
                scale,
                facts,
                _MODELS[scale],
                *_SETTINGS[scale],
                f"optimizer.lr={_RATE}",
                "data.normalisation=mean-std",  # the variance of 1 that the initialisations reckon with
                f"model.initialisation={_WEIGHTS[weights]}",
                f"model.activation={_ACTIVATIONS[activation]}",
                f"model.normalisation={_NORMALISATIONS[normalisation]}",
            ),
        )
        for normalisation, activation, weights in product(_NORMALISATIONS, _ACTIVATIONS, _WEIGHTS)
    )
    return cifar_plan(scale, arms)


def answer(results: Results) -> Finding:
    """Which of the twelve train, with and without batch normalisation."""
    verdict = " ".join(_of_half(results, normalisation) for normalisation in _NORMALISATIONS)
    return Finding(
        verdict=verdict,
        table=arms_table(results, "First weights", {"trains": lambda arm: _in_word(results, arm)}),
        charts=tuple(_chart(results, normalisation) for normalisation in _NORMALISATIONS),
        notes=(
            "an arm trains where the training error of its last epoch is below half of what answering at random gives",
            f"all twelve at one rate, {_RATE:g}, low for the sake of those without normalisation",
        ),
    )


def _arms(normalisation: str) -> list[str]:
    return [_name(weights, activation, normalisation) for activation, weights in product(_ACTIVATIONS, _WEIGHTS)]


def _trained(results: Results, arm: str) -> int:
    """How many of the arm's seeds train."""
    half = chance_error(len(results.outcomes[arm][0].classes)) / 2
    return sum(outcome.train_error < half for outcome in results.finished(arm))


def _in_word(results: Results, arm: str) -> str:
    trained, seeds = _trained(results, arm), len(results.outcomes[arm])
    return "yes" if trained == seeds else "no" if not trained else f"{trained} of {seeds} seeds"


def _of_half(results: Results, normalisation: str) -> str:
    """Which of the six with this normalisation train, in a sentence."""
    fates = {arm: _in_word(results, arm) for arm in _arms(normalisation)}
    lost = [_short(arm) + ("" if fate == "no" else f" ({fate})") for arm, fate in fates.items() if fate != "yes"]
    how = "With batch normalisation" if normalisation == "BN" else "Without"
    if not lost:
        return f"{how} all {len(fates)} train."
    if set(fates.values()) == {"no"}:
        return f"{how} none of the {len(fates)} trains."
    return f"{how} {len(fates) - len(lost)} of {len(fates)} train; not {listed(lost, len(lost))}."


def _short(arm: str) -> str:
    """ "Xavier with tanh", from an arm's name."""
    return arm.rpartition(", ")[0].replace(", ", " with ")


def _chart(results: Results, normalisation: str) -> Chart:
    title = "With batch normalisation" if normalisation == "BN" else "Without batch normalisation"
    return error_chart(results, _arms(normalisation), title)


STUDY = Study(
    name="initialisation",
    question="From which first weights does a deep plain network train at all, and does batch normalisation save it?",
    source="He et al. 2015b (arXiv 1502.01852), section 2.2; Glorot & Bengio 2010",
    plan=plan,
    answer=answer,
)
