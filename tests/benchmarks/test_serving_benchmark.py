"""What the server's benchmark makes of its samples, and that a talkative server is not held up by its log."""

import asyncio
import sys
from pathlib import Path

import pytest
import serving
from loopback import Answer, Process
from serving import growth


def test_one_early_spike_does_not_hide_that_memory_grows() -> None:
    samples = [(5.0 * number, 100.0 + number + 100.0 * (number in (13, 14))) for number in range(1, 121)]
    found = growth(samples)
    assert found["last_mib"] - found["first_mib"] > 70
    assert found["mib_per_minute"] == pytest.approx(12, abs=3)


def test_memory_of_the_first_minute_is_no_growth() -> None:
    found = growth([(5.0 * number, 100.0 + min(12, number)) for number in range(1, 121)])
    assert found["first_mib"] == found["last_mib"] == 112.0
    assert found["mib_per_minute"] == pytest.approx(0, abs=1e-9)
    assert len(found["mib"]) == 120


def test_few_samples_are_all_taken() -> None:
    assert growth([(1.0, 10.0), (2.0, 11.0)])["mib_per_minute"] == pytest.approx(60)


@pytest.fixture
def talkative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of Python: tells its address, then more than a pipe holds, then leaves a file."""
    done = tmp_path / "done"
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\necho http://127.0.0.1:4321 >&2\nhead -c 300000 /dev/zero >&2\ntouch "{done}"\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return done


def test_a_server_that_says_much_is_not_held_up(talkative: Path, tmp_path: Path) -> None:
    with Process(["MODEL"], tmp_path / "server.log") as process:
        assert process.port == 4321
        process._process.wait(60)
    assert talkative.exists()
    assert (tmp_path / "server.log").stat().st_size > 300_000


def test_a_server_that_does_not_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SystemExit, match="does not start"):
        Process(["MODEL"])


class AnswersAtOnce:
    """In place of a connection to a server."""

    asked = 0

    def __init__(self, port: int) -> None:
        pass

    async def ask(self, sent: bytes) -> Answer:
        AnswersAtOnce.asked += 1
        await asyncio.sleep(0.01)
        return Answer(200)

    def close(self) -> None:
        pass


def test_what_was_really_sent_is_told_and_warming_up_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "Connection", AnswersAtOnce)
    monkeypatch.setattr(serving, "WARM_SECONDS", 0.2)
    figures = asyncio.run(serving._open(0, [b"image"], rate=100.0, clients=2, seconds=1.0))
    assert figures["sent"] + figures["unsent"] == 100
    assert figures["images"] == figures["sent"] < AnswersAtOnce.asked
    assert 0 < figures["sent_per_second"] < 110
