"""The GPU benchmark's ways without a GPU: going on, keeping to the time, saying what failed, judging."""

import json
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import gpu
import gpu_processes
import gpu_record
import gpu_runs
import gpu_steps
from gpu_data import first_images, random_images, read_arrays, write_arrays
from gpu_record import Budget, Line, MissingError, Piece, Record, Row, figure, measure_rows, one_by_one, table
from gpu_setting import SMOKE, Setting, interleaved, median_ratio
from peers import gpu_cifar

from residuum.errors import UserError

HEAD = {"hardware": "a GPU", "versions": "these"}
Measure = Callable[[], Mapping[str, Any]]


def row_of(name: str, seconds: float = 1.0, **pieces: Measure) -> Row:
    made = [Piece(piece, seconds, measure) for piece, measure in pieces.items()]
    return Row(name, one_by_one(made), lambda done: [Line("sum", sum(run["value"] for run in done.values()), "s", 3)])


def measure(path: Path, *rows: Row, budget: float = 100.0) -> tuple[Record, list[str]]:
    """One call of the benchmark: its record, and what it said."""
    record, said = Record(path, HEAD), []
    measure_rows(rows, record, Budget(budget, time.monotonic()), said.append)
    return record, said


def raising(error: BaseException) -> Measure:
    def fail() -> Mapping[str, Any]:
        raise error

    return fail


def noting(name: str, order: list[str]) -> Measure:
    return lambda: order.append(name) or {"value": 1}


def saved(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())["rows"]


def one() -> Mapping[str, Any]:
    return {"value": 1}


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(torch.device("cpu"), SMOKE, True, None, None, tmp_path / "work", lambda: 100.0)


def test_goes_on_with_the_piece_after_the_last_that_was_done(tmp_path: Path) -> None:
    path, order = tmp_path / "r.json", []
    last = row_of("b", w=noting("w", order))
    with pytest.raises(KeyboardInterrupt):
        measure(path, row_of("a", x=noting("x", order), y=raising(KeyboardInterrupt())), last)
    assert saved(path)["a"]["status"] == "unfinished"
    assert list(saved(path)["a"]["pieces"]) == ["x"]
    for _ in range(2):
        measure(path, row_of("a", x=noting("x", order), y=noting("y", order)), last)
        assert order == ["x", "y", "w"]
    assert [row["status"] for row in saved(path).values()] == ["finished", "finished"]


def test_every_piece_is_on_the_disk_before_the_next_begins(tmp_path: Path) -> None:
    path, seen = tmp_path / "r.json", []
    measure(path, row_of("a", x=one, y=lambda: seen.append(list(saved(path)["a"]["pieces"])) or {"value": 1}))
    assert seen == [["x"]]


def test_what_no_longer_fits_the_budget_is_left_and_what_fits_is_measured(tmp_path: Path) -> None:
    record, said = measure(tmp_path / "r.json", row_of("long", 50, x=one), row_of("short", 5, x=one), budget=20)
    assert record.row("long")["status"] == "unfinished"
    assert "needs about 50 s" in record.row("long")["note"]
    assert record.row("short")["status"] == "finished"
    assert any("long: unfinished" in line for line in said)


def test_a_piece_that_outlasts_the_budget_is_cut_off_and_not_begun_again_without_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_record, "GRACE", 0.1)
    begun = []

    def forever() -> Mapping[str, Any]:
        begun.append(1)
        while True:
            time.sleep(0.01)

    before = signal.getsignal(signal.SIGALRM)
    record, _said = measure(tmp_path / "r.json", row_of("a", 0.0, x=forever), budget=1.0)
    assert record.row("a")["status"] == "unfinished"
    took = record.row("a")["at_least"]["x"]
    measure(tmp_path / "r.json", row_of("a", 0.0, x=forever), budget=1.1 * took)
    assert len(begun) == 1
    assert signal.getsignal(signal.SIGALRM) is before


