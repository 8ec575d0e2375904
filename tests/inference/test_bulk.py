"""Very many files: a killed job goes on to the same bytes, shares are disjoint and complete, and memory is bounded."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import killed_job
import numpy as np
import pytest
from PIL import Image

from residuum.errors import UserError
from residuum.inference import bulk, cluster, journal
from residuum.inference.bulk import Job, Outcome, predict_into
from residuum.inference.paths import expand_paths
from residuum.inference.shards import Shard, parse_shard, shard_from_environment

SUFFIXES = [".jsonl", ".csv", ".parquet"]
ODD_NAMES = ["new\nline.png", 'it\'s "quoted", yes.png', "return\r.png", os.fsdecode(b"caf\xe9.png"), "🙂.png"]
FILES = 30


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that is taken for a model's; what it computes is made up."""
    folder = tmp_path / "model"
    folder.mkdir()
    config = {"architecture": "resnet8", "num_classes": 3, "pretrained_cfg": {}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(bytes(1000))
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Thirty pictures; five have names that no format likes, one is damaged and one empty."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    names = [*ODD_NAMES, *(f"{number:02}.png" for number in range(FILES - len(ODD_NAMES)))]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(folder / name, "PNG")
    (folder / "03.png").write_bytes((folder / "03.png").read_bytes()[:50])
    (folder / "17.png").write_bytes(b"")
    return folder


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "deploy", lambda *_, **__: killed_job.made_up_model())


def whole(model: Path, photos: Path, out: Path, **changes: Any) -> Outcome:
    return predict_into(replace(killed_job.job(model, out, [str(photos)]), **changes))


def started(model: Path, out: Path, moment: int, *paths: Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, killed_job.__file__, model, out, str(moment), *paths]
    return subprocess.run(list(map(str, command)), capture_output=True, check=False)


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture(params=SUFFIXES)
def suffix(request: pytest.FixtureRequest) -> str:
    if request.param == ".parquet":
        pytest.importorskip("pyarrow")
    return str(request.param)


@pytest.fixture
def undisturbed(model: Path, photos: Path, tmp_path: Path, suffix: str) -> Outcome:
    return whole(model, photos, tmp_path / "undisturbed" / f"out{suffix}")


def test_a_job_killed_again_and_again_writes_the_bytes_of_one_that_was_not(
    model: Path, photos: Path, tmp_path: Path, suffix: str, undisturbed: Outcome
) -> None:
    moments, out = random.Random(suffix), tmp_path / "killed" / f"out{suffix}"
    codes = []
    while not codes or codes[-1]:
        done = started(model, out, moments.randint(1, 60), photos)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
        codes.append(done.returncode)
    assert len(codes) > 3
    assert out.read_bytes() == undisturbed.file.read_bytes()
    assert leftovers(out.parent) == {out.name, f"{out.name}.job"}
    assert journal.read_progress(out) == journal.read_progress(undisturbed.file)
    assert journal.read_progress(out).rows == FILES


def test_a_job_killed_at_any_moment_of_its_end_is_completed(
    model: Path, photos: Path, tmp_path: Path, suffix: str, undisturbed: Outcome
) -> None:
    moments = int(started(model, tmp_path / "counted" / f"out{suffix}", 0, photos).stdout) - 1_000_000
    for moment in range(moments - 12, moments, 3):
        out = tmp_path / str(moment) / f"out{suffix}"
        assert started(model, out, moment, photos).returncode == -signal.SIGKILL
        assert whole(model, photos, out) == replace(undisturbed, file=out, before=journal.read_progress(out).rows)
        assert out.read_bytes() == undisturbed.file.read_bytes()
        assert leftovers(out.parent) == {out.name, f"{out.name}.job"}


def test_a_complete_job_is_left_alone(model: Path, photos: Path, tmp_path: Path) -> None:
    for suffix in SUFFIXES if bulk_has_parquet() else SUFFIXES[:2]:
        first = whole(model, photos, tmp_path / f"out{suffix}")
        content = first.file.read_bytes()
        again = whole(model, photos, tmp_path / f"out{suffix}")
        assert again == replace(first, before=FILES)
        assert first.file.read_bytes() == content
        assert (first.unreadable, len(first.named)) == (2, 2)


def test_a_sub_folder_that_cannot_be_read_is_a_row_and_the_rest_go_on(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "locked").mkdir()
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    first = whole(model, photos, tmp_path / "out.jsonl")
    assert (first.rows, first.unreadable) == (FILES + 1, 3)
    assert any(line.startswith(str(photos / "locked")) for line in first.named)
    assert whole(model, photos, tmp_path / "out.jsonl").before == FILES + 1


def bulk_has_parquet() -> bool:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        return False
    return True


# What is refused


