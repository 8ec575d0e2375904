"""Features before the classifier: what the last layer reads, who is near whom in them, and a picture of them."""

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors
from torch import nn

from residuum.errors import UserError
from residuum.inference import features as module
from residuum.inference.features import embedding, features, nearest
from residuum.models.catalogue import create_model

CPU = torch.device("cpu")


def random_rows(number: int, dimensions: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((number, dimensions)).astype(np.float32)


def features_of(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(features(network, [images], CPU, torch.float32))


@pytest.mark.parametrize("name", ["resnet8", "lenet5", "preact_resnet18", "torchvision/mobilenet_v3_small"])
def test_classifier_on_the_features_gives_the_logits(name: str) -> None:
    torch.manual_seed(0)
    network, images = create_model(name, num_classes=4).eval(), torch.randn(3, 3, 32, 32)
    *_, last = (part for part in network.modules() if isinstance(part, nn.Linear))
    with torch.no_grad():
        torch.testing.assert_close(last(features_of(network, images)), network(images))
    assert not any(part._forward_pre_hooks for part in network.modules())


def test_features_by_position_are_averaged() -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(features_of(network, images), network[:2](images).mean(dim=(2, 3)))


def test_features_come_in_order_however_the_images_are_batched() -> None:
    torch.manual_seed(0)
    network, images = create_model("resnet8"), torch.randn(7, 3, 32, 32)
    rows = features(network, images.split(3), CPU, torch.float32)
    assert rows.dtype == np.float32
    assert not network.training
    with torch.no_grad():
        np.testing.assert_allclose(rows, features_of(network, images).numpy(), rtol=1e-4, atol=1e-5)
    halved = features(network, images.split(7), CPU, torch.bfloat16)
    assert halved.dtype == np.float32
    np.testing.assert_allclose(halved, rows, rtol=0.1, atol=0.1 * np.abs(rows).max())
    assert not any(part._forward_pre_hooks for part in network.modules())


def test_features_of_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="no image"):
        features(create_model("resnet8"), [], CPU, torch.float32)


@pytest.mark.parametrize("at_once", [1, 90, 2**22])
def test_nearest_are_those_of_scikit_learn(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SIMILARITIES_AT_ONCE", at_once)
    queries, base = random_rows(13, 16, seed=1), random_rows(40, 16, seed=2)
    indices, similarities = nearest(queries, base, 5)
    distances, expected = NearestNeighbors(n_neighbors=5, metric="cosine").fit(base).kneighbors(queries)
    assert (indices == expected).all()
    np.testing.assert_allclose(similarities, 1 - distances, atol=2e-6)
    assert (indices.dtype, similarities.dtype) == (np.int64, np.float32)


def test_of_equally_near_images_the_first_come_first() -> None:
    base = np.concatenate([random_rows(1, 700, seed=3), np.repeat(random_rows(1, 700), 50, axis=0)])
    base[1:] *= np.linspace(0.1, 9, 50, dtype=np.float32)[:, None]  # cosines do not see lengths
    indices, similarities = nearest(base[30:31], base, 51)
    assert indices[0].tolist() == [*range(1, 51), 0]
    assert (similarities[0, :50] == 1).all()
    assert nearest(base[30:31], base, 4)[0].tolist() == [[1, 2, 3, 4]]


def test_rows_of_zeros_are_like_nothing() -> None:
    base = np.array([[0, 0], [-1, 0], [3, 0]], np.float32)
    indices, similarities = nearest(np.array([[2, 0], [0, 0]], np.float32), base, 3)
    assert indices.tolist() == [[2, 0, 1], [0, 1, 2]]
    assert similarities.tolist() == [[1, 0, -1], [0, 0, 0]]


def test_no_queries_have_no_neighbours() -> None:
    indices, similarities = nearest(random_rows(0, 4), random_rows(9, 4), 2)
    assert indices.shape == similarities.shape == (0, 2)


@pytest.mark.parametrize("k", [0, 10])
def test_more_neighbours_than_images_are_refused(k: int) -> None:
    with pytest.raises(UserError, match="ask for 1 to 9"):
        nearest(random_rows(2, 4), random_rows(9, 4), k)


def test_principal_components_are_those_of_the_singular_value_decomposition() -> None:
    rows = random_rows(30, 8) * np.array([1, 9, 1, 1, 4, 1, 1, 1], np.float32) + 5
    points = embedding(rows, "pca")
    _, _, axes = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    axes = axes[:2] * np.sign(axes[[0, 1], np.abs(axes[:2]).argmax(axis=1)])[:, None]
    np.testing.assert_allclose(points, (rows - rows.mean(axis=0)) @ axes.T, rtol=1e-3, atol=1e-3)
    # The axes are those of features 1 and 4, which point right and up.
    assert np.corrcoef(points[:, 0], rows[:, 1])[0, 1] > 0.9
    assert np.corrcoef(points[:, 1], rows[:, 4])[0, 1] > 0.9


@pytest.mark.parametrize("method", ["pca", "t-sne"])
def test_picture_is_the_same_for_the_same_seed_and_keeps_groups_apart(method: str) -> None:
    groups = np.repeat(np.arange(3), 20)
    rows = random_rows(60, 64) + 20 * random_rows(3, 64, seed=9)[groups]
    points = embedding(rows, method, seed=4)
    assert points.shape == (60, 2)
    assert points.dtype == np.float32
    assert np.array_equal(points, embedding(rows, method, seed=4))
    assert silhouette_score(points, groups) > 0.7


@pytest.mark.parametrize("method", ["pca", "t-sne"])
@pytest.mark.parametrize("shape", [(3, 2), (3, 100), (4, 2), (5, 3)])
def test_few_images_have_a_picture_too(method: str, shape: tuple[int, int]) -> None:
    points = embedding(random_rows(*shape), method)
    assert points.shape == (shape[0], 2)
    assert np.isfinite(points).all()


@pytest.mark.parametrize("method", ["pca", "t-sne"])
def test_images_a_network_does_not_tell_apart_are_one_point(method: str) -> None:
    assert not embedding(np.full((9, 4), 0.3, np.float32), method).any()


@pytest.mark.parametrize("shape", [(2, 8), (8, 1), (0, 8)])
def test_too_few_images_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="3 or more"):
        embedding(random_rows(*shape), "pca")


def test_features_that_are_no_numbers_are_refused() -> None:
    rows = random_rows(6, 4)
    rows[2, 1], rows[4, 0] = np.nan, np.inf
    for ask in (lambda: embedding(rows, "pca"), lambda: nearest(rows[:1], rows, 2)):
        with pytest.raises(UserError, match="2 of 6 images") as refusal:
            ask()
        assert "\n" not in str(refusal.value)
