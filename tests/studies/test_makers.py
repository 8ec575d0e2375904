"""Members made side by side, by torchrun and on a cluster are those made alone; a stop or a death loses nothing."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from trial import TRIAL

from residuum.data.facts import DataFacts
from residuum.errors import UserError
from residuum.studies import makers
from residuum.studies.against_published import measured_as_published
from residuum.studies.engine import MEMBERS, Prepared, StudyResult, conclude, make_members, prepare
from residuum.studies.makers import Maker, on_ray, quietly, side_by_side, with_torchrun
from residuum.studies.results import read_outcome
from residuum.studies.study import Plan, ScaleName
from residuum.training.interruption import Interrupted

TRIAL_PATH = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
"""A measure is found again by its module's name: what a script defines has to be importable."""


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", TRIAL_PATH["PYTHONPATH"])


def prepared_in(folder: Path, **options: object) -> Prepared:
    return prepare(TRIAL, scale="smoke", out=folder, **options)


def assert_same(result: StudyResult, trial: StudyResult) -> None:
    """The weights, bit for bit, and all that was found."""
    assert result.finding == trial.finding
    for arm, outcomes in trial.results.outcomes.items():
        for ours, theirs in zip(result.results.outcomes[arm], outcomes, strict=True):
            assert ours.measured == theirs.measured
            if ours.run is not None:
                files = [one.folder / "model" / "model.safetensors" for one in (ours, theirs)]
                assert files[0].read_bytes() == files[1].read_bytes()


def test_side_by_side_makes_the_same_members(
    trial: StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(makers, "cores", lambda: 2)  # a thread for each of two
    prepared = prepared_in(tmp_path)
    looks: list[Sequence[Path]] = []
    make_members(prepared, side_by_side(2), looks.append)
    assert max(len(now) for now in looks) == 2
    assert_same(conclude(prepared), trial)
    log = (prepared.members[0][1] / "log.txt").read_text()
    assert "epoch 1/1" in log


# A process of its own: Ray ends one, without a word, that asks for a cluster which has stopped.
ON_A_CLUSTER = """
import sys
from pathlib import Path
from trial import TRIAL
from residuum.studies.engine import make_members, prepare
from residuum.studies.makers import on_ray
make_members(prepare(TRIAL, scale="smoke", out=Path(sys.argv[1])), on_ray)
"""


@pytest.mark.skipif(find_spec("ray") is None, reason="needs ray")
def test_a_cluster_makes_the_same_members(trial: StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    subprocess.run([sys.executable, "-c", ON_A_CLUSTER, str(tmp_path)], check=True)
    prepared = prepared_in(tmp_path)
    assert not prepared.missing
    assert_same(conclude(prepared), trial)


def test_without_ray_the_install_line_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'residuum\[cluster\]'"):
        make_members(prepared_in(tmp_path), on_ray)


def test_torchrun_trains_a_member_with_several_processes(tmp_path: Path) -> None:
    prepared = prepared_in(tmp_path, seeds=1, processes=2)
    member, folder = prepared.members[1]
    one = replace(prepared, members=((member, folder),))
    make_members(one, with_torchrun(2))
    outcome = read_outcome(member, folder)
    manifest = json.loads((folder / "run.json").read_text())
    assert manifest["hardware"]["processes"] == 2
    assert manifest["run"]["batch_size"] == 32
    assert outcome.measured == {"has_model": True, "asked": 7}
    assert outcome.metrics[0]["images"] == 576


def test_under_torchrun_one_process_measures(tmp_path: Path) -> None:
    """A measure may evaluate the model: with all processes' variables set it would wait for the others for ever."""

    def plan(scale: ScaleName, facts: DataFacts) -> Plan:
        whole = TRIAL.plan(scale, facts)
        return measured_as_published(replace(whole, arms=whole.arms[:1]), "1-crop")

    prepared = prepare(replace(TRIAL, plan=plan), scale="smoke", out=tmp_path, seeds=1, processes=2)
    make_members(prepared, with_torchrun(2))
    ((member, folder),) = prepared.members
    outcome = read_outcome(member, folder)
    assert outcome.measured["images"] == 100
    assert outcome.measured["top-1"] == pytest.approx(outcome.test_error)


def stopping(begun: Callable[[], bool], number: int) -> None:
    """Signal this process as soon as `begun`."""

    def wait_and_signal() -> None:
        while not begun():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=wait_and_signal, daemon=True).start()


@pytest.mark.parametrize("maker", [side_by_side(2), with_torchrun(1)], ids=["side by side", "torchrun"])
def test_a_stopped_study_goes_on_where_it_was(
    maker: Maker, trial: StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(makers, "cores", lambda: 1)
    prepared = prepared_in(tmp_path)
    stopping(lambda: any(tmp_path.glob(f"{MEMBERS}/*/checkpoints/*step-00000000")), signal.SIGINT)
    with pytest.raises(Interrupted):
        make_members(prepared, maker, quietly)
    begun = list(tmp_path.glob(f"{MEMBERS}/*/run.json"))
    assert begun
    assert all(json.loads(file.read_text())["status"] != "failed" for file in begun)
    make_members(prepared)
    assert_same(conclude(prepared), trial)


def test_a_worker_that_dies_between_two_members_is_told(
    trial: StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = makers._Worker.begin

    def begin_with_the_dead(worker: makers._Worker, folder: Path) -> None:
        worker.process.kill()
        worker.process.wait()
        begin(worker, folder)

    monkeypatch.setattr(makers._Worker, "begin", begin_with_the_dead)
    with pytest.raises(UserError, match=r"seed \d: its process was killed.*the same command goes on"):
        make_members(prepared_in(tmp_path), side_by_side(2))


def test_a_killed_worker_is_told_and_the_study_goes_on(
    trial: StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(makers, "cores", lambda: 1)
    prepared = prepared_in(tmp_path)

    def kill_once_begun(now: Sequence[Path]) -> None:
        if any(tmp_path.glob(f"{MEMBERS}/*/checkpoints/*step-00000000")):
            subprocess.run(["pkill", "-KILL", "-P", str(os.getpid()), "-f", "residuum.studies.worker"], check=False)

    with pytest.raises(UserError, match=r"seed \d: its process was killed.*the same command goes on"):
        make_members(prepared, side_by_side(2), kill_once_begun)
    make_members(prepared)
    assert_same(conclude(prepared), trial)
