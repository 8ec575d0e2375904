import torch

from residuum.models.catalogue import create_model
from residuum.models.translate import translate


def test_widespread_cifar_layout_loads_safely(tmp_path):
    source = create_model("resnet20")
    foreign = {f"module.{key.replace('fc.', 'linear.')}": value for key, value in source.state_dict().items()}
    assert {"module.conv1.weight", "module.layer1.0.conv1.weight", "module.linear.weight"} <= foreign.keys()
    torch.save({"state_dict": foreign, "best_prec1": 91.7}, tmp_path / "resnet20.th")
    checkpoint = torch.load(tmp_path / "resnet20.th", weights_only=True)
    network = create_model("resnet20")
    network.load_state_dict(translate(checkpoint["state_dict"], "resnet20"), strict=True)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(network.eval()(images), source.eval()(images))


def test_projection_named_shortcut_becomes_downsample():
    own = create_model("resnet20", shortcut="B").state_dict()
    foreign = {key.replace("downsample", "shortcut"): value for key, value in own.items()}
    assert translate(foreign, "resnet20").keys() == own.keys()


def test_compiled_and_parallel_prefixes_come_off():
    own = create_model("resnet8").state_dict()
    for prefix in ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."):
        assert translate({prefix + key: value for key, value in own.items()}, "resnet8").keys() == own.keys()
    assert translate({}, "resnet8") == {}


def test_own_names_stay_as_they_are():
    for name in ("resnet20", "preact_resnet110", "lenet5", "torchvision/squeezenet1_1"):
        own = create_model(name).state_dict()
        assert translate(own, name).keys() == own.keys()
