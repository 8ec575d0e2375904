"""Activation maps: exactly the papers' sums, on any network, which is left as it was."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from residuum.errors import UserError
from residuum.inference.activation_maps import activation_maps, shown
from residuum.models.catalogue import create_model

CLASSES = 5

AVERAGED = {  # by size of the images; the second is the features' resolution
    "resnet20": (32, 8),
    "plain20": (32, 8),
    "wide_resnet10_2": (32, 8),
    "resnet50": (64, 2),
    "resnext50_32x4d": (64, 2),
    "preact_resnet18": (64, 2),
    "torchvision/resnet18": (64, 2),
    "torchvision/densenet121": (64, 2),  # ends in a functional ReLU and pooling
    "timm/resnet18": (64, 2),
    "timm/resnetv2_50": (64, 2),  # its head is a convolution
}
NOT_AVERAGED = {  # by size of the images; the second is the module whose output the map is of
    "resnet9_16": (32, "layer3"),
    "torchvision/vgg11": (64, "avgpool"),
    "torchvision/mobilenet_v3_small": (64, "features"),
    "torchvision/convnext_tiny": (64, "features"),
}


def built(name: str) -> nn.Module:
    """A network whose every weight matters, as after some training: no zeros, no ones, signals of usual size."""
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    torch.manual_seed(1)
    with torch.device("meta"):
        network = create_model(name, num_classes=CLASSES)
    network.to_empty(device="cpu")
    for parameter in network.parameters():
        if parameter.ndim > 1:
            spread = (6 / parameter[0].numel()) ** 0.5
            nn.init.uniform_(parameter, -spread, spread)
        else:
            nn.init.uniform_(parameter, 0.5, 1.5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 64, 64))
    return network.eval()


def images_and_classes(size: int, number: int = 3) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(number, 3, size, size), torch.arange(number) % CLASSES


def chosen(scores: Tensor, classes: Tensor) -> Tensor:
    return scores.gather(1, classes[:, None])[:, 0]


def by_hooks(network: nn.Module, path: str, images: Tensor, classes: Tensor) -> Tensor:
    """Selvaraju et al.'s equations, written down once more with a module's output and backward()."""
    network = copy.deepcopy(network)
    outputs: list[Tensor] = []
    network.get_submodule(path).register_forward_hook(lambda *call: outputs.append(call[-1]))
    scores = network(images)
    outputs[0].retain_grad()
    chosen(scores, classes).sum().backward()
    assert outputs[0].grad is not None
    weights = outputs[0].grad.mean(dim=(2, 3), keepdim=True)
    return (weights * outputs[0]).sum(dim=1).detach()


@pytest.mark.parametrize(("name", "size", "side"), [(name, *sizes) for name, sizes in AVERAGED.items()])
def test_mean_of_a_class_activation_map_is_the_logit(name: str, size: int, side: int) -> None:
    network, (images, classes) = built(name), images_and_classes(size)
    found = activation_maps(network, images, classes)
    assert found.method == "CAM"
    assert found.maps.shape == (3, side, side)
    assert found.maps.dtype == torch.float32
    with torch.no_grad():
        logits = chosen(network(images), classes)
    torch.testing.assert_close(found.maps.mean(dim=(1, 2)), logits, rtol=1e-3, atol=1e-4 * float(logits.abs().max()))


def test_class_activation_map_is_the_classifier_at_each_position() -> None:
    network, (images, classes) = built("resnet20"), images_and_classes(32)
    features: list[Tensor] = []
    network.layer3.register_forward_hook(lambda *call: features.append(call[-1]))
    maps = activation_maps(network, images, classes).maps
    with torch.no_grad():
        for row, column in [(0, 0), (2, 5), (7, 7)]:
            scores = network.fc(features[0][:, :, row, column])
            torch.testing.assert_close(maps[:, row, column], chosen(scores, classes), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "size", "path"), [(name, *known) for name, known in NOT_AVERAGED.items()])
def test_other_heads_get_grad_cam_of_their_last_features(name: str, size: int, path: str) -> None:
    network, (images, classes) = built(name), images_and_classes(size)
    found = activation_maps(network, images, classes)
    assert found.method == "Grad-CAM"
    torch.testing.assert_close(found.maps, by_hooks(network, path, images, classes), rtol=1e-4, atol=1e-6)
    assert found.maps.std() > 0


def test_lenet_of_32_pixels_is_seen_before_its_features_are_a_single_position() -> None:
    found = activation_maps(create_model("lenet5", in_channels=3), *images_and_classes(32))
    assert found.method == "Grad-CAM"
    assert found.maps.shape == (3, 5, 5)


class Shifted(nn.Module):
    """Another network's logits plus one: the gradients stay, while averaging no longer gives the logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) + 1.0


