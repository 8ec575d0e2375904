"""Writes the tables of docs/performance.md from benchmarks/results/, between `<!-- table: NAME -->` and `<!-- end -->`.

    python benchmarks/tables.py            writes them
    python benchmarks/tables.py --check    exit code 1 where the page does not say what the results say

Every figure is worked out anew from the rounds in the JSON files. What has no result yet is left out, heading and all.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cells import clock, megabytes, missed, rate, row, spread, under, verdict
from deployment_tables import SERVED, accuracy, endurance, engines, parity, serving
from measuring import Figures, band, medians, speeds
from roofline import COLUMNS, kind_rows, machine_rows
from roofline import rows as roofline_rows

from residuum.errors import counted
from residuum.files import read_json, write_text

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "performance.md"
MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

Results = Mapping[str, Figures]
"""The records in the results folder, by file name without its suffix."""

TRAINING = {
    "training-cifar": ("ResNet-20, CIFAR-10, 32x32, batch 128", "the published script"),
    "training-fashion-mnist": ("ResNet-18, Fashion-MNIST, 96x96, batch 256", "the textbook's script"),
    "training-imagenet": ("ResNet-50, photographs, 224x224, batch 32", "torchvision's reference style"),
}
LOADING = {"loading": "photographs, 224x224", "loading-small": "CIFAR-10, 32x32"}
EVALUATION = {
    "evaluation-cifar": "ResNet-20, CIFAR-10, 32x32, batch 256",
    "evaluation-photos": "ResNet-50, photographs, 224x224, batch 32",
}
GOALS = {"training-cifar": 2.5, "training-fashion-mnist": 3.0, "training-imagenet": 3.5, "loading": 2.5}
HELP_GOAL, FIRST_GOAL = 0.3, 0.5  # seconds: for help, and for the first prediction of an export
NINETY_GOAL = 10.0
KIND_COLUMNS = ("Network", "Kind of layer", "Roofline, ms", "Measured, ms")
AT_WORK = ("engines", "exports", *SERVED, "uploads")
MEASURED = (*TRAINING, *LOADING, "startup", *EVALUATION, "distribution", "ninety", "sameness", "roofline-cpu", *AT_WORK)


def training(results: Results) -> list[str]:
    """One row a network: the peer's rate, and how many times as fast residuum is, by itself and in fp32."""
    rows = []
    for name, (work, peer) in TRAINING.items():
        if name in results:
            rounds = results[name]["rounds"]
            rates = medians(rounds, "images_per_second")
            times = speeds(rounds, "peer", "images_per_second")
            cells = (f"{work}; {peer}", rate(rates["peer"]), rate(rates["residuum"]), spread(times["residuum"]))
            rows.append(row(*cells, spread(times["residuum in fp32"]), verdict(times["residuum"], GOALS[name])))
    columns = ("Work; peer", "Peer, images/s", "residuum, images/s", "Times as fast", "In fp32", "Goal")
    return under("Training, loader included", columns, rows)


def loading(results: Results) -> list[str]:
    """One row a loader: images per second, against the best of torchvision's, and memory."""
    rows, notes = [], []
    for name, work in LOADING.items():
        if name not in results:
            continue
        record = results[name]
        rates, best = medians(record["rounds"], "images_per_second"), best_peer(record)
        times = speeds(record["rounds"], best, "images_per_second")
        for arm in rates:
            compared = "1" if arm == best else spread(times[arm])
            goal = verdict(times[arm], GOALS[name]) if arm == "residuum" and name in GOALS else ""
            cells = (f"{work}: {loader_name(arm)}", rate(rates[arm]), compared, goal)
            rows.append(row(*cells, megabytes(record.get("memory", {}).get(arm, {}))))
        if crops := record.get("crops_against_pillow"):
            notes = ["", crops_sentence(crops)]
    columns = ("Loader", "Images/s", "Times the best of torchvision's", "Goal", "Memory, MiB (processes)")
    return [*under("Loading", columns, rows), *notes]


def startup(results: Results) -> list[str]:
    """One row a command: its seconds from the shell."""
    if "startup" not in results:
        return []
    rounds = results["startup"]["rounds"]
    seconds = {arm: band([figures[arm]["seconds"] for figures in rounds]) for arm in rounds[0]}
    rows = []
    for arm, figures in seconds.items():
        goal = soon_enough(figures["median"], startup_goal(arm))
        rows.append(row(f"`{arm.replace('--help', '-h')}`", spread(figures), goal))
    pair = [{arm: figures[arm] for arm in ("torchvision predict", "residuum predict")} for figures in rounds]
    times = speeds(pair, "torchvision predict", "seconds")["residuum predict"]
    told = f"One prediction from the shell is {spread(times)} times as fast as with the plain torchvision script."
    return [*under("From the shell", ("Command", "Seconds", "Goal"), rows), "", told]


def startup_goal(arm: str) -> float | None:
    """The seconds that a command of the startup benchmark may take at most; None where that is left open."""
    if arm.endswith("--help"):
        return HELP_GOAL
    return FIRST_GOAL if arm.startswith("residuum predict, ") and "PyTorch" not in arm else None


