"""`signal`: what is measured at every checkpoint, and what is said of it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from depth_results import DIGITS, made_up

from residuum.data.facts import DataFacts
from residuum.studies.engine import run_study
from residuum.studies.signal import STUDY, plan
from residuum.studies.study import Plan, ScaleName

NAMES = ("plain-56, BN", "plain-56, no BN", "resnet-56, BN", "resnet-56, no BN")


def signals(std: Sequence[float], gradient: Sequence[float], steps: int = 1) -> dict[str, Any]:
    layers = [f"conv{n}" for n in range(len(std))]
    return {"steps": list(range(steps)), "layers": layers, "std": [std] * steps, "gradient": [gradient] * steps}


HEALTHY = signals([1.0, 1.0], [0.1, 0.2], 3)


def _small(scale: ScaleName, facts: DataFacts) -> Plan:
    whole = plan(scale, facts)
    arms = []
    for arm in whole.arms:
        shallow = replace(arm.run, model=replace(arm.run.model, name="plain8"), epochs=2) if arm.run else None
        settings = dict(arm.settings)
        if arm.run is None:
            settings["run"] = {**settings["run"], "model": {**settings["run"]["model"], "name": "plain8"}}
        arms.append(replace(arm, run=shallow, settings=settings))
    return Plan(tuple(arms[:2]), train_images=200, test_images=100, seeds=1)


def test_every_checkpoint_is_measured_from_the_first_weights_on(tmp_path: Path) -> None:
    study = replace(STUDY, plan=_small)
    untrained, trained = (
        one[0].measured for one in run_study(study, out=tmp_path, scale="smoke").results.outcomes.values()
    )
    assert (untrained["steps"], trained["steps"]) == ([0], [0, 3, 6])
    assert untrained["layers"] == trained["layers"]
    assert (len(trained["layers"]), trained["layers"][0]) == (7, "conv1")
    assert trained["std"][0] == pytest.approx(untrained["std"][0])  # the run starts from these very weights
    assert trained["gradient"][0] == pytest.approx(untrained["gradient"][0], rel=1e-4)
    assert trained["gradient"][2] != trained["gradient"][0]
    assert all(value > 0 for row in trained["gradient"] for value in row)


def test_arms_with_and_without_bn_differ_in_nothing_else() -> None:
    arms = {arm.name: arm for arm in plan("smoke", DIGITS).arms}
    assert [name for name in arms if not name.endswith("untrained")] == list(NAMES)
    run, bare = arms[NAMES[0]].run, arms[NAMES[1]].run
    assert run is not None
    assert bare == replace(run, model=replace(run.model, normalisation="none"))
    assert arms[f"{NAMES[0]}, untrained"].settings["run"] == run.to_dict()


def found(plain: dict[str, Any], trained: dict[str, Any] | None = None, bare: dict[str, Any] = HEALTHY) -> str:
    measured = {key: [HEALTHY] for key in (*NAMES, *(f"{name}, untrained" for name in NAMES))}
    measured[f"{NAMES[0]}, untrained"] = [plain]
    measured[f"{NAMES[3]}, untrained"] = [bare]
    errors = {key: [(1.0, 2.0)] for key in NAMES}
    if trained is None:
        del errors[NAMES[0]]
    else:
        measured[NAMES[0]] = [trained]
    return STUDY.answer(made_up(STUDY, errors, measured=measured)).verdict


def test_the_verdict_is_made_from_the_numbers() -> None:
    assert "gradients do not vanish: the smallest of any layer, at initialisation or at any" in found(HEALTHY, HEALTHY)
    assert "explodes" not in found(HEALTHY, HEALTHY)
    assert "In plain-56, BN, gradients vanish" in found(signals([1.0, 1.0], [1e-7, 1e-3]), HEALTHY)
    assert "In plain-56, BN, gradients vanish" in found(HEALTHY, signals([1.0, 1.0], [1e-7, 1e-3], 3))
    growing = found(signals([1.0, 1.0], [200.0, 0.1]), HEALTHY)
    assert "do not vanish" in growing
    assert "But it explodes: untrained it is up to 200 times the weights, 2,000 times as large in one layer" in growing
    bare = found(HEALTHY, HEALTHY, signals([0.1, 90.0], [50.0, 40.0]))
    assert "resnet-56, no BN has exploding gradients" in bare
    assert "a signal from 0.1 in the first layer to 90 in the last" in bare


def test_what_is_beyond_all_numbers_explodes() -> None:
    """JSON has no infinity: None stands for it."""
    endless: Any = signals([1.0, 1.0], [0.1, 0.2], 3) | {"gradient": [[0.1, 0.2], [1e-9, None], [0.1, 0.2]]}
    assert found(HEALTHY, endless).count("But it explodes: while training it is beyond all numbers.") == 1
    at_first: Any = signals([1.0, 1.0], [1e-9, 0.2]) | {"gradient": [[1e-9, None]], "std": [[1.0, None]]}
    assert "But it explodes: untrained it is beyond all numbers." in found(at_first, HEALTHY)
    bare = found(HEALTHY, HEALTHY, at_first)
    assert "resnet-56, no BN has exploding gradients (1.0e-09 to inf of the weights)" in bare
    assert "a signal from 1 in the first layer to inf in the last" in bare


def test_of_seeds_whose_checkpoints_differ_the_common_ones_are_taken() -> None:
    measured = {key: [HEALTHY] for key in (*NAMES, *(f"{name}, untrained" for name in NAMES))}
    first, second = (signals([1.0, 1.0], [0.1, 0.2], 4) for _ in range(2))
    second = {**second, "steps": [0, 2, 3, 5], "gradient": [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8]]}
    measured[NAMES[0]] = [first, second]
    errors = {key: [(1.0, 2.0)] * len(measured[key]) for key in NAMES}
    *_, training = STUDY.answer(made_up(STUDY, errors, measured=measured)).charts
    assert training.panels[1][0].x == (0.0, 2.0, 3.0)
    assert training.panels[1][0].y == pytest.approx((0.1, 0.2, 0.3))


def test_what_diverged_is_still_shown_untrained() -> None:
    measured = {key: [HEALTHY] for key in (*NAMES, *(f"{name}, untrained" for name in NAMES))}
    results = made_up(STUDY, {key: [(1.0, 2.0)] for key in NAMES[:3]}, measured=measured)
    finding = STUDY.answer(results)
    assert [row[0] for row in finding.table.rows] == list(NAMES)
    assert finding.table.rows[3][-2:] == (None, 0)
    assert finding.table.notes == ("resnet-56, no BN: the loss is nan at update 3",)
    start, end, training = finding.charts
    assert [len(chart.panels[0]) for chart in (start, end, training)] == [4, 3, 3]
    assert start.panels[1][0].y == (0.1, 0.2)


def test_nothing_but_initial_weights_is_an_answer_too() -> None:
    measured = {key: [HEALTHY] for key in (f"{name}, untrained" for name in NAMES)}
    finding = STUDY.answer(made_up(STUDY, {}, measured=measured))
    assert "the smallest of any layer, at initialisation, is" in finding.verdict
    assert len(finding.charts) == 1