@pytest.mark.parametrize("name", ["resnet20", "preact_resnet18", "torchvision/densenet121"])
def test_grad_cam_of_an_averaging_network_is_its_class_activation_map_up_to_a_factor(name: str) -> None:
    """Selvaraju et al. 2017, section 3.1: the factor is the number of positions; the bias has no gradient."""
    network, (images, classes) = built(name), images_and_classes(64)
    cam, grad_cam = (activation_maps(net, images, classes) for net in (network, Shifted(network)))
    assert (cam.method, grad_cam.method) == ("CAM", "Grad-CAM")
    *_, last = (module for module in network.modules() if isinstance(module, nn.Linear))
    without_bias = cam.maps - last.bias.detach()[classes][:, None, None]
    tolerance = 1e-4 * float(without_bias.abs().max())
    torch.testing.assert_close(grad_cam.maps * cam.maps[0].numel(), without_bias, rtol=1e-4, atol=tolerance)


def test_scores_made_by_a_convolution_at_every_position_are_the_map() -> None:
    network, (images, classes) = built("torchvision/squeezenet1_1"), images_and_classes(64)
    found = activation_maps(network, images, classes)
    with torch.no_grad():
        scores = network.classifier[:3](network.features(images))
    expected = torch.stack([scores[image, label] for image, label in enumerate(classes)])
    torch.testing.assert_close(found.maps * expected[0].numel(), expected, rtol=1e-4, atol=1e-5)


def test_features_with_their_channels_last_are_understood() -> None:
    swin_transformer = pytest.importorskip("timm.models.swin_transformer")
    torch.manual_seed(0)
    sizes = {"img_size": 64, "window_size": 4, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2)}
    network = swin_transformer.SwinTransformer(num_classes=CLASSES, **sizes).eval()
    images, classes = images_and_classes(64)
    found = activation_maps(network, images, classes)
    assert (found.method, found.maps.shape) == ("CAM", (3, 8, 8))
    torch.testing.assert_close(found.maps.mean(dim=(1, 2)), chosen(network(images), classes).detach())


def torchvision_vit() -> nn.Module:
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
    return VisionTransformer(32, 8, **sizes, num_classes=CLASSES)


def timm_vit(**options: object) -> nn.Module:
    timm = pytest.importorskip("timm")
    sizes = {"img_size": 32, "patch_size": 8, "depth": 2}
    return timm.create_model("vit_tiny_patch16_224", **sizes, num_classes=CLASSES, **options)


def averaging_timm_vit() -> nn.Module:
    return timm_vit(global_pool="avg", class_token=False)


@pytest.mark.parametrize("build", [torchvision_vit, timm_vit, averaging_timm_vit])
def test_networks_that_read_a_sequence_are_refused(build: Callable[[], nn.Module]) -> None:
    with pytest.raises(UserError, match=r"features of one sequence.*convolutional network") as refusal:
        activation_maps(build(), *images_and_classes(32))
    assert "\n" not in str(refusal.value)


def test_network_without_positions_is_refused() -> None:
    with pytest.raises(UserError, match="a single position for images of 8 pixels"):
        activation_maps(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5)), *images_and_classes(8))


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_classes_the_network_does_not_have_are_refused(label: int) -> None:
    with pytest.raises(UserError, match=f"class {label} of a network of 5"):
        activation_maps(built("resnet8"), images_and_classes(32)[0], torch.tensor([0, label, 1]))


