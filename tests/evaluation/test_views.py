"""Views are those of the papers, pixel by pixel, and what is said of them becomes one answer as they say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from residuum.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from residuum.errors import UserError
from residuum.evaluation.views import Protocol, average_scores, predict_views, viewing
from residuum.models.catalogue import create_model

SHAPES = ((300, 400), (400, 300), (256, 256), (120, 333), (500, 257))
LIKE_IMAGENET = Preprocessing(3, 224, crop_pct=0.875)


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def as_array(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


@pytest.mark.parametrize("shape", SHAPES)
def test_ten_crops_are_torchvisions_to_the_byte(shape: tuple[int, int]) -> None:
    image = photo(*shape)
    resized = v2.Resize(256, antialias=True)(Image.fromarray(image))
    five = viewing(LIKE_IMAGENET, Protocol("10-crop"))(image)
    assert [view.tobytes() for view in five] == [as_array(crop).tobytes() for crop in v2.FiveCrop(224)(resized)]
    found = {view[:, ::-1].tobytes() for view in five}
    expected = [as_array(crop).tobytes() for crop in v2.TenCrop(224)(resized)[5:]]
    # Torchvision takes the centre of the mirrored image: beside an odd margin a pixel off the mirrored centre.
    assert found >= set(expected[: 5 if resized.width % 2 == 0 else 4])


@pytest.mark.parametrize("shape", SHAPES)
def test_scales_are_whole_images_resized_as_torchvision_resizes_them(shape: tuple[int, int]) -> None:
    image = photo(*shape)
    views = viewing(LIKE_IMAGENET, Protocol("multi-scale"))(image)
    for view, side in zip(views, (224, 256, 384, 480, 640), strict=True):
        expected = as_array(v2.Resize(side, antialias=True)(Image.fromarray(image)))
        assert np.array_equal(view, expected)


def test_of_a_strip_only_the_middle_goes_through_the_network() -> None:
    (view,) = viewing(LIKE_IMAGENET, Protocol("multi-scale", scales=(32,)))(photo(20, 2000))
    assert view.shape == (32, 8 * 32, 3)


def scorer(network: nn.Module, preprocessing: Preprocessing, protocol: Protocol, batch_size: int = 8, **options):
    @torch.inference_mode()
    def predict(images: Tensor) -> Tensor:
        return network.eval()(images)

    return predict_views(predict, preprocessing, protocol, device=torch.device("cpu"), batch_size=batch_size, **options)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return create_model("resnet18", num_classes=5).eval()


def test_fully_convolutional_at_the_input_size_is_the_plain_forward_pass(network: nn.Module) -> None:
    preprocessing = Preprocessing(3, 64, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    protocol = Protocol("multi-scale", scales=(64,))
    images = [photo(64, 64, seed) for seed in range(3)]
    views = [viewing(preprocessing, protocol)(image) for image in images]
    found = scorer(network, preprocessing, protocol)(views)
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = network(preprocessing.normalise(pixels))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_fully_convolutional_is_the_classifier_at_every_position_averaged(network: nn.Module) -> None:
    preprocessing = Preprocessing(3, 64)
    protocol = Protocol("multi-scale", scales=(96,))
    (view,) = viewing(preprocessing, protocol)(photo(96, 160))
    maps: list[Tensor] = []
    hook = network.layer4.register_forward_hook(lambda module, given, output: maps.append(output))
    found = scorer(network, preprocessing, protocol)([(view,)])
    hook.remove()
    (features,) = maps
    assert features.shape[2:] == (3, 5)
    with torch.inference_mode():
        everywhere = torch.nn.functional.conv2d(features, network.fc.weight[:, :, None, None], network.fc.bias)
    torch.testing.assert_close(found, everywhere.mean(dim=(2, 3)), rtol=1e-5, atol=1e-5)


class Told(nn.Module):
    """Logits that depend on every pixel and its place, whatever the size."""

    def forward(self, images: Tensor) -> Tensor:
        rows = torch.linspace(-1, 1, images.shape[2])[:, None] * torch.linspace(0, 2, images.shape[3])
        return torch.stack([(images * rows).mean(dim=(1, 2, 3)), images.std(dim=(1, 2, 3))], dim=1)


SMALL = Preprocessing(3, 14, crop_pct=0.875, mean=(0.4,) * 3, std=(0.2,) * 3)


@pytest.mark.parametrize(
    "protocol",
    [
        Protocol(),
        Protocol(mirrored=True),
        Protocol("10-crop"),
        Protocol("10-crop", average="logits"),
        Protocol("multi-scale"),
        Protocol("multi-scale", (14, 20), mirrored=True),
    ],
)
def test_an_answer_is_the_average_over_the_views_whatever_goes_through_together(protocol: Protocol) -> None:
    images = [photo(18 + 3 * (number % 3), 30 - number % 2, number) for number in range(7)]
    views = [viewing(SMALL, protocol)(image) for image in images]
    expected = []
    for seen in views:
        sides = [side for view in seen for side in ([view, view[:, ::-1]] if protocol.mirrors else [view])]
        each = [Told()(SMALL.normalise(torch.from_numpy(side.copy()).permute(2, 0, 1)[None])) for side in sides]
        scores = torch.stack(each)[:, 0]
        is_logits = protocol.average == "logits" or len(scores) == 1
        expected.append(scores.mean(0) if is_logits else scores.softmax(1).mean(0).log())
    for batch_size in (1, 3, 100):
        found = scorer(Told(), SMALL, protocol, batch_size)(views)
        torch.testing.assert_close(found.log_softmax(1), torch.stack(expected).log_softmax(1), rtol=1e-4, atol=1e-6)


def test_no_more_views_go_through_together_than_a_batch_of_the_input_size_has_pixels() -> None:
    sizes: list[tuple[int, ...]] = []

    class Watched(Told):
        def forward(self, images: Tensor) -> Tensor:
            sizes.append(tuple(images.shape))
            return super().forward(images)

    protocol = Protocol("multi-scale", (14, 28, 56))
    views = [viewing(SMALL, protocol)(photo(20, 20, seed)) for seed in range(9)]
    scorer(Watched(), SMALL, protocol, batch_size=4)(views)
    assert sum(size[0] for size in sizes) == 27
    assert all(size[0] == 1 or size[0] * size[2] * size[3] <= 4 * 14 * 14 for size in sizes)
    assert max(size[0] for size in sizes) == 4


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 4), st.integers(2, 5), st.booleans())
def test_averaged_probabilities_are_those_of_the_averaged_scores(
    seed: int, views: int, images: int, classes: int, multi_label: bool
) -> None:
    scores = torch.randn(views, images, classes, generator=torch.Generator().manual_seed(seed)) * 10
    found = average_scores(scores, "probabilities", multi_label=multi_label)
    if multi_label:
        expected = scores.double().sigmoid().mean(0)
        torch.testing.assert_close(found.double().sigmoid(), expected, rtol=1e-4, atol=1e-6)
    else:
        torch.testing.assert_close(found.double().exp(), scores.double().softmax(2).mean(0), rtol=1e-4, atol=1e-6)
    assert torch.equal(average_scores(scores, "logits", multi_label=multi_label), scores.mean(0))
    assert torch.equal(average_scores(scores[:1], "probabilities", multi_label=multi_label), scores[0])


def test_protocols_have_names_that_tell_them_apart() -> None:
    names = {
        Protocol(): "1-crop 224 of 256",
        Protocol(mirrored=True): "1-crop 224 of 256, mirrored",
        Protocol("10-crop"): "10-crop 224 of 256",
        Protocol("multi-scale"): "multi-scale 224,256,384,480,640",
        Protocol("multi-scale", (224, 288), mirrored=True): "multi-scale 224,288, mirrored",
        Protocol("10-crop", average="logits"): "10-crop 224 of 256, logits averaged",
        Protocol(average="logits"): "1-crop 224 of 256",  # a single view, and nothing to average
    }
    assert {protocol: protocol.name(LIKE_IMAGENET) for protocol in names} == names
    assert Protocol("multi-scale").name(Preprocessing(3, 32)) == "multi-scale 32,37,55,69,91"
    others = {Preprocessing(3, 224), Preprocessing(3, 224, 0.5), Preprocessing(3, 224, 0.875, "bicubic"), LIKE_IMAGENET}
    for protocol in (Protocol(), Protocol("10-crop")):
        assert len({protocol.name(other) for other in others}) == len(others)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Protocol("5-crop"), "10-crop"),  # type: ignore[arg-type]
        (lambda: Protocol("10-crop", scales=(224,)), "multi-scale"),
        (lambda: Protocol("multi-scale", scales=(0,)), "1 to 4096"),
        (lambda: Protocol(average="votes"), "probabilities, logits"),  # type: ignore[arg-type]
        (lambda: viewing(Preprocessing(3, 32), Protocol("10-crop")), "1-crop"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(make, named: str) -> None:
    with pytest.raises(UserError, match=named) as refusal:
        make()
    assert "\n" not in str(refusal.value)


def test_models_that_see_the_same_share_their_views() -> None:
    other = Preprocessing(3, 224, crop_pct=0.875, mean=(0.1,) * 3, std=(1.0,) * 3)
    assert viewing(LIKE_IMAGENET, Protocol()) == viewing(other, Protocol())
    assert len({viewing(LIKE_IMAGENET, Protocol()), viewing(other, Protocol())}) == 1
    assert viewing(LIKE_IMAGENET, Protocol()) != viewing(Preprocessing(3, 224), Protocol())
