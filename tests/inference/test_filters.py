"""First-layer filters as pictures: zero is grey, the largest weight black or white."""

import numpy as np
import pytest
import torch
from torch import nn

from residuum.errors import UserError
from residuum.inference.filters import first_layer_filters
from residuum.models.catalogue import create_model


def test_each_filter_is_scaled_around_its_own_zero() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Conv2d(3, 5, 1))
    with torch.no_grad():
        network[0].weight[0, 0] = torch.tensor([[0.0, 2.0], [-2.0, 1.0]])
        network[0].weight[1, 0] = torch.tensor([[0.0, 1e-3], [0.0, -5e-4]])
        network[0].weight[2, 0] = 0.0
    filters = first_layer_filters(network)
    assert filters.dtype == np.uint8
    assert filters.shape == (3, 2, 2, 1)
    assert filters[0, :, :, 0].tolist() == [[128, 255], [0, 191]]
    assert filters[1, :, :, 0].tolist() == [[128, 255], [128, 64]]
    assert (filters[2] == 128).all()


def test_red_green_and_blue_share_a_scale_and_keep_their_places() -> None:
    convolution = nn.Conv2d(3, 1, (1, 2))
    with torch.no_grad():
        convolution.weight[0] = torch.tensor([[[4.0, 0.0]], [[2.0, 0.0]], [[-4.0, 0.0]]])
    assert first_layer_filters(convolution)[0].tolist() == [[[255, 191, 0], [128, 128, 128]]]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet18", (64, 7, 7, 3)),
        ("resnet20", (16, 3, 3, 3)),
        ("torchvision/alexnet", (64, 11, 11, 3)),
        ("timm/vit_tiny_patch16_224", (192, 16, 16, 3)),
    ],
)
def test_networks_show_the_filters_that_see_the_image(name: str, shape: tuple[int, ...]) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    filters = first_layer_filters(create_model(name, num_classes=2))
    assert filters.shape == shape
    largest = np.abs(filters.reshape(len(filters), -1).astype(float) - 127.5).max(axis=1)
    assert (largest == 127.5).all()


@pytest.mark.parametrize("network", [nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), nn.Conv2d(5, 4, 3)])
def test_other_first_layers_are_refused(network: nn.Module) -> None:
    with pytest.raises(UserError, match="leave its filters out") as refusal:
        first_layer_filters(network)
    assert "\n" not in str(refusal.value)
