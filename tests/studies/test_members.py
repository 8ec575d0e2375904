"""A member's folder is named after what decides its result, and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trial import TRIAL, count_files, count_images

from residuum.data.facts import DataFacts
from residuum.data.sources import open_data
from residuum.errors import UserError
from residuum.studies.members import Draw, Member, describe, described, member_of
from residuum.studies.samples import draw
from residuum.studies.study import Arm

FACTS = DataFacts(images=1438, classes=10, channels=1, height=8, width=8, multi_label=False)
ARM = TRIAL.plan("smoke", FACTS).arms[0]


def member(arm: Arm = ARM, seed: int = 0, fingerprint: str = "f" * 32, processes: int = 1) -> Member:
    return member_of(arm, seed, Draw("digits"), fingerprint, processes)


def changed(**fields: object) -> Arm:
    assert ARM.run is not None
    return replace(ARM, run=replace(ARM.run, **fields))


def test_the_name_follows_what_decides_the_result() -> None:
    assert ARM.run is not None
    others = [
        member(seed=1),
        member(fingerprint="0" * 32),
        member(processes=2),
        member(changed(epochs=2)),
        member(changed(optimizer=replace(ARM.run.optimizer, lr=0.2))),
        member(changed(model=replace(ARM.run.model, shortcut="C"))),
        member(changed(keep_checkpoints=9)),
    ]
    assert len({member().digest, *(other.digest for other in others)}) == 8


def test_the_name_does_not_follow_what_does_not() -> None:
    assert ARM.run is not None
    same = [
        member(replace(ARM, name="other")),
        member(replace(ARM, measure=count_files)),
        member(changed(device="cpu", capture=False, checkpoint_every="1 minutes")),
        member(changed(data=replace(ARM.run.data, workers=3, loader="file"))),
        replace(member(), draw=Draw("elsewhere/digits")),
    ]
    assert {one.digest for one in same} == {member().digest}


def test_a_measure_alone_is_named_by_what_it_is_asked() -> None:
    alone = [Arm("a", measure=count_images), Arm("a", measure=count_images, settings={"x": 1})]
    digests = {member(arm, seed).digest for arm in alone for seed in (0, 1)}
    assert len(digests) == 4


def test_the_name_stays_as_it_is() -> None:
    """Studies on people's disks are found again: this digest changes only when the default of a used field does."""
    assert member().digest == "6564fb1bd1fce2ea"


def test_a_member_is_read_as_it_was_described(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    given_ = member_of(replace(ARM, measure=count_files, settings={"asked": 7}), 3, Draw("digits", None, 0.1), "ab", 2)
    describe(given_, folder)
    assert described(folder) == (replace(given_, arm="m"),)
    (folder / "member.json").write_text("{}")
    with pytest.raises(UserError, match="is no member of a study"):
        described(folder)


def test_processes_share_the_batch() -> None:
    found = member(processes=4)
    assert found.run is not None
    assert found.run.batch_size == 16
    with pytest.raises(UserError, match="3 processes cannot share batches of 64 evenly"):
        member(processes=3)


@given(st.integers(20, 1400), st.integers(20, 350))
def test_a_draw_keeps_the_classes_shares(train: int, test: int) -> None:
    whole = open_data("digits")
    part = draw(whole, train, test)
    for name, wanted in (("train", train), ("test", test)):
        labels, all_labels = part.splits[name].labels, whole.splits[name].labels
        assert abs(len(labels) - wanted) <= 10  # each class is rounded
        for number in range(10):
            assert abs((labels == number).sum() - (all_labels == number).mean() * wanted) <= 1
    assert part.fingerprint() == draw(whole, train, test).fingerprint()


def test_a_draw_of_all_is_the_data_themselves() -> None:
    whole = open_data("digits")
    assert draw(whole, None, None).fingerprint() == whole.fingerprint()
    assert draw(whole, 10**6, 10**6).fingerprint() == whole.fingerprint()
