"""What follows from the rounds of the benchmarks of engines and of the start from the shell."""

from types import SimpleNamespace

import engines
import startup


def test_ratios_are_to_eager_as_a_script_has_it_and_as_residuum_has_it() -> None:
    rates = {engines.BASE: 10.0, engines.OWN: 20.0, "OpenVINO, int8": 85.0, "ONNX Runtime, int8": 60.0}
    figures = {
        engines.arm_of(name, batch): {"images_per_second": rate}
        for batch in engines.BATCHES
        for name, rate in rates.items()
    }
    found = engines.findings(SimpleNamespace(rounds=[figures]))  # type: ignore[arg-type]
    assert found["times_as_fast_as_eager"]["OpenVINO, int8, batch 32"]["median"] == 8.5
    assert found["times_as_fast_as_residuums_eager"]["OpenVINO, int8, batch 32"]["median"] == 4.25
    assert found["goals"]["batch 32"] == {
        "goal": 8.0,
        "best": "OpenVINO, int8, batch 32",
        "best_int8": 8.5,
        "best_int8_to_residuums_eager": 4.25,
        "met": True,
    }


def test_the_first_prediction_of_exports_alone_has_a_goal() -> None:
    seconds = {
        "residuum predict": 1.0,
        "residuum predict, ResNet-50, PyTorch": 2.0,
        "residuum predict, ResNet-50, OpenVINO, int8": 0.6,
        "residuum predict, ResNet-50, ONNX Runtime, int8": 0.4,
    }
    found = startup.first_prediction(seconds)
    assert list(found["met"].values()) == [False, True]
    assert found["goal_seconds"] == 0.5
