"""`losses`: cross-entropy against squared error for classes; L1, L2 and smooth L1 for numbers, some of them wrong."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from residuum.data.decoding import BadImage
from residuum.data.facts import DataFacts, data_facts
from residuum.data.preprocessing import Preprocessing
from residuum.data.splits import Split
from residuum.hardware import choose_device
from residuum.models.catalogue import create_model
from residuum.randomness import derived_seed, permutation, uniform
from residuum.records import Cell, Chart, Series, Table
from residuum.studies.results import Results, Spread, contrast, error_chart, in_words, known, spread
from residuum.studies.small_images import cifar_plan, cifar_run
from residuum.studies.study import Arm, Finding, Plan, ScaleName, Study, Subject

Floats = NDArray[np.float64]

_CROSS_ENTROPY, _SQUARED = "cross-entropy", "squared error"
_FASTER = "squared error, its rate raised"
_REGRESSION: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "L2": F.mse_loss,
    "L1": F.l1_loss,
    "smooth L1": F.smooth_l1_loss,  # Girshick 2015, equation 3: beta is 1
}
_SHARES = (0.0, 0.1, 0.3)  # of the training targets: gross outliers
_TARGETS = 4  # centre and extent, down and across
_FITTING: dict[str, Any] = {
    "batch_size": 64,
    "side": 32,  # pixels, at most
    "lr": 3e-3,  # Adam's at first; it falls to nothing along a line
}
_MODELS: dict[ScaleName, str] = {"smoke": "resnet8", "small": "resnet20", "paper": "resnet20"}
_EPOCHS: dict[ScaleName, int] = {"smoke": 8, "small": 12, "paper": 60}


def plan(scale: ScaleName, facts: DataFacts) -> Plan:
    """A classifier a loss; and a regression of where the ink is, a loss and a share of wrong targets an arm."""
    rate = cifar_run(scale, facts, _MODELS[scale]).optimizer.lr
    classifiers = {
        _CROSS_ENTROPY: ("loss.name=cross-entropy",),
        _SQUARED: ("loss.name=mse",),
        # The gradient by an output is that of the cross-entropy times 2 / classes, at outputs that are probabilities.
        _FASTER: ("loss.name=mse", f"optimizer.lr={rate * facts.classes / 2}"),
    }
    arms = [Arm(name, cifar_run(scale, facts, _MODELS[scale], *changes)) for name, changes in classifiers.items()]
    common = {"model": _MODELS[scale], "epochs": _EPOCHS[scale], **_FITTING}
    for loss in _REGRESSION:
        for share in _SHARES:
            arms.append(Arm(_name(loss, share), measure=measure, settings={**common, "loss": loss, "outliers": share}))
    return cifar_plan(scale, tuple(arms))


def _name(loss: str, share: float) -> str:
    return f"{loss}, {100 * share:.0f} % outliers"


# The regression: as Fast R-CNN's of boxes, but of the place of the ink, which every image has.


def measure(subject: Subject) -> Mapping[str, Any]:
    """Train a residual network to tell centre and extent of the ink; its errors on the clean test targets.

    In % of the image's side: "mean absolute", "root mean square"; "always the median" is the mean absolute error of
    who answers the training targets' median.
    """
    settings, seed = subject.settings, subject.seed
    splits = (subject.dataset.train, subject.dataset.held_out()[1])
    train, test = (_pictures(split, settings["side"]) for split in splits)
    targets = with_outliers(ink_boxes(train), settings["outliers"], seed)
    low, median, high = np.quantile(targets, (0.25, 0.5, 0.75), axis=0)
    scale = np.maximum(high - low, 1e-3)  # robust, so that the outliers do not decide it
    predict = _trained(_scaled(train, train), (targets - median) / scale, settings, seed)
    truth = ink_boxes(test)
    errors = 100 * (predict(_scaled(test, train)) * scale + median - truth)
    return {
        "mean absolute": float(np.abs(errors).mean()),
        "root mean square": float(np.sqrt(np.square(errors).mean())),
        "always the median": float(100 * np.abs(median - truth).mean()),
    }


def _pictures(split: Split, side: int) -> NDArray[np.uint8]:
    """(N, S, S) grey, of at most `side` pixels; what cannot be read is left out."""
    facts = data_facts(split, (), False)
    view = Preprocessing(1, min(side, facts.height, facts.width), mean=(0.0,), std=(1.0,)).view
    pictures = []
    for index in range(len(split)):
        with suppress(BadImage):
            pictures.append(view(split.read(index, 1))[:, :, 0])
    return np.stack(pictures)


def ink_boxes(images: NDArray[np.uint8]) -> Floats:
    """(N, S, S) to (N, 4): the centre of mass of the ink, down and across, and its extents, four standard deviations.

    In shares of the side. Ink is what differs from the median of the image's border; without any: the middle, and 0.
    """
    border = np.concatenate([images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1]], axis=1)
    ink = np.abs(images.astype(np.float64) - np.median(border, axis=1)[:, None, None])
    places = (np.arange(images.shape[1]) + 0.5) / images.shape[1]
    boxes = []
    for axis in (2, 1):  # what is left is down, then across
        weights = ink.sum(axis=axis)
        total = weights.sum(axis=1, keepdims=True)
        weights = np.where(total > 0, weights, 0) / np.maximum(total, 1)
        centre = np.where(total[:, 0] > 0, weights @ places, 0.5)
        variance = (weights * np.square(places - centre[:, None])).sum(axis=1)
        boxes.append((centre, 4 * np.sqrt(variance)))
    (down, tall), (across, wide) = boxes
    return np.stack([down, across, tall, wide], axis=1)


def with_outliers(targets: Floats, share: float, seed: int) -> Floats:
    """The targets (N, 4) with about a share of the rows replaced: any place and extent up to two sides."""
    numbers = uniform(seed, "losses/outliers", 0, np.arange(len(targets)), 1 + targets.shape[1])
    return np.where(numbers[:, :1] < share, 2 * numbers[:, 1:], targets)


def _scaled(images: NDArray[np.uint8], train: NDArray[np.uint8]) -> Tensor:
    """(N, 1, S, S) float32 of the training images' mean 0 and variance 1."""
    return torch.from_numpy((images - train.mean()) / train.std()).float()[:, None]


