"""Newton, conjugate gradient, BFGS and L-BFGS against closed solutions, SciPy, scikit-learn and PyTorch."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numeric_gradients import Floats, assert_close
from scipy import optimize, sparse

from residuum.reference import minimisers
from residuum.reference.minimisers import Minimum
from residuum.reference.problems import Problem, logistic_regression, quadratic, rosenbrock

few = settings(max_examples=30, deadline=None)
Minimiser = Callable[[Problem, Floats], Minimum]
SEARCHING: list[Minimiser] = [minimisers.bfgs, minimisers.nonlinear_conjugate_gradient]
ALL: list[Minimiser] = [minimisers.newton, *SEARCHING]


def system(size: int, seed: int, eigenvalues: Floats | None = None) -> tuple[Floats, Floats]:
    """A symmetric positive definite A with these eigenvalues (1 ... 50 unless given), and b."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(size, size)))[0]
    spectrum = np.geomspace(1, 50, size) if eigenvalues is None else eigenvalues
    return (turn * spectrum) @ turn.T, rng.normal(size=size)


def classified(seed: int = 0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(60, 5)) * [1, 2, 0.5, 1, 3]
    return X, (X @ [1, -1, 2, 0, 0.3] + rng.normal(size=60) > 0).astype(float)


@few
@given(size=st.integers(1, 8), seed=st.integers(0, 99))
def test_newton_solves_a_quadratic_in_one_step(size: int, seed: int) -> None:
    A, b = system(size, seed)
    got = minimisers.newton(quadratic(A, b), np.zeros(size))
    assert got.iterations == 1
    assert_close(got.x, np.linalg.solve(A, b))


@few
@given(size=st.integers(1, 8), seed=st.integers(0, 99))
def test_conjugate_gradient_solves_a_system_in_as_many_steps_as_unknowns(size: int, seed: int) -> None:
    A, b = system(size, seed)
    got = minimisers.conjugate_gradient(A, b, np.zeros(size))
    assert got.iterations <= size
    assert_close(got.x, np.linalg.solve(A, b), atol=1e-7)
    expected, failure = sparse.linalg.cg(A, b, rtol=1e-12)
    assert not failure
    assert_close(got.x, expected, atol=1e-7)


def test_conjugate_gradient_takes_a_step_for_each_distinct_eigenvalue() -> None:
    A, b = system(9, 0, eigenvalues=np.array([1.0] * 4 + [7.0] * 3 + [20.0] * 2))
    got = minimisers.conjugate_gradient(A, b, np.ones(9))
    assert got.iterations == 3
    assert got.gradient_norm < 1e-8


@pytest.mark.parametrize("minimiser", SEARCHING)
@few
@given(size=st.integers(1, 6), seed=st.integers(0, 99))
def test_line_searching_minimisers_solve_a_quadratic(minimiser: Minimiser, size: int, seed: int) -> None:
    A, b = system(size, seed)
    got = minimiser(quadratic(A, b), np.zeros(size))
    assert got.gradient_norm <= 1e-6
    assert_close(got.x, np.linalg.solve(A, b), atol=2e-6)


@pytest.mark.parametrize("minimiser", ALL)
@pytest.mark.parametrize("start", [(-1.2, 1.0), (0.0, 0.0), (3.0, -2.0)])
def test_the_bent_valley_is_followed_to_its_end(minimiser: Minimiser, start: tuple[float, float]) -> None:
    got = minimiser(rosenbrock(), np.array(start))
    assert_close(got.x, [1, 1], atol=1e-5)
    assert got.iterations < 100


def test_no_minimiser_searches_uphill(monkeypatch: pytest.MonkeyPatch) -> None:
    slopes = list[float]()
    search = minimisers.line_search

    def recorded(problem: Problem, x: Floats, direction: Floats, **settings: float) -> float:
        slopes.append(problem.gradient(x) @ direction)
        return search(problem, x, direction, **settings)

    monkeypatch.setattr(minimisers, "line_search", recorded)
    for minimiser in SEARCHING:
        for start in np.ndindex(5, 5):
            minimiser(rosenbrock(), np.array(start) - 2.0)
    assert len(slopes) > 1000
    assert max(slopes) < 0


def test_gradient_descent_is_far_from_the_valleys_end_when_bfgs_is_there() -> None:
    problem, x = rosenbrock(), np.array([-1.2, 1.0])
    needed = minimisers.bfgs(problem, x)
    for _ in range(needed.iterations):
        g = problem.gradient(x)
        x = x - minimisers.line_search(problem, x, -g) * g
    assert np.linalg.norm(x - 1) > 1e3 * np.linalg.norm(needed.x - 1)


