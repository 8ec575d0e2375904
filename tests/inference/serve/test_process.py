"""The verb as a process: its address, its refusals, its end, and no PyTorch for an exported model."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from local_server import LIGHT, QUICK, served, until

import residuum
from residuum.cli import main
from residuum.cli.serve import KEY, serve
from residuum.errors import UserError
from residuum.inference.serve.models import named_models

WITHOUT_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
from residuum.cli import main
sys.exit(main(sys.argv[1:]))
"""


class Process:
    """`residuum serve ARGUMENTS` on a free port, in an interpreter that has no PyTorch."""

    def __init__(self, *arguments: str | Path, **environment: str) -> None:
        source = str(Path(residuum.__file__).parents[1])
        self.process = subprocess.Popen(
            [sys.executable, "-c", WITHOUT_TORCH, "serve", *map(str, arguments), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": source, **environment},
        )
        self.lines: list[str] = []
        self.address = ""
        while not self.address:
            line = self.process.stderr.readline()
            assert line, "".join(self.lines)
            self.lines.append(line)
            if found := re.search(r"http://(127\.0\.0\.1:\d+)", line):
                self.address = found[1]
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr), daemon=True)
        self.reader.start()

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@contextmanager
def running(*arguments: str | Path, **environment: str) -> Iterator[Process]:
    process = Process(*arguments, **environment)
    try:
        yield process
    finally:
        process.process.kill()
        process.process.wait()


def test_an_exported_model_is_served_without_pytorch(tiny: Path) -> None:
    with running(tiny) as server:
        status, answer = server.ask("POST", "/predict?maps=true", LIGHT)
        assert status == 200, answer
        assert b'"label":"light"' in answer
        assert b'"map":' in answer
        assert server.ask("GET", "/")[0] == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_answers_those_inside_and_ends_well(tiny: Path, number: int) -> None:
    with running(tiny) as server:
        connection = half_asked(server.address)
        until(lambda: b"residuum_requests_inside 1.0" in server.ask("GET", "/metrics")[1])
        server.process.send_signal(number)
        until(lambda: is_shut(server.address))
        connection.send(LIGHT[20:])
        assert connection.getresponse().status == 200
        assert server.process.wait(60) == 0
        assert "Traceback" not in "".join(server.lines)


def test_being_told_to_stop_it_says_so_and_answers_until_the_door_is_shut(tiny: Path) -> None:
    with served(tiny, settings=replace(QUICK, grace=600.0)) as server:
        address = server.url.removeprefix("http://")
        server.loop.call_soon_threadsafe(server.uvicorn._stop)
        until(lambda: server.client.get("/readyz").status_code == 503)
        assert "stopping" in server.client.get("/readyz").text
        assert server.predict(LIGHT).status_code == 200
        connection = half_asked(address)
        until(lambda: server.metric("residuum_requests_inside") == 1)
        server.loop.call_soon_threadsafe(server.uvicorn._stop)
        until(lambda: is_shut(address))
        connection.send(LIGHT[20:])
        assert connection.getresponse().status == 200


def half_asked(address: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", str(len(LIGHT)))
    connection.endheaders(LIGHT[:20])
    return connection


def is_shut(address: str) -> bool:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=60).close()
    except ConnectionRefusedError:
        return True
    return False


def test_sighup_opens_the_models_anew(tiny: Path) -> None:
    with running(tiny) as server:
        server.process.send_signal(signal.SIGHUP)
        until(lambda: any("the new model is in service" in line for line in server.lines))
        assert server.ask("POST", "/predict", LIGHT)[0] == 200


def test_it_is_quiet_unless_asked(tiny: Path) -> None:
    with running(tiny) as server:
        server.ask("POST", "/predict", LIGHT)
        server.ask("POST", "/predict", b"nothing")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.stdout.read() == ""
        assert server.process.wait(60) == 0
        server.reader.join(60)
        assert len(server.lines) == 1
    with running(tiny, "--access-log") as server:
        server.ask("GET", "/healthz")
        server.process.send_signal(signal.SIGTERM)
        assert "GET /healthz" in server.process.stdout.read()


def test_the_key_of_the_environment_is_asked_for(tiny: Path) -> None:
    with running(tiny, **{KEY: "a-long-and-random-key"}) as server:
        assert server.ask("GET", "/models")[0] == 401
        arguments = Path(f"/proc/{server.process.pid}/cmdline")
        assert not arguments.exists() or b"random-key" not in arguments.read_bytes()


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main(["serve", *map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_what_cannot_be_served_is_refused_in_a_line(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "does not exist" in refusal(capsys, tmp_path / "nothing", "--port", "0")
    assert "do not fit in a queue of 3" in refusal(capsys, tiny, "--queue", "3")
    (tmp_path / "key").write_text("short")
    assert "openssl rand" in refusal(capsys, tiny, "--api-key-file", tmp_path / "key")
    monkeypatch.setenv(KEY, "")
    assert "openssl rand" in refusal(capsys, tiny)
    monkeypatch.delenv(KEY)
    for value in ("nan", "inf", "-1"):
        assert "deadline is " in refusal(capsys, tiny, "--deadline", value)
    assert "--max-megapixels" in refusal(capsys, tiny, "--max-megapixels", "101")
    (tmp_path / "key").write_bytes(b"\xff\xfe" + bytes(range(128, 160)))
    assert "openssl rand" in refusal(capsys, tiny, "--api-key-file", tmp_path / "key")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1 port {port}: address already in use; choose another --port" in refusal(
            capsys, tiny, "--port", port
        )


def test_a_start_that_fails_is_a_line(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "PIL.py").write_text("raise ImportError('no wheel for this machine')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    line = refusal(capsys, tiny, "--port", "0", "-j", "2")
    assert line.startswith("error: no process that decodes images could be started (")
    assert "(ImportError: no wheel for this machine)" in line
    assert line.endswith("free memory, start fewer with -j, or install residuum again")


def test_windows_is_refused_in_a_line(
    tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[serve.__module__], "_SYSTEM", "nt")
    assert "on Windows run it in WSL" in refusal(capsys, tiny)


def test_models_have_names_of_their_own(tmp_path: Path) -> None:
    run = tmp_path / "digits"
    arguments = [str(run), str(run / "best"), f"third={run}/model"]
    with pytest.raises(UserError, match="two models are called 'digits'"):
        named_models(arguments)
    found = named_models([str(run), f"best={run}/best", str(tmp_path / "photos" / "model")])
    assert [model.name for model in found] == ["digits", "best", "photos"]
    assert found[1].path == run / "best"
