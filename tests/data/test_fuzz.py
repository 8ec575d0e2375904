"""Hostile files in numbers; the long run is `python tests/data/fuzz.py`."""

import io
import os
import struct
import sys
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz import Limits, Report, check_image, check_twice, fuzz, main
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import mutated, png_chunks
from numpy.typing import NDArray
from PIL import Image
from seed_images import MAGIC, built_in, png_file

from residuum.data.decoding import FORMATS, BadImage, decode

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the fuzzer limits its processes as only Linux does"),
    pytest.mark.filterwarnings("ignore::Warning:PIL", "ignore:.*use of fork:DeprecationWarning"),
]
SEEDS = built_in()
SMALL = [seed for seed in SEEDS if seed.kind == "digit"]


def test_there_are_seeds_of_every_format_and_all_are_sound() -> None:
    assert {seed.format for seed in SEEDS} == set(FORMATS) == set(MAGIC)
    for seed in SEEDS:
        assert decode(seed.read(), seed.kind, 3).shape[2] == 3
        if seed.kind != "photo":
            assert seed.read()[:2] == MAGIC[seed.format][:2] or seed.format == "PPM"


@pytest.mark.parametrize("part", ["JPEG", "PNG", "TIFF", "others"])
def test_peers_7_mutated_files_give_an_image_or_a_refusal(part: str) -> None:
    seeds = [seed for seed in SEEDS if (seed.format if seed.format in ("JPEG", "PNG", "TIFF") else "others") == part]
    reports = list(fuzz(seeds, range(150), check=check_twice))
    assert [report.case for report in reports] == list(range(150))
    assert [report for report in reports if report.result not in ("decoded", "refused")] == []
    assert {report.result for report in reports} == {"decoded", "refused"}


def test_case_is_a_function_of_seed_and_number() -> None:
    again = built_in()
    assert [mutated(SEEDS, 1, case) for case in range(200)] == [mutated(again, 1, case) for case in range(200)]
    assert len({mutated(SEEDS, seed, case)[1] for case in range(50) for seed in range(2)}) > 90


def test_png_mutations_get_past_the_check_sum() -> None:
    content = SMALL[0].read()
    assert png_file(png_chunks(content)) == content
    changed = png_file([(kind, b"hello" if kind == b"tEXt" else data) for kind, data in png_chunks(content)])
    with Image.open(io.BytesIO(changed)) as image:
        image.verify()  # the check sums


# ---- The harness sees what it is to see: planted faults, on the cases whose bytes are `_chosen` ----


def _chosen(content: bytes) -> bool:
    return zlib.crc32(content) % 8 == 1


def _abort(content: bytes, channels: int) -> str:
    if _chosen(content):
        os.abort()
    return "decoded"


def _compute_for_ever(content: bytes, channels: int) -> str:
    while _chosen(content):
        pass
    return "decoded"


def _wait_for_ever(content: bytes, channels: int) -> str:
    time.sleep(60 * _chosen(content))
    return "decoded"


def _leave(content: bytes, channels: int) -> str:
    if _chosen(content):
        os._exit(0)
    return "decoded"


def _findings(check: Any, limits: Limits = Limits(), cases: range = range(12)) -> list[Report]:  # noqa: B008
    reports = list(fuzz(SMALL, cases, check=check, limits=limits))
    assert [report.case for report in reports] == list(cases), "it does not go on behind a finding"
    found = [report for report in reports if report.result not in ("decoded", "refused")]
    chosen = [case for case in cases if _chosen(mutated(SMALL, 0, case)[1])]
    assert [report.case for report in found] == chosen != []
    return found


@pytest.mark.parametrize(
    ("check", "cause"),
    [
        (_abort, "crash: Aborted"),
        (_compute_for_ever, "hang: too much CPU time"),
        (_wait_for_ever, "hang: it waits"),
        (_leave, "exit 0"),
    ],
)
def test_planted_crash_and_hang_are_reported_and_the_next_cases_go_on(check: Any, cause: str) -> None:
    found = _findings(check, Limits(cpu_seconds=0.3, wall_seconds=60 if check is not _wait_for_ever else 1.5))
    assert {(report.result, report.format) for report in found} == {(cause, "PNG")}