def soon_enough(seconds: float, goal: float | None) -> str:
    """Whether the goal is met; nothing where there is none."""
    return "" if goal is None else f"under {goal}: {'met' if seconds < goal else missed(seconds - goal)}"


def evaluation(results: Results) -> list[str]:
    """One row a network, against the peer's loop; one row more for each protocol of more views, which has no peer."""
    rows, apart = [], 0.0
    for name in [name for name in EVALUATION if name in results]:
        rounds = results[name]["rounds"]
        rates = medians(rounds, "images_per_second")
        times = speeds(rounds, "peer", "images_per_second")
        cells = (f"{EVALUATION[name]}: 1-crop", rate(rates["peer"]), rate(rates["residuum"]), spread(times["residuum"]))
        rows.append(row(*cells, spread(times["residuum in fp32"])))
        views = [arm for arm in rates if arm.startswith("residuum, ")]
        rows += [
            row(f"{EVALUATION[name]}: {arm.removeprefix('residuum, ')}", "", rate(rates[arm]), "", "") for arm in views
        ]
        apart = max(apart, *(abs(one["peer"]["loss"] - one["residuum in fp32"]["loss"]) for one in rounds))
    columns = ("Work", "torchvision loop, images/s", "residuum, images/s", "Times as fast", "In fp32")
    told = f"With the same weights, in fp32, the mean losses of both are at most {apart:.0e} nats apart."
    return [*under("Evaluation, reading the images included", columns, rows), *(["", told] if rows else [])]


def distribution(results: Results) -> list[str]:
    """One row a way to start: images per second, and memory."""
    if "distribution" not in results:
        return []
    record = results["distribution"]
    rates = medians(record["rounds"], "images_per_second")
    times = speeds(record["rounds"], "1 process", "images_per_second")
    names = {"1 process": "1 process, 2 threads", "2 processes": "`torchrun`, 2 processes, 1 thread each"}
    rows = [
        row(
            names[arm],
            rate(rates[arm]),
            spread(times[arm]) if arm in times else "1",
            megabytes(record.get("memory", {}).get(arm, {})),
        )
        for arm in rates
    ]
    columns = ("ResNet-20, global batch 128", "Images/s", "Times as fast", "Memory, MiB (processes)")
    return under("Two processes on the same two cores", columns, rows)


def ninety(results: Results) -> list[str]:
    """The time to 90 % on CIFAR-10: a row for each seed of residuum's, and the script's."""
    if "ninety" not in results:
        return []
    record = results["ninety"]
    peer, times = record["peer"], record["times_as_soon"]
    best = max(peer["test_accuracy"])
    is_reached = record["peer_reached"]
    reached = f"{best:.2f} %" if is_reached else f"not reached; best {best:.2f} %"
    length = record["settings"]["peer_epochs"]
    rows = [row(f"published script, {length} epochs planned", clock(record["peer_seconds"]), reached, "1", "")]
    for figures, ratio in zip(record["rounds"], times["per_round"], strict=True):
        own = figures["residuum"]
        times_told = f"{ratio:.2f}" if is_reached else f"at least {ratio:.2f}"
        goal = verdict({"median": ratio}, NINETY_GOAL) if is_reached else f"{NINETY_GOAL:.0f}: not decided"
        cells = (f"`quick`, seed {own['seed']}", clock(own["seconds"]), f"{own['test_accuracy']:.2f} %", times_told)
        rows.append(row(*cells, goal))
    return under("CIFAR-10 to 90 %", ("Run", "Time", "Test accuracy", "Times as soon", "Goal"), rows)


def sameness(results: Results) -> list[str]:
    """Accuracies with and without what makes training fast."""
    if "sameness" not in results:
        return []
    record = results["sameness"]
    rows = [
        row(name, f"{figures['mean']:.2f} % ± {figures['standard_deviation']:.2f}")
        for name, figures in record["test_accuracy"].items()
    ]
    apart, gap = record["first_epoch_loss_apart"], record["accuracy_difference"]
    told = (
        f"Difference of the accuracies, same seeds: {gap['mean']:+.2f} points (95 % interval {gap['low']:+.2f} to "
        f"{gap['high']:+.2f}). Training loss of the first epoch, seed by seed: at most {100 * apart:.1f} % apart."
    )
    length = f"{record['settings']['epochs']} epochs of {record['settings']['images']:,} images"
    columns = (f"`quick` on CIFAR-10, {length}, {len(record['rounds'])} seeds", "Test accuracy")
    return [*under("With and without", columns, rows), "", told]


def bounds(results: Results) -> list[str]:
    """The machine's peaks, each network's roofline beside its measured step, and the kinds of layer."""
    if "roofline-cpu" not in results:
        return []
    record = results["roofline-cpu"]
    tables = [
        under("The machine", ("What", "Speed"), [row(*cells) for cells in machine_rows(record)]),
        under("Roofline and measured step", COLUMNS, [row(*cells) for cells in roofline_rows(record)]),
        under("By kind of layer", KIND_COLUMNS, [row(*cells) for cells in kind_rows(record)]),
    ]
    return [line for table in tables for line in [*table, ""]][:-1]


