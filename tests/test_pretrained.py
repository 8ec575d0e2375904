"""Weights from anywhere load exactly, safely, and only into the network they were trained in."""

import os
import pickle
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from residuum.data.preprocessing import Preprocessing
from residuum.errors import UserError
from residuum.models.catalogue import create_model
from residuum.pretrained import load_weights
from residuum.weights import Classifier, save_model


def network_of(name: str, seed: int, channels: int = 3, classes: int = 10, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    return create_model(name, num_classes=classes, in_channels=channels, **options).eval()


def save(folder: Path, name: str, network: nn.Module, channels: int = 3) -> Path:
    classes = tuple(map(str, range(network.fc.out_features)))
    grey = {} if channels == 3 else {"mean": (0.5,), "std": (0.5,)}
    save_model(folder / "model", Classifier(network, name, classes, Preprocessing(channels, 32, **grey)))
    return folder


def same_weights(left: nn.Module, right: nn.Module) -> bool:
    others = right.state_dict()
    return all(torch.equal(tensor, others[name]) for name, tensor in left.state_dict().items())


def public_layout(network: nn.Module) -> dict[str, Any]:
    """As the widely used CIFAR checkpoints are: wrapped for several GPUs, the head called `linear`, a score
    beside.
    """
    renamed = {"module." + name.replace("fc.", "linear."): tensor for name, tensor in network.state_dict().items()}
    return {"state_dict": renamed, "best_prec1": 91.73}


def test_weights_of_a_plain_net_are_not_taken_for_those_of_its_residual_twin(tmp_path: Path) -> None:
    plain = network_of("resnet8", 1, shortcut="none")
    arguments = {"shortcut": "none"}
    save_model(tmp_path, Classifier(plain, "resnet8", tuple("0123456789"), Preprocessing(3, 32), arguments))
    with pytest.raises(UserError, match=r"another shortcut \(none\).*--set model\.shortcut"):
        load_weights(network_of("resnet8", 2), "resnet8", str(tmp_path))
    again = network_of("resnet8", 2, shortcut="none")
    load_weights(again, "resnet8", str(tmp_path))
    assert same_weights(again, plain)


@pytest.mark.parametrize(
    ("part", "own", "other"),
    [
        ("normalisation", "layer", "group"),
        ("normalisation", "group", "batch"),
        ("activation", "tanh", "relu"),
        ("activation", "relu", "tanh"),
        ("shortcut", "constant", "dropout"),
        ("shortcut", "gated", "shortcut-gated"),
    ],
)
def test_weights_of_a_network_with_another_part_are_refused_where_their_names_would_fit(
    tmp_path: Path, part: str, own: str, other: str
) -> None:
    trained, options = network_of("resnet8", 1, **{part: own}), {part: own}
    save_model(tmp_path, Classifier(trained, "resnet8", tuple("0123456789"), Preprocessing(3, 32), options))
    with pytest.raises(UserError, match=rf"another {part} \({own}\); choose the same by --set model\.{part}={own}$"):
        load_weights(network_of("resnet8", 2, **{part: other}), "resnet8", str(tmp_path))
    again = network_of("resnet8", 2, **options)
    load_weights(again, "resnet8", str(tmp_path))
    assert same_weights(again, trained)


@pytest.mark.parametrize(
    ("part", "other", "said"),
    [
        ("normalisation", "group", "(batch); choose the same by --set model.normalisation=batch"),
        ("activation", "tanh", "(none given); leave model.activation out"),
        ("shortcut", "gated", "(none given); leave model.shortcut out"),
    ],
)
def test_what_weights_were_trained_with_is_named_where_it_was_left_to_the_network(
    tmp_path: Path, part: str, other: str, said: str
) -> None:
    save(tmp_path, "resnet8", network_of("resnet8", 1))
    assert refusal(network_of("resnet8", 2, **{part: other}), "resnet8", tmp_path).endswith(said)


def test_group_normalisation_of_another_library_s_network_is_not_taken_for_layer_normalisation(tmp_path: Path) -> None:
    name, options = "torchvision/resnet18", {"normalisation": "group"}
    trained = network_of(name, 1, **options)
    save_model(tmp_path, Classifier(trained, name, tuple("0123456789"), Preprocessing(3, 32), options))
    with pytest.raises(UserError, match=r"another normalisation \(group\)"):
        load_weights(network_of(name, 2, normalisation="layer"), name, str(tmp_path))


def test_a_head_for_classes_of_other_names_starts_anew(tmp_path: Path) -> None:
    save(tmp_path, "resnet8", network_of("resnet8", 1))
    fresh, network = network_of("resnet8", 2), network_of("resnet8", 2)
    notes = load_weights(network, "resnet8", str(tmp_path), classes=list("abcdefghij"))
    assert torch.equal(network.fc.weight, fresh.fc.weight)
    assert not torch.equal(network.conv1.weight, fresh.conv1.weight)
    assert notes == [f"{tmp_path} knows classes of other names: the last layer starts anew."]
    assert load_weights(network, "resnet8", str(tmp_path), classes=list("0123456789")) == []
    assert same_weights(network, network_of("resnet8", 1))


def test_a_run_a_model_folder_and_its_file_give_the_same_weights(tmp_path: Path) -> None:
    given = network_of("resnet8", 1)
    run = save(tmp_path, "resnet8", given)
    for source in (run, run / "model", run / "model" / "model.safetensors"):
        network = network_of("resnet8", 2)
        assert load_weights(network, "resnet8", str(source)) == []
        assert same_weights(network, given)


@pytest.mark.parametrize("suffix", [".pth", ".th", ".pth.tar"])
def test_the_public_cifar_layout_loads(tmp_path: Path, suffix: str) -> None:
    given, network = network_of("resnet20", 1), network_of("resnet20", 2)
    file = tmp_path / f"resnet20{suffix}"
    torch.save(public_layout(given), file)
    assert load_weights(network, "resnet20", str(file)) == []
    assert same_weights(network, given)


def test_a_bare_safetensors_file_loads(tmp_path: Path) -> None:
    given, network = network_of("resnet8", 1), network_of("resnet8", 2)
    save_file(given.state_dict(), tmp_path / "some.safetensors")
    load_weights(network, "resnet8", str(tmp_path / "some.safetensors"))
    assert same_weights(network, given)


def test_another_number_of_classes_starts_with_a_new_head(tmp_path: Path) -> None:
    given, network = network_of("resnet8", 1, classes=10), network_of("resnet8", 2, classes=4)
    head = network.fc.weight.clone()
    (note,) = load_weights(network, "resnet8", str(save(tmp_path, "resnet8", given)))
    assert "10 classes, not 4" in note
    assert torch.equal(network.fc.weight, head)
    assert torch.equal(network.conv1.weight, given.conv1.weight)


def test_a_grey_network_sees_what_the_colour_network_saw_in_grey(tmp_path: Path) -> None:
    given, network = network_of("resnet8", 1), network_of("resnet8", 2, channels=1)
    (note,) = load_weights(network, "resnet8", str(save(tmp_path, "resnet8", given)))
    assert "grey" in note
    grey = torch.randn(2, 1, 32, 32)
    assert torch.allclose(network(grey), given(grey.expand(-1, 3, -1, -1)), atol=1e-4)


def refusal(network: nn.Module, name: str, source: Path | str) -> str:
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_weights(network, name, str(source))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    return str(caught.value)


def test_a_colour_network_refuses_grey_weights(tmp_path: Path) -> None:
    given = network_of("resnet8", 1, channels=1)
    run = save(tmp_path, "resnet8", given, channels=1)
    assert "1 input channels" in refusal(network_of("resnet8", 2), "resnet8", run)


def test_weights_of_a_network_of_another_name_are_refused_even_where_they_would_fit(tmp_path: Path) -> None:
    for depth in (8, 20):
        theirs, ours = f"resnet{depth}", f"plain{depth}"
        run = save(tmp_path / theirs, theirs, network_of(theirs, 1))
        for source in (run, run / "model" / "model.safetensors"):
            assert theirs in refusal(network_of(ours, 2), ours, source)


def test_v1_5_weights_known_by_their_configuration_are_refused_by_v1(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("resnet50", num_classes=10)
    timm.models.save_for_hf(theirs, tmp_path / "timm", safe_serialization=True)
    torch.save(theirs.state_dict(), tmp_path / "resnet50-0676ba61.pth")  # the name torchvision gives its file
    network = network_of("resnet50", 2)
    for source in ("timm", "timm/model.safetensors", "resnet50-0676ba61.pth"):
        assert "resnet50_v1_5" in refusal(network, "resnet50", tmp_path / source)
    network = network_of("resnet50_v1_5", 2)
    for source in ("timm", "resnet50-0676ba61.pth"):
        load_weights(network, "resnet50_v1_5", str(tmp_path / source))
        assert same_weights(network, theirs)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    given = network_of("resnet14", 1)
    torch.save(given.state_dict(), tmp_path / "other.pth")
    assert "unexpected: layer1.1" in refusal(network_of("resnet8", 2), "resnet8", tmp_path / "other.pth")


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    mark, file = tmp_path / "was-run", tmp_path / "weights.pth"
    torch.save({"state_dict": network_of("resnet8", 1).state_dict(), "extra": Malicious(mark)}, file)
    assert "could run code" in refusal(network_of("resnet8", 2), "resnet8", file)
    file.write_bytes(pickle.dumps(Malicious(mark)))
    assert "torch.save(model.state_dict()" in refusal(network_of("resnet8", 2), "resnet8", file)
    torch.save(network_of("resnet8", 1), file)  # a whole module, as old tutorials save it
    assert "state_dict" in refusal(network_of("resnet8", 2), "resnet8", file)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"hello world", b"PK\x03\x04 cut short"])
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert "damaged" in refusal(network_of("resnet8", 2), "resnet8", tmp_path / name)


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2, 3], tmp_path / "numbers.pth")
    assert "no weights by name" in refusal(network_of("resnet8", 2), "resnet8", tmp_path / "numbers.pth")


