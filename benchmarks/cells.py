"""How the tables of docs/performance.md write figures."""

from measuring import Figures


def under(heading: str, columns: tuple[str, ...], rows: list[str]) -> list[str]:
    """A table with its heading; nothing where it has no rows."""
    if not rows:
        return []
    return [f"### {heading}", "", row(*columns), "|" + "---|" * len(columns), *rows]


def row(*cells: str) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |".replace("  |", " |")


def rate(value: float) -> str:
    """Images per second to three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def spread(figures: Figures) -> str:
    """The median, and the least and the most in brackets."""
    return f"{figures['median']:.2f} ({figures['least']:.2f} to {figures['most']:.2f})"


def clock(seconds: float) -> str:
    """ "5 min 06 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s"


def verdict(times: Figures, goal: float) -> str:
    """ "3.5: met", or by how much it is missed."""
    return f"{goal}: {'met' if times['median'] >= goal else missed(goal - times['median'])}"


def missed(amount: float) -> str:
    """ "missed by 0.12"."""
    return f"missed by {amount:.2f}"


def megabytes(memory: Figures) -> str:
    """PSS and the number of processes; nothing where it was not to be had."""
    return f"{memory['pss_mib']:,.0f} ({memory['processes']})" if memory else ""
