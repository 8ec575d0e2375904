"""The page says what the results say, and the tables' arithmetic is right."""

from typing import Any

import pytest
from tables import GOALS, MARKED, MEASURED, PAGE, RESULTS, TABLES, fill, read_results

ALL = "".join(f"<!-- table: {name} -->\n<!-- end -->\n" for name in TABLES)


def record(rounds: list[dict[str, dict[str, float]]], **more: Any) -> dict[str, Any]:
    versions = {"python": "3.11.7", "torch": "2.15.0", "torchvision": "0.29.2", "pillow": "13.0.0"}
    hardware = {"processor": "a processor", "cores": 2, "threads": 2, "instructions": "AVX512"}
    command = "python benchmarks/training.py cifar cifar10"
    return {"command": command, "versions": versions, "hardware": hardware, "rounds": rounds, **more}


def rates(**arms: list[float]) -> list[dict[str, dict[str, float]]]:
    names = [name.replace("_", " ") for name in arms]
    return [
        {name: {"images_per_second": value} for name, value in zip(names, values, strict=True)}
        for values in zip(*arms.values(), strict=True)
    ]


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert fill(page, read_results(RESULTS)) == page, "run: python benchmarks/tables.py"


def test_the_page_asks_for_every_table_once() -> None:
    assert [found[1] for found in MARKED.findall(PAGE.read_text(encoding="utf-8"))] == list(TABLES)


def test_what_was_not_measured_is_left_out_heading_and_all() -> None:
    assert fill(ALL, {}) == ALL


def test_filling_twice_changes_nothing_more() -> None:
    results = {"training-cifar": record(rates(peer=[1.0], residuum=[3.0], residuum_in_fp32=[2.0]))}
    once = fill(ALL, results)
    assert once != ALL
    assert fill(once, results) == once
    assert fill(once, {}) == ALL


def test_a_ratio_is_the_median_of_the_rounds_ratios_and_not_the_ratio_of_medians() -> None:
    own, fp32 = [300.0, 400.0, 900.0], [100.0, 100.0, 300.0]
    rounds = rates(peer=[100.0, 200.0, 150.0], residuum=own, residuum_in_fp32=fp32)
    page = fill(ALL, {"training-cifar": record(rounds)})  # ratios 3, 2 and 6; of medians it would be 2.67
    assert "| 150 | 400 | 3.00 (2.00 to 6.00) | 1.00 (0.50 to 2.00) | 2.5: met |" in page
    assert "Goals missed" not in page


def test_figures_come_from_the_rounds_and_not_from_what_the_record_says_of_them() -> None:
    rounds = rates(peer=[100.0], residuum=[200.0], residuum_in_fp32=[100.0])
    claimed = {"times_as_fast_as_peer": {"residuum": {"median": 99.0}}}
    page = fill(ALL, {"training-imagenet": record(rounds, **claimed)})
    assert "99" not in page
    assert "3.5: missed by 1.50" in page
    assert "- ResNet-50, photographs, 224x224, batch 32: 2.00 times as fast, goal 3.5" in page


def test_a_loader_is_compared_with_the_best_of_torchvisions() -> None:
    rounds = [
        {
            "torchvision, 1": {"images_per_second": 200.0},
            "torchvision, 2": {"images_per_second": 400.0},
            "residuum": {"images_per_second": 1000.0},
        }
    ]
    crops = {"largest_difference": 1, "share_beyond_one": 0.0, "crops": 256}
    memory = {"residuum": {"pss_mib": 1234.5, "rss_mib": 2000.0, "processes": 3}}
    page = fill(ALL, {"loading": record(rounds, crops_against_pillow=crops, memory=memory)})
    assert "| photographs, 224x224: torchvision, 1 process | 200 | 0.50 (0.50 to 0.50) |" in page
    assert "| photographs, 224x224: torchvision, 2 processes | 400 | 1 |" in page
    assert "| 1,000 | 2.50 (2.50 to 2.50) | 2.5: met | 1,234 (3) |" in page
    assert (
        "Of 256 crops of the same boxes, those of residuum differ from Pillow's by at most 1 grey level of 255." in page
    )


def test_help_that_is_too_slow_is_named_and_a_prediction_compared_by_time() -> None:
    seconds = {"residuum --help": 0.25, "residuum train --help": 0.5, "residuum predict": 2.0}
    one = {name: {"seconds": value} for name, value in {**seconds, "torchvision predict": 4.0}.items()}
    page = fill(ALL, {"startup": record([one])})
    assert "| `residuum -h` | 0.25 (0.25 to 0.25) | under 0.3: met |" in page
    assert "| `residuum train -h` | 0.50 (0.50 to 0.50) | under 0.3: missed by 0.20 |" in page
    assert "- `residuum train -h`: 0.50 s, goal 0.3" in page
    assert "is 2.00 (2.00 to 2.00) times as fast as with the plain torchvision script" in page


def test_evaluation_is_compared_for_one_crop_and_says_how_far_the_losses_are_apart() -> None:
    losses = {"peer": 2.3, "residuum": 2.4, "residuum in fp32": 2.3002, "residuum, 10-crop": 9.0}
    speed = {"peer": 20.0, "residuum": 60.0, "residuum in fp32": 30.0, "residuum, 10-crop": 6.0}
    one = {arm: {"images_per_second": speed[arm], "loss": losses[arm]} for arm in speed}
    page = fill(ALL, {"evaluation-photos": record([one])})
    work = "ResNet-50, photographs, 224x224, batch 32"
    assert f"| {work}: 1-crop | 20 | 60 | 3.00 (3.00 to 3.00) | 1.50 (1.50 to 1.50) |" in page
    assert f"| {work}: 10-crop | | 6 | | |" in page
    assert "the mean losses of both are at most 2e-04 nats apart" in page


def test_every_result_names_its_command_its_rounds_and_its_machine() -> None:
    page = fill(ALL, {"training-cifar": record(rates(peer=[1.0], residuum=[3.0], residuum_in_fp32=[2.0]))})
    assert "- 1 round: `python benchmarks/training.py cifar cifar10`" in page
    assert "a processor, 2 cores, 2 threads, AVX512; Python 3.11.7, torch 2.15.0" in page


def test_a_marker_that_names_no_table_is_refused() -> None:
    with pytest.raises(SystemExit, match="speed"):
        fill("<!-- table: speed -->\n<!-- end -->\n", {})


def test_every_result_with_a_table_has_its_benchmark() -> None:
    assert set(GOALS) <= set(MEASURED)
    assert all((RESULTS.parent / f"{name.partition('-')[0]}.py").exists() for name in MEASURED)