@pytest.mark.parametrize("minimiser", ALL)
def test_logistic_regression_equals_scipys_and_scikit_learns(minimiser: Minimiser) -> None:
    from sklearn.linear_model import LogisticRegression

    X, t = classified()
    problem = logistic_regression(X, t, penalty=0.05)
    got = minimiser(problem, np.zeros(5))
    scipys = optimize.minimize(problem.value, np.zeros(5), jac=problem.gradient, method="BFGS", options={"gtol": 1e-8})
    assert_close(got.x, scipys.x, atol=1e-4)
    theirs = LogisticRegression(C=1 / (len(t) * 0.05), fit_intercept=False, solver="newton-cholesky", tol=1e-10)
    assert_close(got.x, theirs.fit(X, t).coef_[0], atol=1e-4)
    assert got.iterations < 100


@few
@given(size=st.integers(1, 6), seed=st.integers(0, 99))
def test_bfgs_update_maps_the_gradients_change_to_the_step_and_stays_positive(size: int, seed: int) -> None:
    H, y = system(size, seed)
    rng = np.random.default_rng(seed)
    s = y * rng.uniform(0.1, 2) + 0.1 * rng.normal(size=size)
    s = s if s @ y > 0 else -s
    new = minimisers.bfgs_update(H, s, y)
    assert_close(new @ y, s, atol=1e-6)
    assert_close(new, new.T, atol=1e-6)
    assert np.linalg.eigvalsh(new).min() > -1e-9


@few
@given(size=st.integers(2, 6), pairs=st.integers(1, 4), seed=st.integers(0, 99))
def test_lbfgs_direction_is_that_of_the_matrix_it_never_makes(size: int, pairs: int, seed: int) -> None:
    A, g = system(size, seed)
    steps = list(np.random.default_rng(seed).normal(size=(pairs, size)))
    changes = [A @ s for s in steps]
    H = (steps[-1] @ changes[-1]) / (changes[-1] @ changes[-1]) * np.eye(size)
    for s, y in zip(steps, changes, strict=True):
        H = minimisers.bfgs_update(H, s, y)
    assert_close(minimisers.lbfgs_direction(g, steps, changes), -H @ g, atol=1e-8)


def test_lbfgs_direction_is_the_one_torch_steps_in() -> None:
    problem = logistic_regression(*classified(), penalty=0.5)
    w = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], lr=1.0, max_iter=1, line_search_fn=None)

    def closure() -> float:
        w.grad = torch.from_numpy(problem.gradient(w.detach().numpy()))
        return problem.value(w.detach().numpy())

    steps, changes = list[Floats](), list[Floats]()
    for _ in range(6):
        before = w.detach().numpy().copy()
        optimizer.step(closure)
        s = w.detach().numpy() - before
        direction = minimisers.lbfgs_direction(problem.gradient(before), steps, changes)
        length = 1.0 if steps else min(1.0, 1 / np.abs(direction).sum())
        assert_close(s, length * direction)
        steps.append(s)
        changes.append(problem.gradient(before + s) - problem.gradient(before))


@few
@given(
    x=st.tuples(st.floats(-2, 2), st.floats(-2, 2)).filter(lambda x: max(abs(x[0] - 1), abs(x[1] - 1)) > 0.01),
    c2=st.sampled_from([0.1, 0.9]),
)
def test_line_search_fulfils_both_wolfe_conditions(x: tuple[float, float], c2: float) -> None:
    problem, start = rosenbrock(), np.array(x)
    direction = -problem.gradient(start)
    step = minimisers.line_search(problem, start, direction, c2=c2)
    slope, there = problem.gradient(start) @ direction, start + step * direction
    assert step > 0
    assert problem.value(there) <= problem.value(start) + 1e-4 * step * slope
    assert abs(problem.gradient(there) @ direction) <= -c2 * slope


def test_a_minimiser_that_may_not_go_on_says_how_far_it_came() -> None:
    problem, start = rosenbrock(), np.array([-1.2, 1.0])
    for minimiser in ALL:
        got = partial(minimiser, most=2)(problem, start)
        assert got.iterations == 2
        assert got.gradient_norm == pytest.approx(np.linalg.norm(problem.gradient(got.x)))
        assert got.gradient_norm > 1


@pytest.mark.parametrize("minimiser", SEARCHING)
def test_a_minimiser_asked_for_more_than_float64_has_stops_where_f_falls_no_more(minimiser: Minimiser) -> None:
    A, b = system(6, 0)
    got = partial(minimiser, tolerance=0.0)(quadratic(1e3 * A, 1e3 * b), np.zeros(6))
    assert got.iterations < 1000
    assert_close(got.x, np.linalg.solve(A, b), atol=1e-5)


@pytest.mark.parametrize("minimiser", SEARCHING)
def test_a_function_without_a_minimum_is_given_up(minimiser: Minimiser) -> None:
    slope = Problem(lambda x: float(x.sum()), np.ones_like, lambda x: np.zeros((len(x), len(x))))
    assert minimiser(slope, np.zeros(3)) == (pytest.approx(np.zeros(3)), pytest.approx(3**0.5), 0)