def stopped_midway(model: Path, photos: Path, out: Path) -> Job:
    """A job that has written some rows."""
    job = killed_job.job(model, out, [str(photos)])

    def stop(rows: int) -> None:
        if rows >= 12:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "COMMIT_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            predict_into(job, look=stop)
    assert journal.read_progress(out).rows >= 8
    return job


def test_rows_of_another_model_are_refused_and_kept(model: Path, photos: Path, tmp_path: Path) -> None:
    job = stopped_midway(model, photos, tmp_path / "out.jsonl")
    content = job.file.read_bytes()
    (model / "model.safetensors").write_bytes(bytes(999) + b"1")
    with pytest.raises(UserError, match=r"begun with another model; name another --out, or .*--overwrite"):
        predict_into(job)
    assert job.file.read_bytes() == content


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"top": 3}, "top: 2, not 3"), ({"features": False}, "features: True, not False")],
)
def test_rows_of_other_options_are_refused(
    model: Path, photos: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    job = stopped_midway(model, photos, tmp_path / "out.jsonl")
    with pytest.raises(UserError, match=message):
        predict_into(replace(job, **changes))


def test_a_refused_job_leaves_no_file(model: Path, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    out = tmp_path / "rows" / "out.parquet"
    whole(model, photos, out)
    with pytest.raises(UserError, match="top: 2, not 3"):
        whole(model, photos, out, top=3)
    Image.new("RGB", (9, 9)).save(photos / "🙂🙂.png")
    with pytest.raises(UserError, match="now there are more"):
        whole(model, photos, out)
    assert leftovers(out.parent) == {out.name, f"{out.name}.job"}


def test_what_does_not_decide_the_rows_may_change(model: Path, photos: Path, tmp_path: Path) -> None:
    expected = whole(model, photos, tmp_path / "other" / "out.jsonl").file.read_bytes()
    job = stopped_midway(model, photos, tmp_path / "out.jsonl")
    (model / "README.md").write_text("a card")
    names = [str(path) for path in expand_paths(job.paths)]
    predict_into(replace(job, paths=tuple(names), how=bulk.How(batch_size=7, workers=2)))
    assert job.file.read_bytes() == expected


def test_files_may_come_behind_and_nowhere_else(model: Path, photos: Path, tmp_path: Path) -> None:
    job = stopped_midway(model, photos, tmp_path / "out.jsonl")
    Image.new("RGB", (9, 9)).save(photos / "00a.png")
    with pytest.raises(UserError, match=r"no longer those found now; .*--overwrite"):
        predict_into(job)
    (photos / "00a.png").rename(photos / "🙂🙂.png")
    assert predict_into(job).rows == FILES + 1
    Image.new("RGB", (9, 9)).save(photos / "🙂🙂🙂.png")
    with pytest.raises(UserError, match=r"complete with 31 files, and now there are more"):
        predict_into(job)
    for path in photos.glob("0*.png"):
        path.unlink()
    with pytest.raises(UserError, match="no longer those found now"):
        predict_into(job)
    assert predict_into(job, overwrite=True).rows == FILES + 2 - 10


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"job": 1}',
        b'{"job": {}, "rows": 1}',
        b'{"job": {}, "rows": -1, "named": []}',
        b'{"job": {}, "rows": "1", "named": []}',
        b'{"job": {}, "named": 5}',
        b'{"job": {}, "named": [], "more": 1}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_record_is_refused(model: Path, photos: Path, tmp_path: Path, content: bytes) -> None:
    job = stopped_midway(model, photos, tmp_path / "out.jsonl")
    (tmp_path / "out.jsonl.job").write_bytes(content)
    with pytest.raises(UserError, match=r"out\.jsonl\.job is damaged; .*--overwrite"):
        predict_into(job)
    assert predict_into(job, overwrite=True).rows == FILES


def test_rows_that_were_cut_are_refused(model: Path, photos: Path, tmp_path: Path) -> None:
    job = stopped_midway(model, photos, tmp_path / "out.jsonl")
    os.truncate(job.file, 100)
    with pytest.raises(UserError, match="shorter than it was left"):
        predict_into(job)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_no_jobs_is_never_written_over(model: Path, photos: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    out.write_text("precious")
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    with pytest.raises(UserError, match=r"is there already, and is of no job"):
        whole(model, photos, out)
    assert out.read_text() == "precious"


def test_rows_that_were_removed_are_begun_anew(model: Path, photos: Path, tmp_path: Path) -> None:
    first = whole(model, photos, tmp_path / "out.csv")
    content = first.file.read_bytes()
    first.file.unlink()
    assert whole(model, photos, tmp_path / "out.csv") == first
    assert first.file.read_bytes() == content


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such lock")
def test_two_processes_do_not_write_one_file(model: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with (
        journal.Journal(out, {}, assembled=False).opened(),
        pytest.raises(UserError, match="another process is writing"),
    ):
        whole(model, photos, out)


def test_a_change_of_engine_is_told(model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = stopped_midway(model, photos, tmp_path / "out.jsonl")
    rows = journal.read_progress(job.file).rows
    monkeypatch.setattr(bulk, "deploy", lambda *_, **__: replace(killed_job.made_up_model(), engine="an abacus"))
    assert predict_into(job).engine == f"NumPy, and from file {rows + 1} on an abacus"
    assert predict_into(job).engine == f"NumPy, and from file {rows + 1} on an abacus"


# Memory


def test_an_endless_list_is_read_only_as_far_as_it_is_written(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = itertools.count()
    files = sorted(photos.iterdir())

    def endless(*_: object, **__: object) -> Iterator[Path]:
        for path in itertools.cycle(files):
            next(taken)
            yield path

    class EnoughError(Exception):
        pass

    def stop(rows: int) -> None:
        if rows >= 400:
            raise EnoughError

    monkeypatch.setattr(bulk, "expand_paths", endless)
    with pytest.raises(EnoughError):
        predict_into(killed_job.job(model, tmp_path / "out.jsonl", ["-"]), look=stop)
    assert next(taken) <= 400 + 2 * killed_job.BATCH + 1


# Shares


@pytest.mark.parametrize(
    ("rank", "world"), [("x", "2"), ("0", "x"), ("2", "2"), ("-1", "2"), ("0", "0"), ("0", ""), ("0\n", "2")]
)
def test_an_environment_that_torchrun_does_not_make_is_refused(
    monkeypatch: pytest.MonkeyPatch, rank: str, world: str
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(UserError, match="ranks are 0 to WORLD_SIZE - 1"):
        shard_from_environment()


def test_one_process_alone_has_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert shard_from_environment() is None


@pytest.mark.parametrize(
    ("nodes", "places", "asked"),
    [
        ([{"CPU": 8.0}, {"CPU": 4.0}, {"memory": 1.0}], 2, {"num_cpus": 4, "num_gpus": 0}),
        ([{"CPU": 16.0, "GPU": 4.0}, {"CPU": 64.0}], 4, {"num_cpus": 4, "num_gpus": 1}),
        ([{"GPU": 4.0}, {"GPU": 2.0}], 6, {"num_cpus": 0, "num_gpus": 1}),
    ],
)
def test_every_place_of_a_cluster_has_one_share(
    nodes: list[dict[str, float]], places: int, asked: dict[str, float]
) -> None:
    assert cluster._places(nodes) == places
    assert cluster._share_of_a_node(nodes) == asked


def test_a_cluster_that_has_no_place_is_refused() -> None:
    with pytest.raises(UserError, match="has a CPU or a GPU to give"):
        cluster._share_of_a_node([{"memory": 1.0}])


@pytest.mark.parametrize("count", [2, 3, 8, 100])
def test_shares_are_disjoint_and_complete(count: int) -> None:
    paths = [Path(f"folder/{number:04}.jpg") for number in range(1000)]
    shares = [list(Shard(index, count).of(paths)) for index in range(1, count + 1)]
    assert sorted(itertools.chain.from_iterable(shares)) == paths
    assert max(map(len, shares)) < 2 * len(paths) / count + 10


def test_a_file_is_of_the_same_share_whatever_others_there_are() -> None:
    few, many = [Path("b.jpg"), Path("d.jpg")], [Path(f"{letter}.jpg") for letter in "abcdefgh"]
    for index in (1, 2, 3):
        assert set(Shard(index, 3).of(few)) == set(Shard(index, 3).of(many)) & set(few)


def test_shares_are_written_side_by_side_where_a_glob_reads_them_all(model: Path, photos: Path, tmp_path: Path) -> None:
    everything = whole(model, photos, tmp_path / "all.csv").file.read_text().split("\n", 1)[1]
    out = tmp_path / "shares" / "out.csv"
    outcomes = [whole(model, photos, out, shard=Shard(index, 11)) for index in range(1, 12)]
    assert outcomes[1].file.name == "out-02-of-11.csv"
    parts = [path.read_text().split("\n", 1)[1] for path in sorted(out.parent.glob("out-*.csv"))]
    assert sorted("".join(parts)) == sorted(everything)
    assert sum(outcome.rows for outcome in outcomes) == FILES


def test_another_number_of_shares_is_refused(model: Path, photos: Path, tmp_path: Path) -> None:
    whole(model, photos, tmp_path / "out.csv", shard=Shard(2, 3))
    with pytest.raises(UserError, match=r"out\.csv was begun in 3 shares, not 4"):
        whole(model, photos, tmp_path / "out.csv", shard=Shard(1, 4))


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "1/0", "-1/2", "a/b", "1/2/3", "1/9999999999"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="1/8 to 8/8"):
        parse_shard(text)


def test_torchrun_gives_each_process_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert shard_from_environment() is None
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert shard_from_environment() == Shard(3, 4) == parse_shard("3/4")
