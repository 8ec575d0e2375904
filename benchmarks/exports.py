"""What exports keep: logits beside PyTorch's and accuracy on all test images, of networks trained on a data set.

    python benchmarks/exports.py ./cifar10 -o benchmarks/results/exports.json

Each network is trained, exported for every kind of engine in float32 and in 8 bits, and measured by every engine at
hand, all by the verbs that a person would type. A network is in the record once it is whole; the same command goes on
with the next. Runs and exports stay under --work.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from measuring import Figures, Record, add_common_options, printed_text

from residuum.inference.engines import engines_at_hand
from residuum.inference.exported import BESIDE, TARGETS, Exported, read_exported

NETWORKS: Mapping[str, tuple[str, ...]] = {
    "lenet5": (),
    "plain20": (),
    "resnet20": (),
    "resnet20, shortcut C": ("--shortcut", "C"),
    "resnet20, gated shortcut": ("--shortcut", "gated"),
    "preact_resnet20": (),
    "resnet20_bn_after_addition": (),
    "wide_resnet10_2": (),
    "resnet18": (),
    "preact_resnet18": (),
}
"""Options of the training, by the network's name and what is special of it."""
EXPORTS = (*TARGETS, *(f"{target} int8" for target in TARGETS if target != "torch"))
RESIDUUM = (sys.executable, "-m", "residuum")


def main() -> None:
    """Measure, and print the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="images to train and test on")
    parser.add_argument("--epochs", type=int, default=2, help="of each training")
    parser.add_argument("--networks", nargs="+", default=[*NETWORKS], choices=[*NETWORKS], metavar="NAME")
    parser.add_argument("--work", type=Path, default=Path("runs"), help="where runs and exports lie")
    add_common_options(parser, rounds=1)
    options = parser.parse_args()
    record = Record(options)
    for name in options.networks:
        record.once(name, lambda name=name: figures(name, options))
        print(name, file=sys.stderr, flush=True)
    record.conclude(**findings({name: record.content[name] for name in options.networks}))


def figures(name: str, options: argparse.Namespace) -> Figures:
    """PyTorch's score on all test images, and of each export its checks and scores."""
    run, data = options.work / name.replace(", ", "-").replace(" ", "-"), options.data
    if not (run / "model" / "config.json").is_file():
        shutil.rmtree(run, ignore_errors=True)
        model = ("-m", name.partition(",")[0], *NETWORKS[name])
        printed_text([*RESIDUUM, "train", data, *model, "--epochs", str(options.epochs), "-o", str(run)])
    exports = {kind: export(run, kind, data) for kind in EXPORTS}
    own, *others = scores([run, *(exported.file.parent for exported in exports.values())], data)
    found = {kind: about(exported) for kind, exported in exports.items()}
    for kind, score in zip(exports, others, strict=True):
        found[kind]["scores"] = {engines_at_hand(exports[kind])[0]: score}
    more = [(kind, engine) for kind in exports for engine in engines_at_hand(exports[kind])[1:]]
    for kind, engine in more:
        (found[kind]["scores"][engine],) = scores([exports[kind].file.parent], data, "--engine", engine)
    return {"PyTorch": own, "exports": found}


def export(run: Path, kind: str, data: str) -> Exported:
    """One export. No drop is refused here."""
    target, _, number = kind.partition(" ")
    folder = run.with_name(f"{run.name}-{kind.replace(' ', '-')}")
    shutil.rmtree(folder, ignore_errors=True)
    how = ("--int8", "--max-drop", "100") if number else ()
    printed_text([*RESIDUUM, "export", str(run), "--to", target, *how, "--data", data, "-o", str(folder)])
    return read_exported(folder)


def about(exported: Exported) -> Figures:
    """The size of an export, and the logits beside PyTorch's."""
    files = [exported.file, *(exported.file.with_name(file) for file in BESIDE[exported.target])]
    return {"mib": sum(file.stat().st_size for file in files) / 2**20, "parity": exported.checks["parity"]}


def scores(models: Sequence[Path], data: str, *how: str) -> list[Figures]:
    """The top-1 accuracy in % of each, on all test images, with its interval; a run's in float32."""
    command = [*RESIDUUM, "evaluate", *map(str, models), data, "--split", "test", "--json", *how]
    told = json.loads(printed_text([*command, "--device", "cpu", "--precision", "fp32"]))
    return [
        {"top1": one["top1"], "images": one["images"], "protocol": one["protocol"]}
        for one in told.get("models", [told])
    ]


def findings(networks: Mapping[str, Figures]) -> Figures:
    """The worst of each kind of export over all networks."""
    return {
        "largest_difference": {kind: max(rows_of(networks, kind, "difference")) for kind in EXPORTS},
        "largest_drop_in_points": {kind: max(drop for _, _, drop in drops(networks, kind)) for kind in EXPORTS},
    }


def rows_of(networks: Mapping[str, Figures], kind: str, figure: str) -> list[float]:
    """A figure of every engine's parity, over all networks."""
    return [row[figure] for found in networks.values() for row in found["exports"][kind]["parity"]]


def drops(networks: Mapping[str, Figures], kind: str) -> Iterator[tuple[str, str, float]]:
    """Network, engine, and the points of accuracy that are lost."""
    for name, found in networks.items():
        for engine, one in found["exports"][kind]["scores"].items():
            yield name, engine, found["PyTorch"]["top1"]["value"] - one["top1"]["value"]


if __name__ == "__main__":
    main()
