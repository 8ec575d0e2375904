import sys

import pytest
import torch

from residuum.errors import UserError
from residuum.models.catalogue import CATALOGUE, create_model, create_skeleton, find, list_models


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet21", "depth 21 is not 6n+2; the nearest are 20 and 26."),
        ("plain57", "depth 57 is not 6n+2; the nearest are 56 and 62."),
        ("resnet49", "depth 49 is not 6n+2; the nearest are 44 and 56."),  # resnet50 is the ImageNet net
        ("resnet7", "depth 7 is not 6n+2; the smallest is 8."),
        ("resnet9999999999", "the nearest are 9999999998 and 10000000004."),  # and at once
        ("resnet2", "depth 2 is not 6n+2; the smallest is 8."),
        ("wide_resnet29_10", "depth 29 is not 6n+4; the nearest are 28 and 34."),
        ("resnet21_relu_preact", "depth 21 is not 6n+2; the nearest are 20 and 26."),
        ("resnet7_bn_after_relu", "depth 7 is not 6n+2; the smallest is 8."),
        ("preact_resnet49", "depth 49 is not 6n+2; the nearest are 44 and 56."),  # preact_resnet50 is the ImageNet net
        ("resnet20_relu_first", "unknown network"),
        ("resnext29_0x4d", "unknown network"),
        ("resnext29_1x9999d", "depth and width are at most 2404"),
        ("resnet50_v15", "did you mean resnet50_v1_5"),
        ("nonsense", "residuum models lists them all"),
        ("torchvision/resnet51", "did you mean resnet50"),
        ("torchvision/fasterrcnn_resnet50_fpn", "unknown torchvision network"),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest_right_ones(name, message):
    with pytest.raises(UserError) as error:
        create_model(name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_timm_name_is_refused_with_the_nearest():
    pytest.importorskip("timm")
    with pytest.raises(UserError, match="did you mean resnet50"):
        create_model("timm/resnet50x")


def test_wrong_timm_weights_tag_is_refused():
    pytest.importorskip("timm")
    with pytest.raises(UserError, match=r"unknown timm network 'resnet50\.a1_in1kk'; did you mean .*resnet50\.a1_in1k"):
        find("timm/resnet50.a1_in1kk")


def test_absent_timm_is_explained_with_the_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install 'residuum\[timm\]'"):
        create_model("timm/resnet50")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes is 0"),
        ({"in_channels": 0}, "in_channels is 0"),
        ({"drop_path": 1.0}, "drop_path is 1.0"),
        ({"shortcut": "D"}, "allowed: A, B, C, constant, dropout, gated, none, shortcut-gated"),
        ({"zero_gamma": True, "shortcut": "none"}, "zero_gamma needs"),
        ({"drop_path": 0.1, "shortcut": "none"}, "drop_path needs"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        create_model("resnet20", **options)


@pytest.mark.parametrize("name", ["lenet5", "plain20", "torchvision/resnet18"])
def test_networks_without_a_choice_of_shortcuts_say_so(name):
    for options in ({"shortcut": "A"}, {"zero_gamma": True}, {"drop_path": 0.1}):
        with pytest.raises(UserError, match=name):
            create_model(name, **options)


def test_patterns_are_globs_or_parts_of_names():
    assert list_models("resnet18") == ["resnet18", "preact_resnet18"]
    assert list_models("plain*") == [name for name in CATALOGUE if name.startswith("plain")]
    assert list_models() == [*CATALOGUE]
    assert "torchvision/vgg16" in list_models("torchvision/*")
    assert list_models("torchvision/vgg1") == [n for n in list_models("torchvision/*") if "vgg1" in n]
    assert list_models("nothing") == []


def test_open_families_have_a_member_for_every_n():
    assert len(create_model("resnet26").units()) == 12
    assert len(create_model("wide_resnet10_2").units()) == 3
    assert find("resnet20").task == find("resnet26").task
    for order in ("bn_after_addition", "relu_before_addition", "relu_preact", "bn_after_relu"):
        assert len(create_model(f"resnet14_{order}").units()) == 6
    assert len(create_model("preact_resnet26").units()) == 12
    assert type(create_skeleton("preact_resnet50").units()[0]) is not type(create_model("preact_resnet26").units()[0])


@pytest.mark.parametrize(("cardinality", "width"), [(1, 64), (8, 64), (3, 5), (32, 4)])
def test_resnext_of_any_cardinality_and_width(cardinality, width):
    network = create_skeleton(f"resnext29_{cardinality}x{width}d")
    for factor, stage in zip((1, 2, 4), network.stages(), strict=True):
        for unit in stage:
            assert unit.conv2.groups == cardinality
            assert unit.conv2.out_channels == cardinality * width * factor
            assert unit.out_channels == 256 * factor


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v2", "densenet121", "regnet_y_400mf"])
def test_torchvision_door_takes_any_channels_and_classes(name):
    network = create_model(f"torchvision/{name}", num_classes=5, in_channels=1).eval()
    with torch.inference_mode():
        assert network(torch.randn(2, 1, 64, 64)).shape == (2, 5)


@pytest.mark.parametrize(("name", "size"), [("googlenet", 64), ("inception_v3", 75)])
def test_networks_with_auxiliary_heads_return_logits_alone_in_training(name, size):
    with torch.device("meta"):
        network = create_model(f"torchvision/{name}", num_classes=5).train()
        assert network(torch.randn(2, 3, size, size)).shape == (2, 5)


def test_timm_door_takes_any_channels_and_classes():
    pytest.importorskip("timm")
    network = create_model("timm/mobilenetv3_small_050.lamb_in1k", num_classes=5, in_channels=4).eval()
    with torch.inference_mode():
        assert network(torch.randn(2, 4, 64, 64)).shape == (2, 5)
