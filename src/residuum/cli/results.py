"""Results of tests as text and as JSON."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from residuum.cli.messages import printable_table
from residuum.records import Measurement, Table, plain

if TYPE_CHECKING:
    from residuum.cli.testing import Result, Test
    from residuum.evaluation.published import Published
    from residuum.evaluation.scores import Evaluation

FEW_CLASSES = 20
WORST = 10


def print_results_as_json(test: "Test", results: "Sequence[Result]") -> None:
    """One object: the result, or all of them with their comparison."""
    from residuum.report.terminal import print_json

    found = [
        {
            "model": one.name,
            "data": test.data,
            "split": test.split,
            **plain(one.evaluation),
            "per_class": one.evaluation.per_class.records(),
            "published": plain(one.published),
        }
        for one in results
    ]
    print_json(found[0] if len(found) == 1 else {"models": found, "comparison": _comparison(test, results).records()})


def print_results(test: "Test", results: "Sequence[Result]", every_class: bool) -> None:
    """The comparison where there are several; then the last one in full."""
    from residuum.report.terminal import print_table

    last = results[-1]
    subject = f"{test.data}, {test.split}"
    if len(results) > 1:
        print_table(printable_table(_comparison(test, results)))
        print()
        subject = f"{last.name} on {subject}"
    print(summary(subject, last.evaluation))
    for line in published_lines(last.published):
        print(line)
    print()
    shown = last.evaluation.per_class if every_class else worst_classes(last.evaluation.per_class)
    print_table(printable_table(shown))


def _comparison(test: "Test", results: "Sequence[Result]") -> Table:
    from residuum.evaluation.comparison import Contender, compare

    contenders = [Contender(one.name, one.evaluation, one.answers) for one in results]
    return compare(contenders, f"{test.data}, {test.split}")


def published_lines(published: "Sequence[Published]") -> list[str]:
    """`  published error         8.75 % (He et al. 2015, table 6)`."""
    lines = []
    for one in published:
        top5 = f", top-5 {one.top5_error:.2f} %" if one.top5_error is not None else ""
        note = f"; {one.note}" if one.note else ""
        lines.append(f"  {'published top-1 error':<22}  {one.top1_error:.2f} %{top5} ({one.source}{note})")
    return lines


def summary(subject: str, evaluation: "Evaluation") -> str:
    """The measurements line by line, below what was measured, on how many images and by which protocol."""
    from residuum.report.terminal import measurement_text

    headline = evaluation.headline()
    lines = [f"{subject}: {headline.title}"]
    for name, *measured in headline.rows:
        value, unit, low, high = cast("tuple[float, str, float | None, float | None]", measured)
        lines.append(f"  {name:<22}  {measurement_text(Measurement(value, unit, low, high))}")
    return "\n".join([*lines, *(f"  {note}" for note in headline.notes)])


def worst_classes(table: Table) -> Table:
    """The table itself where classes are few, else the classes of lowest F1 and a note on the rest."""
    if len(table.rows) <= FEW_CLASSES:
        return table
    f1 = table.columns.index("F1")
    known = [row for row in table.rows if isinstance(row[f1], float)]
    worst = sorted(known, key=lambda row: cast(float, row[f1]))[:WORST]
    note = f"the {len(worst)} classes of lowest F1, of {len(table.rows):,}; --classes shows them all"
    return Table(table.title, table.columns, tuple(worst), (*table.notes, note))
