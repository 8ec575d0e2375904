"""Small problems for minimisers: a value to be made small, its gradient, its Hessian. Points x are (D,)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from residuum.reference.activations import sigmoid
from residuum.reference.arrays import Floats
from residuum.reference.losses import logistic_loss, logistic_loss_gradient


class Problem(NamedTuple):
    """f, its gradient (D,) and its Hessian (D, D), as functions of x (D,)."""

    value: Callable[[Floats], float]
    gradient: Callable[[Floats], Floats]
    hessian: Callable[[Floats], Floats]


def quadratic(A: Floats, b: Floats) -> Problem:
    """f(x) = x^T A x / 2 - b^T x, A (D, D) symmetric and positive definite: its minimum solves A x = b.

    The ratio of A's largest and smallest eigenvalue, the condition, is what makes it hard for gradient descent.
    """
    return Problem(lambda x: float(0.5 * x @ A @ x - b @ x), lambda x: A @ x - b, lambda x: A)


def rosenbrock() -> Problem:
    """f(x, y) = 100 (y - x^2)^2 + (1 - x)^2: a bent valley, its minimum 0 at (1, 1). Rosenbrock 1960."""

    def value(x: Floats) -> float:
        return float(100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2)

    def gradient(x: Floats) -> Floats:
        return np.array([-400 * x[0] * (x[1] - x[0] ** 2) - 2 * (1 - x[0]), 200 * (x[1] - x[0] ** 2)])

    def hessian(x: Floats) -> Floats:
        return np.array([[1200 * x[0] ** 2 - 400 * x[1] + 2, -400 * x[0]], [-400 * x[0], 200.0]])

    return Problem(value, gradient, hessian)


def logistic_regression(X: Floats, t: Floats, penalty: float) -> Problem:
    """The logistic loss of z = X w [nats, mean over images] plus penalty |w|^2 / 2, as a function of w (D,).

    X (N, D), t (N,) of 0 and 1. Bishop 2006, sections 4.3.2 and 4.3.3: convex, with Hessian X^T diag(p (1 - p)) X / N
    + penalty; Newton's method on it is iteratively reweighted least squares.
    """

    def value(w: Floats) -> float:
        return logistic_loss(X @ w, t) + 0.5 * penalty * float(w @ w)

    def gradient(w: Floats) -> Floats:
        return X.T @ logistic_loss_gradient(X @ w, t) + penalty * w

    def hessian(w: Floats) -> Floats:
        p = sigmoid(X @ w)
        return X.T @ ((p * (1 - p) / len(X))[:, None] * X) + penalty * np.eye(X.shape[1])

    return Problem(value, gradient, hessian)
