"""A new model takes the old one's place without a request being lost; a bad one does not."""

import asyncio
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from local_server import LIGHT, QUICK, Server, served, slow_down, until
from small_exports import CLASSES, export

from residuum.errors import UserError
from residuum.inference.serve import service
from residuum.inference.serve.stamps import stamp

WATCHING = replace(QUICK, watch=0.1)
MORE = (*CLASSES, "blue")


def classes(server: Server) -> int:
    return len(server.predict(LIGHT).json()["images"][0]["classes"])


def replace_folder(target: Path, new: Path) -> None:
    target.rename(target.with_name("old"))
    new.rename(target)


def test_a_replaced_folder_is_served_without_asking(tmp_path: Path) -> None:
    model = export(tmp_path / "model-a")
    with served(model, settings=WATCHING) as server:
        assert classes(server) == 3
        replace_folder(model, export(tmp_path / "new", classes=MORE))
        until(lambda: classes(server) == 4)
        assert server.metric('residuum_reloads_total{model="model-a",outcome="done"}') == 1


@pytest.mark.parametrize("file", ["model.onnx", "config.json"])
def test_a_bad_new_model_is_refused_and_the_old_one_stays(
    tmp_path: Path, file: str, capfd: pytest.CaptureFixture[str]
) -> None:
    model = export(tmp_path / "model-a")
    with served(model, settings=WATCHING) as server:
        (model / file).write_bytes(b"nonsense")
        until(lambda: server.client.get("/models").json()["models"][0]["reload_refused"])
        assert classes(server) == 3
        assert server.metric('residuum_reloads_total{model="model-a",outcome="refused"}') == 1
        assert "model-a: the new model is refused, the old one stays" in capfd.readouterr().err
        shutil.rmtree(model)
        export(model, classes=MORE)
        until(lambda: classes(server) == 4)
        assert server.client.get("/models").json()["models"][0]["reload_refused"] is False


def test_a_model_that_gives_other_outputs_than_its_classes_is_refused(tmp_path: Path) -> None:
    model = export(tmp_path / "model-a")
    with served(model) as server:
        export(tmp_path / "new", classes=MORE)
        shutil.copy(tmp_path / "new" / "model.onnx", model / "model.onnx")
        server.run(server.service.reload_all())
        assert server.service.models["model-a"].refused
        assert classes(server) == 3


def test_a_request_at_the_old_model_is_answered_by_it(tmp_path: Path) -> None:
    model = export(tmp_path / "model-a")
    with served(model) as server, ThreadPoolExecutor(1) as pool:
        slow = slow_down(server)
        old = server.service.models["model-a"]
        inside = pool.submit(classes, server)
        assert slow.begun.wait(30)
        replace_folder(model, export(tmp_path / "new", classes=MORE))
        server.run(server.service.reload_all())
        assert classes(server) == 4
        slow.go.set()
        assert inside.result() == 3
        until(lambda: not old.thread._thread.is_alive())


def test_a_run_that_trains_on_changes_nothing_until_its_model_does(tmp_path: Path) -> None:
    run = tmp_path / "run"
    export(run / "model")
    before = stamp(run)
    (run / "metrics.jsonl").write_text("{}")
    assert stamp(run) == before != ()
    export(run / "model", classes=MORE)
    assert stamp(run) != before
    assert stamp(tmp_path / "nothing") == ()


def test_of_two_reloads_at_once_each_retires_the_model_before(tmp_path: Path) -> None:
    model = export(tmp_path / "model-a")
    with served(model) as server:
        threads = computing()

        async def twice() -> None:
            await asyncio.gather(server.service.reload_all(), server.service.reload_all())

        server.run(twice())
        assert server.metric('residuum_reloads_total{model="model-a",outcome="done"}') == 2
        until(lambda: computing() == threads)
        assert classes(server) == 3


def computing() -> int:
    return sum(thread.name == "residuum-compute" for thread in threading.enumerate())


def test_a_copy_that_ends_while_its_opening_fails_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, real = export(tmp_path / "model-a"), service.put_to_work
    with served(model, settings=WATCHING) as server:

        def half_copied(*arguments: object) -> object:
            monkeypatch.setattr(service, "put_to_work", real)
            export(model, classes=MORE)
            raise UserError("half of it is there")

        monkeypatch.setattr(service, "put_to_work", half_copied)
        (model / "model.onnx").write_bytes(b"half")
        until(lambda: classes(server) == 4)
