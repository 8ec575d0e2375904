"""Views against torchvision, normalisation and statistics against NumPy, configurations against timm."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from residuum.data import preprocessing as preprocessing_module
from residuum.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, LONGEST, Preprocessing
from residuum.data.statistics import statistics
from residuum.errors import UserError


def photograph(height, width, channels=3, seed=0):
    """Smooth random content, on which a resampling that is wrong shows."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (height // 4 + 2, width // 4 + 2, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(image if channels == 3 else image.convert("L"))
    return pixels.reshape(height, width, channels)


def torchvision_view(image, resized, size, interpolation):
    from torchvision.transforms import InterpolationMode, v2

    chain = v2.Compose([v2.Resize(resized, InterpolationMode(interpolation), antialias=True), v2.CenterCrop(size)])
    pil = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    return np.asarray(chain(pil)).reshape(size, size, image.shape[2])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(
    ("height", "width"),
    [(64, 64), (65, 97), (97, 65), (101, 64), (64, 333), (333, 64), (20, 31), (31, 20), (1, 7), (57, 57)],
)
def test_view_is_torchvisions_to_the_bit(height, width, interpolation):
    for size, crop_pct, resized in [(56, 0.875, 64), (32, 1.0, 32), (31, 31 / 36, 36)]:
        for channels in (1, 3):
            image = photograph(height, width, channels)
            moments = {"mean": (0.5,) * channels, "std": (0.5,) * channels}
            preprocessing = Preprocessing(channels, size, crop_pct, interpolation, **moments)
            view = preprocessing.view(image)
            assert view.shape == (size, size, channels)
            assert np.array_equal(view, torchvision_view(image, resized, size, interpolation))


@pytest.mark.parametrize(("height", "width"), [(1, 60_000), (60_000, 1), (2, 60_001)])
def test_view_of_a_strip_is_that_of_its_middle(monkeypatch, height, width):
    """Else a strip of a few kilobytes would become gigabytes: its longer side grows with its shorter one."""
    sizes = []
    resize = preprocessing_module._resize
    monkeypatch.setattr(
        preprocessing_module, "_resize", lambda image, size, how: sizes.append(size) or resize(image, size, how)
    )
    view = Preprocessing(3, 56, 0.875).view(photograph(height, width))
    assert view.shape == (56, 56, 3)
    assert sizes == [(64 * LONGEST, 64) if width > height else (64, 64 * LONGEST)]


def test_view_of_an_image_that_fits_is_the_image():
    image = photograph(32, 32)
    assert np.array_equal(Preprocessing(3, 32).view(image), image)


@pytest.mark.parametrize(("size", "crop_pct"), [(224, 0.875), (224, 0.9), (224, 0.95), (288, 0.95), (299, 0.875)])
def test_resized_side_is_timms(size, crop_pct):
    timm = pytest.importorskip("timm.data.transforms_factory")
    chain = timm.transforms_imagenet_eval(size, crop_pct=crop_pct, interpolation="bicubic")
    expected = chain.transforms[0].size
    assert Preprocessing(3, size, crop_pct).resized_side == (expected if isinstance(expected, int) else expected[0])


def test_resized_side_survives_as_a_share():
    assert all(Preprocessing(3, 224, 224 / side).resized_side == side for side in range(224, 600))


def test_normalise_with_channel_moments_is_torchvisions():
    from torchvision.transforms.v2 import functional as F

    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), dtype=np.uint8))
    expected = F.normalize(images.float() / 255, IMAGENET_MEAN, IMAGENET_STD)
    assert torch.equal(Preprocessing(3, 8).normalise(images), expected)


def test_normalise_with_a_mean_image_subtracts_each_pixels_own_mean():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)
    mean_image = generator.random((3, 8, 8), dtype=np.float32)
    preprocessing = Preprocessing(3, 8, std=(1.0, 1.0, 1.0), mean_image=mean_image)
    normalised = preprocessing.normalise(torch.from_numpy(images))
    assert np.array_equal(normalised.numpy(), images.astype(np.float32) / 255 - mean_image)


