"""Files appear whole or not at all."""

from pathlib import Path

import pytest

from residuum.files import whole_file, write_text


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
