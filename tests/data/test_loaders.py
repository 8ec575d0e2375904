"""Both loaders deliver the same bytes in the promised order, whatever the workers, start and world."""

import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import residuum.data.loaders
from residuum.data.augmentations import Augmentation
from residuum.data.loaders import evaluation_loader, train_loader
from residuum.data.preprocessing import Preprocessing
from residuum.data.splits import ArraySplit, FileSplit, NumberedNames, PackedNames
from residuum.data.statistics import statistics
from residuum.data.storage import open_images
from residuum.data.workers import LoaderSettings, WorkerDiedError
from residuum.distributed import World
from residuum.errors import UserError

COUNT, CLASSES = 37, 4
BAD = (5, 20)
PLAIN = Augmentation()
PREPROCESSING = Preprocessing(3, 10, crop_pct=0.8)
AUGMENTATIONS = {
    "none": PLAIN,
    "paper": Augmentation(pad_and_crop=2, flip=True),
    "resized crop": Augmentation(random_resized_crop=(0.2, 1.0), flip=True),
    "shorter side": Augmentation(shorter_side=(12, 20)),
    "colours": Augmentation(color_jitter=0.4, lighting=0.1),
    "randaugment": Augmentation(randaugment=(2, 9)),
    "erasing": Augmentation(random_erasing=0.5),
    "mixup": Augmentation(mixup=0.2),
    "cutmix": Augmentation(cutmix=1.0),
    "everything": Augmentation(2, True, (0.3, 1.0), None, 0.4, 0.1, (2, 9), 0.25, 0.8, 1.0),
}
SETTINGS = LoaderSettings(seed=11)


def pixels(count=COUNT, height=14, width=17):
    small = np.random.default_rng(0).integers(0, 256, (count, 4, 5, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((width, height))) for image in small])


def labels(count=COUNT):
    return np.arange(count, dtype=np.int64) % CLASSES


def file_split(folder, images, bad=()):
    names = [f"{index:02}.png" for index in range(len(images))]
    for index, (name, image) in enumerate(zip(names, images, strict=True)):
        Image.fromarray(image).save(folder / name)
        if index in bad:
            (folder / name).write_bytes(b"not an image")
    return FileSplit(folder, PackedNames(names), labels(len(images)))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return file_split(tmp_path_factory.mktemp("files"), pixels(), BAD)


@pytest.fixture(scope="module")
def array():
    return ArraySplit(pixels(), labels(), NumberedNames("made up", COUNT))


@pytest.fixture(scope="module")
def colours():
    return statistics([torch.from_numpy(pixels()).permute(0, 3, 1, 2)])


def training(split, augmentation=PLAIN, batch_size=8, colours=None, **changes):
    return train_loader(
        split,
        PREPROCESSING,
        augmentation,
        classes=CLASSES,
        batch_size=batch_size,
        settings=replace(SETTINGS, **changes),
        colours=colours,
    )


def evaluation(split, batch_size=8, **changes):
    return evaluation_loader(split, PREPROCESSING, batch_size=batch_size, settings=replace(SETTINGS, **changes))