def shortfalls(results: Results) -> list[str]:
    """A line for each goal that was missed, and by how much."""
    lines = []
    for name, goal in GOALS.items():
        if name in results:
            rounds = results[name]["rounds"]
            base = "peer" if name in TRAINING else best_peer(results[name])
            reached = speeds(rounds, base, "images_per_second")["residuum"]["median"]
            work = TRAINING[name][0] if name in TRAINING else f"loading {LOADING[name]}"
            lines += [f"- {work}: {reached:.2f} times as fast, goal {goal}"] if reached < goal else []
    if "ninety" in results:
        sooner = results["ninety"]["times_as_soon"]["median"]
        least = "" if results["ninety"]["peer_reached"] else "at least "
        told = f"- CIFAR-10 to 90 %: {least}{sooner:.1f} times as soon, goal {NINETY_GOAL:.0f}"
        lines += [told] if sooner < NINETY_GOAL else []
    if "startup" in results:
        seconds = medians(results["startup"]["rounds"], "seconds")
        for arm, value in seconds.items():
            goal = startup_goal(arm)
            late = goal is not None and value >= goal
            lines += [f"- `{arm.replace('--help', '-h')}`: {value:.2f} s, goal {goal}"] if late else []
    return ["### Goals missed", "", *lines] if lines else []


def repeating(results: Results) -> list[str]:
    """The command behind each table, and the machine and versions that it ran on."""
    there = [name for name in MEASURED if name in results]
    if not there:
        return []
    commands = [f"- {rounds_of(results[name])}`{results[name]['command']}`" for name in there]
    machines = list(dict.fromkeys(machine(results[name]) for name in there))
    return ["### To repeat it", "", *commands, "", *machines]


def rounds_of(record: Figures) -> str:
    """ "5 rounds: "; nothing for what is not measured in rounds."""
    return f"{counted(len(record['rounds']), 'round')}: " if "rounds" in record else ""


TABLES: dict[str, Callable[[Results], list[str]]] = {
    "training": training,
    "loading": loading,
    "startup": startup,
    "evaluation": evaluation,
    "distribution": distribution,
    "ninety": ninety,
    "shortfalls": shortfalls,
    "sameness": sameness,
    "bounds": bounds,
    "engines": engines,
    "parity": parity,
    "accuracy": accuracy,
    "serving": serving,
    "endurance": endurance,
    "repeating": repeating,
}


def best_peer(record: Figures) -> str:
    """The arm of torchvision's that has the highest median rate."""
    rates = medians(record["rounds"], "images_per_second")
    return max((arm for arm in rates if arm.startswith("torchvision")), key=lambda arm: rates[arm])


def loader_name(arm: str) -> str:
    """ "torchvision, 2 processes" for the arm "torchvision, 2"."""
    count = arm.removeprefix("torchvision, ")
    return arm if count == arm else f"torchvision, {count} process{'es' if count != '1' else ''}"


def crops_sentence(crops: Figures) -> str:
    """How far the loader's crops are from Pillow's."""
    count, most = crops["crops"], crops["largest_difference"]
    level = f"{most} grey level{'s' if most != 1 else ''} of 255"
    share = f"; {100 * crops['share_beyond_one']:.3f} % of the values by more than one" if most > 1 else ""
    return f"Of {count:,} crops of the same boxes, those of residuum differ from Pillow's by at most {level}{share}."


def machine(record: Figures) -> str:
    """One sentence: processor, cores, threads, versions."""
    hardware, versions = record["hardware"], record["versions"]
    where = f"{hardware['processor']}, {hardware['cores']} cores, {hardware['threads']} threads"
    software = ", ".join(f"{name} {versions[name]}" for name in ("torch", "torchvision", "pillow"))
    return f"{where}, {hardware['instructions']}; Python {versions['python']}, {software}."


def fill(page: str, results: Results) -> str:
    """The page with its tables made anew. Raises SystemExit for a marker that names no table."""

    def filled(found: re.Match[str]) -> str:
        if found[2] not in TABLES:
            raise SystemExit(f"the page asks for a table {found[2]!r}; there are {', '.join(TABLES)}")
        lines = TABLES[found[2]](results)
        return found[1] + ("\n" + "\n".join(lines) + "\n\n" if lines else "") + found[3]

    return MARKED.sub(filled, page)


def read_results(folder: Path) -> dict[str, Any]:
    """The records that the tables are made of, those there are."""
    return {name: read_json(path) for name in MEASURED if (path := folder / f"{name}.json").exists()}


def main() -> int:
    """Write the page, or with `--check` say whether it is what it would be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 where the page is stale")
    options = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    filled = fill(page, read_results(RESULTS))
    if options.check:
        if filled != page:
            print(f"{PAGE.name} is stale; run: python benchmarks/tables.py", file=sys.stderr)
        return int(filled != page)
    write_text(PAGE, filled)
    return 0


if __name__ == "__main__":
    sys.exit(main())
