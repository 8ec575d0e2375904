"""Resampling gives one image the same bytes alone, in a batch, in any layout and on any device."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from residuum.data.crops import _resample_together, resample

SIZES = (1, 2, 3, 8, 31, 64, 224)


def images(rng, count, channels, height, width):
    """Noise, or black and white, whose bicubic overshoots are cut off most."""
    noise = rng.integers(0, 256, (count, channels, height, width), dtype=np.uint8)
    return torch.from_numpy(noise if rng.random() < 0.7 else (noise > 127).astype(np.uint8) * 255)


def boxes_within(rng, count, height, width):
    heights, widths = rng.integers(1, height + 1, count), rng.integers(1, width + 1, count)
    return np.stack([rng.integers(0, height - heights + 1), rng.integers(0, width - widths + 1), heights, widths], 1)


def pytorchs(image, box, size, interpolation):
    top, left, height, width = box
    cropped = image[None, :, top : top + height, left : left + width].contiguous(memory_format=torch.channels_last)
    return F.interpolate(cropped, (size, size), mode=interpolation, antialias=True)[0]


def two_passes_of_pil(image, box, size, interpolation):
    """Across, then down, whatever the version."""
    top, left, height, width = box
    pixels = image.permute(1, 2, 0).numpy()
    filter_ = Image.Resampling[interpolation.upper()]
    pil = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).crop(
        (left, top, left + width, top + height)
    )
    resized = pil.resize((size, height), filter_).resize((size, size), filter_)
    return np.asarray(resized).reshape(size, size, -1).transpose(2, 0, 1)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 4),
    st.sampled_from([1, 3]),
    st.tuples(*[st.one_of(st.integers(1, 4), st.integers(1, 90), st.integers(1, 400))] * 2),
    st.sampled_from(SIZES),
    st.sampled_from(["bilinear", "bicubic"]),
)
def test_a_batch_elsewhere_has_the_bytes_of_one_image_on_the_cpu(seed, count, channels, shape, size, interpolation):
    """The path of other devices, run on the CPU: enlarged and reduced, boxes of a pixel and of everything."""
    rng = np.random.default_rng(seed)
    batch, boxes = images(rng, count, channels, *shape), boxes_within(rng, count, *shape)
    resized = resample(batch, boxes, size, interpolation)
    assert resized.shape == (count, channels, size, size)
    for image, box, result in zip(batch, boxes.tolist(), resized, strict=True):
        assert torch.equal(result, pytorchs(image, box, size, interpolation))
    assert torch.equal(_resample_together(batch, boxes, size, interpolation), resized)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("channels", [1, 3])
def test_neither_layout_nor_company_changes_a_byte(interpolation, channels):
    rng = np.random.default_rng(0)
    batch, boxes = images(rng, 6, channels, 40, 55), boxes_within(rng, 6, 40, 55)
    last = batch.contiguous(memory_format=torch.channels_last)
    window = torch.nn.functional.pad(last, (3, 4, 5, 6))[:, :, 5:-6, 3:-4]
    for size in (1, 24):
        resized = resample(batch, boxes, size, interpolation)
        assert resized.is_contiguous(memory_format=torch.channels_last)
        for layout in (last, window, list(batch), [image.clone() for image in last]):
            assert torch.equal(resample(layout, boxes, size, interpolation), resized)
        assert torch.equal(_resample_together(last, boxes, size, interpolation), resized)
        for number in range(6):
            own = slice(number, number + 1)
            assert torch.equal(resample(batch[own], boxes[own], size, interpolation), resized[own])


@pytest.mark.parametrize(("interpolation", "levels"), [("bilinear", 1), ("bicubic", 2), ("lanczos", 2)])
def test_every_value_is_pils_to_within_these_grey_levels(interpolation, levels):
    rng = np.random.default_rng(1)
    for number in range(60):
        channels, shape = (1, 3)[number % 2], tuple(rng.integers(1, (5, 60, 300)[number % 3], 2))
        batch, boxes = images(rng, 2, channels, *shape), boxes_within(rng, 2, *shape)
        size = SIZES[number % len(SIZES)]
        for image, box, result in zip(batch, boxes.tolist(), resample(batch, boxes, size, interpolation), strict=True):
            expected = two_passes_of_pil(image, box, size, interpolation).astype(int)
            assert np.abs(expected - result.numpy()).max() <= levels


def test_an_axis_of_the_right_size_is_left_as_it_is():
    batch = images(np.random.default_rng(2), 3, 3, 32, 32)
    whole = np.array([[0, 0, 32, 32]] * 3)
    for interpolation in ("bilinear", "bicubic", "lanczos"):
        assert torch.equal(resample(batch, whole, 32, interpolation), batch)
        assert torch.equal(_resample_together(batch, whole, 32, interpolation), batch)


def test_no_image_gives_none():
    nothing = torch.empty((0, 3, 9, 9), dtype=torch.uint8)
    assert resample(nothing, np.empty((0, 4), np.int64), 5, "bilinear").shape == (0, 3, 5, 5)


DIGEST = """
import hashlib, numpy as np, torch
from residuum.data.crops import resample
rng = np.random.default_rng(3)
digest = hashlib.sha256()
for number in range(60):
    height, width = rng.integers(1, 120, 2)
    batch = torch.from_numpy(rng.integers(0, 256, (2, 1 + number % 2 * 2, height, width), dtype=np.uint8))
    boxes = np.array([[0, 0, height, width], [height // 2, width // 3, height - height // 2, width - width // 3]])
    for interpolation in ("bilinear", "bicubic"):
        digest.update(resample(batch, boxes, (1, 7, 64)[number % 3], interpolation).contiguous().numpy().tobytes())
print(digest.hexdigest())
"""


def test_the_instructions_of_the_processor_change_nothing():
    """PyTorch has code of its own for AVX2 and AVX-512, and it is told here to do without."""
    digests = {
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            env=os.environ | {"ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for capability in ("default", "avx2", "avx512")
    }
    assert len(digests) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_a_gpu_gives_the_same_bytes(interpolation):
    rng = np.random.default_rng(4)
    for size in SIZES:
        batch, boxes = images(rng, 5, 3, 90, 130), boxes_within(rng, 5, 90, 130)
        assert torch.equal(
            resample(batch.cuda(), boxes, size, interpolation).cpu(), resample(batch, boxes, size, interpolation)
        )
