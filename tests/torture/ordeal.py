"""One configuration under torture: killed, damaged and resumed until it ends, then compared with a run left alone."""

import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from attempts import Attempt, descendants, launch, wait_until
from digests import checkpoints, differences, digest, is_finished, is_intact, leftovers, listing, temporaries
from matrix import Configuration

AIMED = 1 / 3  # the share of kills that wait for a save
DAMAGED = 1 / 5  # the share of kills that a damage follows, where an older checkpoint is there to fall back to
ASKED = 1 / 10  # the share of signals that ask (SIGTERM, SIGINT) in place of killing; they count as no kills
SECONDS_TO_KILL = 0.003  # at most, after a new name was seen in the folder
SECONDS_BETWEEN_PROCESSES = 0.3  # at most, from the first killed to the others
PATIENCE = 20  # times the duration of the undisturbed run (and a minute) before a run is taken to hang


class TortureError(Exception):
    """A run did what no run may do."""


@dataclass
class Outcome:
    """What became of one configuration. `saves`: kills that left something half saved, by what that was."""

    name: str
    kills: int = 0
    asked: int = 0
    aimed: int = 0
    saves: Counter[str] = field(default_factory=Counter)
    damaged: int = 0
    resumes: int = 0
    runs: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    sessions: list[int] = field(default_factory=list)

    def line(self) -> str:
        return (
            f"{self.name:42}{self.kills:4} kills  {self.saves.total():3} inside a save  {self.damaged:3} damaged  "
            f"{self.resumes:4} resumed  {self.runs:3} finished  identical: {'NO' if self.problems else 'yes'}"
        )


@dataclass
class Ordeal:
    """One configuration, in `folder`; `rng` draws all that is random but the machine's own time."""

    configuration: Configuration
    data: str
    folder: Path
    rng: random.Random
    outcome: Outcome
    expected: dict[str, str] = field(default_factory=dict)
    duration: float = 0.0
    damaged: set[Path] = field(default_factory=set)
    still_damaged: set[Path] = field(default_factory=set)

    def suffer(self, kills: int) -> None:
        """Find out what is expected, then kill and resume until `kills` are used up and the last run has ended."""
        forked = replace(self.configuration, way="fork")
        self.expected = digest(self.undisturbed("alone", forked))
        if self.configuration.way != "fork":
            self.compare(self.undisturbed("command", self.configuration))
        while not self.outcome.problems and (self.outcome.kills < kills or not self.outcome.runs):
            run = self.folder / f"run-{self.outcome.runs}"
            while not is_finished(run) or temporaries(run):  # the command draws a picture after the end
                self.attempt(run, self.outcome.kills < kills)
            self.compare(run)

    def undisturbed(self, name: str, configuration: Configuration) -> Path:
        """The folder of a run that is left alone, in the slowest way; the time it took is noted."""
        run, began = self.folder / name, time.monotonic()
        attempt = self.start(run, configuration, configuration.workers[-1], configuration.loaders[-1])
        self.finish(attempt, 600)
        self.duration = time.monotonic() - began
        return run

    def start(self, run: Path, configuration: Configuration, workers: int, loader: str) -> Attempt:
        changes = [f"data.workers={workers}", f"data.loader={loader}"]
        attempt = launch(configuration, self.data, run, run.with_suffix(".log"), changes)
        self.outcome.sessions += attempt.pids
        return attempt

    def attempt(self, run: Path, kill: bool) -> None:
        """Start or resume `run`; kill it, or let it end."""
        resumes, began = (run / "run.json").exists(), time.monotonic()
        self.outcome.resumes += resumes
        before = temporaries(run)
        workers, loader = self.rng.choice(self.configuration.workers), self.rng.choice(self.configuration.loaders)
        attempt = self.start(run, self.configuration, workers, loader)
        if kill:
            self.disturb(attempt, run)
        if not attempt.was_killed:
            self.finish(attempt, 60 + PATIENCE * self.duration)
            if not is_finished(run):
                raise TortureError(f"ended without an error and is not finished\n{tail(attempt.log)}")
            if not resumes:  # the machine was busier before, or this is a quicker way
                self.duration = min(self.duration, time.monotonic() - began)
            return
        self.outcome.saves.update(what_is_saved(name) for name in sorted(temporaries(run) - before)[:1])
        self.examine(run)

    def finish(self, attempt: Attempt, seconds: float) -> None:
        if not attempt.wait(seconds):
            attempt.send(signal.SIGKILL, descendants(attempt.pids))
            raise TortureError(f"still running after {seconds:.0f} s\n{tail(attempt.log)}")
        if attempt.failed:
            raise TortureError(f"failed without being killed\n{tail(attempt.log)}")

    def disturb(self, attempt: Attempt, run: Path) -> None:
        """Kill every process of the attempt, or ask all to stop, unless they end before that."""
        aimed, at_once, asks = (self.rng.random() < share for share in (AIMED, 0.5, ASKED))
        instant, delay = self.rng.uniform(0, self.duration), self.rng.uniform(0, SECONDS_TO_KILL)
        ended = wait_until(lambda: not attempt.running(), instant)
        if aimed and not ended:
            ended = not save_begins(attempt, run)
            time.sleep(0 if at_once else delay)
        if ended:
            return
        self.outcome.aimed += aimed
        victims = descendants(attempt.pids) if self.configuration.way == "torchrun" else attempt.running()
        if asks:
            attempt.send(self.rng.choice((signal.SIGTERM, signal.SIGINT)), victims)
        else:
            self.kill(attempt, victims)
        if not (attempt.wait(60) and wait_until(lambda: not descendants(victims), 60)):
            raise TortureError(f"alive a minute after {'a signal' if asks else 'SIGKILL'}\n{tail(attempt.log)}")
        if attempt.was_killed:
            self.outcome.asked += asks
            self.outcome.kills += not asks

    def kill(self, attempt: Attempt, victims: list[int]) -> None:
        """Some of them first, the others when a part of a second has gone by."""
        self.rng.shuffle(victims)
        first, pause = self.rng.randint(1, max(1, len(victims))), self.rng.uniform(0, SECONDS_BETWEEN_PROCESSES)
        attempt.send(signal.SIGKILL, victims[:first])
        if victims[first:]:
            wait_until(lambda: not attempt.running(), pause)
            attempt.send(signal.SIGKILL, set(victims[first:]) - set(attempt.codes))

    def examine(self, run: Path) -> None:
        """What is called a checkpoint must be whole, at any instant. Now and then, damage the newest one."""
        named = checkpoints(run)
        sound = [path for path in named if is_intact(path)]
        self.still_damaged -= set(sound)  # written anew
        torn = set(named) - set(sound) - self.still_damaged
        set_aside = {path.with_name(path.name.removeprefix("damaged-")) for path in run.glob("checkpoints/damaged-*")}
        if torn or set_aside - self.damaged:
            names = ", ".join(path.name for path in torn | (set_aside - self.damaged))
            raise TortureError(f"not whole, and not by this harness: {names}")
        if len(sound) > 1 and self.rng.random() < DAMAGED and not is_finished(run):
            self.damage(sound[-1])
            self.damaged.add(sound[-1])
            self.still_damaged.add(sound[-1])
            self.outcome.damaged += 1

    def damage(self, checkpoint: Path) -> None:
        """Flip a bit of one of its files, cut the file short, or delete it."""
        file, how = self.rng.choice(sorted(checkpoint.iterdir())), self.rng.choice(("flip", "cut", "delete"))
        content = bytearray(file.read_bytes())
        position = self.rng.randrange(len(content))
        content[position] ^= 1 << self.rng.randrange(8)
        if how == "delete":
            file.unlink()
        else:
            file.write_bytes(content if how == "flip" else content[:position])

    def compare(self, run: Path) -> None:
        """Note every part of a finished run that is not as expected; remove the run when there is none."""
        parts = differences(self.expected, digest(run))
        self.outcome.problems += [f"{run.name}: the {part} differs" for part in parts]
        self.outcome.problems += [f"{run.name}: {name} is left over" for name in leftovers(run)]
        self.outcome.runs += 1
        if not self.outcome.problems:
            shutil.rmtree(run)