@pytest.mark.parametrize("source", ["runs/gone", "gone.pth", "hub/resnet50", "torchvision", "timm/"])
def test_a_source_that_does_not_exist_is_refused(source: str) -> None:
    assert "no weights at" in refusal(network_of("resnet8", 2), "resnet8", source)


# Downloads, replaced by what would come.


@pytest.fixture
def torchvision_gives(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What torchvision downloads: put a state dict or an exception under "answer"; "asked" counts."""
    from torchvision.models._api import WeightsEnum

    exchange: dict[str, Any] = {"asked": 0}

    def get_state_dict(*_: Any, **__: Any) -> Any:
        exchange["asked"] += 1
        if isinstance(exchange["answer"], Exception):
            raise exchange["answer"]
        return exchange["answer"]

    monkeypatch.setattr(WeightsEnum, "get_state_dict", get_state_dict)
    return exchange


def test_torchvision_weights_load_under_a_new_head(torchvision_gives: dict[str, Any]) -> None:
    from torchvision.models import resnet18

    theirs, network = resnet18(), network_of("resnet18", 2)
    torchvision_gives["answer"] = theirs.state_dict()
    (note,) = load_weights(network, "resnet18", "torchvision/resnet18")
    assert "1000 classes" in note
    network.fc, theirs.fc = nn.Identity(), nn.Identity()
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(network(images), theirs.eval()(images))


def test_v1_5_weights_are_refused_by_v1_before_any_download(torchvision_gives: dict[str, Any]) -> None:
    for source in ("torchvision/resnet50", "timm/resnet50"):
        assert "resnet50_v1_5" in refusal(network_of("resnet50", 2), "resnet50", source)
    assert torchvision_gives["asked"] == 0


def test_a_download_that_fails_is_one_line(torchvision_gives: dict[str, Any]) -> None:
    torchvision_gives["answer"] = URLError("no route to host")
    message = refusal(network_of("resnet18", 2), "resnet18", "torchvision/resnet18")
    assert "no route to host" in message


def test_an_unknown_name_at_a_library_is_refused_with_the_nearest() -> None:
    assert "resnet18" in refusal(network_of("resnet18", 2), "resnet18", "torchvision/resnet19")
    assert "resnet18" in refusal(network_of("resnet18", 2), "resnet18", "timm/resnet18x")
