"""What a model came to, and what that does not say, as its card tells it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from residuum.cli.card_facts import CardFacts
from residuum.cli.compare import STATUS
from residuum.cli.run_records import RunRecord
from residuum.errors import counted
from residuum.records import Table
from residuum.report.cells import decimals_of
from residuum.report.markdown import table_markdown, words

if TYPE_CHECKING:
    from residuum.evaluation.scores import Evaluation

_WORST = 10
_NAMED = 3
_FEW_IMAGES = 30  # of a class: its recall then is uncertain by some 35 points, or more


def results(facts: CardFacts) -> Iterator[str]:
    """Every figure with its interval, by split, and what papers print of the same network."""
    if not facts.evaluations:
        yield _none(facts)
        return
    assert facts.record is not None
    for split, evaluation in facts.evaluations.items():
        images = counted(evaluation.images, "image")
        yield f"On {words(split)}, {images}, by the protocol {words(evaluation.protocol)}:"
        yield table_markdown(_figures(evaluation))
        yield from _odds(facts.record, split, evaluation)
    yield from _published(facts.record)
    yield from _calibration(facts)
    yield "### The classes of lowest recall"
    yield table_markdown(_worst(next(iter(facts.evaluations.values())).per_class))


def _none(facts: CardFacts) -> str:
    if facts.record is None:
        return "None are known: the model came without the run that made it."
    if not facts.is_final:
        return "None: these are the best weights so far of a run, which were not measured in full."
    status = facts.record.status
    return f"None: the run has no results ({words(STATUS.get(status, status).partition(';')[0])})."


def _figures(evaluation: "Evaluation") -> Table:
    rows = []
    for name, *measured in evaluation.headline().rows:
        value, unit, low, high = cast("tuple[float, str, float | None, float | None]", measured)
        places = decimals_of([value], percent=unit == "%")
        interval = None if low is None or high is None else f"{low:.{places}f} to {high:.{places}f}"
        rows.append((name, f"{value:.{places}f} {unit}", interval))
    return Table("", ("measure", "value", "95 % interval"), tuple(rows))


def _odds(record: RunRecord, split: str, evaluation: "Evaluation") -> Iterator[str]:
    """What to bear in mind of these figures."""
    if evaluation.bad:
        yield f"Counted as errors: {counted(len(evaluation.bad), 'image')} that could not be read."
    if evaluation.unknown:
        yield f"Counted as errors: {counted(evaluation.unknown, 'image')} of a class that the model does not know."
    if split != record.watched:
        return
    if record.manifest["run"].get("early_stopping"):
        yield "The weights were chosen by these images (early stopping), which flatters the figures."
    else:
        yield "Training printed figures on these images as it went; whether settings were chosen by them is unknown."


def _published(record: RunRecord) -> Iterator[str]:
    for figure in record.published.get(str(record.split), ()):
        top5 = "" if figure.top5_error is None else f", top-5 error {figure.top5_error:g} %"
        source = "; ".join(filter(None, (figure.source, figure.note)))
        yield f"Published of this network: top-1 error {figure.top1_error:g} %{top5} ({words(source)})."


def _calibration(facts: CardFacts) -> Iterator[str]:
    """What the probabilities are worth, and the temperature where one was fitted."""
    from residuum.evaluation.answers import Answers
    from residuum.evaluation.calibration import reliability
    from residuum.report.terminal import measurement_text

    assert facts.record is not None
    if facts.classifier.temperature == 1:
        if not facts.classifier.multi_label:
            yield "No temperature was fitted: the probabilities are as training left them."
        return
    fitted = facts.record.temperature["fitted_on"] if facts.record.temperature else "data that are not recorded"
    yield (
        f"For probabilities the logits are divided by a temperature of {facts.classifier.temperature:.4g}, fitted on "
        f"{words(str(fitted))}."
    )
    split = str(facts.record.split)
    answers = facts.record.calibrated.get(split)
    if isinstance(answers, Answers):
        error = measurement_text(reliability(answers.confidences, answers.right).ece)
        yield f"With it the calibration error on {words(split)} is {error}; the figures above are without it."
    else:
        yield "The figures above are without it, and none with it are recorded."


def _worst(per_class: Table) -> Table:
    recall = per_class.columns.index("recall")
    known = [row for row in per_class.rows if isinstance(row[recall], float)]
    worst = sorted(known, key=lambda row: cast(float, row[recall]))[:_WORST]
    return Table(per_class.title, per_class.columns, tuple(worst))


def limits(facts: CardFacts) -> Iterator[str]:
    """What the figures do not say."""
    lines = [_always_an_answer(facts)]
    for split, evaluation in list(facts.evaluations.items())[:1]:
        worst = _worst(evaluation.per_class)
        recall = worst.columns.index("recall")
        missed = [f"{words(str(row[0]))} ({row[recall]:.1f} %)" for row in worst.rows if cast(float, row[recall]) < 100]
        if missed:
            lines.append(f"It finds least of: {', '.join(missed[:_NAMED])}, by recall on {words(split)}.")
        lines += _small_classes(split, evaluation)
    lines.append(
        "Measured is what stands above and nothing else: not images from other sources or cameras, nor disturbed ones, "
        "nor how it treats groups of people, nor how fast it is."
    )
    yield "\n".join(f"- {line}" for line in lines)


def _always_an_answer(facts: CardFacts) -> str:
    if facts.classifier.multi_label:
        return "It says yes or no to its own classes alone, whatever an image shows; F1 is at a probability of 0.5."
    return (
        f"It names one of its {len(facts.classifier.classes):,} classes for any image, also for one that shows none of "
        "them, and may be sure of it."
    )


def _small_classes(split: str, evaluation: "Evaluation") -> Iterator[str]:
    images = evaluation.per_class.columns.index("images")
    small = [row for row in evaluation.per_class.rows if cast(int, row[images]) < _FEW_IMAGES]
    if small:
        yield (
            f"{len(small):,} of its {len(evaluation.per_class.rows):,} classes have fewer than {_FEW_IMAGES} images in "
            f"{words(split)}: what is said of each is uncertain."
        )
