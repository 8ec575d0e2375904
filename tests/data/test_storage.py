"""The file loader's memory is bounded, its own, and used again; its views stay what they are."""

import time
import weakref
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from test_loaders import AUGMENTATIONS, BAD, COUNT, PREPROCESSING, file_split, labels, pixels

import residuum.data.storage as storage
from residuum.data.splits import ArraySplit, NumberedNames
from residuum.data.storage import Request, Views, open_images
from residuum.data.workers import READ_AHEAD, LoaderSettings
from residuum.errors import UserError

SETTINGS = LoaderSettings(kind="file", seed=5)
BATCH = 4


@dataclass(frozen=True, eq=False)
class Counting(ArraySplit):
    """Counts the images read, in whichever process."""

    count: torch.Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.int64).share_memory_())

    def read(self, index, channels):
        self.count.add_(1)
        return super().read(index, channels)


def counting(images=COUNT):
    return Counting(pixels(images), labels(images), NumberedNames("made up", images))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return file_split(tmp_path_factory.mktemp("files"), pixels(), BAD)


@pytest.fixture(scope="module")
def array():
    return ArraySplit(pixels(), labels(), NumberedNames("made up", COUNT))


def opened(split, name="resized crop", **changes):
    return open_images(split, PREPROCESSING, AUGMENTATIONS[name], replace(SETTINGS, **changes))


def requests(epoch=0, size=BATCH, count=COUNT):
    order = np.random.default_rng(epoch).permutation(count)
    return [Request(epoch, order[start : start + size]) for start in range(0, count, size)]


def assert_same(views: list[Views], others: list[Views]) -> None:
    assert len(views) == len(others) > 0
    for one, other in zip(views, others, strict=True):
        assert torch.equal(one.images, other.images)
        assert np.array_equal(one.indices, other.indices)
        assert {index: str(bad) for index, bad in one.bad.items()} == {i: str(bad) for i, bad in other.bad.items()}


def test_workers_read_no_further_ahead_than_there_is_room():
    """A counter without a lock loses counts, so one worker counts alone."""
    split = counting()
    reading = opened(split, workers=1).read(requests())
    for taken, _ in enumerate(reading, 1):
        if taken == 1:
            time.sleep(0.5)  # enough to read everything, were there no limit
        assert split.count.item() <= (taken + READ_AHEAD) * BATCH
    assert split.count.item() == COUNT


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_memory_is_a_slot_for_each_request_read_ahead_and_one_in_use(array, workers):
    images = opened(array, workers=workers)
    memory = None
    for epoch in range(2):
        list(images.read(requests(epoch)))
        slots = images._pool._reader.slots
        assert slots.shape == (READ_AHEAD * workers + 1, BATCH, 10, 10, 3)
        assert slots.is_shared() == (workers > 0)
        assert memory in (None, slots.data_ptr())
        memory = slots.data_ptr()


@pytest.mark.parametrize(("limit", "held"), [(0, 1), (14 * 17 * 3 * 5, 5), (14 * 17 * 3 * 5 + 1, 6)])
def test_few_decoded_images_are_held_at_a_time(monkeypatch, limit, held):
    monkeypatch.setattr(storage, "_DECODED_BYTES", limit)
    alive = weakref.WeakValueDictionary()
    most = []

    class Watching(ArraySplit):
        def read(self, index, channels):
            image = super().read(index, channels)
            alive[index] = image
            most.append(len(alive))
            return image

    images = opened(Watching(pixels(), labels(), NumberedNames("made up", COUNT)))
    list(images.read([Request(0, np.arange(COUNT))]))
    assert max(most) == held


@pytest.mark.parametrize("workers", [0, 2])
def test_views_that_are_kept_stay_what_they_were(files, workers):
    images = opened(files, workers=workers)
    kept, copies = [], []
    for views in images.read(requests()):
        kept.append(views)
        copies.append(views._replace(images=views.images.clone()))
    list(images.read(requests(1)))
    assert_same(kept, copies)


def test_an_image_asked_for_twice_is_there_twice(array):
    (views,) = opened(array).read([Request(0, np.array([3, 8, 3]))])
    assert views.indices.tolist() == [3, 8, 3]
    assert torch.equal(views.images[0], views.images[2])


def test_larger_requests_get_more_room(files):
    images, alone = opened(files, workers=1), opened(files)
    for size in (2, 11, 3, COUNT):
        assert_same(list(images.read(requests(size, size))), list(alone.read(requests(size, size))))
    assert list(images.read([])) == []


def test_an_abandoned_reading_writes_into_no_later_one(files):
    images, alone = opened(files, workers=2), opened(files)
    for epoch in range(6):
        reading = images.read(requests(epoch, 3))
        for _ in range(epoch):
            next(reading)
        assert_same(list(images.read(requests(epoch + 10, 3))), list(alone.read(requests(epoch + 10, 3))))


@pytest.mark.parametrize("kind", ["memory", "file"])
@pytest.mark.parametrize("name", ["none", "resized crop", "shorter side"])
def test_views_are_channels_last_wherever_images_are(array, kind, name):
    """So that what is computed from them, summed in the order of memory, is the same as well."""
    images = opened(array, name, kind=kind, workers=1)
    for views in [*images.read(requests()), Views(next(images.centre_views()), np.arange(0), {})]:
        assert views.images.is_contiguous(memory_format=torch.channels_last)


def test_want_of_shared_memory_is_told_with_what_to_do(array, monkeypatch):
    def refuse(self):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    images = opened(array, workers=1)
    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    with pytest.raises(UserError, match=r"need 0 MiB of shared memory.*lower -j or -b"):
        list(images.read(requests()))
