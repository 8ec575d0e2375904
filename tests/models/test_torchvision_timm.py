import pytest
import torch
from torch import nn

from residuum.errors import UserError
from residuum.models.catalogue import create_model
from residuum.models.translate import OUR_NAMES, check_origin, our_name_for, translate

torchvision_models = pytest.importorskip("torchvision.models")


def randomised(network):
    """Random statistics and gammas of both signs: a new net would hide a wrong order of layers."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network


def built(module, theirs):
    if module == "timm":
        return pytest.importorskip("timm").create_model(theirs, num_classes=7)
    return getattr(torchvision_models, theirs)(num_classes=7)


@pytest.mark.parametrize(
    ("module", "theirs"),
    [
        ("torchvision", "resnet18"),
        ("torchvision", "resnet50"),
        ("torchvision", "resnext50_32x4d"),
        ("torchvision", "wide_resnet50_2"),
        ("timm", "resnet34"),
        ("timm", "resnet50"),
        ("timm", "resnext50_32x4d"),
        ("timm", "wide_resnet50_2"),
    ],
)
def test_their_state_dict_loads_as_it_is_and_gives_their_logits_to_the_bit(module, theirs):
    foreign = randomised(built(module, theirs)).eval()
    ours = create_model(OUR_NAMES[theirs], num_classes=7).eval()
    ours.load_state_dict(foreign.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(ours(images), foreign(images))


def test_timm_pre_activation_loads_through_the_name_map():
    foreign = randomised(built("timm", "resnetv2_50")).eval()
    ours = create_model("preact_resnet50", num_classes=7).eval()
    ours.load_state_dict(translate(foreign.state_dict(), "preact_resnet50"), strict=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        features = foreign.forward_features(images)
        assert torch.equal(_features(ours, images), features)
        # timm's classifier is a 1x1 convolution, ours a matrix product: the same sums in another order.
        torch.testing.assert_close(ours(images), foreign(images), rtol=1e-5, atol=1e-4)


def _features(network, images):
    x = network.stem(images)
    for stage in network.stages():
        x = stage(x)
    return torch.relu(network.bn_last(x))


def test_training_step_equals_torchvision_gradients_and_statistics():
    foreign = torchvision_models.resnet18(num_classes=3).train()
    ours = create_model("resnet18", num_classes=3).train()
    ours.load_state_dict(foreign.state_dict())
    images = torch.randn(4, 3, 64, 64)
    for network in (ours, foreign):
        network(images).square().sum().backward()
    theirs = dict(foreign.named_parameters())
    assert all(torch.equal(p.grad, theirs[name].grad) for name, p in ours.named_parameters())
    statistics = foreign.state_dict()
    assert all(torch.equal(value, statistics[name]) for name, value in ours.state_dict().items())


@pytest.mark.parametrize(("theirs", "ours"), OUR_NAMES.items())
def test_every_mapped_network_has_the_same_names_and_shapes(theirs, ours):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        foreign = translate(timm.create_model(theirs).state_dict(), ours)
        own = create_model(ours).state_dict()
    assert {k: v.shape for k, v in foreign.items()} == {k: v.shape for k, v in own.items()}


@pytest.mark.parametrize("depth", [18, 34])
def test_timm_basic_pre_activation_nets_are_refused(depth):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        foreign = timm.create_model(f"resnetv2_{depth}").state_dict()
    with pytest.raises(UserError, match=f"take the model timm/resnetv2_{depth}"):
        translate(foreign, f"preact_resnet{depth}")


@pytest.mark.parametrize(
    "origin",
    [
        "torchvision/resnet50",
        "timm/resnet50",
        "timm/resnet50.a1_in1k",
        "resnet50-0676ba61.pth",
        "resnet50_v1_5",
    ],
)
def test_v1_5_weights_are_refused_by_the_v1_net_and_named(origin):
    with pytest.raises(UserError, match="take the model resnet50_v1_5"):
        check_origin("resnet50", origin)
    check_origin("resnet50_v1_5", origin)


def test_origins_that_fit_or_say_nothing_pass():
    check_origin("resnet18", "torchvision/resnet18")  # basic blocks have one place for the stride
    check_origin("preact_resnet50", "timm/resnetv2_50.a1h_in1k")
    check_origin("timm/resnet50", "torchvision/resnet50")
    check_origin("resnet50", "best.pth")
    check_origin("resnet50", "resnet50")


def test_variants_that_only_the_library_has_keep_their_name():
    assert our_name_for("timm/resnet50d.ra2_in1k") == "timm/resnet50d"
    with pytest.raises(UserError, match="take the model timm/resnet50d"):
        check_origin("resnet50_v1_5", "timm/resnet50d")
