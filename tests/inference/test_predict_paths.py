"""Which files a command line names, in which order, and that none of the ways to name them holds them all."""

import io
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from residuum.errors import UserError
from residuum.inference import paths as module
from residuum.inference.paths import expand_paths


def test_paths_are_files_folders_and_patterns_in_the_order_given(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/1.PNG", "b/deep/3.webp", "b/notes.txt", "b/.hidden.jpg", "a[1].jpg", "c.dat"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()

    def expand(*patterns: str) -> list[str]:
        found = expand_paths([tmp_path / pattern for pattern in patterns])
        return [str(path.relative_to(tmp_path)) for path in found]

    assert expand("b") == ["b/1.PNG", "b/2.jpg", "b/deep/3.webp"]
    assert expand("c.dat", "b/*.jpg") == ["c.dat", "b/2.jpg"]
    assert expand("a[1].jpg") == ["a[1].jpg"]
    assert expand("?") == expand("b")
    assert expand("**/*.webp") == ["b/deep/3.webp"]
    (tmp_path / "b" / "deep" / "loop").symlink_to(tmp_path / "b")
    assert expand("b") == ["b/1.PNG", "b/2.jpg", "b/deep/3.webp"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("gone.jpg", "does not exist"), ("*.gif", "nothing matches"), ("empty", "holds no images")],
)
def test_a_path_without_an_image_is_refused_before_anything_is_predicted(
    tmp_path: Path, pattern: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.jpg").touch()
    with pytest.raises(UserError, match=message):
        expand_paths([tmp_path / "there.jpg", tmp_path / pattern])


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names_of(folder: Path, *patterns: str) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in expand_paths([folder / pattern for pattern in patterns])]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*/x.png", ["a/x.png", "b/x.png"]),
        ("a/[xy].*", ["a/x.png", "a/y.png"]),
        ("**", ["a/b/x.png", "a/x.png", "a/y.png", "b/x.png"]),
        ("**/x.png", ["a/b/x.png", "a/x.png", "b/x.png"]),
        ("a/**/*.png", ["a/b/x.png", "a/x.png", "a/y.png"]),
        ("?/b", ["a/b/x.png"]),
        (".h*/*", [".hidden/z.png"]),
        ("a/../b/*", ["a/../b/x.png"]),
    ],
)
def test_patterns_match_as_in_the_shell(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    touch(tmp_path, "a/x.png", "a/y.png", "a/b/x.png", "b/x.png", ".hidden/z.png", "a/.secret.png")
    assert sorted(names_of(tmp_path, pattern)) == expected


def test_a_pattern_that_would_match_files_twice_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a/a/x.png")
    with pytest.raises(UserError, match=r"several \*\*"):
        expand_paths([tmp_path / "**/a/**/*.png"])


def test_a_loop_of_links_below_a_pattern_ends(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert names_of(tmp_path, "**/*.png") == ["a/x.png"]


@pytest.mark.parametrize("pattern", ["", "*", "**", "**/*.png"])
def test_a_folder_of_any_size_is_named_in_order_and_never_held(
    tmp_path: Path, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, *(f"{number:03}.png" for number in range(50)))
    monkeypatch.setattr(module, "_NAMES_AT_ONCE", 7)
    held: list[int] = []
    smallest = module.nsmallest

    def watched(count: int, names: Iterator[str]) -> list[str]:
        found = smallest(count, names)
        held.append(len(found))
        return found

    monkeypatch.setattr(module, "nsmallest", watched)
    assert names_of(tmp_path, pattern) == [f"{number:03}.png" for number in range(50)]
    assert max(held) == 7


def test_lists_name_files_one_a_line(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"a.jpg\r\n\nb c.jpg\ncaf\xe9.jpg\nlast.jpg")
    found = list(expand_paths([f"@{tmp_path / 'list'}"]))
    assert found == [Path("a.jpg"), Path("b c.jpg"), Path(os.fsdecode(b"caf\xe9.jpg")), Path("last.jpg")]


def test_names_that_end_with_nul_may_hold_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"new\nline.jpg\0return\r\0")
    assert list(expand_paths([f"@{tmp_path / 'list'}"], null=True)) == [Path("new\nline.jpg"), Path("return\r")]


def test_a_list_is_read_only_as_far_as_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = b"".join(b"%07d.jpg\n" % number for number in range(100_000))
    stream = io.BytesIO(names)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(stream)))
    first = list(itertools.islice(expand_paths(["-"]), 3))
    assert first == [Path("0000000.jpg"), Path("0000001.jpg"), Path("0000002.jpg")]
    assert stream.tell() < 2**18


def test_a_slow_writers_first_name_is_there_before_its_second(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    with open(read, encoding="utf-8") as stdin, open(write, "wb", buffering=0) as writer:
        monkeypatch.setattr(sys, "stdin", stdin)
        files = expand_paths(["-"])
        writer.write(b"a.jpg\n")
        assert next(files) == Path("a.jpg")
        writer.write(b"b.jpg\n")
        assert next(files) == Path("b.jpg")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("@gone", None, "gone is no file that could list others"),
        ("@.", None, "is no file that could list others"),
        ("@empty", b"\n\n", "empty lists no files"),
        ("files.txt", b"a.jpg\n", "write @files.txt"),
    ],
)
def test_a_list_that_lists_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name.removeprefix("@")).write_bytes(content)
    with pytest.raises(UserError, match=message):
        expand_paths([name])


def test_a_file_that_is_called_like_a_list_is_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "@home.jpg")
    assert list(expand_paths(["@home.jpg"])) == [Path("@home.jpg")]


@pytest.mark.parametrize("null", [False, True])
def test_a_list_with_other_ends_than_said_is_refused_before_it_is_held(
    monkeypatch: pytest.MonkeyPatch, null: bool
) -> None:
    names = itertools.cycle([b"photos/a.jpg" + (b"\n" if null else b"\0")])
    content = b"".join(itertools.islice(names, 200_000))
    stdin = io.BytesIO(content)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(stdin)))
    with pytest.raises(UserError, match=r"the list on stdin has a name .* -0$"):
        list(expand_paths(["-"], null=null))
    assert stdin.tell() < 2**18


def test_a_name_of_any_length_that_a_system_has_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["x" * 60_000, "b.jpg", "y" * 60_000]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(names).encode())))
    assert list(map(str, expand_paths(["-"]))) == names


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `photos` with three sub-folders, the second of which cannot be read."""
    folder = tmp_path / "photos"
    touch(folder, "a/1.jpg", "b/2.jpg", "b/deep/3.jpg", "c/4.jpg")
    scandir = os.scandir

    def refusing(path: str) -> Iterator["os.DirEntry[str]"]:
        if Path(path) == folder / "b":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    return folder


@pytest.mark.parametrize("pattern", ["photos", "photos/*", "photos/**", "photos/**/*.jpg", "photos/*/*.jpg"])
def test_a_sub_folder_that_cannot_be_read_stands_for_itself(locked: Path, pattern: str) -> None:
    found = names_of(locked.parent, pattern)
    assert sorted(found) == ["photos/a/1.jpg", "photos/b", "photos/c/4.jpg"]
    assert found == names_of(locked.parent, pattern)


def test_a_folder_that_is_named_and_cannot_be_read_is_refused(locked: Path) -> None:
    with pytest.raises(PermissionError):
        expand_paths([locked / "b"])
