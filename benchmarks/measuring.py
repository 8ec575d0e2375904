"""What every benchmark shares: arms that take turns, each in a process of its own, and a record that no stop loses.

An arm is measured in its own process because settings of a process, its memory allocator's say, must not help another
arm. Arms take turns, so that a machine that slows down does so for all; ratios are taken within a round.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from residuum.files import read_json, write_json
from residuum.hardware import choose_device, describe_hardware, versions
from residuum.inference.bench import band

Figures = dict[str, Any]
"""What one run of an arm gave, by name: plain JSON."""
Arm = Callable[[], Figures]

_NOT_SETTINGS = ("out", "rounds")  # where the result goes, and how long to measure, change no figure
_SAME = ("settings", "versions", "hardware")


def printed_text(command: Sequence[str], **environment: str) -> str:
    """What a process prints. Raises SystemExit with its complaint where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout


def printed_json(command: Sequence[str], **environment: str) -> Figures:
    """The JSON object in the last line that a process prints. Raises SystemExit as `printed_text`."""
    figures: Figures = json.loads(printed_text(command, **environment).splitlines()[-1])
    return figures


def with_rate(figures: Figures) -> Figures:
    """`images` and `seconds_per_epoch`, and their `images_per_second` without the first epoch, which warms up."""
    seconds = figures["seconds_per_epoch"][1:] or figures["seconds_per_epoch"]
    return {**figures, "images_per_second": figures["images"] * len(seconds) / sum(seconds)}


def best_workers(rate: Callable[[int], float], counts: Iterable[int]) -> Figures:
    """The number of loader processes with the highest rate, and the rate of each that was tried."""
    rates = {str(count): rate(count) for count in counts}
    return {"best": int(max(rates, key=lambda count: rates[count])), "images_per_second": rates}


def speeds(rounds: Sequence[Mapping[str, Figures]], base: str, figure: str) -> dict[str, Figures]:
    """How many times as fast as `base` each other arm is, round by round.

    figure: "images_per_second", or another name of a rate; or one that starts with "seconds", of which less is faster.
    """
    less_is_faster = figure.startswith("seconds")

    def ratio(one: Figures, other: Figures) -> float:
        return other[figure] / one[figure] if less_is_faster else one[figure] / other[figure]

    others = [arm for arm in rounds[0] if arm != base]
    return {arm: band([ratio(figures[arm], figures[base]) for figures in rounds]) for arm in others}


def medians(rounds: Sequence[Mapping[str, Figures]], figure: str) -> dict[str, float]:
    """Each arm's median of a figure."""
    return {arm: statistics.median(figures[arm][figure] for figures in rounds) for arm in rounds[0]}


class Record:
    """A benchmark's result: on the disk after every round, and taken up again when the same command is given.

    options: the parsed command line; `out` and `rounds` in it are the file, None for none, and how many rounds to have.
    Raises SystemExit where the file holds the result of other settings, other versions or another machine.
    """

    def __init__(self, options: argparse.Namespace, device: str = "cpu") -> None:
        settings = {name: shown(value) for name, value in vars(options).items() if name not in _NOT_SETTINGS}
        about = {
            "command": command_line(sys.argv),
            "settings": settings,
            "versions": versions(),
            "hardware": describe_hardware(choose_device(device)),
        }
        self._path: Path | None = options.out
        self._wanted: int = options.rounds
        found = read_json(self._path) if self._path is not None and self._path.exists() else {**about, "rounds": []}
        others = [part for part in _SAME if found.get(part) != about[part]]
        if others:
            raise SystemExit(f"{self._path} is of other {' and '.join(others)}; name another file, or remove this one")
        self.content: dict[str, Any] = {**found, "command": about["command"]}  # perhaps with more rounds now

    @property
    def rounds(self) -> list[dict[str, Figures]]:
        """What has been measured so far: of each round, each arm's figures."""
        rounds: list[dict[str, Figures]] = self.content["rounds"]
        return rounds

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` returns; where an earlier start of the command has it already, that."""
        if name not in self.content:
            self.content[name] = make()
            self._write()
        return self.content[name]

    def run(self, arms: Mapping[str, Arm]) -> None:
        """Let the arms take turns until there are as many rounds as wanted. Each round begins with another arm."""
        for number in range(len(self.rounds), self._wanted):
            figures = {arm: arms[arm]() for arm in in_turn(list(arms), number)}
            self.rounds.append({arm: figures[arm] for arm in arms})
            self._write()
            print(f"round {number + 1} of {self._wanted}", file=sys.stderr, flush=True)

    def conclude(self, **findings: Any) -> None:
        """Add what follows from the rounds, and print the whole."""
        self.content.update(findings)
        self._write()
        print(json.dumps(self.content, indent=2))

    def _write(self) -> None:
        if self._path is not None:
            write_json(self._path, self.content)


def in_turn(arms: Sequence[str], number: int) -> list[str]:
    """The arms in the order of round `number`: none is always the first, or always after the same other's warmth."""
    start = number % len(arms)
    return [*arms[start:], *arms[:start]]


def command_line(arguments: Sequence[str]) -> str:
    """The command as another person would type it: paths outside the working folder by their last part."""
    return shlex.join(["python", *(shown(argument) for argument in arguments)])


def shown(value: object) -> Any:
    """A setting for the record: numbers, truth values and None as they are, else text, and of a far path the name."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, list):
        return [shown(item) for item in value]
    path = Path(str(value))
    if path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    return path.name if path.is_absolute() or ".." in path.parts else str(value)


def add_common_options(parser: argparse.ArgumentParser, rounds: int = 5) -> None:
    """`--rounds` and `--out`, which every benchmark has."""
    parser.add_argument("-r", "--rounds", type=int, default=rounds, help="how often the arms take turns")
    parser.add_argument("-o", "--out", type=Path, help="JSON file, written after every round; go on with the same")
