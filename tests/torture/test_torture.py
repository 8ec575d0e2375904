"""Killed runs end in the bytes of runs left alone; and the harness that says so tells when they do not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the harness reads /proc, and forks")

DRIVER = """
import sys
here, folder = sys.argv[1:]
sys.path.insert(0, here)
import torture, ordeal, residuum.training.checkpoints as checkpoints, residuum.training.job as job
from matrix import Configuration

usual = "epochs=3 optimizer.name=adamw optimizer.lr=0.005 ema=0.9 model.drop_path=0.2"
torture.MATRIX = (
    Configuration("plain", usual, data="photos", every="3 steps"),
    Configuration("varied", usual, data="photos", every="3 steps", varied=True),
    Configuration("two", usual + " sync_bn=true", data="photos", every="3 steps", processes=2),
    Configuration("command", usual, data="photos", way="command"),
)
torture.PRELOADED = ("torch._dynamo", "torch.utils.tensorboard")

def report(name, *arguments):
    code = torture.main([*arguments, "-o", f"{folder}/{name}.json"])
    print(name, "ended with code", code)

report("random", "-n", "3", "--only", "varied")
report("command", "-n", "0", "--only", "command")
ordeal.AIMED = 1
report("aimed", "-n", "1", "--only", "two")

ordeal.AIMED, true_restore = 0, job.restore_optimizer
job.restore_optimizer = lambda optimizer, state: None
report("forgetful", "-n", "40", "--only", "plain")
job.restore_optimizer = true_restore

ordeal.DAMAGED = 1
checkpoints._check_sums = lambda checkpoint: None
report("credulous", "-n", "40", "--only", "plain")
"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the harness reports, in a process that has not computed before: of the code as it is, and of broken code."""
    folder = tmp_path_factory.mktemp("torture")
    command = [sys.executable, "-c", DRIVER, str(Path(__file__).parent), str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_runs_killed_at_random_end_in_the_same_bytes(reports: dict[str, dict[str, Any]]) -> None:
    report = reports["random"]
    assert [each["problems"] for each in report["configurations"]] == [[]]
    assert report["kills"] == 3
    assert report["runs"] >= 1
    assert report["identical"]


def test_two_processes_killed_while_they_save_end_in_the_same_bytes(reports: dict[str, dict[str, Any]]) -> None:
    report = reports["aimed"]
    assert report["configurations"][0]["problems"] == []
    assert report["kills"] == 1
    assert report["aimed"] >= 1
    assert report["identical"]


def test_a_run_by_the_command_line_ends_in_the_same_bytes(reports: dict[str, dict[str, Any]]) -> None:
    assert reports["command"]["configurations"][0]["problems"] == []
    assert reports["command"]["runs"] == 1


def test_an_optimizer_state_that_is_not_restored_is_noticed(reports: dict[str, dict[str, Any]]) -> None:
    problems = reports["forgetful"]["configurations"][0]["problems"]
    assert any(problem.endswith("the model differs") for problem in problems)
    assert any(problem.endswith("the tensors of the last checkpoint differs") for problem in problems)
    assert not reports["forgetful"]["identical"]


def test_a_damaged_checkpoint_that_is_believed_is_noticed(reports: dict[str, dict[str, Any]]) -> None:
    problems = reports["credulous"]["configurations"][0]["problems"]
    assert problems
    assert reports["credulous"]["damaged"] > 0
    assert not reports["credulous"]["identical"]
