import pytest
import torch
from torch import nn

from residuum.errors import UserError
from residuum.models.catalogue import CATALOGUE, create_model
from residuum.models.summary import models_table, paper_input, summarise


def test_stages_of_resnet50_are_those_of_table_1():
    with torch.device("meta"):
        network = create_model("resnet50")
    stages = {row["layer"]: row for row in summarise(network, (3, 224, 224)).stages.records()}
    assert [*stages] == [
        "conv1",
        "bn1",
        "maxpool",
        "layer1",
        "layer2",
        "layer3",
        "layer4",
        "avgpool",
        "fc",
        "total",
    ]
    outputs = [stages[name]["output"] for name in ("conv1", "layer1", "layer2", "layer3", "layer4", "fc")]
    assert outputs == ["64x112x112", "256x56x56", "512x28x28", "1024x14x14", "2048x7x7", "1000"]
    assert stages["conv1"]["content"] == "7x7, 64, stride 2"
    assert stages["layer3"]["content"] == "6 x Bottleneck"


@pytest.mark.parametrize(
    "name", ["resnet20", "preact_resnet110", "lenet5", "torchvision/vgg11", "torchvision/vit_b_16"]
)
def test_rows_add_up_to_the_total(name):
    with torch.device("meta"):
        network = create_model(name)
    summary = summarise(network, (3, *paper_input(name)[1:]))
    *rows, total = summary.stages.records()
    for column in ("parameters", "multiply-adds"):
        assert sum(row[column] for row in rows) == total[column]
    assert total["parameters"] == summary.parameters == sum(p.numel() for p in network.parameters())


def test_multiply_adds_by_hand():
    network = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.Flatten(), nn.Linear(6 * 16, 10))
    assert summarise(network, (4, 8, 8)).multiply_adds == 6 * 16 * (2 * 9) + 96 * 10


def test_summary_changes_nothing_in_the_network():
    network = create_model("resnet20")
    network.layer1.eval()  # a frozen stage
    before = {name: value.clone() for name, value in network.state_dict().items()}
    summarise(network, (3, 32, 32))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert not network.layer1.training
    assert not any(module._forward_hooks for module in network.modules())


def test_transformers_that_refuse_empty_batches_are_counted_too():
    pytest.importorskip("timm")
    row = models_table("timm/swin_tiny_patch4_window7_224").records()[0]
    assert row["parameters"] == 28_288_354
    assert row["multiply-adds"] == pytest.approx(4.4e9, rel=0.03)


def test_an_input_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="an input of 1x32x32 does not go through"):
        summarise(create_model("resnet20"), (1, 32, 32))


def test_models_table_lists_the_catalogue_with_what_the_paper_prints():
    rows = {row["model"]: row for row in models_table().records()}
    assert [*rows] == [*CATALOGUE]
    assert rows["resnet20"]["parameters"] == 269_722
    assert rows["resnet20"]["published"] == "0.27 M parameters"
    assert rows["resnet50"]["published"] == "3.8 G multiply-adds"
    assert rows["lenet5"]["input"] == "1x32x32"


def test_models_table_finds_members_of_open_families_and_refuses_the_rest():
    assert [row["model"] for row in models_table("resnet26").records()] == ["resnet26"]
    assert [row["model"] for row in models_table("resnet26_relu_preact").records()] == ["resnet26_relu_preact"]
    assert [row["model"] for row in models_table("resnext29_32x4d").records()] == ["resnext29_32x4d"]
    assert [row["model"] for row in models_table("preact_resnet20").records()] == [
        "preact_resnet20",
        "preact_resnet200",
    ]
    with pytest.raises(UserError, match="no network matches"):
        models_table("nothing*")
    with pytest.raises(UserError, match="depth 21"):
        models_table("resnet21")


def test_family_and_input_of_the_paper():
    assert paper_input("resnet20") == (3, 32, 32)
    assert paper_input("resnet18") == (3, 224, 224)
    assert paper_input("lenet5") == (1, 32, 32)
    assert paper_input("torchvision/inception_v3") == (3, 299, 299)


def test_a_transformer_s_own_complaint_about_the_input_is_passed_on():
    with torch.device("meta"):
        network = create_model("torchvision/vit_b_16")
    with pytest.raises(UserError, match=r"3x100x100 .*Wrong image height"):
        summarise(network, (3, 100, 100))


def test_networks_in_bfloat16_and_without_weights_are_counted():
    assert summarise(create_model("resnet8").bfloat16(), (3, 32, 32)).parameters == 75_290
    assert summarise(nn.Sequential(nn.Flatten()), (3, 2, 2)).multiply_adds == 0
