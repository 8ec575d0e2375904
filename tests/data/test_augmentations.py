"""Each augmentation against NumPy, PIL or torchvision on one image, or an invariant of its definition."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from residuum.data.augmentations import (
    Augmentation,
    Augmenter,
    color_jitter,
    cutmix,
    flip,
    lighting,
    mixup,
    pad_and_crop,
    random_erasing,
)
from residuum.data.crops import cut_box, erasing_boxes, resample, resized_crop_boxes, shorter_side_boxes
from residuum.data.preprocessing import Preprocessing
from residuum.data.randaugment import OPERATIONS, SIGNED, apply_operation, randaugment
from residuum.data.statistics import statistics
from residuum.data.views import RandomView
from residuum.errors import UserError
from residuum.randomness import uniform


def augmented(
    augmenter: Augmenter, images: Tensor, labels: Tensor, epoch: int, batch: int, indices: np.ndarray
) -> tuple[Tensor, Tensor]:
    return augmenter.mix(augmenter.each(images, epoch, indices), labels, epoch, batch)


def numbers(count, per_sample, seed=0):
    return uniform(seed, "test", 0, np.arange(count), per_sample)


def byte_images(count, channels=3, height=16, width=16, seed=0):
    """Smooth random content, as photographs have."""
    small = np.random.default_rng(seed).integers(0, 256, (count, channels, 5, 5), dtype=np.uint8)
    enlarged = torch.nn.functional.interpolate(torch.from_numpy(small).float(), (height, width), mode="bilinear")
    return enlarged.to(torch.uint8)


def chi_square(values, bins):
    counts = np.bincount(values, minlength=bins)
    assert len(counts) == bins
    return ((counts - len(values) / bins) ** 2 / (len(values) / bins)).sum()


# Flip and padded crop


def test_flip_mirrors_the_samples_whose_number_is_below_a_half():
    images = torch.rand(4, 3, 5, 6)
    flipped = flip(images, np.array([0.0, 0.49999, 0.5, 0.9]))
    assert np.array_equal(flipped[:2].numpy(), images[:2].numpy()[..., ::-1])
    assert torch.equal(flipped[2:], images[2:])


@pytest.mark.parametrize(("channels", "height", "width", "padding"), [(3, 32, 32, 4), (1, 5, 7, 3), (3, 4, 4, 9)])
def test_pad_and_crop_is_numpys_pad_and_a_slice(channels, height, width, padding):
    images = torch.randn(17, channels, height, width)
    drawn = numbers(17, 2)
    cropped = pad_and_crop(images, drawn, padding)
    for image, result, (down, across) in zip(images.numpy(), cropped.numpy(), drawn, strict=True):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
        top, left = int(down * (2 * padding + 1)), int(across * (2 * padding + 1))
        assert np.array_equal(result, padded[:, top : top + height, left : left + width])


def test_pad_and_crop_offsets_are_uniform():
    """An image that is its own map of positions tells where it was cut."""
    positions = 1 + torch.arange(64.0).view(1, 1, 8, 8).expand(4000, 1, 8, 8)
    centres = pad_and_crop(positions, numbers(4000, 2), 2)[:, 0, 4, 4].long() - 1
    down, across = centres // 8 - 2, centres % 8 - 2
    assert chi_square((down * 5 + across).numpy(), 25) < 51.2  # 0.1 % point, 24 degrees of freedom


# Boxes


sizes = st.integers(1, 700)
unit = st.floats(0, 1, exclude_max=True)


def inside(boxes, height, width):
    top, left, box_height, box_width = boxes.T
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] >= 1).all()
    assert (top + box_height <= height).all()
    assert (left + box_width <= width).all()


@settings(max_examples=100, deadline=None)
@given(sizes, sizes, st.lists(unit, min_size=22, max_size=22), unit, unit)
def test_resized_crop_boxes_lie_in_the_image(height, width, drawn, first, second):
    scale = (max(0.01, min(first, second)), max(0.01, first, second))
    inside(resized_crop_boxes(np.array([height]), np.array([width]), np.array([drawn]), scale), height, width)


@settings(max_examples=100, deadline=None)
@given(sizes, sizes, st.lists(unit, min_size=3, max_size=3))
def test_shorter_side_boxes_lie_in_the_image(height, width, drawn):
    boxes = shorter_side_boxes(np.array([height]), np.array([width]), np.array([drawn]), 224, (256, 480))
    inside(boxes, height, width)


def torchvision_box(height, width, drawn, scale):
    """RandomResizedCrop.make_params of torchvision 0.29, its draws replaced by ours."""
    low, high = math.log(3 / 4), math.log(4 / 3)
    for area_number, ratio_number in zip(drawn[:10], drawn[10:20], strict=True):
        area = height * width * (scale[0] + area_number * (scale[1] - scale[0]))
        ratio = math.exp(low + ratio_number * (high - low))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(drawn[20] * (height - h + 1)), int(drawn[21] * (width - w + 1)), h, w
    h, w = height, width
    if width / height < 3 / 4:
        h = round(width / (3 / 4))
    elif width / height > 4 / 3:
        w = round(height * (4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(("height", "width"), [(32, 32), (375, 500), (40, 400), (400, 40), (1, 1), (3, 2)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.9, 1.0)])
def test_resized_crop_boxes_are_torchvisions(height, width, scale):
    drawn = numbers(200, 22)
    boxes = resized_crop_boxes(np.full(200, height), np.full(200, width), drawn, scale)
    assert [tuple(box) for box in boxes.tolist()] == [torchvision_box(height, width, row, scale) for row in drawn]


def test_shorter_side_boxes_are_a_224_crop_of_the_resized_image():
    drawn = numbers(5000, 3)
    boxes = shorter_side_boxes(np.full(5000, 512), np.full(5000, 2000), drawn, 224, (256, 480))
    sides = 256 + np.floor(drawn[:, 0] * 225)
    assert (sides.min(), sides.max()) == (256, 480)
    assert np.array_equal(boxes[:, 2], boxes[:, 3])
    assert np.abs(boxes[:, 2] - 224 / sides * 512).max() <= 0.5
    across = boxes[:, 1] / (2000 - boxes[:, 3])
    assert chi_square((across * 20).astype(int).clip(0, 19), 20) < 43.8  # 0.1 % point, 19 degrees of freedom


@pytest.mark.parametrize(("interpolation", "filter_"), [("bilinear", "BILINEAR"), ("bicubic", "BICUBIC")])
@pytest.mark.parametrize("size", [8, 40])
def test_resample_is_pils_crop_and_resize_within_one_level(interpolation, filter_, size):
    images = byte_images(6, height=50, width=70)
    boxes = resized_crop_boxes(np.full(6, 50), np.full(6, 70), numbers(6, 22), (0.05, 1.0))
    resampled = resample(images, boxes, size, interpolation).permute(0, 2, 3, 1).numpy()
    for image, result, (top, left, height, width) in zip(images, resampled, boxes.tolist(), strict=True):
        pil = Image.fromarray(image.permute(1, 2, 0).numpy()).crop((left, top, left + width, top + height))
        expected = np.asarray(pil.resize((size, size), Image.Resampling[filter_]))
        difference = np.abs(expected.astype(int) - result)
        assert difference.max() <= 1
        assert difference.mean() < 0.3


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(
    "augmentation", [Augmentation(random_resized_crop=(0.1, 1)), Augmentation(shorter_side=(24, 60))]
)
def test_random_view_of_one_image_is_that_of_a_batch_to_the_bit(augmentation, interpolation):
    view = RandomView(Preprocessing(3, 24, interpolation=interpolation), augmentation, seed=3)
    images, indices = byte_images(40, height=31, width=53), np.arange(100, 140)
    alone = view(list(images.permute(0, 2, 3, 1).numpy()), 2, indices)
    assert torch.equal(view.of_batch(images, 2, indices), alone)
    assert torch.equal(view.of_batch(images[7:8], 2, indices[7:8]), alone[7:8])
    assert not torch.equal(view.of_batch(images, 3, indices), alone)


def test_shorter_side_below_the_view_is_refused():
    with pytest.raises(UserError, match=r"256.*288"):
        RandomView(Preprocessing(3, 288), Augmentation(shorter_side=(256, 480)), 0)


# Colour


def test_color_jitter_is_torchvisions():
    from torchvision.transforms.v2 import functional as F

    drawn = numbers(20, 3)
    for channels in (1, 3):
        images = byte_images(20, channels).float() / 255
        jittered = color_jitter(images, drawn, 0.4)
        for image, result, (brightness, contrast, saturation) in zip(images, jittered, 0.6 + 0.8 * drawn, strict=True):
            expected = F.adjust_contrast(F.adjust_brightness(image, brightness), contrast)
            expected = F.adjust_saturation(expected, saturation)
            torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)


def test_color_jitter_of_strength_zero_changes_nothing():
    images = byte_images(4).float() / 255
    assert torch.equal(color_jitter(images, numbers(4, 3), 0.0), images)


def test_lighting_moves_along_the_principal_colours_by_normal_amounts():
    images = byte_images(50)
    colours = statistics([images])
    unit_images = (images.float() / 255)[:1].expand(4000, 3, 16, 16)
    shifts = lighting(unit_images, numbers(4000, 6), 0.1, colours) - unit_images
    assert (shifts - shifts[:, :, :1, :1]).abs().max() < 1e-6  # the same for every pixel
    amounts = shifts[:, :, 0, 0].double().numpy() @ colours.eigenvectors / colours.eigenvalues
    np.testing.assert_allclose(amounts.std(0), 0.1, rtol=0.05)
    np.testing.assert_allclose(amounts.mean(0), 0, atol=0.006)
    np.testing.assert_allclose(np.corrcoef(amounts.T), np.eye(3), atol=0.06)
    assert abs((np.abs(amounts) > 0.196).mean() - 0.05) < 0.01  # a normal distribution's tails


# RandAugment


def torchvision_operation(image, name, sign, magnitude):
    from torchvision.transforms import v2

    policy = v2.RandAugment()
    make, signed = policy._AUGMENTATION_SPACE[name]
    range_ = make(31, *image.shape[-2:])
    strength = 0.0 if range_ is None else float(range_[magnitude]) * (sign if signed else 1)
    return policy._apply_image_or_video_transform(
        image, name, strength, interpolation=policy.interpolation, fill=policy._fill
    )


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_randaugment_operations_are_torchvisions(name, magnitude):
    for channels in (1, 3):
        images = byte_images(3, channels)
        for sign in (-1, 1):
            expected = torch.stack([torchvision_operation(image, name, sign, magnitude) for image in images])
            assert torch.equal(apply_operation(images, name, sign, magnitude), expected)


def test_randaugment_has_torchvisions_operations():
    from torchvision.transforms import v2

    space = v2.RandAugment._AUGMENTATION_SPACE
    assert set(OPERATIONS) == set(space)
    assert set(SIGNED) == {name for name, (_, signed) in space.items() if signed}


def test_randaugment_of_a_batch_is_that_of_each_image():
    images, drawn = byte_images(60), numbers(60, 4)
    together = randaugment(images, drawn, 2, 9)
    for image, result, row in zip(images, together, drawn, strict=True):
        for which, sign in row.reshape(2, 2):
            image = torchvision_operation(image, OPERATIONS[int(which * 14)], -1 if sign < 0.5 else 1, 9)
        assert torch.equal(result, image)


def test_randaugment_leaves_its_input_alone():
    images = byte_images(20)
    before = images.clone()
    randaugment(images, numbers(20, 4), 2, 20)
    assert torch.equal(images, before)


# Erasing and mixing


def test_random_erasing_zeroes_the_box_alone():
    images = torch.rand(30, 3, 20, 20) + 1
    boxes = erasing_boxes(20, numbers(30, 22))
    for image, result, (top, left, height, width) in zip(
        images, random_erasing(images, boxes), boxes.tolist(), strict=True
    ):
        expected = image.numpy().copy()
        expected[:, top : top + height, left : left + width] = 0
        assert np.array_equal(result.numpy(), expected)


def test_erasing_boxes_have_the_papers_areas_and_ratios():
    boxes = erasing_boxes(224, numbers(5000, 22))
    top, left, height, width = boxes.T
    assert ((height < 224) & (width < 224) & (top + height <= 224) & (left + width <= 224)).all()
    shares, ratios = height * width / 224**2, height / width
    assert 0.019 < shares.min() < 0.025
    assert 0.38 < shares.max() < 0.41
    assert ratios.min() > 0.28
    assert ratios.max() < 3.5


@pytest.mark.parametrize("size", [1, 2])
def test_views_too_small_to_erase_in_get_an_empty_or_fitting_box(size):
    boxes = erasing_boxes(size, numbers(100, 22))
    assert (boxes[:, 2:] < size).all()


def test_random_erasing_has_its_probability():
    augmenter = Augmenter(Augmentation(random_erasing=0.25), Preprocessing(3, 16), 0, 10)
    images, _ = augmented(augmenter, byte_images(4000), torch.zeros(4000).long(), 0, 0, np.arange(4000))
    erased = (images == 0).flatten(1).any(1).float().mean()
    assert abs(erased - 0.25) < 0.03


def one_hot(labels, classes=10):
    return torch.nn.functional.one_hot(torch.tensor(labels), classes).float()


def test_mixup_is_a_weighted_sum_with_the_partner():
    images, labels = torch.rand(3, 1, 2, 2), one_hot([4, 5, 6])
    mixed, shares = mixup(images, labels, 0.3, np.array([1, 2, 0]))
    torch.testing.assert_close(mixed[0], 0.3 * images[0] + 0.7 * images[1])
    torch.testing.assert_close(shares[2], 0.3 * labels[2] + 0.7 * labels[0])


def test_cutmix_pastes_the_partners_box_and_shares_labels_by_area():
    images, labels = torch.rand(3, 2, 8, 8), one_hot([4, 5, 6])
    mixed, shares = cutmix(images, labels, (2, 1, 4, 6), np.array([1, 2, 0]))
    expected = images[0].numpy().copy()
    expected[:, 2:6, 1:7] = images[1, :, 2:6, 1:7]
    assert np.array_equal(mixed[0].numpy(), expected)
    assert shares[0, 5] == pytest.approx(24 / 64)
    assert shares[0, 4] == pytest.approx(40 / 64)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 300), st.floats(0, 1), unit, unit)
def test_cut_boxes_lie_in_the_view(size, kept, down, across):
    top, left, height, width = cut_box(size, kept, (down, across))
    assert 0 <= top <= top + height <= size
    assert 0 <= left <= left + width <= size
    assert height * width <= (1 - kept) * size**2 + 1e-6


@pytest.mark.parametrize(
    "augmentation", [Augmentation(mixup=0.2), Augmentation(cutmix=1.0), Augmentation(mixup=0.8, cutmix=1.0)]
)
def test_mixed_labels_keep_their_mass_and_tell_the_exact_share(augmentation):
    """Images of one constant each, so that a mixed image tells what it was made of."""
    augmenter = Augmenter(augmentation, Preprocessing(1, 8, mean=(0.0,), std=(1.0,)), 0, 255)
    labels = torch.arange(20)
    views = labels.to(torch.uint8).view(20, 1, 1, 1).expand(20, 1, 8, 8)
    for batch in range(20):
        images, shares = augmented(augmenter, views, labels, 1, batch, np.arange(20))
        torch.testing.assert_close(shares.sum(1), torch.ones(20))
        torch.testing.assert_close(shares @ torch.arange(255.0), images.mean((1, 2, 3)) * 255)


def test_mixtures_depend_on_seed_epoch_and_batch():
    def mixed(seed, epoch, batch):
        augmenter = Augmenter(Augmentation(mixup=0.5), Preprocessing(3, 16), seed, 10)
        return augmented(augmenter, byte_images(8), torch.arange(8), epoch, batch, np.arange(8))[1]

    assert torch.equal(mixed(0, 1, 2), mixed(0, 1, 2))
    for other in [(1, 1, 2), (0, 2, 2), (0, 1, 3), (0, 2, 1)]:
        assert not torch.equal(mixed(0, 1, 2), mixed(*other))


def test_multi_hot_labels_are_mixed_too():
    labels = torch.tensor([[1.0, 1, 0], [0, 1, 1], [0, 0, 1]])
    augmenter = Augmenter(Augmentation(mixup=0.5), Preprocessing(3, 16), 0, 3)
    _, shares = augmented(augmenter, byte_images(3), labels, 0, 0, np.arange(3))
    torch.testing.assert_close(shares.sum(), labels.sum())


# The whole


def test_padding_is_zero_after_the_mean_is_subtracted():
    preprocessing = Preprocessing(3, 16, mean=(0.4, 0.5, 0.6), std=(1.0, 1.0, 1.0))
    augmenter = Augmenter(Augmentation(pad_and_crop=15), preprocessing, 0, 10)
    images, _ = augmented(
        augmenter, torch.full((50, 3, 16, 16), 255, dtype=torch.uint8), torch.zeros(50), 0, 0, np.arange(50)
    )
    values = images.unique()
    torch.testing.assert_close(values, torch.tensor([0.0, 0.4, 0.5, 0.6]))


def test_a_sample_is_augmented_alike_in_any_batch():
    augmentation = Augmentation(2, True, color_jitter=0.3, lighting=0.1, randaugment=(2, 9), random_erasing=0.5)
    images = byte_images(30)
    augmenter = Augmenter(augmentation, Preprocessing(3, 16), 5, 10, statistics([images]))
    labels = torch.arange(30)
    together, _ = augmented(augmenter, images, labels, 4, 0, np.arange(30))
    chosen = [20, 3, 11]
    apart, _ = augmented(augmenter, images[chosen], labels[chosen], 4, 7, np.array(chosen))
    torch.testing.assert_close(apart, together[chosen], atol=1e-6, rtol=0)


def test_no_augmentation_is_normalisation_alone():
    images, preprocessing = byte_images(4), Preprocessing(3, 16)
    result, labels = augmented(
        Augmenter(Augmentation(), preprocessing, 0, 10), images, torch.arange(4), 0, 0, np.arange(4)
    )
    assert torch.equal(result, preprocessing.normalise(images))
    assert torch.equal(labels, torch.arange(4))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pad_and_crop": -1}, "pad_and_crop -1"),
        ({"random_erasing": 1.5}, "probability"),
        ({"random_resized_crop": (0.0, 1.0)}, r"\(0, 1\]"),
        ({"random_resized_crop": (0.9, 0.5)}, r"\(0, 1\]"),
        ({"shorter_side": (480, 256)}, "smaller first"),
        ({"randaugment": (0, 9)}, "operation"),
        ({"randaugment": (2, 31)}, "0 to 30"),
        ({"mixup": -0.1}, "mixup"),
        ({"mixup": math.nan}, "mixup nan"),
        ({"color_jitter": math.inf}, "color_jitter inf"),
        ({"lighting": math.inf}, "finite"),
        ({"random_resized_crop": (0.1, 1.0), "shorter_side": (256, 480)}, "keep one"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        Augmentation(**values)
