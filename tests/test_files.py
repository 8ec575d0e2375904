"""Files appear whole or not at all."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from residuum.files import remove_folder, sweep, whole_file, whole_folder, write_text


def test_a_file_takes_the_place_of_the_old_one_once_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "picture.png"
    for text in ("old", "new"):
        with whole_file(target) as temporary:
            assert temporary.suffix == ".png"
            temporary.write_text(text)
            assert not target.exists() or target.read_text() == "old"
        assert target.read_text() == text
    assert [path.name for path in target.parent.iterdir()] == ["picture.png"]
    assert target.stat().st_mode & 0o777 == 0o644


def test_a_file_that_fails_midway_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "a.txt") as temporary:
        temporary.rename(tmp_path / "no such folder" / "half")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "half\ud800")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_folder_is_removed_whole(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("x")
    remove_folder(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_sweep_removes_leftovers_puts_back_what_was_moved_out_and_touches_nothing_else(tmp_path: Path) -> None:
    for name in ("model", "best", ".hidden", ".residuum-abcd1234-model", ".residuum-abcd1234-best.old"):
        (tmp_path / name).mkdir()
    (tmp_path / ".residuum-abcd1234-lost.old").mkdir()
    (tmp_path / ".residuum-abcd1234-lost.old" / "weights").write_text("x")
    (tmp_path / ".residuum-abcd1234-run.json").write_text("{")
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "best", ".hidden", "lost"}
    assert (tmp_path / "lost" / "weights").read_text() == "x"


def test_a_folder_whose_writer_is_killed_at_any_point_is_the_old_one_or_the_new(tmp_path: Path) -> None:
    """Every system call of the replacement is the last one that happens, in turn."""
    outcomes = set()
    for calls in range(60):
        folder = tmp_path / str(calls)
        with whole_folder(folder / "model") as temporary:
            (temporary / "weights").write_text("old")
        child = os.fork()
        if child == 0:
            _die_after(calls)
            with whole_folder(folder / "model") as temporary:
                (temporary / "weights").write_text("new")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sweep(folder)
        assert [path.name for path in folder.iterdir()] == ["model"]
        outcomes.add((folder / "model" / "weights").read_text())
        if status == 0:
            break
    assert outcomes == {"old", "new"}
    assert status == 0


def _die_after(calls: int) -> None:
    """Kill this process for real at its call number `calls`, from 0, into the functions that change files."""
    left = calls

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return function(*arguments, **named)

        return call

    for name in ("mkdir", "replace", "rename", "fsync", "rmdir", "unlink", "open"):
        setattr(os, name, counted(getattr(os, name)))
