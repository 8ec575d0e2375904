"""ResNet-9 as Page describes it: layers, width, smallest input."""

import pytest
import torch

from residuum.models.catalogue import create_model
from residuum.models.page2019 import ResNet9


def test_its_nine_layers_have_the_weights_that_the_description_counts() -> None:
    convolutions = [(3, 64), (64, 128), (128, 128), (128, 128), (128, 256), (256, 512), (512, 512), (512, 512)]
    expected = sum(9 * a * b + 2 * b for a, b in convolutions) + 512 * 10
    assert sum(parameter.numel() for parameter in create_model("resnet9").parameters()) == expected == 6_573_120


def test_the_narrow_one_has_a_quarter_of_the_width() -> None:
    narrow, wide = create_model("resnet9_16"), create_model("resnet9")
    assert isinstance(narrow, ResNet9)
    assert isinstance(wide, ResNet9)
    assert 4 * narrow.conv1.out_channels == wide.conv1.out_channels
    assert 4 * narrow.fc.in_features == wide.fc.in_features


@pytest.mark.parametrize("size", [8, 9, 32, 64])
def test_any_size_from_eight_pixels_on_gives_scaled_logits(size: int) -> None:
    network = create_model("resnet9_16").eval()
    assert isinstance(network, ResNet9)
    images = torch.randn(2, 3, size, size)
    before = network(images)
    network.fc.weight.data *= 8
    torch.testing.assert_close(network(images), 8 * before)
    features = network.layer3(network.layer2(network.layer1(torch.relu(network.bn1(network.conv1(images))))))
    torch.testing.assert_close(network(images), 0.125 * network.fc(features.amax((2, 3))))
