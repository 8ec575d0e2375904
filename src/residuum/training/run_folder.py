"""The folder a run lives in: `run.json`, `metrics.jsonl`, TensorBoard events and folders, of checkpoints say."""

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residuum.errors import UserError, in_words
from residuum.files import read_json, sweep, write_json, write_text
from residuum.records import plain

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_PREDICTIONS = "predictions"
_REQUIRED = (  # what a run says of itself before anything else
    ("run", "recipe", str),
    ("data", "fingerprint", str),
    ("versions", "torch", str),
    ("hardware", "processes", int),
    ("exact", "doubts", list),
)


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
        self._lock = path / ".lock"
        self._writer: SummaryWriter | None = None

    @property
    def holds_run(self) -> bool:
        """Whether a run was begun here."""
        return self.manifest.is_file()

    @property
    def holds_work(self) -> bool:
        """Whether there is anything here that took training to make: more than the state before the first update."""
        return (
            self.model.exists()
            or self.best.exists()
            or any(path.name != "step-00000000" for path in self.checkpoints.glob("*step-*"))
        )

    def predictions(self, split: str) -> Path:
        """The file with what the final model said of each image of a split."""
        return self.path / _PREDICTIONS / f"{split}.csv"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else trains in this folder while the block runs; what a killed process has left in it is removed.

        The lock is the process's own and ends with it, however it ends. Raises UserError when another holds it, and
        when the folder cannot be written to.
        """
        self.probe_writable()
        with _held_once(self.path), self._lock.open("a+", encoding="utf-8") as file:
            _lock(file.fileno(), self.path, self._lock)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            for folder in (self.path, self.checkpoints, self.path / _PREDICTIONS):
                sweep(folder)
            yield

    @property
    def is_held(self) -> bool:
        """Whether a process trains here now; not to be asked by that process itself, whose lock the question ends."""
        if os.name != "posix" or not self._lock.is_file():
            return False
        import fcntl

        try:
            with self._lock.open("r+", encoding="utf-8") as file:
                fcntl.lockf(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        return False

    def probe_writable(self) -> None:
        """Write and remove a small file here, making the folder if need be, before any work is spent on it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path) as file:
                file.write(b"residuum")
                file.flush()
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(f"cannot write to {self.path} ({reason}); choose another folder with --out") from None

    def clear(self) -> None:
        """Remove what an earlier start without work left, so that nothing of it is taken for this run's."""
        self.manifest.unlink(missing_ok=True)
        self.metrics.unlink(missing_ok=True)
        for leftover in (self.events, self.best, self.checkpoints, self.path / _PREDICTIONS):
            shutil.rmtree(leftover, ignore_errors=True)

    def read_manifest(self) -> dict[str, Any]:
        """What `run.json` holds. Raises UserError when there is no run here or the file is damaged."""
        if not self.holds_run:
            raise UserError(
                f"{self.path} holds no run (no run.json); name the folder of one, or start one without --resume"
            )
        manifest: Any = read_json(self.manifest)
        if not all(_has(manifest, *required) for required in _REQUIRED):
            raise UserError(f"{self.manifest} describes no run; start a new run in another folder")
        known: dict[str, Any] = manifest
        return known

    def update_manifest(self, changes: Mapping[str, Any]) -> None:
        """Merge `changes` into `run.json`."""
        known = read_json(self.manifest) if self.manifest.is_file() else {}
        write_json(self.manifest, {**known, **plain(changes)})

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add one line to `metrics.jsonl`, and its numbers to the TensorBoard events at `record["step"]`."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(record)) + "\n")
            file.flush()
            os.fsync(file.fileno())  # a checkpoint on the disk counts on its lines
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
            with suppress(OSError):  # a full disk is told by what else it breaks
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


def _has(manifest: object, part: str, name: str, kind: type) -> bool:
    group = manifest.get(part) if isinstance(manifest, dict) else None
    return isinstance(group, dict) and isinstance(group.get(name), kind)


def free_run_folder(name: str) -> RunFolder:
    """A folder of its own for a run: the first of `runs/NAME`, `runs/NAME-2`, … that nobody has. Made at once."""
    base = Path("runs") / name
    for path in (base, *(base.with_name(f"{name}-{number}") for number in range(2, 10_000))):
        try:
            path.mkdir(parents=True)
            return RunFolder(path)
        except FileExistsError:
            continue
        except OSError:
            break
    RunFolder(base).probe_writable()
    raise UserError(f"all of {base}-2 to {name}-9999 exist; name a folder with --out")


_HELD: set[Path] = set()


@contextmanager
def _held_once(folder: Path) -> Iterator[None]:
    """The system's lock is the process's own: within the process it keeps nobody out, and any closing frees it."""
    key = folder.resolve()
    if key in _HELD:
        raise UserError(f"{folder} is in use by this very process; wait for it, or choose another --out")
    _HELD.add(key)
    try:
        yield
    finally:
        _HELD.discard(key)


def _lock(descriptor: int, folder: Path, file: Path) -> None:
    """Lock for this process alone: worker processes, which can outlive it for seconds, inherit nothing."""
    if os.name != "posix":  # Windows has no such lock
        return
    import fcntl

    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        holder = file.read_text(encoding="utf-8").strip() or "another process"
        raise UserError(f"{folder} is in use: {holder} trains there; wait for it, or choose another --out") from None
    except OSError as error:
        raise UserError(f"cannot lock {file} ({in_words(error)}); choose a folder on another disk with --out") from None
