"""Faults provoked for real, each in a process of its own: what the run does, and what it says."""

import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_runs import SMALL, command, environment, finished, manifest_of, weights_hash

from residuum.data.sources import DataSet
from residuum.training.checkpoints import list_checkpoints
from residuum.training.run_folder import RunFolder
from residuum.training.train import TrainResult, train

LONG = [*SMALL, "epochs=200", "checkpoint_every=5 steps"]
"""Longer than any of these tests waits."""


@pytest.fixture(scope="module")
def straight(digits: DataSet, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run that nothing disturbs."""
    return train(digits, model="resnet8", out=tmp_path_factory.mktemp("straight"), overrides=SMALL)


@pytest.fixture
def start() -> Iterator[Callable[[list[str]], subprocess.Popen[str]]]:
    """Starts commands, and leaves none of them behind."""
    started: list[subprocess.Popen[str]] = []

    def begin(arguments: list[str]) -> subprocess.Popen[str]:
        started.append(subprocess.Popen(arguments, env=environment(), stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Until `condition` holds; the process must not end before."""
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)


def updates_saved(folder: Path) -> int:
    checkpoints = list_checkpoints(folder / "checkpoints")
    return int(checkpoints[-1].name[5:]) if checkpoints else 0


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_a_run_killed_without_warning_goes_on_to_the_same_bytes(
    digits: DataSet, tmp_path: Path, start: Callable[[list[str]], subprocess.Popen[str]], straight: TrainResult
) -> None:
    process = start(command("-o", str(tmp_path / "run"), settings=[*SMALL, "checkpoint_every=3 steps"]))
    wait_for(lambda: updates_saved(tmp_path / "run") > 24, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert weights_hash(train(digits, out=tmp_path / "run", resume=True)) == weights_hash(straight)


def test_sigterm_saves_says_how_to_go_on_and_leaves_with_143(
    tmp_path: Path, start: Callable[[list[str]], subprocess.Popen[str]]
) -> None:
    process = start(command("-o", str(tmp_path), settings=LONG))
    wait_for(lambda: updates_saved(tmp_path) > 0, process)
    asked = time.monotonic()
    process.terminate()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143
    assert time.monotonic() - asked < 25
    go_on = f"residuum train digits --resume --out {tmp_path}"
    assert last_line(told) == f"stopped by SIGTERM; everything is saved in {tmp_path}; go on with: {go_on}"
    assert manifest_of(tmp_path)["status"] == "interrupted"


# A network whose third update never ends, as a process: what the deadline and a second signal are for.
STUCK = """
import sys, torch, residuum.training.loop as loop, residuum.training.interruption as interruption
from residuum.training.run_folder import RunFolder
from residuum.training.train import train
true_step = loop.train_step
def step(job, batch):
    if job.position.step == 3:
        print("stuck", file=sys.stderr, flush=True)
        torch.linalg.svd(torch.rand(6000, 6000, dtype=torch.float64))  # not Python: its handlers are not called
    true_step(job, batch)
loop.train_step = step
interruption.listen_for_stop.__wrapped__.__defaults__ = (1.0,)
train("digits", model="resnet8", out=sys.argv[1], overrides=["data.size=8", "device=cpu", "checkpoint_every=2 steps"])
"""


def wait_until_stuck(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    assert any(line == "stuck\n" for line in process.stderr)


def test_sigterm_leaves_within_its_deadline_even_where_a_step_does_not_end(
    tmp_path: Path, start: Callable[[list[str]], subprocess.Popen[str]]
) -> None:
    process = start([sys.executable, "-c", STUCK, str(tmp_path)])
    wait_until_stuck(process)
    process.terminate()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143
    assert last_line(told) == "no place to stop at within 1 seconds; what was saved last is whole"
    assert updates_saved(tmp_path) == 2


def test_a_second_sigterm_acts_at_once(tmp_path: Path, start: Callable[[list[str]], subprocess.Popen[str]]) -> None:
    process = start([sys.executable, "-c", STUCK.replace("(1.0,)", "(600.0,)"), str(tmp_path)])
    wait_until_stuck(process)
    process.terminate()
    time.sleep(1)
    process.terminate()  # an echo
    time.sleep(1.5)
    assert process.poll() is None
    process.terminate()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143
    assert last_line(told) == "asked twice; what was saved last is whole"
    assert updates_saved(tmp_path) == 2


def test_two_runs_in_one_folder_are_refused_and_a_killed_one_frees_it_at_once(
    tmp_path: Path, start: Callable[[list[str]], subprocess.Popen[str]]
) -> None:
    with_workers = [*LONG, "data.loader=file", "data.workers=1"]  # a worker outlives its killed parent by seconds
    process = start(command("-o", str(tmp_path), settings=with_workers))
    wait_for(lambda: updates_saved(tmp_path) > 0, process)
    for flags in ([], ["--resume"]):
        second = finished([*command("-o", str(tmp_path), *flags, settings=LONG if not flags else [])])
        assert second.returncode == 2
        assert re.search(rf"{tmp_path} is in use: process {process.pid} on \S+ trains there; wait", second.stderr)
    process.kill()
    process.wait()
    with RunFolder(tmp_path).locked():  # and not only when the worker has noticed
        pass


def test_a_killed_data_worker_is_named_within_seconds_and_the_run_goes_on(
    digits: DataSet, tmp_path: Path, start: Callable[[list[str]], subprocess.Popen[str]], straight: TrainResult
) -> None:
    settings = [*SMALL, "data.loader=file", "data.workers=1", "checkpoint_every=5 steps"]
    process = start(command("-o", str(tmp_path), settings=settings))
    wait_for(lambda: updates_saved(tmp_path) > 0, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    killed = time.monotonic()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 2
    assert time.monotonic() - killed < 30
    assert re.match(r"error: a worker process died .* lower -j; go on with: residuum train", last_line(told))
    assert weights_hash(train(digits, out=tmp_path, resume=True)) == weights_hash(straight)


# A gigabyte beyond what the program itself takes, as a container would allow.
LITTLE_MEMORY = """
import resource, sys
from residuum.cli import main
import residuum.training.train
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(main(sys.argv[1:]))
"""


def test_running_out_of_memory_says_how_to_take_less(tmp_path: Path) -> None:
    settings = ["data.size=128", "device=cpu", "batch_size=512", "precision=fp32"]
    arguments = command("-o", str(tmp_path), settings=settings)[3:]
    done = finished([sys.executable, "-c", LITTLE_MEMORY, *arguments])
    assert done.returncode == 2
    expected = "error: memory ran out with 512 images at once; take fewer with --set accumulate=2"
    assert last_line(done.stderr).startswith(expected)


def test_a_file_size_limit_in_a_save_keeps_what_was_saved_before(
    digits: DataSet, tmp_path: Path, straight: TrainResult
) -> None:
    """A quota's behaviour, without needing one: momentum makes the second checkpoint bigger than the first."""

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

    done = finished(command("-o", str(tmp_path), settings=SMALL), preexec_fn=small_files)
    assert done.returncode == 2
    assert re.match(r"error: .*file too large.*make room", last_line(done.stderr))
    assert updates_saved(tmp_path) == 0
    assert not list(tmp_path.rglob(".residuum-*"))
    assert weights_hash(train(digits, out=tmp_path, resume=True)) == weights_hash(straight)


def has_namespaces() -> bool:
    unshare = shutil.which("unshare")
    probe = ["unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return unshare is not None and subprocess.run(probe, capture_output=True, check=False).returncode == 0


needs_own_disk = pytest.mark.skipif(not has_namespaces(), reason="needs user namespaces to mount a disk of its own")


def on_a_disk_of_its_own(folder: Path, options: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script with a tmpfs at `folder`, which nobody else sees and which is gone afterwards."""
    folder.mkdir()
    mount = f"mount -t tmpfs -o {options} none {folder}"
    return finished(["unshare", "-Urm", "sh", "-c", f"{mount} && {{ {script}\n}}"])


@needs_own_disk
def test_a_disk_that_is_full_in_a_save_loses_nothing_and_the_run_goes_on_with_room(
    tmp_path: Path, straight: TrainResult
) -> None:
    disk = tmp_path / "disk"
    run = shlex.join(command("-o", str(disk / "run"), settings=[*SMALL, "checkpoint_every=4 steps"]))
    resume = shlex.join(command("-o", str(disk / "run"), "--resume", settings=[]))
    script = f"""
        {run} >&2; echo "code $?" >&2
        ls -A {disk}/run/checkpoints >&2
        mount -o remount,size=50m {disk}
        {resume} >&2 && cp -r {disk}/run {tmp_path}/copy"""
    done = on_a_disk_of_its_own(disk, "size=1200k", script)
    assert done.returncode == 0, done.stderr
    error = next(line for line in done.stderr.splitlines() if line.startswith("error:"))
    assert re.match(r"error: cannot .* \(no space left on device\).*make room there; go on with: residuum train", error)
    assert "code 2\n" in done.stderr
    assert weights_hash(tmp_path / "copy") == weights_hash(straight)
    assert weights_hash(tmp_path / "copy", "best") == weights_hash(straight, "best")
    assert not list((tmp_path / "copy").rglob(".residuum-*"))


@needs_own_disk
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    done = on_a_disk_of_its_own(disk, "ro", shlex.join(command("-o", str(disk / "run"))))
    assert done.returncode == 2
    expected = f"cannot write to {disk / 'run'} (Read-only file system); choose another folder with --out"
    assert last_line(done.stderr) == f"error: {expected}"


def test_a_file_in_the_folder_s_place_is_refused_before_any_work(digits: DataSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="cannot write"):
        train(digits, model="resnet8", out=tmp_path / "file" / "run", overrides=SMALL)