def _read_planting(content: bytes, name: str, channels: int, planted: Any) -> NDArray[Any]:
    if isinstance(planted, Exception) and _chosen(content):
        raise planted
    if isinstance(planted, Exception):
        raise BadImage(name, "not chosen")
    return np.zeros(*planted)


@pytest.mark.parametrize(
    "planted", [KeyError("planted"), MemoryError("planted")], ids=lambda error: type(error).__name__
)
def test_planted_exception_is_reported(planted: Exception) -> None:
    found = _findings(partial(check_image, read=partial(_read_planting, planted=planted)))
    assert {report.result.split(":")[0] for report in found} == {type(planted).__name__}


@pytest.mark.parametrize(
    ("part", "found"), [(1, "other pixels than Pillow's"), (2, "decoded, and Pillow says: truncated")]
)
def test_planted_wrong_jpeg_decoder_is_reported(part: int, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (content,) = (seed.read() for seed in SEEDS if seed.kind == "baseline")
    assert check_twice(content, 3) == "decoded"
    monkeypatch.setattr("residuum.data.decoding._simplejpeg", lambda: lambda *_, **__: np.zeros((40, 60, 3), np.uint8))
    with pytest.raises(AssertionError, match=found):
        check_twice(content[: len(content) // part], 3)


@pytest.mark.parametrize("planted", [((8, 8, 3), np.float32), ((8, 7, 3), np.uint8), ((8, 8, 1), np.uint8)])
def test_planted_wrong_array_is_reported(planted: Any) -> None:
    with pytest.raises(AssertionError, match=r"decode gave (float32|\(8)"):
        check_image(SMALL[0].read(), 3, partial(_read_planting, planted=planted))


def _check_this(content: bytes, channels: int, image: bytes) -> str:
    return check_image(image, channels)


def _result_within(memory: int) -> str:
    header = struct.pack(">IIBBBBB", 8000, 8000, 8, 0, 0, 0, 0)
    image = png_file([(b"IHDR", header), (b"IDAT", zlib.compress(bytes(8001 * 8000), 1)), (b"IEND", b"")])
    big = partial(_check_this, image=image)  # 450 MB in colour
    (report,) = fuzz(SMALL, range(1, 2), check=big, limits=Limits(memory=memory))
    return report.result


@pytest.mark.parametrize(("memory", "outcome"), [(2 << 30, "decoded"), (64 << 20, "refused")])
def test_peers_7_want_of_memory_is_a_refusal(memory: int, outcome: str) -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as new:  # this process may hold freed memory for the image
        assert new.submit(_result_within, memory).result(120) == outcome


def test_findings_are_kept_and_end_in_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, seed in enumerate(SMALL):
        (tmp_path / f"{number}.png").write_bytes(seed.read())
    arguments = ["-n", "12", "-j", "2", "--seeds", str(tmp_path), "--findings", str(tmp_path / "found")]
    assert main(arguments, check=_abort) == 1
    cases = {f"case-{case}.png": mutated(SMALL, 0, case)[1] for case in range(12)}
    kept = {path.name: path.read_bytes() for path in (tmp_path / "found").iterdir()}
    assert kept == {name: content for name, content in cases.items() if _chosen(content)}
    assert "crash: Aborted" in capsys.readouterr().out
    assert main([*arguments[:2], *arguments[4:6]]) == 0
    assert "all" in capsys.readouterr().out


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([b"", *MAGIC.values()]), st.binary(max_size=400), st.sampled_from([1, 3]))
def test_peers_7_any_bytes_behind_any_magic_number_give_an_image_or_a_refusal(
    magic: bytes, rest: bytes, channels: int
) -> None:
    check_image(magic + rest, channels)
