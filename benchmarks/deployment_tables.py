"""The tables of docs/performance.md about models at work: engines, exports, the server. See tables.py."""

import statistics
from collections.abc import Mapping

from cells import rate, row, spread, under, verdict
from exports import EXPORTS, drops
from measuring import Figures, band, medians, speeds

Results = Mapping[str, Figures]
ENGINES = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime", "torch": "PyTorch"}
KINDS = {"onnx": "ONNX", "openvino": "OpenVINO's format", "torch": "PyTorch's format"}
EAGER = "PyTorch eager, fp32"
SPEED_GOALS = {1: 5.0, 32: 8.0}  # times eager, in 8 bits, by the images at a time
SERVED = {"serving": "ResNet-50 at 224 pixels, fp32", "serving-int8": "ResNet-50 at 224 pixels, int8"}


def engines(results: Results) -> list[str]:
    """One row a way to compute: images per second at each batch, and times as fast as eager PyTorch."""
    if "engines" not in results:
        return []
    rounds = results["engines"]["rounds"]
    rates, times = medians(rounds, "images_per_second"), {}
    for batch in SPEED_GOALS:
        of_batch = [{arm: one for arm, one in arms.items() if arm.endswith(f", batch {batch}")} for arms in rounds]
        times |= speeds(of_batch, f"{EAGER}, batch {batch}", "images_per_second")
    rows = []
    for name in dict.fromkeys(arm.rpartition(", batch ")[0] for arm in rates):
        arms = [f"{name}, batch {batch}" for batch in SPEED_GOALS]
        cells = [cell for arm in arms for cell in (rate(rates[arm]), spread(times[arm]) if arm in times else "1")]
        rows.append(row(name, *cells))
    columns = [f"{what}, batch {batch}" for batch in SPEED_GOALS for what in ("Images/s", "Times eager")]
    told = [_fastest(times, batch, goal) for batch, goal in SPEED_GOALS.items()]
    return [*under("ResNet-50 at 224 pixels, by engine", ("Computed by", *columns), rows), "", " ".join(told)]


def _fastest(times: Mapping[str, Figures], batch: int, goal: float) -> str:
    int8 = {arm: found for arm, found in times.items() if "int8" in arm and arm.endswith(f", batch {batch}")}
    best = max(int8, key=lambda arm: int8[arm]["median"])
    return f"In 8 bits at batch {batch}, goal {verdict(int8[best], goal)}."


def parity(results: Results) -> list[str]:
    """One row a network: the largest difference of a logit in float32, by export and engine."""
    if "exports" not in results:
        return []
    networks = _networks(results["exports"])
    kinds = [kind for kind in EXPORTS if "int8" not in kind]
    pairs = [(kind, engine) for kind in kinds for engine in next(iter(networks.values()))["exports"][kind]["scores"]]
    rows = [row(name, *(f"{_difference(found, *pair):.1e}" for pair in pairs)) for name, found in networks.items()]
    columns = ("Network", *(f"{KINDS[kind]}, by {ENGINES[engine]}" for kind, engine in pairs))
    apart = max(abs(drop) for kind in kinds for _, _, drop in drops(networks, kind))
    images = next(iter(networks.values()))["PyTorch"]["images"]
    told = f"The top-1 accuracy on {images:,} test images differs by at most {apart:.2f} points from PyTorch's."
    return [*under("Exports in float32", columns, rows), "", told]


def accuracy(results: Results) -> list[str]:
    """One row a network: the accuracy by PyTorch in float32, and what 8 bits cost, by export and engine."""
    if "exports" not in results:
        return []
    networks = _networks(results["exports"])
    kinds = [kind for kind in EXPORTS if "int8" in kind]
    lost = {(name, kind, engine): drop for kind in kinds for name, engine, drop in drops(networks, kind)}
    pairs = list(dict.fromkeys((kind, engine) for _, kind, engine in lost))
    rows = [
        row(name, _interval(found["PyTorch"]["top1"]), *(f"{lost[name, *pair]:+.2f}" for pair in pairs))
        for name, found in networks.items()
    ]
    columns = ("Network", "PyTorch, fp32, %", *(_named(*pair) for pair in pairs))
    return under("Points of accuracy that 8 bits cost", columns, rows)


def serving(results: Results) -> list[str]:
    """One row a model: the server's share of its engine, and what happens at twice its capacity."""
    rows = []
    for name, model in SERVED.items():
        if name not in results:
            continue
        record = results[name]
        rounds, over = record["rounds"], [figures["twice the capacity"] for figures in record["rounds"]]
        rates = medians(rounds, "images_per_second")
        share = [100 * one["server"]["images_per_second"] / one["engine alone"]["images_per_second"] for one in rounds]
        p99 = band([figures["p99_ms"] for figures in over])
        sent = statistics.median(2 * figures["sent_per_second"] / figures["rate"] for figures in over)
        refused = sum(figures["refused_otherwise"] for figures in over)
        cells = (rate(rates["engine alone"]), rate(rates["server"]), _whole(band(share)))
        rows.append(row(model, *cells, _whole(p99), f"{sent:.2f}", f"{refused:,}"))
    columns = (
        "Model",
        "Engine alone, images/s",
        "Server, images/s",
        "Share, %",
        "p99 at twice the capacity, ms",
        "Sent, times the capacity",
        "Refused otherwise than by 429",
    )
    return under("The server", columns, rows)


def _whole(figures: Figures) -> str:
    """The median, and the least and the most in brackets, without a fraction."""
    return f"{figures['median']:,.0f} ({figures['least']:,.0f} to {figures['most']:,.0f})"


def endurance(results: Results) -> list[str]:
    """What mutated uploads, minutes of load and kills did."""
    lines = []
    for name, model in SERVED.items():
        if memory := results.get(name, {}).get("memory"):
            minutes = memory["seconds"][-1] / 60
            lines.append(
                f"- Memory under {minutes:.0f} minutes of load ({model}): {memory['first_mib']:,.0f} MiB at first, "
                f"{memory['last_mib']:,.0f} MiB at the end, {memory['mib_per_minute']:+.2f} MiB a minute."
            )
    if "uploads" in results:
        lines.append(_uploads(results["uploads"]))
    return lines


def _uploads(record: Figures) -> str:
    uploads = record["rounds"][0]["uploads"]
    answers = ", ".join(f"{count:,} answered {status}" for status, count in uploads["statuses"].items())
    found = "found nothing" if not record["document_failed"] else "found faults"
    return (
        f"- {uploads['uploads']:,} mutated uploads: {answers}; {uploads['bad']:,} without a proper answer; the server "
        f"{'lived' if uploads['alive'] else 'died'}. schemathesis, {record['settings']['examples']} examples a route, "
        f"{found}."
    )


def _named(kind: str, engine: str) -> str:
    return f"{KINDS[kind.partition(' ')[0]]}, by {ENGINES[engine]}"


def _networks(record: Figures) -> Mapping[str, Figures]:
    return {name: record[name] for name in record["settings"]["networks"] if name in record}  # as far as it is


def _difference(found: Figures, kind: str, engine: str) -> float:
    rows = found["exports"][kind]["parity"]
    return max(one["difference"] for one in rows if one["engine"].startswith(ENGINES[engine]))


def _interval(figure: Figures) -> str:
    return f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"
