"""Two processes on one machine keep one set in memory, and end alike whatever befalls one of them."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import neighbours
import pytest
import torch
from neighbours import BAD, COUNT, CROPS, array, files, opened

from residuum.data.augmentations import Augmentation
from residuum.data.sharing import neighbours as neighbours_of
from residuum.data.sharing import refusal, shared_zeros, together
from residuum.distributed import World
from residuum.errors import RefusedByMainError, UserError

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="memory without a name is Linux's")

Seen = list[dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("neighbours")
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("neighbours.py")), str(folder)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=200)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    return [json.loads((folder / f"seen-{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    split = files(tmp_path_factory.mktemp("alone"))
    return {"centre": opened(split, Augmentation(), World()), "crops": opened(split, CROPS, World())}


@pytest.mark.parametrize("scene", ["centre", "crops", "workers"])
def test_both_have_the_bytes_and_the_bad_files_of_one_process(
    seen: Seen, alone: dict[str, dict[str, Any]], scene: str
) -> None:
    expected = alone["centre" if scene == "centre" else "crops"]
    assert seen[0][scene] == seen[1][scene] == json.loads(json.dumps(expected))
    assert expected["kind"] == "memory"
    assert list(expected["bad"]) == [str(index) for index in BAD]
    assert expected["progress"] == [(COUNT, COUNT)]


def test_what_one_process_writes_the_other_reads(seen: Seen) -> None:
    first, second = (one["one memory"] for one in seen)
    assert first == second
    assert first["after"] == 255 - first["before"]
    assert first["mapped"] == 1


@pytest.mark.parametrize(
    ("scene", "text"),
    [
        ("strict", r"bad image 02\.png: not an image.* \(1 so far\)"),
        ("mixed in memory", "differ in size"),
        ("one fails", r"process 1 has failed \(RuntimeError: a mistake of our own\)"),
        ("one has no room at all", "use the file loader"),
        ("unreachable in memory", r"cannot share memory \(no such file or directory\); use the file loader"),
    ],
)
def test_what_one_process_refuses_both_refuse_in_the_same_words(seen: Seen, scene: str, text: str) -> None:
    first, second = (one[scene] for one in seen)
    assert first["error"] in ("UserError", "CannotShareError")
    assert re.search(text, first["text"]), first["text"]
    if scene == "one fails":  # which the one that failed says as it is, with its traceback
        assert (second["error"], second["text"]) == ("RuntimeError", "a mistake of our own")
    else:
        assert second["error"] in ("RefusedByMainError", "CannotShareError")
        assert second["text"] == first["text"]


def test_images_stay_in_files_where_memory_cannot_be_shared(seen: Seen) -> None:
    assert [one["unreachable"]["kind"] for one in seen] == ["file", "file"]


@pytest.mark.parametrize("scene", ["mixed", "mixed and not probed", "one has no room"])
def test_what_one_process_cannot_keep_in_memory_both_read_from_files(seen: Seen, scene: str) -> None:
    assert seen[0][scene]["kind"] == seen[1][scene]["kind"] == "file"
    assert seen[0][scene]["content"] == seen[1][scene]["content"]


def test_only_processes_of_one_machine_are_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(1, 1, 4)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert neighbours_of(world) == World()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert neighbours_of(world) == World()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert neighbours_of(world) == world


def test_one_process_has_ordinary_memory_and_its_own_exceptions() -> None:
    assert torch.equal(shared_zeros(World(), (2, 3)), torch.zeros(2, 3, dtype=torch.uint8))
    assert together(World(), lambda: 5) == [5]
    with pytest.raises(ZeroDivisionError):
        together(World(), lambda: 1 // 0)


def test_one_refusal_is_for_reading() -> None:
    assert type(refusal(World(0, 0, 2), "no")) is UserError
    assert isinstance(refusal(World(1, 1, 2), "no"), RefusedByMainError)


def test_processes_that_share_memory_do_not_divide_it() -> None:
    """Read from files where two copies would not fit, in memory where one fits."""
    with patch.object(neighbours.storage, "_free_bytes", lambda device: 2 * 4 * COUNT * 12 * 15 * 3 - 1):
        assert opened(array(), CROPS, World())["kind"] == "memory"
        needed = COUNT * 12 * 15 * 3
        settings = neighbours.replace(neighbours.SETTINGS, world=World(0, 0, 2))
        assert not neighbours.storage._belong_in_memory(needed, settings, World())
        assert neighbours.storage._belong_in_memory(needed, settings, World(0, 0, 2))
