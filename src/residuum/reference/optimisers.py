"""Optimisers: (parameter, gradient, state) -> (parameter, state), one step each.

All arrays have the parameter's shape. A state is a dict, empty before the first step; its keys and the defaults are
PyTorch's. Weight decay is the L2 penalty's gradient, weight_decay x parameter, added
to the gradient first; AdamW alone shrinks the parameter apart from it.

w: parameter, g: gradient, lr: learning rate. A gradient over all the data makes `sgd` gradient descent; over a
mini-batch, stochastic gradient descent.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from residuum.reference.arrays import Floats

State = Mapping[str, Any]
Step = tuple[Floats, State]
Betas = tuple[float, float]


def sgd(w: Floats, g: Floats, state: State, *, lr: float, weight_decay: float = 0.0) -> Step:
    """Down the gradient. Robbins and Monro 1951; Bottou et al. 2018, section 3.1. No state."""
    return w - lr * (g + weight_decay * w), state


def momentum(
    w: Floats, g: Floats, state: State, *, lr: float, momentum: float = 0.9, weight_decay: float = 0.0
) -> Step:
    """Down a sum of gradients that fades by `momentum` a step: at a steady gradient, 1 / (1 - momentum) as fast.

    Polyak 1964; Sutskever et al. 2013, equations 1 and 2, with the learning rate outside of the velocity.
    """
    velocity = momentum * state.get("momentum_buffer", 0.0) + g + weight_decay * w
    return w - lr * velocity, {"momentum_buffer": velocity}


def nesterov(
    w: Floats, g: Floats, state: State, *, lr: float, momentum: float = 0.9, weight_decay: float = 0.0
) -> Step:
    """Momentum whose gradient is taken where the velocity will have led.

    Sutskever et al. 2013, equations 3 and 4; in PyTorch's form, where the parameter is kept already moved on.
    """
    g = g + weight_decay * w
    velocity = momentum * state.get("momentum_buffer", 0.0) + g
    return w - lr * (g + momentum * velocity), {"momentum_buffer": velocity}


def adagrad(
    w: Floats, g: Floats, state: State, *, lr: float = 0.01, eps: float = 1e-10, weight_decay: float = 0.0
) -> Step:
    """Each weight's step over the root of the sum of all its squared gradients: steps only shrink.

    Duchi et al. 2011, section 1.1, with the diagonal of the matrix alone.
    """
    g = g + weight_decay * w
    total = state.get("sum", 0.0) + g**2
    return w - lr * g / (np.sqrt(total) + eps), {"sum": total}


def adadelta(
    w: Floats,
    g: Floats,
    state: State,
    *,
    lr: float = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
) -> Step:
    """The gradient times root mean squared step / root mean squared gradient: a step in the parameter's own unit.

    Zeiler 2012, algorithm 1, where lr is 1.
    """
    g = g + weight_decay * w
    squares = _faded(state.get("square_avg", 0.0), g**2, rho)
    steps = state.get("acc_delta", 0.0)
    step = np.sqrt(steps + eps) / np.sqrt(squares + eps) * g
    return w - lr * step, {"square_avg": squares, "acc_delta": _faded(steps, step**2, rho)}


def rmsprop(
    w: Floats,
    g: Floats,
    state: State,
    *,
    lr: float = 0.01,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Step:
    """Adagrad with a fading mean in the sum's place. Tieleman and Hinton 2012, Coursera lecture 6.5."""
    g = g + weight_decay * w
    squares = _faded(state.get("square_avg", 0.0), g**2, alpha)
    return w - lr * g / (np.sqrt(squares) + eps), {"square_avg": squares}


def adam(
    w: Floats,
    g: Floats,
    state: State,
    *,
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Step:
    """Fading means of the gradient and of its square, both corrected for having started at 0.

    Kingma and Ba 2015, algorithm 1.
    """
    state = _moments(g + weight_decay * w, state, betas)
    mean = state["exp_avg"] / (1 - betas[0] ** state["step"])
    return w - lr * mean / _root_mean_square(state, betas, eps), state


def adamw(
    w: Floats,
    g: Floats,
    state: State,
    *,
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> Step:
    """Adam, with the parameter shrunk by lr x weight_decay apart from the gradient.

    Loshchilov and Hutter 2019, algorithm 2, with the learning rate on the decay as in PyTorch.
    """
    moved, state = adam(w, g, state, lr=lr, betas=betas, eps=eps)
    return moved - lr * weight_decay * w, state


def nadam(
    w: Floats,
    g: Floats,
    state: State,
    *,
    lr: float = 2e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum_decay: float = 4e-3,
) -> Step:
    """Adam with Nesterov's look ahead, beta1 warming up as Dozat 2016 and PyTorch have it.

    mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2); the corrections are products of all mu so far.
    """
    g = g + weight_decay * w
    moments = _moments(g, state, betas)
    now, following = (
        betas[0] * (1 - 0.5 * 0.96 ** (t * momentum_decay)) for t in (moments["step"], moments["step"] + 1)
    )
    product = state.get("mu_product", 1.0) * now
    mean = (1 - now) * g / (1 - product) + following * moments["exp_avg"] / (1 - product * following)
    return w - lr * mean / _root_mean_square(moments, betas, eps), {**moments, "mu_product": product}


def _faded(old: Floats, new: Floats, keep: float) -> Floats:
    return keep * old + (1 - keep) * new


def _moments(g: Floats, state: State, betas: Betas) -> dict[str, Any]:
    return {
        "step": state.get("step", 0) + 1,
        "exp_avg": _faded(state.get("exp_avg", 0.0), g, betas[0]),
        "exp_avg_sq": _faded(state.get("exp_avg_sq", 0.0), g**2, betas[1]),
    }


def _root_mean_square(moments: State, betas: Betas, eps: float) -> Floats:
    return np.sqrt(moments["exp_avg_sq"] / (1 - betas[1] ** moments["step"])) + eps
