"""What a measure wrote, read back: JSON has no infinity and no NaN, and None stands for both."""

import math
from collections.abc import Iterable


def sizes(values: Iterable[float | None]) -> list[float]:
    """Sizes such as norms and deviations, one beyond all numbers as infinity: it must not pass for a small one."""
    return [math.inf if value is None else float(value) for value in values]
