"""Arms take turns, a stop loses no round, and ratios are those of each round."""

import argparse
import json
import sys
from pathlib import Path

import pytest
from measuring import Arm, Record, best_workers, in_turn, medians, printed_json, shown, speeds, with_rate


def options(out: Path | None, rounds: int = 3, images: int = 8) -> argparse.Namespace:
    return argparse.Namespace(data="digits", images=images, out=out, rounds=rounds)


def counting(calls: list[str], stop_at: int = 1000) -> dict[str, Arm]:
    """Two arms that write down when they were called; "fast" is twice as fast."""

    def arm(name: str, speed: float) -> Arm:
        def measured() -> dict[str, float]:
            if len(calls) == stop_at:
                raise KeyboardInterrupt
            calls.append(name)
            return {"images_per_second": speed * len(calls)}

        return measured

    return {"slow": arm("slow", 1.0), "fast": arm("fast", 2.0)}


def test_arms_take_turns_and_none_is_always_the_first() -> None:
    calls: list[str] = []
    Record(options(None)).run(counting(calls))
    assert calls == ["slow", "fast", "fast", "slow", "slow", "fast"]


def test_each_of_three_arms_begins_a_round_in_three() -> None:
    assert [in_turn("abc", number)[0] for number in range(6)] == list("abcabc")
    assert all(sorted(in_turn("abc", number)) == list("abc") for number in range(6))


def test_a_stopped_measurement_goes_on_where_it_was_and_loses_no_whole_round(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    first: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        Record(options(out)).run(counting(first, stop_at=5))
    kept = json.loads(out.read_text())["rounds"]
    assert len(kept) == 2

    second: list[str] = []
    record = Record(options(out))
    record.run(counting(second))
    assert second == ["slow", "fast"]  # the third round alone, begun anew
    assert record.rounds[:2] == kept
    assert json.loads(out.read_text())["rounds"] == record.rounds


def test_more_rounds_are_added_to_those_there_are(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    Record(options(out, rounds=2)).run(counting([]))
    calls: list[str] = []
    Record(options(out, rounds=3)).run(counting(calls))
    assert len(calls) == 2


def test_what_is_found_out_once_is_kept_over_a_stop(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    assert Record(options(out)).once("workers", lambda: 2) == 2
    assert Record(options(out)).once("workers", lambda: pytest.fail("asked again")) == 2


def test_results_of_other_settings_or_versions_are_never_mixed(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    Record(options(out)).run(counting([]))
    before = out.read_bytes()
    with pytest.raises(SystemExit, match="other settings"):
        Record(options(out, images=9))
    assert out.read_bytes() == before
    out.write_text(out.read_text().replace('"torch": "', '"torch": "0.'))
    with pytest.raises(SystemExit, match="other versions"):
        Record(options(out))


def test_ratios_are_taken_within_a_round() -> None:
    rounds = [{"peer": {"rate": a}, "own": {"rate": b}} for a, b in ((1.0, 2.0), (2.0, 6.0), (4.0, 4.0))]
    assert speeds(rounds, "peer", "rate") == {
        "own": {"per_round": [2.0, 3.0, 1.0], "median": 2.0, "least": 1.0, "most": 3.0}
    }


def test_of_seconds_less_is_faster() -> None:
    rounds = [{"peer": {"seconds": 3.0}, "own": {"seconds": 1.0}}]
    assert speeds(rounds, "peer", "seconds")["own"]["median"] == 3.0
    assert medians(rounds, "seconds") == {"peer": 3.0, "own": 1.0}


def test_the_first_epoch_warms_up_and_counts_only_where_it_is_alone() -> None:
    assert with_rate({"images": 10, "seconds_per_epoch": [100.0, 2.0, 3.0]})["images_per_second"] == 4.0
    assert with_rate({"images": 10, "seconds_per_epoch": [5.0]})["images_per_second"] == 2.0


def test_the_peer_gets_the_number_of_workers_that_serves_it_best() -> None:
    rates = {0: 5.0, 1: 9.0, 10: 7.0}
    assert best_workers(rates.__getitem__, rates) == {
        "best": 1,
        "images_per_second": {"0": 5.0, "1": 9.0, "10": 7.0},
    }


def test_an_arm_runs_in_a_process_of_its_own_with_its_own_environment() -> None:
    code = "import json, os; print('chatter'); print(json.dumps({'pid': os.getpid(), 'told': os.environ['TOLD']}))"
    figures = [printed_json([sys.executable, "-c", code], TOLD="yes") for _ in range(2)]
    assert figures[0]["told"] == "yes"
    assert figures[0]["pid"] != figures[1]["pid"]


def test_an_arm_that_fails_stops_the_benchmark_with_its_complaint() -> None:
    with pytest.raises(SystemExit, match="no such data"):
        printed_json([sys.executable, "-c", "raise SystemExit('no such data')"])


def test_a_record_names_no_folder_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "results" / "a.json") == "results/a.json"
    assert shown("/somewhere/else/cifar10") == "cifar10"
    assert shown("../beside/cifar10") == "cifar10"
    assert [shown(value) for value in (5, None, True, "cifar10", "-n")] == [5, None, True, "cifar10", "-n"]
