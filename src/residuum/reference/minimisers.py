"""Minimisers that use curvature: Newton, conjugate gradient, BFGS, and L-BFGS's direction.

Gradient descent takes the steepest way; on a long valley that is across it. These turn the step into the valley's
direction: Newton by the Hessian, the others by what the gradients so far have told of it. Each costs more a step
than `optimisers` do, and needs the exact gradient, which a mini-batch has not.

Source throughout: Nocedal and Wright 2006, "Numerical Optimization", 2nd edition ("NW").
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from residuum.reference.arrays import Floats
from residuum.reference.problems import Problem


class Minimum(NamedTuple):
    """Where a minimiser has stopped: at x (D,), with a gradient of this length, after so many iterations."""

    x: Floats
    gradient_norm: float
    iterations: int


def newton(problem: Problem, x: Floats, tolerance: float = 1e-8, most: int = 100) -> Minimum:
    """x - H^-1 g: to the minimum of the parabola that fits f at x. NW, equation 3.30.

    Exact in one step on a quadratic; near a minimum the error is squared at every step. Far from one it may go
    anywhere: it has no line search.
    """
    for iteration in range(most):
        g = problem.gradient(x)
        if np.linalg.norm(g) <= tolerance:
            return _minimum(problem, x, iteration)
        x = x - np.linalg.solve(problem.hessian(x), g)
    return _minimum(problem, x, most)


def conjugate_gradient(A: Floats, b: Floats, x: Floats, tolerance: float = 1e-8) -> Minimum:
    """Solve A x = b, A (D, D) symmetric and positive definite: the minimum of `problems.quadratic`. NW, algorithm 5.2.

    No two directions p, q interfere: p^T A q = 0. So at most D steps are needed, as many as A has distinct
    eigenvalues; and A is used in products alone.
    """
    residual = A @ x - b
    direction = -residual
    for iteration in range(len(b)):
        if np.linalg.norm(residual) <= tolerance:
            return Minimum(x, float(np.linalg.norm(residual)), iteration)
        along = A @ direction
        step = (residual @ residual) / (direction @ along)
        x = x + step * direction
        new = residual + step * along
        direction = -new + (new @ new) / (residual @ residual) * direction
        residual = new
    return Minimum(x, float(np.linalg.norm(residual)), len(b))


def nonlinear_conjugate_gradient(problem: Problem, x: Floats, tolerance: float = 1e-6, most: int = 1000) -> Minimum:
    """Conjugate gradient for any smooth f: Polak and Ribière's beta, not below 0. NW, algorithm 5.4, equation 5.45.

    A beta of 0 forgets what went before. The line search is a tight one (c2 = 0.1), so that the directions stay
    conjugate.
    """
    g = problem.gradient(x)
    direction = -g
    for iteration in range(most):
        if np.linalg.norm(g) <= tolerance:
            return _minimum(problem, x, iteration)
        step = line_search(problem, x, direction, c2=0.1)
        if step == 0:
            return _minimum(problem, x, iteration)
        x = x + step * direction
        new = problem.gradient(x)
        beta = max(0.0, float(new @ (new - g) / (g @ g)))
        direction = -new + beta * direction
        if new @ direction >= 0:
            direction = -new
        g = new
    return _minimum(problem, x, most)


def bfgs(problem: Problem, x: Floats, tolerance: float = 1e-6, most: int = 1000) -> Minimum:
    """Newton with an inverse Hessian learnt, from the identity on, by steps and gradients. NW, algorithm 6.1."""
    g, H = problem.gradient(x), np.eye(len(x))
    for iteration in range(most):
        if np.linalg.norm(g) <= tolerance:
            return _minimum(problem, x, iteration)
        direction = -H @ g
        step = line_search(problem, x, direction)
        if step == 0:
            return _minimum(problem, x, iteration)
        s = step * direction
        x, new = x + s, problem.gradient(x + s)
        H, g = bfgs_update(H, s, new - g), new
    return _minimum(problem, x, most)


def bfgs_update(H: Floats, s: Floats, y: Floats) -> Floats:
    """The inverse Hessian (D, D) nearest to H that maps y, the gradient's change, to s, the step. NW, equation 6.17.

    It stays positive definite as long as y^T s > 0, of which a line search with Wolfe's conditions makes sure.
    """
    rho = 1 / (y @ s)
    turn = np.eye(len(s)) - rho * np.outer(s, y)
    return turn @ H @ turn.T + rho * np.outer(s, s)


def lbfgs_direction(g: Floats, steps: Sequence[Floats], changes: Sequence[Floats]) -> Floats:
    """-H g for BFGS's H without ever making it: from the last few steps s and gradients' changes y, oldest first.

    Memory and time are a few vectors' instead of a matrix's. NW, algorithm 7.4 (two loops), from the multiple of the
    identity in equation 7.20; without any step, the steepest descent.
    """
    if not steps:
        return -g
    pairs = list(zip(steps, changes, strict=True))
    q, alphas = g, []
    for s, y in reversed(pairs):
        alphas.append((s @ q) / (y @ s))
        q = q - alphas[-1] * y
    s, y = pairs[-1]
    r = (s @ y) / (y @ y) * q
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        r = r + (alpha - (y @ r) / (y @ s)) * s
    return -r


def line_search(problem: Problem, x: Floats, direction: Floats, c1: float = 1e-4, c2: float = 0.9) -> float:
    """A step along `direction`, which must lead down, by the strong Wolfe conditions. NW, equation 3.7.

    f falls by at least c1 of what the slope promised, and the slope is down to c2 of what it was or less. Found by
    doubling until such a step lies between two, then halving (as NW, algorithm 3.5, without interpolation). 0.0 if 60
    trials find none: so near to a minimum that f no longer changes in float64, or f falls for ever.
    """
    value, slope = problem.value(x), problem.gradient(x) @ direction
    low, high, step = 0.0, np.inf, 1.0
    for _ in range(60):
        there = x + step * direction
        new_slope = problem.gradient(there) @ direction
        falls_short = problem.value(there) > value + c1 * step * slope
        if not falls_short and abs(new_slope) <= -c2 * slope:
            return step
        if falls_short or new_slope > 0:
            high = step
        else:
            low = step
        step = 2 * step if high == np.inf else (low + high) / 2
    return 0.0


def _minimum(problem: Problem, x: Floats, iterations: int) -> Minimum:
    return Minimum(x, float(np.linalg.norm(problem.gradient(x))), iterations)
