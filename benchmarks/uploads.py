"""Whatever is sent, a server answers, never with a 5xx, and lives: the API's document tried, and mutated uploads.

    python benchmarks/uploads.py MODEL -o benchmarks/results/uploads.json

First schemathesis, which makes requests of the OpenAPI document, right ones and wrong ones. Then --uploads requests of
mutated image files, as bodies, forms and JSON, one in eight of whose bytes around the images are broken, too. Case
number i is a function of (seed images, --seed, i) alone. Ends with 1 where a request was answered with a 5xx, was not
answered, or the server died; such requests are kept under --findings, and what the server said.
"""

import argparse
import asyncio
import base64
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from loopback import Answer, Connection, Process, request
from measuring import Figures, Record, add_common_options

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "data"))

from mutations import Draw, mutated
from seed_images import built_in

BOUNDARY = "------------------------0123456789abcdef"
FORM, JSON, RAW = f"multipart/form-data; boundary={BOUNDARY}", "application/json", "application/octet-stream"
_NAMES = ("a.png", "../../a", "", "a\\b", "x" * 300, "%00", "ü.jpg")
_FIELDS = (("top", "3"), ("top", "-1"), ("model", "x" * 2000), ("maps", "true"), ("deadline", "1e-9"), ("", ""))


def main() -> None:
    """Try, and print the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a run or an exported model")
    parser.add_argument("--uploads", type=int, default=100_000, help="mutated uploads a round")
    parser.add_argument("--examples", type=int, default=500, help="requests of each route that schemathesis makes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clients", type=int, default=8, help="requests under way at once")
    parser.add_argument("--findings", type=Path, default=Path("findings"), help="where what breaks it is kept")
    add_common_options(parser, rounds=1)
    options = parser.parse_args()
    record = Record(options)
    options.findings.mkdir(parents=True, exist_ok=True)
    with Process([options.model, "--deadline", "60"], options.findings / "server.log") as process:
        record.run(
            {
                "document": lambda: _document(process.port, options),
                "uploads": lambda: asyncio.run(_uploads(process, options)),
            }
        )
        exit_status = process.stop() if process.is_alive() else None
    bad = sum(figures["uploads"]["bad"] for figures in record.rounds)
    failed = [figures["document"]["failed"] for figures in record.rounds]
    record.conclude(bad=bad, document_failed=any(failed), exit_status=exit_status)
    sys.exit(bool(bad or any(failed) or exit_status != 0))


def _document(port: int, options: argparse.Namespace) -> Figures:
    """What schemathesis finds: no 5xx, and no answer that the document does not describe.

    Not asked of it is that all that fits the document be accepted: no schema says which bytes are an image.
    """
    url = f"http://127.0.0.1:{port}/openapi.json"
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "--no-color"]
    how = ["--max-examples", str(options.examples), "--seed", str(options.seed)]
    without = ["--exclude-checks", "positive_data_acceptance"]
    done = subprocess.run([*command, "run", url, *how, *without], capture_output=True, text=True)
    failures, _, summary = done.stdout.partition("= SUMMARY =")
    failures = failures.partition("= FAILURES =")[2] or done.stderr[-2000:]
    return {
        "failed": bool(done.returncode),
        "failures": failures[-8000:].splitlines() if done.returncode else [],
        "summary": [line for line in summary.splitlines()[1:] if line.strip()],
    }


async def _uploads(process: Process, options: argparse.Namespace) -> Figures:
    seeds = built_in()
    cases = iter(range(options.uploads))
    statuses: Counter[int] = Counter()
    bad: list[int] = []
    start, before = time.perf_counter(), process.memory()

    async def client() -> None:
        connection = Connection(process.port)
        for case in cases:
            sent = _request(seeds, options.seed, case)
            answer = await connection.ask(sent, 120.0)
            statuses[answer.status] += 1
            if _is_bad(answer):
                bad.append(case)
                (options.findings / f"{case}.http").write_bytes(sent)
            if (case + 1) % 10_000 == 0:
                print(f"{case + 1:,} uploads, {len(bad)} bad", file=sys.stderr, flush=True)
        connection.close()

    await asyncio.gather(*(client() for _ in range(options.clients)))
    return {
        "uploads": options.uploads,
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "bad": len(bad),
        "first_bad": sorted(bad)[:20],
        "alive": process.is_alive(),
        "uploads_per_second": options.uploads / (time.perf_counter() - start),
        "memory_growth_mib": (process.memory() - before) / 2**20 if process.is_alive() else None,
    }


def _is_bad(answer: Answer) -> bool:
    """A 5xx, no answer, or what is neither an answer in JSON nor a refusal."""
    if not 200 <= answer.status < 500:
        return True
    try:
        found: dict[str, Any] = json.loads(answer.body)
    except ValueError:
        return answer.body != b"Invalid HTTP request received."
    return "images" not in found if answer.status == 200 else "detail" not in found


def _request(seeds: Any, seed: int, case: int) -> bytes:
    """Mutated images as one body, a form or JSON; every eighth body itself is mutated."""
    draw = Draw(seed ^ 0x5EED, case)
    images = [mutated(seeds, seed, case * 4 + number)[1] for number in range(1 + draw.below(3))]
    kind, body = draw.of((_raw, _form, _json))(draw, images)
    if draw.below(8) == 0:
        body = _broken(draw, body)
    path = draw.of(("/predict", "/predict", "/predict?top=2", "/predict?maps=true"))
    return request(body, kind, path)


def _raw(draw: Draw, images: list[bytes]) -> tuple[str, bytes]:
    return draw.of((RAW, "image/png", "image/jpeg", "application/x-www-form-urlencoded")), images[0]


def _form(draw: Draw, images: list[bytes]) -> tuple[str, bytes]:
    parts = [_part(f'name="image"; filename="{draw.of(_NAMES)}"', image) for image in images]
    if draw.below(4) == 0:
        name, value = draw.of(_FIELDS)
        parts.append(_part(f'name="{name}"', value.encode()))
    return FORM, b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def _part(disposition: str, content: bytes) -> bytes:
    return f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode() + content + b"\r\n"


def _json(draw: Draw, images: list[bytes]) -> tuple[str, bytes]:
    found: dict[str, Any] = {"images": [base64.b64encode(image).decode() for image in images]}
    if draw.below(4) == 0:
        found |= [draw.of(_FIELDS)]
    return JSON, json.dumps(found).encode()


def _broken(draw: Draw, body: bytes) -> bytes:
    """Cut, with some bytes overwritten, or with a part of it doubled."""
    at = draw.place(len(body))
    length = draw.size(64)
    return draw.of(
        (body[:at], body[:at] + bytes(length) + body[at + length :], body[:at] + body[max(0, at - length) :])
    )


if __name__ == "__main__":
    main()
