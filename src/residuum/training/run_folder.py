"""The folder a run lives in: `run.json`, `metrics.jsonl`, TensorBoard events, `checkpoints/`, `model/` and `best/`."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residuum.errors import UserError
from residuum.files import write_json, write_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class RunFolder:
    """The paths of one run and the two files it writes about itself. Only the main process writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = path / "run.json"
        self.metrics = path / "metrics.jsonl"
        self.events = path / "tensorboard"
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"
        self.best = path / "best"
        self._writer: SummaryWriter | None = None

    @property
    def has_work(self) -> bool:
        """Whether there is anything here that took training to make."""
        return self.model.exists() or any(self.checkpoints.glob("*"))

    def clear(self) -> None:
        """Remove what an earlier start without work left, so that nothing of it is taken for this run's."""
        self.manifest.unlink(missing_ok=True)
        self.metrics.unlink(missing_ok=True)
        for leftover in (self.events, self.best):
            shutil.rmtree(leftover, ignore_errors=True)

    def read_manifest(self) -> dict[str, Any]:
        """What `run.json` holds. Raises UserError when there is no run here or the file is damaged."""
        if not self.manifest.is_file():
            raise UserError(f"{self.path} holds no run to resume (no run.json); start one without --resume")
        try:
            manifest = json.loads(self.manifest.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{self.manifest} is damaged ({error}); start a new run in another folder") from None
        if not isinstance(manifest, dict) or "run" not in manifest:
            raise UserError(f"{self.manifest} describes no run; start a new run in another folder")
        return manifest

    def update_manifest(self, changes: Mapping[str, Any]) -> None:
        """Merge `changes` into `run.json`."""
        known = json.loads(self.manifest.read_text(encoding="utf-8")) if self.manifest.is_file() else {}
        write_json(self.manifest, {**known, **changes})

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add one line to `metrics.jsonl`, and its numbers to the TensorBoard events at `record["step"]`."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # takes a second to import

            # What an interrupted run wrote after its checkpoint is measured again: its events are void.
            self._writer = SummaryWriter(self.events, purge_step=record["step"])
        for name, value in record.items():
            if isinstance(value, (int, float)) and name != "step":
                self._writer.add_scalar(name.replace("_", "/", 1), value, record["step"])
        self._writer.flush()

    def close(self) -> None:
        """Finish the TensorBoard events."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def read_metrics(self) -> list[dict[str, Any]]:
        """Every complete line of `metrics.jsonl`; a last line that an interruption cut short is left out."""
        if not self.metrics.is_file():
            return []
        text = self.metrics.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def truncate_metrics(self, lines: int) -> None:
        """Keep the first `lines` lines: what comes after a checkpoint will be measured again."""
        kept = self.read_metrics()[:lines]
        write_text(self.metrics, "".join(json.dumps(record) + "\n" for record in kept))


def new_run_folder(out: Path | None, name: str) -> RunFolder:
    """An empty, writable folder for a run: `out`, or the first free of `runs/NAME`, `runs/NAME-2`, …

    A start that failed before it had anything to keep is written over. Raises UserError when `out` holds a run with
    work in it, or cannot be written to.
    """
    if out is None:
        base = Path("runs") / name
        candidates = [base, *(base.with_name(f"{name}-{number}") for number in range(2, 10_000))]
        out = next(path for path in candidates if not path.exists())
    if RunFolder(out).has_work:
        raise UserError(f"{out} already holds a run; continue it with --resume, or choose another --out")
    probe_writable(out)
    return RunFolder(out)


def probe_writable(folder: Path) -> None:
    """Write and remove a small file in `folder`, making the folder if need be, before any work is spent on it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"residuum")
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write to {folder} ({reason}); choose another folder with --out") from None