def _trained(images: Tensor, targets: Floats, settings: Mapping[str, Any], seed: int) -> Callable[[Tensor], Floats]:
    """A network fitted by Adam; what it says of images."""
    device, loss, size = choose_device(), _REGRESSION[settings["loss"]], min(settings["batch_size"], len(images))
    wanted = torch.from_numpy(targets).float()
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(seed, "losses/initialisation"))
        network = create_model(settings["model"], num_classes=_TARGETS, in_channels=1).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings["lr"])
    updates = settings["epochs"] * (len(images) // size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: 1 - update / updates)
    for epoch in range(settings["epochs"]):
        order = permutation(seed, "losses/order", epoch, len(images))
        for start in range(0, len(order) - size + 1, size):
            chosen = order[start : start + size]
            optimizer.zero_grad()
            loss(network(images[chosen].to(device)), wanted[chosen].to(device)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return lambda seen: _said(network.eval(), seen, device)


@torch.no_grad()
def _said(network: nn.Module, images: Tensor, device: torch.device) -> Floats:
    parts = [network(part.to(device)).cpu() for part in torch.split(images, 500)]
    return torch.cat(parts).double().numpy()


# The answer.


def answer(results: Results) -> Finding:
    """Squared error against cross-entropy by test error; the three regressions by their error on clean targets."""
    classifiers = [arm for arm in (_CROSS_ENTROPY, _SQUARED, _FASTER) if arm in results.outcomes]
    told = [in_words(contrast(results, _CROSS_ENTROPY, arm)) + "." for arm in classifiers[1:]]
    return Finding(
        verdict=" ".join([*told, *(_regression(results, share) for share in (_SHARES[0], _SHARES[-1]))]),
        table=_table(results),
        charts=(error_chart(results, classifiers, "Classification"), _chart(results)),
        notes=(
            f"{_FASTER}: times half the classes, so that at outputs near probabilities its gradient is as large as "
            "the cross-entropy's",
            "regression: centre and extent of the ink, in % of the image's side, by a residual network, as Fast R-CNN "
            "regresses boxes; the outliers are training targets replaced by any place and extent up to two sides; "
            f"always answering the median errs by {_baseline(results):.2f} % (mean absolute error)",
        ),
    )


def _errors(results: Results, loss: str, share: float, key: str = "mean absolute") -> Spread:
    return spread(_number(outcome.measured[key]) for outcome in results.outcomes[_name(loss, share)])


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _regression(results: Results, share: float) -> str:
    errors = {loss: _errors(results, loss, share) for loss in _REGRESSION}
    order = sorted(errors, key=lambda loss: errors[loss].mean if errors[loss].n else math.inf)
    named = ", ".join(f"{loss} {errors[loss]} %" for loss in order)
    which = f"With {100 * share:.0f} % gross outliers in training" if share else "Without outliers"
    return f"{which} the mean absolute error on clean test targets is {named} of the side."


def _baseline(results: Results) -> float:
    return spread(one.measured["always the median"] for one in results.outcomes[_name("L2", 0.0)]).mean


def _table(results: Results) -> Table:
    columns = (
        *("arm", "train error [%]", "test error [%]", "± test [%]"),
        *("mean absolute error [% of side]", "± absolute", "root mean square error [% of side]", "seeds"),
    )
    classifiers = [arm.name for arm in results.plan.arms if arm.run is not None]
    rows = [_classifier_row(results, arm) for arm in classifiers]
    rows += [_regression_row(results, loss, share) for share in _SHARES for loss in _REGRESSION]
    return Table("Losses", columns, tuple(rows))


def _classifier_row(results: Results, arm: str) -> tuple[Cell, ...]:
    trained, tested = results.spread(arm, "train_error"), results.spread(arm, "test_error")
    return arm, known(trained.mean), known(tested.mean), known(tested.std), None, None, None, tested.n


def _regression_row(results: Results, loss: str, share: float) -> tuple[Cell, ...]:
    absolute, square = _errors(results, loss, share), _errors(results, loss, share, "root mean square")
    measured = (absolute.mean, absolute.std, square.mean)
    return _name(loss, share), None, None, None, *map(known, measured), absolute.n


def _chart(results: Results) -> Chart:
    panels = tuple(
        tuple(_line(results, loss, key, number) for number, loss in enumerate(_REGRESSION))
        for key in ("mean absolute", "root mean square")
    )
    alt = "Error of the regression on clean test targets over the share of outliers among the training targets"
    return Chart("Regression with outliers", panels, alt)


def _line(results: Results, loss: str, key: str, number: int) -> Series:
    errors: Sequence[Spread] = [_errors(results, loss, share, key) for share in _SHARES]
    stds = tuple(0.0 if math.isnan(one.std) else one.std for one in errors)
    return Series(
        name=loss,
        x=tuple(100 * share for share in _SHARES),
        y=tuple(one.mean for one in errors),
        x_label="outliers [%]",
        y_label=f"{key} error [% of side]",
        run=number,
        spread=stds if any(stds) else (),
        has_markers=True,
    )


STUDY = Study(
    name="losses",
    question="Why not squared error for classes, and which loss for numbers when some targets are grossly wrong?",
    source='Girshick 2015, "Fast R-CNN", section 2.3; Huber 1964; Hui & Belkin 2021',
    plan=plan,
    answer=answer,
)