def test_a_row_that_fails_is_recorded_and_the_next_goes_on(tmp_path: Path) -> None:
    broken = row_of("broken", x=raising(ZeroDivisionError("by\nnought")))
    record, _said = measure(tmp_path / "r.json", broken, row_of("sound", x=one))
    assert record.row("broken")["status"] == "failed"
    assert record.row("broken")["note"] == "ZeroDivisionError: by nought"
    assert "raise error" in record.row("broken")["traceback"]
    assert record.row("sound")["status"] == "finished"


def test_what_failed_is_tried_again_after_all_others(tmp_path: Path) -> None:
    path, order = tmp_path / "r.json", []
    measure(path, row_of("a", x=raising(ValueError("no"))))
    record, _said = measure(path, row_of("a", x=noting("a", order)), row_of("b", x=noting("b", order)))
    assert order == ["b", "a"]
    assert record.row("a")["status"] == "finished"
    assert "traceback" not in record.row("a")


def test_what_is_missing_is_a_plain_line(tmp_path: Path) -> None:
    row = row_of("a", x=raising(MissingError("no CIFAR-10")))
    record, said = measure(tmp_path / "r.json", row)
    assert said == ["a: missing: no CIFAR-10"]
    assert table("", [row], record).notes == ("a: missing: no CIFAR-10",)


def test_figures_of_another_machine_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    measure(path, row_of("a", x=raising(MissingError("nothing"))))
    Record(path, {**HEAD, "hardware": "another"})  # nothing was measured yet
    measure(path, row_of("a", x=one))
    with pytest.raises(UserError, match="another hardware: a GPU, not another"):
        Record(path, {**HEAD, "hardware": "another"})


def test_numbers_that_json_lacks_do_not_spoil_the_file(tmp_path: Path) -> None:
    row = Row("a", one_by_one([Piece("x", 1, lambda: {"value": float("nan")})]), lambda done: [])
    record, _said = measure(tmp_path / "r.json", row)
    assert saved(tmp_path / "r.json")["a"]["pieces"]["x"]["value"] is None
    assert record.row("a")["status"] == "finished"


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        (Line("", 30.0, "s", 30), "reached"),
        (Line("", 33.0, "s", 30), "missed by 3.00 s (10 %)"),
        (Line("", 4500.0, "images/s", 4500, at_most=False), "reached"),
        (Line("", 3000.0, "images/s", 4500, at_most=False), "missed by 1,500 images/s (33 %)"),
        (Line("", None, "s", 30), "not measured"),
        (Line("", 3.0, "s"), ""),
    ],
)
def test_verdicts(line: Line, verdict: str) -> None:
    assert line.verdict == verdict


def test_figures_have_the_digits_that_count() -> None:
    assert [figure(value) for value in (20_000, 123.44, 29.123, 0.51234)] == ["20,000", "123.4", "29.12", "0.5123"]


def test_the_table_shows_what_is_there_so_far(tmp_path: Path) -> None:
    row = row_of("a", x=one, y=raising(ValueError("no")))
    record, _said = measure(tmp_path / "r.json", row)
    made = table("GPU", [row], record)
    assert made.rows == (("a", "sum", "1.00 s", "<= 3.00 s", "reached", ""),)
    assert made.notes == ("a: failed: ValueError: no",)


def test_every_row_has_lines_and_a_first_piece_before_anything_is_measured(setting: Setting, tmp_path: Path) -> None:
    rows = gpu.all_rows(setting, Record(tmp_path / "r.json", HEAD))
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert row.next_piece({}) is not None
        assert all(line.value is None for line in row.lines({}))


def test_without_a_gpu_every_row_says_so_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--device", "cpu", "-o", str(tmp_path / "r.json")]) == 0
    said = capsys.readouterr()
    assert {row["status"] for row in saved(tmp_path / "r.json").values()} == {"missing"}
    assert "resnet20: missing: no CUDA device" in said.out
    assert "Traceback" not in said.out + said.err


