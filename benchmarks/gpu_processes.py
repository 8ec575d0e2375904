"""Rows of the GPU benchmark that need processes of their own: determinism, several runs at once, the deepest net."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from gpu_record import Line, MissingError, Piece, Pieces, Row, one_by_one
from gpu_setting import Setting, median_ratio

CHILD = Path(__file__).with_name("gpu_child.py")
ROOFLINE = Path(__file__).with_name("roofline.py")
CUBLAS = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # read when cuBLAS starts, so set for both arms
DETERMINISTIC, DEEPEST_GOAL = "deterministic=true", 1_800  # the goal in seconds
TO_START, TO_STOP = 60.0, 30.0  # seconds: what a slice is worth beginning for, and what a stop may take


@contextmanager
def process(arguments: Sequence[str], **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """A child of the benchmark that is ended with the block; what it complains of is kept for `answer`."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as complaints:
        child = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env=os.environ | environment,
        )
        child.complaints = complaints  # type: ignore[attr-defined]
        try:
            yield child
        finally:
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                assert stream
                stream.close()


def answer(child: "subprocess.Popen[str]") -> Any:
    """The JSON in the next line that the child prints. Raises RuntimeError with its complaint where there is none."""
    return json.loads(_line(child))


def _line(child: "subprocess.Popen[str]") -> str:
    assert child.stdout
    line = child.stdout.readline()
    if not line:
        child.wait()
        complaints: IO[str] = child.complaints  # type: ignore[attr-defined]
        complaints.seek(0)
        said = complaints.read().strip().splitlines() or ["nothing"]
        raise RuntimeError(f"a child process ended with {child.returncode}; it said: {said[-1]}")
    return line


def deterministic_row(setting: Setting) -> Row:
    """What repeatable kernels cost."""

    def measure() -> dict[str, Any]:
        setting.need_gpu()
        sizes = setting.sizes
        command = [str(CHILD), "turns", str(setting.file_of("short_epochs")), "-m", sizes.nets[0]]
        command += ["--set", f"device={setting.device}", "--set", "epochs=4", "--set", f"batch_size={sizes.batch}"]
        command += ["--rounds", str(sizes.rounds), "--arm", "", "--arm", DETERMINISTIC]
        with process(command, **CUBLAS) as child:
            seconds = answer(child)
        ratio = median_ratio(seconds[DETERMINISTIC], seconds[""])
        return {"seconds": {"usual": seconds[""], "deterministic": seconds[DETERMINISTIC]}, "ratio": ratio}

    def lines(done: Pieces) -> list[Line]:
        run = done.get("rounds", {})
        slower = 100 * (run["ratio"] - 1) if run else None
        return [Line(f"{setting.sizes.nets[0]}, slower by", slower, "%", 5)]

    return Row("deterministic", one_by_one([Piece("rounds", 60, measure)]), lines)


def side_by_side_row(setting: Setting) -> Row:
    """Several seeds at once on one device."""
    pieces = [Piece(f"{n} at once", 45 + 10 * n, lambda n=n: _at_once(setting, n)) for n in setting.sizes.side_by_side]

    def lines(done: Pieces) -> list[Line]:
        rates = {name: run["images_per_second"] for name, run in done.items()}
        one = rates.get("1 at once")
        return [
            Line(name, rate, "images/s in all", note=f"{rate / one:.2f} times one alone" if one else "")
            for name, rate in rates.items()
        ]

    return Row("side-by-side", one_by_one(pieces), lines)


def _at_once(setting: Setting, count: int) -> dict[str, Any]:
    """Start so many runs together once all of them are warm; images in all by the time from first to last."""
    setting.need_gpu()
    sizes = setting.sizes
    with ExitStack() as stack:
        children = []
        for seed in range(count):
            command = [str(CHILD), "train", str(setting.file_of("cifar_like")), "-m", sizes.nets[0], "--waits"]
            command += ["--warm-up", str(sizes.warm_up), "--set", f"iterations={sizes.side_by_side_iterations}"]
            command += ["--set", f"device={setting.device}", "--set", f"seed={seed}"]
            children.append(stack.enter_context(process(command)))
        for child in children:
            _line(child)
        for child in children:
            assert child.stdin
            child.stdin.write("go\n")
            child.stdin.flush()
        runs = [answer(child) for child in children]
    seconds = max(run["end"] for run in runs) - min(run["begin"] for run in runs)
    rate = sum(run["images"] for run in runs) / seconds
    return {"images_per_second": rate, "seconds": seconds, "runs": runs, "data": setting.cifar_like.spec}