def save_begins(attempt: Attempt, run: Path) -> bool:
    """Wait, in a tight loop, for a name that was not there: most are for a millisecond. False when the run ends."""
    before = listing(run)
    while not listing(run) - before:
        if not attempt.running():
            return False
    return True


def what_is_saved(temporary: str) -> str:
    """The kind of thing that a temporary's name tells of: "checkpoint" of ".residuum-ab12_x-step-00000007"."""
    target = temporary.split("-", 2)[-1].removesuffix(".old")
    return "checkpoint" if target.startswith("step-") else target


def tail(log: Path, lines: int = 40) -> str:
    return "\n".join(f"    {line}" for line in log.read_text(errors="replace").splitlines()[-lines:])


def torture(configuration: Configuration, kills: int, seed: int, work: Path) -> Outcome:
    """Everything about one configuration; to be called in a process without threads."""
    folder = work / configuration.name
    folder.mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(work)  # what a killed process leaves there goes with the rest
    data = str(work / "photos") if configuration.data == "photos" else "digits"
    outcome, began = Outcome(configuration.name), time.monotonic()
    rng = random.Random(f"{seed}/{configuration.name}")
    try:
        Ordeal(configuration, data, folder, rng, outcome).suffer(kills)
    except (TortureError, OSError, ValueError, LookupError) as error:
        outcome.problems.append(f"run-{outcome.runs}: {type(error).__name__}: {error}")
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


def spread(kills: int, configurations: Sequence[Configuration]) -> list[int]:
    """How many kills each configuration gets, in proportion to its share."""
    counts = [0] * len(configurations)
    for _ in range(kills):
        poorest = min(range(len(counts)), key=lambda i: (counts[i] + 1) / configurations[i].share)
        counts[poorest] += 1
    return counts