def test_map_lights_up_where_the_class_is() -> None:
    """Two channels, two classes: the map of each class is twice the image's own channel, blurred by nothing."""
    network = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        network[0].weight[:, :, 0, 0] = torch.eye(2, 3)
        network[3].weight[:] = 2 * torch.eye(2)
        network[3].bias[:] = torch.tensor([0.0, 0.5])
    images = torch.zeros(2, 3, 4, 4)
    images[0, 0, 1, 2] = 1.0
    images[1, 1, 3, 0] = 1.0
    maps = activation_maps(network, images, torch.tensor([0, 1])).maps
    expected = torch.zeros(2, 4, 4)
    expected[0, 1, 2], expected[1, 3, 0] = 2.0, 2.0
    expected[1] += 0.5
    torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize("name", ["resnet8", "resnet9_16"])
def test_network_is_left_as_it_was(name: str) -> None:
    network = built(name).train()
    network.bn1.eval()
    network.fc.weight.requires_grad_(False)
    before = copy.deepcopy(network)
    images, classes = images_and_classes(32)
    activation_maps(network, images, classes)
    assert [module.training for module in network.modules()] == [module.training for module in before.modules()]
    assert all(torch.equal(value, before.state_dict()[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert [p.requires_grad for p in network.parameters()] == [p.requires_grad for p in before.parameters()]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert images.grad is None
    assert not images.requires_grad


def test_frozen_network_in_a_caller_s_inference_mode_has_grad_cam_too() -> None:
    network, (images, classes) = built("resnet9_16"), images_and_classes(32)
    expected = activation_maps(network, images, classes).maps
    network.requires_grad_(False)
    with torch.inference_mode():
        found = activation_maps(network, images * 1.0, classes)
    assert found.method == "Grad-CAM"
    torch.testing.assert_close(found.maps, expected)


def test_last_features_changed_in_place_through_a_view_are_no_obstacle() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(4 * 6 * 6, CLASSES))
    assert activation_maps(network, *images_and_classes(8)).maps.shape == (3, 6, 6)


@pytest.mark.parametrize("name", ["resnet8", "resnet9_16"])
def test_map_of_an_image_does_not_depend_on_the_others(name: str) -> None:
    network, (images, classes) = built(name), images_and_classes(16, number=18)
    together = activation_maps(network, images, classes).maps
    alone = torch.cat([activation_maps(network, images[[i]], classes[[i]]).maps for i in (0, 9, 17)])
    torch.testing.assert_close(together[[0, 9, 17]], alone, rtol=1e-4, atol=1e-5 * float(alone.abs().max()))


def test_shown_maps_are_shares_of_their_maximum_enlarged() -> None:
    maps = torch.tensor([[[4.0, 2.0], [0.0, -8.0]], [[-1.0, -2.0], [0.0, -3.0]], [[7.0, 7.0], [7.0, 7.0]]])
    heat = shown(maps, 4)
    assert heat.shape == (3, 4, 4)
    # Bilinear: the outer positions keep their values, those between mix theirs 3 to 1.
    torch.testing.assert_close(heat[0, 0], torch.tensor([1.0, 0.875, 0.625, 0.5]))
    torch.testing.assert_close(heat[0, :, 0], torch.tensor([1.0, 0.75, 0.25, 0.0]))
    assert not heat[1].any()
    assert (heat[2] == 1).all()


def test_shown_maps_of_odd_values_stay_between_0_and_1() -> None:
    inf, nan = float("inf"), float("nan")
    maps = torch.tensor([[[nan, nan], [nan, nan]], [[inf, -inf], [nan, 1.0]], [[1e-45, 0.0], [0.0, 0.0]]])
    heat = shown(torch.cat([maps, 1e38 * torch.randn(4, 2, 2)]), 7)
    assert heat.isfinite().all()
    assert heat.min() >= 0
    assert heat.max() <= 1
    assert not heat[0].any()