def deepest_row(setting: Setting) -> Row:
    """The deepest net of the paper in slices as long as the budget lets: SIGTERM ends one, the next call resumes."""

    def next_piece(done: Pieces) -> Piece | None:
        if any(part["is_finished"] for part in done.values()):
            return None
        return Piece(f"slice {len(done)}", TO_START + TO_STOP, lambda: _slice(setting, len(done)))

    def lines(done: Pieces) -> list[Line]:
        updates = max((part["updates"] for part in done.values()), default=0)
        total = sum(part["seconds"] for part in done.values())
        ended = [part for part in done.values() if part["is_finished"]]
        note = f"test error {100 - ended[0]['accuracy']:.2f} %; {len(done)} slices" if ended else ""
        if done and not ended:
            note = f"{updates:,} of {setting.sizes.iterations:,} updates in {total:.0f} s so far"
        return [Line(setting.sizes.deepest, total if ended else None, "s", DEEPEST_GOAL, note=note)]

    return Row("deepest", next_piece, lines)


def _slice(setting: Setting, number: int) -> dict[str, Any]:
    """Go on with the run until it ends or the budget does. The seconds are the process's, from its start to its end."""
    setting.need_gpu()
    sizes, folder = setting.sizes, setting.work / setting.sizes.deepest
    if number and not folder.exists():
        raise MissingError(f"the run that earlier slices began is not in {folder}; begin anew with --again deepest")
    if number == 0 and folder.exists():
        folder.rename(folder.with_name(f"{folder.name}-{time.time_ns()}"))
    batch = ["--set", f"batch_size={sizes.batch}"] if setting.is_smoke else []
    command = [str(CHILD), "train", str(setting.file_of("cifar")), "-m", sizes.deepest, "--out", str(folder), *batch]
    command += ["--set", f"device={setting.device}", "--set", f"iterations={sizes.iterations}"]
    start = time.perf_counter()
    with process(command) as child:
        if not _stops_after(child, max(setting.seconds_left() - TO_STOP, 1.0)):
            answer(child)  # or its complaint
    seconds = time.perf_counter() - start
    manifest = folder / "run.json"
    run = json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else {"status": "not begun"}
    is_finished = run["status"] == "finished"  # also where the signal came too late to stop anything
    accuracy = run["results"]["test"]["top1"]["value"] if is_finished else None
    return {"seconds": seconds, "updates": _updates(folder), "is_finished": is_finished, "accuracy": accuracy}


def _stops_after(child: "subprocess.Popen[str]", seconds: float) -> bool:
    """Wait for the child's end, and ask it to stop after so many seconds; whether it was stopped before its end."""
    try:
        child.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGTERM)
    try:
        return child.wait(TO_STOP) != 0
    except subprocess.TimeoutExpired:  # it will go on from its last checkpoint
        return True


def _updates(folder: Path) -> int:
    """How many updates the run's last recorded epoch ended with."""
    file = folder / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def roofline_row(setting: Setting) -> Row:
    """The probe of arithmetic, bytes and measured steps of each net."""

    def measure() -> dict[str, Any]:
        setting.need_gpu()
        if not ROOFLINE.exists():
            raise MissingError(f"{ROOFLINE.name} is not beside gpu.py")
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "roofline.json"
            small = [*setting.sizes.nets, setting.sizes.deepest] if setting.is_smoke else []
            nets = [f"{net}@32/{setting.sizes.batch}" for net in small]
            done = subprocess.run(
                [sys.executable, str(ROOFLINE), *nets, "--device", setting.device.type, "-o", str(out)],
                capture_output=True,
                text=True,
                timeout=max(setting.seconds_left(), 1.0),
            )
            if done.returncode:
                raise RuntimeError(f"{ROOFLINE.name} ended with {done.returncode}: {done.stderr.strip()[-200:]}")
            found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return {"roofline": found}

    def lines(done: Pieces) -> list[Line]:
        return [Line("probe", None, "", note="its figures are in the JSON")] if done else []

    return Row("roofline", one_by_one([Piece("probe", 120, measure)]), lines)
