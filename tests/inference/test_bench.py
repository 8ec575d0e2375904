"""Engines are measured in turns, each figure is what its name says, and one that fails does not end the rest."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from residuum.data.preprocessing import Preprocessing
from residuum.errors import UserError
from residuum.inference import bench as module
from residuum.inference.bench import Arm, Run, Speed, base_of, measure, record, speedups

HANDLING = Preprocessing(3, 8)


class Clock:
    """A time that passes only when somebody computes."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[tuple[str, int]] = []

    def computing(self, name: str, seconds: Callable[[int], float]) -> Run:
        """seconds: of a batch of so many images."""

        def run(images: np.ndarray) -> None:
            self.calls.append((name, len(images)))
            self.now += seconds(len(images))

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: made.now))
    return made


def arm(name: str, run: Run) -> Arm:
    return Arm("model", name, HANDLING, lambda: (f"{name} in words", run))


def measured(*arms: Arm, rounds: int = 3, seconds: float = 1.0) -> list[Speed]:
    return measure(arms, batch_size=4, rounds=rounds, seconds=seconds, look=lambda _: None)


def test_figures_are_what_their_names_say(clock: Clock) -> None:
    slow = arm("eager", clock.computing("eager", lambda images: 0.25 + 0.25 * images))
    fast = arm("openvino", clock.computing("openvino", lambda images: 0.125 * images))
    base, other = measured(slow, fast)
    assert (base.words, other.ready) == ("eager in words", 0.125 * 5)
    figures = record(other, base)
    assert figures["latency_ms"]["p50"] == figures["latency_ms"]["p99"] == 125
    assert figures["latency_ms"]["calls"] == 3 * 8
    assert figures["images_per_second"]["median"] == 4 / 0.5
    assert figures["speedup_at_1"]["median"] == 0.5 / 0.125
    assert figures["speedup_at_batch"]["least"] == 1.25 / 0.5


def test_the_99th_percentile_is_that_of_the_slow_calls(clock: Clock) -> None:
    durations = iter([0.01] * 3 + ([0.01] * 49 + [1.0]) * 100)
    (speed,) = measured(arm("eager", clock.computing("eager", lambda _: next(durations))), rounds=5)
    assert speed.latency(50) == pytest.approx(0.01)
    assert speed.latency(99) == pytest.approx(1.0)


def test_engines_take_turns_after_all_are_warm_and_none_is_always_the_first(clock: Clock) -> None:
    names = ("eager", "openvino")
    arms = [arm(name, clock.computing(name, lambda _: 1.0)) for name in names]
    turns: list[str] = []
    measure(arms, batch_size=4, rounds=3, seconds=1.0, look=turns.append)
    opened, turns = turns[:2], [turn.rpartition(" ")[2] for turn in turns[2:]]
    assert opened == ["opening eager", "opening openvino"]
    assert turns == ["eager", "openvino", "openvino", "eager", "eager", "openvino"]


def test_each_engine_sees_one_image_and_then_a_batch(clock: Clock) -> None:
    measured(arm("eager", clock.computing("eager", lambda _: 1.0)), rounds=1, seconds=0.0)
    assert [images for _, images in clock.calls] == [1, 4, *[1, 4] * 3, *[1] * 4, *[4] * 4]


def test_an_engine_that_fails_is_a_row_that_says_why(clock: Clock) -> None:
    def refuse() -> tuple[str, Run]:
        raise UserError("there is no compiler; install one")

    budget = iter(range(12))

    def break_down(images: np.ndarray) -> None:
        if next(budget, None) is None:
            raise RuntimeError("out of\nluck")
        clock.now += 1.0

    arms = (
        Arm("model", "eager", HANDLING, refuse),
        arm("compiled", break_down),
        arm("openvino", clock.computing("openvino", lambda _: 1.0)),
    )
    speeds = measured(*arms)
    assert [speed.error for speed in speeds] == ["there is no compiler; install one", "RuntimeError: out of", None]
    assert base_of(speeds) is speeds[2]
    assert record(speeds[0], speeds[2])["error"] == "there is no compiler; install one"
    assert speedups(speeds[2], speeds[2]) == ([1, 1, 1], [1, 1, 1])


def test_ctrl_c_ends_the_measurement(clock: Clock) -> None:
    def interrupted(images: np.ndarray) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(arm("eager", interrupted))


def test_without_any_engine_that_works_there_is_nothing_to_compare_with() -> None:
    assert base_of([Speed("model", "eager", error="no")]) is None