def assert_same(batches, others):
    batches, others = list(batches), list(others)
    assert len(batches) == len(others) > 0
    for one, other in zip(batches, others, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert np.array_equal(one.indices, other.indices)
        assert [str(bad) for bad in one.bad] == [str(bad) for bad in other.bad]


def seen(loader, epoch=0):
    return [index for batch in loader.epoch(epoch) for index in batch.indices.tolist()]


# The same bytes


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_memory_and_file_loader_deliver_the_same_bytes(files, colours, name):
    from_memory = training(files, AUGMENTATIONS[name], colours=colours, kind="memory")
    from_files = training(files, AUGMENTATIONS[name], colours=colours, kind="file")
    assert (from_memory.kind, from_files.kind) == ("memory", "file")
    for epoch in (0, 3):
        assert_same(from_memory.epoch(epoch), from_files.epoch(epoch))


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_the_number_of_workers_changes_nothing(files, colours, kind):
    augmentation = AUGMENTATIONS["everything"]
    without = training(files, augmentation, colours=colours, kind=kind)
    for workers in (1, 2):
        loader = training(files, augmentation, colours=colours, kind=kind, workers=workers)
        for epoch in (0, 1):
            assert_same(loader.epoch(epoch), without.epoch(epoch))


@pytest.mark.parametrize("kind", ["memory", "file"])
@pytest.mark.parametrize("start", [0, 2, 4])
def test_an_epoch_resumed_at_a_batch_is_the_tail_of_the_whole(files, colours, kind, start):
    augmentation = AUGMENTATIONS["everything"]
    whole = list(training(files, augmentation, colours=colours, kind=kind).epoch(5))
    resumed = training(files, augmentation, colours=colours, kind=kind).epoch(5, start)
    if start < len(whole):
        assert_same(resumed, whole[start:])
    else:
        assert list(resumed) == []


@pytest.mark.parametrize("start", [0, 2])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_batches_prepared_together_are_those_prepared_alone(files, tmp_path, colours, monkeypatch, name, start):
    """As on an accelerator, which is told once what to do with several batches; with bad files among them."""
    split = file_split(tmp_path, pixels(), bad=BAD)
    apart = list(training(split, AUGMENTATIONS[name], batch_size=5, colours=colours).epoch(1, start))
    monkeypatch.setattr(residuum.data.loaders, "_batches_at_once", lambda *_: 3)
    together = list(training(split, AUGMENTATIONS[name], batch_size=5, colours=colours).epoch(1, start))
    assert_same(together, apart)
    for one, other in zip(together, apart, strict=True):
        assert [bad.name for bad in one.bad] == [bad.name for bad in other.bad]
        assert one.bad_indices.tolist() == other.bad_indices.tolist()


def test_an_abandoned_epoch_leaves_nothing_behind_in_the_workers(files):
    loader = training(files, batch_size=4, kind="file", workers=2)
    next(loader.epoch(0))
    assert_same(loader.epoch(1), training(files, batch_size=4, kind="file").epoch(1))


def test_epochs_and_seeds_differ_and_repeat(array):
    augmentation = AUGMENTATIONS["paper"]
    loader = training(array, augmentation)
    first = next(loader.epoch(0))
    assert_same([first], [next(loader.epoch(0))])
    for other in (next(loader.epoch(1)), next(training(array, augmentation, seed=12).epoch(0))):
        assert not np.array_equal(first.indices, other.indices)
        assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_loading_draws_nothing_from_torchs_generator(files, colours, kind):
    """Else the numbers that drop-path draws would depend on where the images are kept."""
    before = torch.get_rng_state()
    list(training(files, AUGMENTATIONS["everything"], colours=colours, kind=kind).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


# Training


@pytest.mark.parametrize(("batch_size", "size", "batches"), [(8, 1, 4), (8, 2, 2), (5, 3, 2), (37, 1, 1)])
def test_an_epoch_is_full_batches_of_different_images(array, batch_size, size, batches):
    worlds = [World(rank, rank, size) for rank in range(size)]
    loaders = [training(array, batch_size=batch_size, world=world) for world in worlds]
    together = [index for loader in loaders for index in seen(loader)]
    assert len(together) == len(set(together)) == batches * batch_size * size
    assert all(len(loader) == batches for loader in loaders)


def test_processes_share_out_the_batches_of_one(array):
    alone = list(training(array, batch_size=8).epoch(2))
    shares = [training(array, batch_size=4, world=World(rank, rank, 2)) for rank in range(2)]
    for whole, *parts in zip(alone, *(loader.epoch(2) for loader in shares), strict=True):
        assert np.array_equal(whole.indices, np.concatenate([part.indices for part in parts]))
        assert torch.equal(whole.images, torch.cat([part.images for part in parts]))


def test_fewer_images_than_a_batch_are_one_batch(array):
    loader = training(array, batch_size=100)
    assert len(loader) == 1
    assert sorted(seen(loader)) == list(range(COUNT))


def test_fewer_images_than_processes_are_refused(array):
    with pytest.raises(UserError, match="37 training images for 40 processes"):
        training(array, world=World(0, 0, 40))


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_images_keep_their_labels_and_normalisation(array, kind):
    for batch in training(array, kind=kind).epoch(0):
        views = np.stack([PREPROCESSING.view(array.images[index]) for index in batch.indices])
        expected = PREPROCESSING.normalise(torch.from_numpy(views).permute(0, 3, 1, 2))
        assert torch.equal(batch.images, expected)
        assert batch.images.dtype == torch.float32
        assert batch.labels.tolist() == labels()[batch.indices].tolist()


def test_labels_of_several_classes_are_float_rows(array):
    multi_hot = np.random.default_rng(0).integers(0, 2, (COUNT, CLASSES), dtype=np.uint8)
    batch = next(training(replace(array, labels=multi_hot)).epoch(0))
    assert batch.labels.dtype == torch.float32
    assert np.array_equal(batch.labels.numpy(), multi_hot[batch.indices])


def test_mixed_labels_are_shares_of_all_classes(array):
    batch = next(training(array, Augmentation(mixup=1.0)).epoch(0))
    assert batch.labels.shape == (8, CLASSES)


def test_training_images_without_a_class_are_refused(array):
    with pytest.raises(UserError, match="37 training images have no class"):
        training(replace(array, labels=np.full(COUNT, -1)))


def test_lighting_of_grey_images_is_refused(array):
    grey = Preprocessing(1, 10, mean=(0.5,), std=(0.5,))
    with pytest.raises(UserError, match="grey"):
        train_loader(array, grey, Augmentation(lighting=0.1), classes=CLASSES, batch_size=8, settings=SETTINGS)


# Evaluation


@pytest.mark.parametrize("kind", ["memory", "file"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_image_is_evaluated_exactly_once(array, kind, size):
    loaders = [evaluation(array, batch_size=5, kind=kind, world=World(rank, rank, size)) for rank in range(size)]
    for rank, loader in enumerate(loaders):
        assert seen(loader) == list(range(rank, COUNT, size))
        assert len(list(loader.epoch(0))) == len(loader)


def test_evaluation_is_the_same_from_memory_and_files(files):
    assert_same(evaluation(files, kind="memory").epoch(0), evaluation(files, kind="file", workers=2).epoch(0))


# Bad files


@pytest.mark.parametrize("kind", ["memory", "file"])
@pytest.mark.parametrize("workers", [0, 2])
def test_bad_files_are_left_out_and_reported(files, kind, workers):
    train = training(files, batch_size=COUNT, kind=kind, workers=workers)
    evaluate = evaluation(files, kind=kind, workers=workers)
    for loader in (train, evaluate):
        batches = list(loader.epoch(0))
        indices = [index for batch in batches for index in batch.indices.tolist()]
        assert sorted(indices) == [index for index in range(COUNT) if index not in BAD]
        reported = [bad.name for batch in batches for bad in batch.bad]
        assert sorted(reported) == ["05.png", "20.png"]
        assert [bad.name for bad in loader.bad] == ["05.png", "20.png"]
        assert all(len(batch.images) == len(batch.labels) == len(batch.indices) for batch in batches)


def test_bad_files_do_not_change_the_other_batches(files, array):
    """Their places in the order stay theirs: the others do not move up."""
    for one, other in zip(training(files).epoch(0), training(array).epoch(0), strict=True):
        assert one.indices.tolist() == [index for index in other.indices if index not in BAD]


@pytest.mark.parametrize("kind", ["memory", "file"])
@pytest.mark.parametrize("workers", [0, 1])
def test_strict_training_stops_at_a_bad_file(files, kind, workers):
    with pytest.raises(UserError, match=r"(05|20)\.png: not an image.*[12] so far"):
        list(training(files, kind=kind, workers=workers, strict=True).epoch(0))


def test_evaluation_reports_bad_files_even_when_strict(files):
    loader = evaluation(files, strict=True)
    assert len(seen(loader)) == COUNT - len(BAD)


@pytest.mark.parametrize("kind", ["memory", "file"])
@pytest.mark.parametrize("name", ["none", "paper", "resized crop", "randaugment", "mixup"])
def test_a_training_batch_without_any_readable_image_is_empty(tmp_path, kind, name):
    split = file_split(tmp_path, pixels(3), bad=(1,))
    batches = list(training(split, AUGMENTATIONS[name], batch_size=1, kind=kind).epoch(0))
    assert sorted(len(batch.images) for batch in batches) == [0, 1, 1]
    (empty,) = (batch for batch in batches if batch.bad)
    assert empty.images.shape == (0, 3, 10, 10)
    assert empty.images.dtype == torch.float32
    assert len(empty.labels) == len(empty.indices) == 0
    assert empty.bad_indices.tolist() == [1]


def test_a_training_set_without_any_readable_image_is_not_loaded_into_memory(tmp_path):
    with pytest.raises(UserError, match="none of the 2 images"):
        training(file_split(tmp_path, pixels(2), bad=(0, 1)), kind="memory")


def test_an_evaluation_batch_without_any_readable_image_is_empty(tmp_path):
    split = file_split(tmp_path, pixels(3), bad=(1,))
    for kind in ("memory", "file"):
        batch = list(evaluation(split, batch_size=1, kind=kind).epoch(0))[1]
        assert batch.images.shape == (0, 3, 10, 10)
        assert len(batch.labels) == len(batch.indices) == 0
        assert len(batch.bad) == 1


# Choosing and opening


def test_small_sets_live_in_memory_and_big_ones_in_files(array, monkeypatch):
    assert training(array).kind == "memory"
    monkeypatch.setattr("residuum.data.storage._free_bytes", lambda device: 4 * 37 * 300 - 1)
    assert training(array).kind == "file"
    assert evaluation(array).kind == "file"
    assert evaluation(array, kind="memory").kind == "memory"


def test_processes_on_a_cpu_share_its_memory(array, monkeypatch):
    monkeypatch.setattr("residuum.data.storage._free_bytes", lambda device: 2 * 4 * 37 * 300 - 1)
    assert training(array).kind == "memory"
    assert training(array, world=World(0, 0, 2)).kind == "file"


def test_images_that_exceed_the_memory_are_refused(array, monkeypatch):
    monkeypatch.setattr("residuum.data.storage._free_bytes", lambda device: 37 * 300 - 1)
    with pytest.raises(UserError, match="are free; use the file loader"):
        training(array, kind="memory")


def test_random_crops_of_mixed_sizes_stay_in_files(tmp_path):
    split = file_split(tmp_path, [pixels(1)[0], pixels(1, 15, 15)[0]])
    crops = Augmentation(random_resized_crop=(0.5, 1.0))
    assert training(split, crops).kind == "file"
    assert training(split).kind == "memory"
    with pytest.raises(UserError, match="differ in size"):
        training(split, crops, kind="memory")


def test_mixed_sizes_that_probing_missed_fall_back_to_files(tmp_path, monkeypatch):
    monkeypatch.setattr("residuum.data.storage._PROBES", 1)
    split = file_split(tmp_path, [pixels(1)[0], pixels(1, 15, 15)[0]])
    assert training(split, Augmentation(random_resized_crop=(0.5, 1.0))).kind == "file"


@pytest.mark.parametrize("kind", ["memory", "file"])
@pytest.mark.parametrize("name", ["none", "resized crop"])
def test_statistics_come_from_the_centre_views_wherever_images_are(files, kind, name):
    images = open_images(files, PREPROCESSING, AUGMENTATIONS[name], replace(SETTINGS, kind=kind, workers=1))
    good = [index for index in range(COUNT) if index not in BAD]
    expected = statistics(
        [torch.from_numpy(np.stack([PREPROCESSING.view(pixels()[i]) for i in good])).permute(0, 3, 1, 2)]
    )
    found = statistics(images.centre_views())
    assert (found.mean, found.std) == (expected.mean, expected.std)
    assert np.array_equal(found.mean_image, expected.mean_image)
    chosen = [place * COUNT // 7 for place in range(7)]
    assert sum(map(len, images.centre_views(limit=7))) == 7 - len(set(chosen) & set(BAD))


def test_opened_images_serve_a_loader_and_report_progress(files):
    steps = []
    images = open_images(files, PREPROCESSING, PLAIN, SETTINGS, progress=lambda *step: steps.append(step))
    assert steps[-1] == (COUNT, COUNT)
    assert_same(training(images).epoch(0), training(files).epoch(0))


@pytest.mark.parametrize("changes", [{"kind": "disk"}, {"workers": -1}])
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(UserError):
        LoaderSettings(**changes)


# Processes


def test_a_killed_worker_is_an_error_and_not_a_hang(array):
    handler = signal.getsignal(signal.SIGCHLD)
    loader = training(array, batch_size=1, kind="file", workers=1)
    batches = loader.epoch(0)
    next(batches)
    os.kill(loader._images._pool._loader._iterator._workers[0].pid, signal.SIGKILL)
    with pytest.raises(WorkerDiedError, match="a worker process died"):
        list(batches)
    assert signal.getsignal(signal.SIGCHLD) == handler


@pytest.mark.parametrize("kind", [RuntimeError, EOFError])
def test_an_error_in_a_worker_keeps_its_traceback(array, kind):
    class Broken(ArraySplit):
        def read(self, index, channels):
            raise kind("a mistake of our own")

    broken = Broken(array.images, array.labels, array.names)
    with pytest.raises(kind, match=r"(?s)Traceback.*a mistake of our own"):
        list(training(broken, batch_size=COUNT, kind="file", workers=1).epoch(0))


def test_workers_leave_ctrl_c_to_the_main_process(files):
    loader = training(files, batch_size=2, kind="file", workers=1)
    batches = loader.epoch(0)
    next(batches)
    os.kill(loader._images._pool._loader._iterator._workers[0].pid, signal.SIGINT)
    assert len(list(batches)) == len(loader) - 1


def test_what_a_worker_is_sent_is_small(files):
    loader = training(files, AUGMENTATIONS["resized crop"], kind="file")
    assert len(pickle.dumps(loader._images._pool._loader.dataset)) < 5_000


def test_the_loaders_import_neither_torchvision_nor_the_models():
    code = (
        "import sys, residuum.data.loaders; "
        "assert not {name for name in sys.modules if name.startswith(('torchvision', 'residuum.models'))}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_gpu_delivers_the_same_images(files, colours, name):
    cuda = torch.device("cuda")
    on_cpu = list(training(files, AUGMENTATIONS[name], colours=colours).epoch(0))
    for kind in ("memory", "file"):
        loader = training(files, AUGMENTATIONS[name], colours=colours, kind=kind, device=cuda, workers=1)
        for one, other in zip(loader.epoch(0), on_cpu, strict=True):
            assert one.images.device.type == "cuda"
            torch.testing.assert_close(one.labels.cpu(), other.labels)
            assert (one.images.cpu() - other.images).abs().mean() < 0.01
