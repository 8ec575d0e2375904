"""What an arm's training took: updates, seconds and multiply-adds."""

from residuum.studies.results import Results
from residuum.studies.work import size_of


def updates(results: Results, arm: str) -> int | None:
    """The most of any seed that came to an end; None where none did."""
    steps = (int(outcome.metrics[-1]["step"]) for outcome in results.finished(arm) if outcome.metrics)
    return max(steps, default=None)


def seconds(results: Results, arm: str) -> float | None:
    """The mean over the seeds that came to an end; None where none did."""
    found = [outcome.seconds for outcome in results.finished(arm)]
    return sum(found) / len(found) if found else None


def effort_in_words(results: Results, arm: str) -> str:
    """ "1,068 updates in 12.3 s", or that it did not train."""
    steps, time = updates(results, arm), seconds(results, arm)
    return "did not train" if steps is None or time is None else f"{steps:,} updates in {time:.1f} s"


def multiply_adds(results: Results, arm: str) -> int:
    """Of the arm's network on one image; 0 where nothing is trained."""
    first = results.outcomes[arm][0]
    return 0 if first.run is None else size_of(first.run, len(first.classes)).multiply_adds