def test_without_data_the_rows_that_need_them_say_so(tmp_path: Path) -> None:
    full = Setting(torch.device("cuda"), SMOKE, False, None, None, tmp_path, lambda: 100.0)
    for row in (gpu_runs.resnet20_row(full), gpu_runs.fashion_row(full)):
        record, _said = measure(tmp_path / "r.json", row)
        assert record.row(row.name)["status"] == "missing"
        assert "name it" in record.row(row.name)["note"]


def test_a_smoke_test_measures_a_row_and_again_measures_it_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--device", "cpu", "--smoke", "-o", str(tmp_path / "r.json")]
    assert gpu.main([*command, "--only", "resnet20"]) == 0
    first = saved(tmp_path / "r.json")["resnet20"]["pieces"]["seed 0"]
    assert first["updates"] == SMOKE.iterations
    assert "smoke test" in capsys.readouterr().out
    gpu.main([*command, "--only", "resnet20"])
    assert saved(tmp_path / "r.json")["resnet20"]["pieces"]["seed 0"] == first
    gpu.main([*command, "--only", "resnet20", "--again", "resnet20"])
    assert saved(tmp_path / "r.json")["resnet20"]["pieces"]["seed 0"] != first


def test_a_row_that_is_not_there_is_refused_with_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu.main(["--device", "cpu", "--only", "resnet2", "-o", str(tmp_path / "r.json")]) == 2
    assert "did you mean resnet20" in capsys.readouterr().err


def test_the_first_seed_is_not_trained_twice(setting: Setting, tmp_path: Path) -> None:
    record = Record(tmp_path / "r.json", HEAD)
    record.add("resnet20", "seed 0", {"seconds": 29.0, "accuracy": 91.5}, 31.0)
    for row, name in (
        (gpu_runs.seeds_row(setting, record), "seed 0"),
        (gpu_runs.nets_row(setting, record), SMOKE.nets[0]),
    ):
        piece = row.next_piece({})
        assert piece is not None
        assert piece.name == name
        assert piece.measure()["seconds"] == 29.0


def test_fast_cifar_repeats_what_reached_its_goals_soonest(setting: Setting) -> None:
    row = gpu_runs.fast_row(setting)
    done: dict[str, Mapping[str, Any]] = {
        "1 epochs, seed 0": {"epochs": 1, "seconds": 4.0, "accuracy": 94.2},
        "ResNet-9, seed 0": {"seconds": 5.0, "accuracy": 94.1},
        "2 epochs, seed 0": {"epochs": 2, "seconds": 9.0, "accuracy": 95.0},
    }
    names = []
    while (piece := row.next_piece(done)) is not None:
        names.append(piece.name)
        done = {**done, piece.name: {"epochs": 1, "seconds": 3.0, "accuracy": 93.9}}
    assert names == ["1 epochs, seed 1", "1 epochs, seed 2"]
    lines = row.lines(done)
    assert lines[0].value == 4.0
    assert lines[0].goal == 5.0  # the peer's time
    assert lines[0].note == "1 epochs; seeds: 94.20, 93.90, 93.90 %"
    assert lines[1].verdict == "not measured"


def test_arms_take_turns_and_ratios_stay_within_a_round() -> None:
    order: list[str] = []
    arms = {name: lambda name=name: order.append(name) or float(len(order)) for name in "ab"}
    assert interleaved(arms, 2) == {"a": [1.0, 4.0], "b": [2.0, 3.0]}
    assert order == ["a", "b", "b", "a"]
    assert median_ratio([2.0, 9.0, 30.0], [1.0, 3.0, 10.0]) == statistics.median([2.0, 3.0, 3.0])


def test_arrays_come_back_from_their_file_with_the_same_fingerprint(tmp_path: Path) -> None:
    dataset = random_images(20, 10, 8)
    write_arrays(dataset, tmp_path / "a.npz")
    write_arrays(dataset, tmp_path / "b.npz")
    prints = {read_arrays(str(tmp_path / name)).fingerprint() for name in ("a.npz", "b.npz")}
    assert prints == {dataset.fingerprint()}
    few = first_images(dataset, 5)
    assert few.train.labels.tolist() == [0, 4, 8, 2, 6]