def test_normalise_leaves_its_input_alone():
    images = torch.rand(2, 3, 8, 8)
    before = images.clone()
    Preprocessing(3, 8).normalise(images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("channels", [1, 3])
def test_configuration_comes_back_from_json(channels):
    moments = {"mean": (0.1, 0.2, 0.3)[:channels], "std": (1.0, 0.5, 0.25)[:channels]}
    preprocessing = Preprocessing(channels, 48, 0.9, "bicubic", **moments)
    config = json.loads(json.dumps(preprocessing.to_config()))
    assert Preprocessing.from_config(config) == preprocessing
    assert "mean_image" not in config  # timm refuses keys it does not know


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("has_mean_image", [False, True])
@pytest.mark.parametrize("std", [1.0, 0.229])
def test_numpy_normalises_to_the_bit_as_pytorch(channels, has_mean_image, std):
    generator = np.random.default_rng(channels)
    mean_image = generator.random((channels, 8, 8), dtype=np.float32) if has_mean_image else None
    handling = Preprocessing(channels, 8, mean=(0.485,) * channels, std=(std,) * channels, mean_image=mean_image)
    views = generator.integers(0, 256, (5, 8, 8, channels), dtype=np.uint8)
    expected = handling.normalise(torch.from_numpy(views).permute(0, 3, 1, 2)).numpy()
    found = handling.normalise_views(views)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert np.array_equal(found, expected)


def test_configuration_announces_a_mean_image_that_is_kept_apart():
    mean_image = np.random.default_rng(0).random((3, 8, 8), dtype=np.float32)
    preprocessing = Preprocessing(3, 8, mean_image=mean_image)
    config = json.loads(json.dumps(preprocessing.to_config()))
    assert config["mean_image"] is True
    assert Preprocessing.from_config(config, mean_image.copy()) == preprocessing
    assert Preprocessing.from_config(config, mean_image + 1) != preprocessing
    with pytest.raises(UserError, match="mean image"):
        Preprocessing.from_config(config)


def test_timms_configuration_is_read():
    timm = pytest.importorskip("timm")
    config = timm.get_pretrained_cfg("resnet50.a1_in1k").to_dict()
    preprocessing = Preprocessing.from_config(config)
    assert (preprocessing.channels, preprocessing.size) == (3, 224)
    assert (preprocessing.crop_pct, preprocessing.interpolation) == (config["crop_pct"], "bicubic")
    assert (preprocessing.mean, preprocessing.std) == (IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_mode": "squash"}, "squash"),
        ({"input_size": [3, 8, 9]}, "square"),
        ({"interpolation": "cubical"}, "bicubic"),
        ({"crop_pct": 1.2}, "crop_pct"),
        ({"mean": [0.5]}, "one a channel"),
        ({"input_size": [4, 8, 8]}, "1 .grey. or 3"),
        ({"input_size": [3, 0, 0]}, "at least 1"),
    ],
)
def test_a_configuration_out_of_range_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        Preprocessing.from_config(Preprocessing(3, 8).to_config() | change)


def test_a_mean_image_of_another_size_is_refused():
    with pytest.raises(UserError, match="shape"):
        Preprocessing(3, 8, mean_image=np.zeros((3, 9, 9), np.float32))


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_are_numpys(channels):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 200, (150, channels, 6, 6), dtype=np.uint8)
    found = statistics(torch.from_numpy(images).split(67))
    unit = images.astype(np.float64) / 255
    np.testing.assert_allclose(found.mean, unit.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(found.std, unit.std((0, 2, 3)), rtol=1e-10)
    np.testing.assert_allclose(found.mean_image, unit.mean(0), rtol=1e-6)
    covariance = np.cov(unit.transpose(1, 0, 2, 3).reshape(channels, -1), bias=True).reshape(channels, channels)
    rebuilt = found.eigenvectors @ np.diag(found.eigenvalues) @ found.eigenvectors.T
    np.testing.assert_allclose(rebuilt, covariance, atol=1e-12)
    assert list(found.eigenvalues) == sorted(found.eigenvalues, reverse=True)


def test_statistics_do_not_depend_on_the_batches():
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (70, 3, 5, 5), dtype=np.uint8))
    one, other = statistics([images]), statistics(reversed(images.split(9)))
    assert (one.mean, one.std) == (other.mean, other.std)
    assert np.array_equal(one.mean_image, other.mean_image)
    assert np.array_equal(one.eigenvectors, other.eigenvectors)


def test_statistics_of_a_constant_channel_can_be_divided_by():
    found = statistics([torch.full((3, 1, 4, 4), 9, dtype=torch.uint8)])
    assert found.std == (1 / 255,)


def test_statistics_of_nothing_are_refused():
    with pytest.raises(UserError, match="no readable"):
        statistics([])
