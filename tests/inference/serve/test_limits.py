"""No request makes the server hold, wait for or decode more than it allows, whatever its headers say."""

import io
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from local_server import LIGHT, QUICK, RED, Server, picture, served, until
from PIL import Image

from residuum.errors import UserError
from residuum.inference.serve import answers, intake
from residuum.inference.serve.gate import Gate
from residuum.inference.serve.problems import Problem

SMALL = replace(QUICK, body_bytes=20_000, images=3, pixels=10_000, frames=2, body_seconds=3.0)


@pytest.fixture(scope="module")
def small(tiny: Path) -> Iterator[Server]:
    with served(tiny, settings=SMALL) as found:
        yield found


def raw(server: Server, head: str, body: bytes = b"", then: bytes = b"") -> bytes:
    """What the server answers to bytes on a socket."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        if then:
            time.sleep(0.2)
            connection.sendall(then)
        return connection.recv(65536)


def test_a_body_that_announces_too_much_is_refused_before_it_is_sent(small: Server) -> None:
    answer = raw(small, "POST /predict HTTP/1.1\nHost: x\nContent-Length: 99999999999999999999")
    assert b" 413 " in answer.splitlines()[0]
    assert b"application/problem+json" in answer


def test_a_body_in_chunks_is_refused_once_it_is_too_long(small: Server) -> None:
    chunk = b"3e8\r\n" + b"x" * 1000 + b"\r\n"
    answer = raw(small, "POST /predict HTTP/1.1\nHost: x\nTransfer-Encoding: chunked", chunk * 21)
    assert b" 413 " in answer.splitlines()[0]
    assert b"connection: close" in answer.lower()
    assert small.service.gate.bytes == 0


def test_a_form_is_refused_by_all_its_bytes_and_by_its_number_of_images(small: Server) -> None:
    large = small.client.post("/predict", files=[("image", ("a", b"x" * 7000))] * 3)
    assert large.status_code == 413
    many = small.client.post("/predict", files=[("image", ("a", LIGHT))] * 4)
    assert (many.status_code, many.json()["detail"]) == (413, "more than 3 images in one request; send them in several")
    assert small.client.post("/predict", files=[("image", ("a", LIGHT))] * 3).status_code == 200
    assert small.client.post("/predict", json={"images": [""] * 4}).status_code == 413


def test_a_body_shorter_than_announced_ends_in_a_timeout(small: Server) -> None:
    start = time.monotonic()
    answer = raw(small, f"POST /predict HTTP/1.1\nHost: x\nContent-Length: {len(LIGHT) + 10}", LIGHT)
    assert b" 408 " in answer.splitlines()[0]
    assert time.monotonic() - start < 60


def test_a_body_with_both_lengths_is_no_way_around_the_limit(small: Server) -> None:
    head = "POST /predict HTTP/1.1\nHost: x\nContent-Length: 5\nTransfer-Encoding: chunked"
    answer = raw(small, head, b"3e8\r\n" + b"x" * 1000 + b"\r\n", b"0\r\n\r\n")
    assert answer.split()[1].startswith(b"4")
    assert small.predict(LIGHT).status_code == 200


def test_pixels_are_counted_by_the_header_before_decoding(small: Server) -> None:
    assert small.predict(picture(size=(100, 100))).status_code == 200
    found = small.predict(picture(size=(101, 100)))
    assert found.status_code == 422
    assert found.json()["detail"] == "the image cannot be used: 101 x 100 pixels, more than 10,000; send another image"


def test_a_header_that_promises_a_bomb_is_refused_at_once(small: Server) -> None:
    bomb = bytearray(picture())
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    assert small.predict(bytes(bomb)).status_code == 422
    assert small.service.decoders.replaced == 0


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP", "PNG"])
def test_frames_are_counted(small: Server, form: str) -> None:
    frames = [Image.new("RGB", (9, 9), (shade, 0, 0)) for shade in (240, 120, 10)]
    for count, status in ((2, 200), (3, 422)):
        stream = io.BytesIO()
        frames[0].save(stream, form, save_all=True, append_images=frames[1:count])
        found = small.predict(stream.getvalue())
        assert found.status_code == status
    assert found.json()["detail"] == "the image cannot be used: 3 frames, more than 2; send another image"


def test_the_first_frame_is_seen_though_all_were_counted(small: Server) -> None:
    frames = [Image.new("RGB", (9, 9), colour) for colour in ((250, 4, 4), (3, 3, 3))]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    assert small.predict(stream.getvalue()).json()["images"][0]["classes"][0]["label"] == "red"


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "x.html", "a\x00b", "ü" * 300])
def test_no_name_from_the_client_is_used(server: Server, name: str) -> None:
    found = server.client.post("/predict", files=[("image", (name, RED, "text/html"))])
    assert found.json()["images"][0]["classes"][0]["label"] == "red"
    assert "passwd" not in found.text


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_decoder_is_replaced_and_nobody_notices(tiny: Path, number: int) -> None:
    with served(tiny) as server:
        assert server.predict(LIGHT).status_code == 200
        (pid,) = server.service.decoders.pids
        os.kill(pid, number)
        assert [server.predict(LIGHT).status_code for _ in range(3)] == [200] * 3
        assert server.service.decoders.pids != [pid]
        assert server.metric("residuum_decoders_replaced") == 1


def test_a_decoder_that_hangs_is_replaced_and_its_image_is_an_error(tiny: Path) -> None:
    with served(tiny, settings=replace(QUICK, decode_seconds=2.0)) as server:
        (pid,) = server.service.decoders.pids
        os.kill(pid, signal.SIGSTOP)
        found = server.predict(LIGHT)
        assert found.status_code == 422
        assert (
            found.json()["detail"]
            == "the image cannot be used: not decoded within 2 s and 3,072 MiB; send another image"
        )
        assert server.predict(LIGHT).status_code == 200


def test_decoding_past_its_time_is_ended(tiny: Path) -> None:
    with served(tiny, settings=replace(QUICK, decode_seconds=0.5)) as server:
        assert server.predict(slow_picture()).status_code == 422
        assert server.service.decoders.replaced == 1
        until(lambda: server.predict(LIGHT).status_code == 200)  # at the first attempt, where the machine is free


def slow_picture() -> bytes:
    """A small JPEG of as many scans over as many pixels as are allowed."""
    stream = io.BytesIO()
    Image.new("L", (6000, 6000)).save(stream, "JPEG", progressive=True)
    content = stream.getvalue()
    scans = content.index(b"\xff\xda")
    return content[:scans] + content[scans:-2] * 25 + content[-2:]


def test_decoding_past_its_memory_is_an_error_and_the_next_image_is_read(tiny: Path) -> None:
    with served(tiny, settings=replace(QUICK, decode_memory=64 * 2**20)) as server:
        found = server.predict(picture(size=(6000, 6000)))
        assert found.status_code == 422
        assert server.predict(LIGHT).status_code == 200


def test_decoders_end_with_the_server(tiny: Path) -> None:
    with served(tiny) as server:
        (pid,) = server.service.decoders.pids
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    "body",
    [
        b'{"images": [' + b"[]," * 5000 + b"[]]}",
        b'{"images": ["QUJD"], "top": ' + b"[" * 5000 + b"}",
        b'{"images": ["QUJD"], ' + b'"a": {},' * 600 + b'"b": 1}',
    ],
)
def test_json_of_many_small_parts_is_refused_unread(
    small: Server, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake.json, "loads", lambda text: pytest.fail("read"))
    found = small.client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert (found.status_code, "send only images and fields" in found.text) == (400, True)


@pytest.mark.parametrize(
    ("text", "copies"), [(b"A" * 1000, 2), (b"A" * 990 + b"\\ud83d\\ude00", 8), ("é".encode() * 500, 8)]
)
def test_the_copies_that_json_takes_are_counted(text: bytes, copies: int) -> None:
    gate = Gate(QUICK)
    with gate.body() as held:
        intake._make_room_for_copies(text, QUICK, held)
        assert gate.bytes == copies * len(text)
        with pytest.raises(Problem, match="send the images in a form"):
            intake._make_room_for_copies(text, replace(QUICK, body_bytes=1, held_bytes=2 * len(text)), held)
    assert gate.bytes == 0


def test_maps_are_for_few_classes(small: Server) -> None:
    found = small.predict(LIGHT, maps=True, top=11)
    assert (found.status_code, found.json()["detail"]) == (
        422,
        "top is 11; with maps it is a whole number from 1 to 10",
    )
    assert small.client.post("/predict", json={"images": ["QUJD"], "maps": True, "top": 1000}).status_code == 422
    assert small.predict(LIGHT, maps=True, top=10).status_code == 200
    assert small.predict(LIGHT, top=1000).status_code == 200


def test_past_its_deadline_no_more_maps_are_made(tiny: Path) -> None:
    made = []
    with served(tiny) as server:
        (model,) = server.service.models.values()
        go = threading.Event()

        def slow(views: object, classes: object) -> object:
            made.append(len(views))
            assert go.wait(60)
            return opened.maps(views, classes)

        opened = model.opened
        model.opened = replace(opened, maps=slow)
        late = server.client.post("/predict?maps=true&deadline=1", files=[("image", ("a", LIGHT))] * 3)
        assert late.status_code == 504
        go.set()
        answers = server.client.post("/predict?maps=true", files=[("image", ("a", LIGHT))] * 3).json()["images"]
        assert [len(image["classes"][0]["map"]) for image in answers] == [8, 8, 8]
        assert made in ([1] * 4, [1] * 3)  # the first request's, if it came so far, and the second's


@pytest.mark.parametrize("name", ["deadline", "decode_seconds", "grace"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_limit_is_a_number(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"{name} is {value}; it is a number above 0"):
        replace(QUICK, **{name: value})


def test_a_decoder_is_the_first_to_be_ended_where_memory_runs_out(server: Server) -> None:
    scores = [Path(f"/proc/{pid}/oom_score_adj") for pid in server.service.decoders.pids]
    assert {score.read_text() for score in scores if score.exists()} <= {"1000\n"}


def test_a_long_answer_is_not_written_by_the_event_loop(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    writers, real = set(), answers._written
    monkeypatch.setattr(
        answers, "_written", lambda *given: writers.add(threading.current_thread().name) or real(*given)
    )
    images = [("image", ("a", LIGHT))] * 6
    assert server.client.post("/predict", files=images).status_code == 200
    (loop,) = writers
    found = server.client.post("/predict?maps=true", files=images).json()["images"]
    assert [len(image["classes"][0]["map"]) for image in found] == [8] * 6
    assert server.client.post("/predict?top=1000", files=[("image", ("a", b"bad"))] * 2).status_code == 422
    assert writers > {loop}
