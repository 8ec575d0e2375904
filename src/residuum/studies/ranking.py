"""Many arms put in order: which is best, which is worst, which did not train at all."""

from collections.abc import Sequence

from residuum.errors import listed
from residuum.studies.results import UNITS, Key, Results


def ranked(results: Results, key: Key = "test_error", arms: Sequence[str] | None = None) -> list[str]:
    """Those of the arms (all) of which a seed came to an end, from the lowest mean of `key` to the highest."""
    finished = [arm for arm in arms or results.outcomes if results.spread(arm, key).n]
    return sorted(finished, key=lambda arm: results.spread(arm, key).mean)


def order_in_words(results: Results, key: Key = "test_error") -> str:
    """ "The lowest test error has A (6.37 ± 0.12 %), the highest B (8.17 ± 0.20 %)."

    Without a p: best and worst are chosen by looking, and differ by chance alone the more arms there are.
    """
    order, what = ranked(results, key), key.replace("train", "training").replace("_", " ")
    lost = [arm for arm in results.outcomes if arm not in order]
    if not order:
        return "No arm trained: the loss of every one became no number."
    means = [results.spread(arm, key).mean for arm in order]
    best = [arm for arm, mean in zip(order, means, strict=True) if mean == means[0]]
    lowest = f"{' and '.join(best)} ({results.spread(order[0], key)} {UNITS[key]})"
    if len(best) == len(order):
        found = f"All that trained have one {what}: {lowest}" if len(order) > 1 else f"Only {lowest} trained"
    else:
        highest = f"{order[-1]} ({results.spread(order[-1], key)} {UNITS[key]})"
        found = f"The lowest {what} {'has' if len(best) == 1 else 'have'} {lowest}, the highest {highest}"
    return f"{found}; {listed(lost, len(lost))} did not train." if lost else f"{found}."


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several comparisons corrected for their number (Holm 1979), in the order given.

    At any level, the chance that one true hypothesis or more among them is rejected is at most that level.
    """
    order = sorted(range(len(p_values)), key=lambda number: p_values[number])
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, number in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[number]))
        corrected[number] = highest
    return corrected


def chance_error(classes: int) -> float:
    """The error, in %, of an answer at random among classes of equal size."""
    return 100.0 * (1 - 1 / classes)
