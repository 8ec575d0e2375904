"""`optimisers`: ten ways of stepping down the same loss, each at the best of three learning rates."""

from typing import NamedTuple

from residuum.data.facts import DataFacts
from residuum.records import Chart
from residuum.studies.effort import effort_in_words, seconds, updates
from residuum.studies.ranking import ranked
from residuum.studies.results import Results, arms_table, curve
from residuum.studies.small_images import cifar_run
from residuum.studies.study import Arm, Finding, Plan, ScaleName, Study
from residuum.training.run import Run


class _Optimiser(NamedTuple):
    """The name in torch.optim's words, the rates that are tried, and whether each update sees every image."""

    name: str
    rates: tuple[float, float, float]
    is_full_batch: bool = False


_ONE_RATE = {
    "GD": _Optimiser("sgd", (0.1, 0.5, 2.0), is_full_batch=True),
    "SGD": _Optimiser("sgd", (0.1, 0.4, 1.6)),
    "momentum": _Optimiser("momentum", (0.05, 0.2, 0.8)),
    "Nesterov": _Optimiser("nesterov", (0.05, 0.2, 0.8)),
    "L-BFGS": _Optimiser("lbfgs", (0.1, 0.3, 1.0), is_full_batch=True),
}
_RATE_A_WEIGHT = {
    "Adagrad": _Optimiser("adagrad", (0.01, 0.03, 0.1)),
    "Adadelta": _Optimiser("adadelta", (1.0, 3.0, 10.0)),
    "RMSprop": _Optimiser("rmsprop", (0.001, 0.003, 0.01)),
    "Adam": _Optimiser("adam", (0.003, 0.01, 0.03)),
    "NAdam": _Optimiser("nadam", (0.003, 0.01, 0.03)),
}
_OPTIMISERS = {**_ONE_RATE, **_RATE_A_WEIGHT}

_MODELS: dict[ScaleName, str] = {"smoke": "resnet8", "small": "resnet8", "paper": "resnet20"}
_EPOCHS: dict[ScaleName, int] = {"smoke": 4, "small": 7, "paper": 164}
_IMAGES: dict[ScaleName, tuple[int | None, int | None]] = {
    "smoke": (500, None),
    "small": (4_000, 2_000),
    "paper": (None, None),
}


def plan(scale: ScaleName, facts: DataFacts) -> Plan:
    """Every optimiser with three rates, which stay what they are, without weight decay, for equally many epochs."""
    arms = tuple(
        Arm(f"{name}, {rate:g}", _run(scale, facts, optimiser, rate))
        for name, optimiser in _OPTIMISERS.items()
        for rate in optimiser.rates
    )
    return Plan(arms, *_IMAGES[scale], seeds=1 if scale == "smoke" else 3)


def _run(scale: ScaleName, facts: DataFacts, optimiser: _Optimiser, rate: float) -> Run:
    settings = (
        f"epochs={_EPOCHS[scale]}",
        f"evaluate_every={_EPOCHS[scale]}",
        # Few updates leave the running statistics of batch normalisation behind the weights: they are measured anew.
        "recompute_bn=true",
        "schedule.name=constant",
        f"optimizer.name={optimiser.name}",
        f"optimizer.lr={rate}",
        "optimizer.weight_decay=0",
    )
    run = cifar_run(scale, facts, _MODELS[scale], *settings)
    if not optimiser.is_full_batch:
        return run
    # In pieces of the other arms' batches, so that batch normalisation sees as many images there as here.
    drawn = min(_IMAGES[scale][0] or facts.images, facts.images)
    pieces = max(1, round(drawn / run.batch_size))
    # A draw keeps each class's share and may have an image a class more; of a batch too large, training takes all.
    whole = (f"batch_size={min(drawn + facts.classes, facts.images)}", f"accumulate={pieces}")
    return cifar_run(scale, facts, _MODELS[scale], *settings, *whole)


def answer(results: Results) -> Finding:
    """Each optimiser at its best rate, in the order of the training loss that equally many epochs led to."""
    chosen = {name: best[0] for name in _OPTIMISERS if (best := ranked(results, "train_loss", _arms(name)))}
    table = arms_table(
        results,
        "Optimisers and rates",
        {
            "train loss [nats]": lambda arm: results.spread(arm, "train_loss").mean,
            "updates": lambda arm: updates(results, arm),
            "seconds": lambda arm: seconds(results, arm),
            "best rate": lambda arm: "yes" if arm in chosen.values() else "",
        },
    )
    return Finding(_verdict(results, chosen), table, _charts(results, chosen), _notes(results, chosen))