def test_any_data_spec_is_decoded_as_it_is() -> None:
    dataset = read_arrays("digits")
    assert len(dataset.train) + len(dataset.splits["test"]) == 1797
    assert dataset.train.read(0, 1).shape == (8, 8, 1)


def test_a_child_that_fails_says_why() -> None:
    with (
        gpu_processes.process(["-c", "raise SystemExit('no such thing')"]) as child,
        pytest.raises(RuntimeError, match="ended with 1; it said: no such thing"),
    ):
        gpu_processes.answer(child)


def test_a_child_is_asked_to_stop_at_the_end_of_its_slice_and_goes_with_the_block() -> None:
    sleeping = "import time; print(1, flush=True); time.sleep(60)"
    with gpu_processes.process(["-c", sleeping]) as child:
        assert gpu_processes.answer(child) == 1
        assert gpu_processes._stops_after(child, 0.01)
    with gpu_processes.process(["-c", "print(2)"]) as child:
        assert not gpu_processes._stops_after(child, 30)
        assert gpu_processes.answer(child) == 2
    with gpu_processes.process(["-c", sleeping]) as child:
        pass
    assert child.returncode == -signal.SIGKILL


def test_the_deepest_net_goes_on_until_a_slice_ends_it(setting: Setting) -> None:
    row = gpu_processes.deepest_row(setting)
    done: dict[str, Mapping[str, Any]] = {"slice 0": {"seconds": 500.0, "updates": 3, "is_finished": False}}
    piece = row.next_piece(done)
    assert piece is not None
    assert piece.name == "slice 1"
    assert row.lines(done)[0].value is None
    assert row.lines(done)[0].note == "3 of 6 updates in 500 s so far"
    with pytest.raises(MissingError, match="--again deepest"):
        piece.measure()
    done["slice 1"] = {"seconds": 400.0, "updates": 6, "is_finished": True, "accuracy": 92.0}
    assert row.next_piece(done) is None
    assert row.lines(done)[0].value == 900.0
    assert row.lines(done)[0].is_reached


def test_the_lines_of_steps_compare_medians() -> None:
    figures = {"captured": [0.5, 0.4, 0.6], "eager": [2.0, 1.0, 3.0]}
    (line,) = gpu_steps._step_lines({"resnet20": {"ms": figures, "kernels": 130.0, "kernels_per_second": 260_000.0}})
    assert line.value == 0.5
    assert line.note == "4.00 times as fast as eager (2.000 ms); 130 kernels, 260 thousand a second"


def test_the_published_resnet9_has_its_size() -> None:
    assert sum(parameter.numel() for parameter in gpu_cifar.ResNet9().parameters()) == 6_573_120


def test_the_published_augmentation_shifts_mirrors_and_cuts_a_square_out() -> None:
    torch.manual_seed(0)
    ramp = torch.arange(40.0).expand(3, 3, 40, 40) + 1  # columns 1 to 40; 0 is what was cut out
    images = gpu_cifar._augmented(ramp, torch.tensor([0, 1, 2] * 20))
    assert images.shape == (60, 3, 32, 32)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert ((images == 0).sum(dim=(1, 2, 3)) == 3 * 64).all()
    rows = np.stack([image[0][(image[0] > 0).all(dim=1)][0] for image in images])
    steps = np.diff(rows, axis=1)
    assert set(steps.ravel().tolist()) == {-1.0, 1.0}  # mirrored or not, and no pixel left out
    assert len(set(rows.min(axis=1).tolist())) == 9


def test_the_published_resnet9_learns() -> None:
    dataset = random_images(32, 16, 32)
    images, labels = dataset.train.images, dataset.train.labels % 2
    images[labels == 1] //= 4
    model = gpu_cifar.train_resnet9(images, labels, 6, 8, torch.device("cpu"), seed=0)
    assert gpu_cifar.accuracy(model, images, labels, torch.device("cpu")) > 80
