"""A whole network, its loss and all its gradients, composed of the reference's parts: what the catalogue builds."""

import pytest
import torch
from numeric_gradients import Floats, assert_close
from torch import Tensor

from residuum.models.catalogue import create_model
from residuum.reference import losses, unit
from residuum.reference.activations import relu, relu_backward
from residuum.reference.convolution import conv2d, conv2d_backward
from residuum.reference.linear import linear, linear_backward
from residuum.reference.normalisation import batch_norm_training, batch_norm_training_backward
from residuum.reference.pooling import global_average_pool, global_average_pool_backward

UNITS = {
    "resnet8": (unit.residual_unit, unit.residual_unit_backward),
    "plain8": (unit.plain_unit, unit.plain_unit_backward),
}
STRIDES = {"layer1.0": 1, "layer2.0": 2, "layer3.0": 2}
PARTS = ("conv1.weight", "bn1.weight", "bn1.bias", "conv2.weight", "bn2.weight", "bn2.bias")


def branch_of(weights: dict[str, Floats], name: str) -> unit.Branch:
    return unit.Branch(*(weights[f"{name}.{part}"] for part in PARTS))


def by_reference(
    name: str, weights: dict[str, Floats], images: Floats, targets: Floats
) -> tuple[float, dict[str, Floats]]:
    """(loss, gradients by the weights) of an 8-layer network of He et al. 2015, section 4.2, with n = 1."""
    forward, backward = UNITS[name]
    stem = weights["conv1.weight"], weights["bn1.weight"], weights["bn1.bias"]
    head = weights["fc.weight"], weights["fc.bias"]
    convolved = conv2d(images, stem[0], padding=1)
    normalised = batch_norm_training(convolved, *stem[1:])
    inputs = [relu(normalised)]
    for layer, stride in STRIDES.items():
        inputs.append(forward(inputs[-1], branch_of(weights, layer), stride))
    features = global_average_pool(inputs[-1])
    logits = linear(features, *head)

    gradients = dict[str, Floats]()
    dlogits = losses.cross_entropy_gradient(logits, targets)
    dfeatures, gradients["fc.weight"], gradients["fc.bias"] = linear_backward(dlogits, features, *head)  # type: ignore[assignment]
    dx = global_average_pool_backward(dfeatures, inputs.pop())
    for layer, stride in reversed(STRIDES.items()):
        dx, dbranch = backward(dx, inputs.pop(), branch_of(weights, layer), stride)
        gradients |= {f"{layer}.{part}": gradient for part, gradient in zip(PARTS, dbranch, strict=True)}
    dnormalised = relu_backward(dx, normalised)
    dconvolved, gradients["bn1.weight"], gradients["bn1.bias"] = batch_norm_training_backward(
        dnormalised, convolved, *stem[1:]
    )
    gradients["conv1.weight"] = conv2d_backward(dconvolved, images, stem[0], padding=1)[1]
    return losses.cross_entropy(logits, targets), gradients


@pytest.mark.parametrize("name", UNITS)
def test_loss_and_every_gradient_of_a_network_equal_the_references(name: str) -> None:
    torch.manual_seed(0)
    network = create_model(name, num_classes=5, shortcut=None if name == "plain8" else "A").double()
    images, labels = torch.randn(6, 3, 9, 9, dtype=torch.float64), torch.tensor([0, 4, 2, 1, 3, 0])
    loss: Tensor = torch.nn.functional.cross_entropy(network(images), labels)
    loss.backward()

    weights = {key: value.detach().numpy() for key, value in network.named_parameters()}
    expected, gradients = by_reference(name, weights, images.numpy(), losses.one_hot(labels.numpy(), 5))
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert set(gradients) == set(weights)
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None
        assert_close(parameter.grad, gradients[key])