def _arms(name: str) -> list[str]:
    return [f"{name}, {rate:g}" for rate in _OPTIMISERS[name].rates]


def _verdict(results: Results, chosen: dict[str, str]) -> str:
    order = ranked(results, "train_loss", [*chosen.values()])
    if not order:
        return "No optimiser trained at any of its rates: the loss became no number."
    epochs = max((len(outcome.metrics) for arm in order for outcome in results.finished(arm)), default=0)
    named = {arm: name for name, arm in chosen.items()}
    ranking = ", ".join(f"{named[arm]} {results.spread(arm, 'train_loss').mean:.3f}" for arm in order)
    lost = [name for name in _OPTIMISERS if name not in chosen]
    failed = f" {', '.join(lost)} failed at every rate." if lost else ""
    return f"Training loss in nats after {epochs} epochs, each at its best rate: {ranking}.{failed}" + "".join(
        f" {sentence}" for sentence in (_generalises(results, order, named), _costs(results, order, named))
    )


def _generalises(results: Results, order: list[str], named: dict[str, str]) -> str:
    """Whether the lowest training loss goes with the lowest test error."""
    best = ranked(results, "test_error", order)[0]
    error = f"{results.spread(best, 'test_error')} %"
    if best == order[0]:
        return f"{named[best]} has the lowest test error, too: {error}."
    own = f"{results.spread(order[0], 'test_error')} %"
    return f"The lowest test error has {named[best]}: {error}; {named[order[0]]} has {own}."


def _costs(results: Results, order: list[str], named: dict[str, str]) -> str:
    """What the methods that look at every image before a step pay for it."""
    full = [arm for arm in order if _OPTIMISERS[named[arm]].is_full_batch]
    told = [f"{named[arm]} made {effort_in_words(results, arm)}" for arm in full]
    batches = [arm for arm in order if arm not in full]
    if not told or not batches:
        return ""
    return f"{' and '.join(told)}, {named[batches[0]]} {effort_in_words(results, batches[0])}."


def _charts(results: Results, chosen: dict[str, str]) -> tuple[Chart, ...]:
    panels = tuple(
        tuple(
            curve(results.finished(chosen[name]), "train_loss", chosen[name], "training loss [nats]", run=number)
            for number, name in enumerate(family)
            if name in chosen
        )
        for family in (_ONE_RATE, _RATE_A_WEIGHT)
    )
    if not any(panels):
        return ()
    alt = "Training loss over the epochs: on the left one rate for all weights, on the right a rate a weight"
    return (Chart("Training loss at the best rate", tuple(filter(None, panels)), alt, log_y=True),)


def _notes(results: Results, chosen: dict[str, str]) -> tuple[str, ...]:
    ends = [name for name, arm in chosen.items() if arm in (_arms(name)[0], _arms(name)[-1])]
    beyond = f"; at an end of the grid, so that a better one may lie beyond: {', '.join(ends)}" if ends else ""
    return (
        "the rate of each optimiser was chosen among its three by the training loss of the last epoch, on the training "
        f"images; the test images had no part in it{beyond}",
        "GD and L-BFGS look at every image before they step, so that an epoch is one update; an update of L-BFGS takes "
        "up to 25 passes over all images, which the epochs do not count and the seconds do; batch normalisation sees "
        "the images in pieces of the other methods' batches, and its statistics are measured anew before the test",
        "the training loss is the mean over the epoch while the weights change, of GD and L-BFGS that before or in the "
        "update",
    )


STUDY = Study(
    name="optimisers",
    question="SGD, Adam or a second-order method: which brings the training loss down furthest in equally many epochs?",
    source="Robbins & Monro 1951; Polyak 1964; Nesterov 1983; Duchi et al. 2011; Zeiler 2012; Tieleman & Hinton 2012; "
    "Kingma & Ba 2015; Dozat 2016; Liu & Nocedal 1989",
    plan=plan,
    answer=answer,
)
