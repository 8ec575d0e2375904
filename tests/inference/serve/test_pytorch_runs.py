"""A run served by PyTorch: the same probabilities as `residuum predict` gives, and its maps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from local_server import FP32, LIGHT, picture, served

from residuum.data.preprocessing import Preprocessing
from residuum.errors import UserError
from residuum.inference.activation_maps import activation_maps
from residuum.inference.predict import predict
from residuum.inference.serve.models import How, put_to_work
from residuum.models.catalogue import create_model
from residuum.weights import Classifier, load, save_model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run") / "photos"
    network = create_model("resnet8", num_classes=3)
    handling = Preprocessing(3, 32, crop_pct=0.875)
    save_model(folder / "model", Classifier(network, "resnet8", ("ant", "bee", "cat"), handling))
    return folder


def test_a_run_answers_as_predict_does(run: Path, tmp_path: Path) -> None:
    image = picture((200, 30, 90), size=(50, 40))
    (tmp_path / "x.png").write_bytes(image)
    (expected,) = predict(load(run), [tmp_path / "x.png"], device="cpu", precision="fp32")
    with served(run, how=FP32) as server:
        (found,) = server.predict(image).json()["images"]
        assert [entry["label"] for entry in found["classes"]] == list(expected.labels)
        assert [entry["probability"] for entry in found["classes"]] == pytest.approx(expected.probabilities, abs=1e-5)


def test_a_run_shows_where_it_looks(run: Path) -> None:
    with served(run, how=FP32) as server:
        (model,) = server.client.get("/models").json()["models"]
        assert (model["maps"], model["preprocessing"]["seen"]) == (True, round(32 / 36, 4))
        (found,) = server.predict(LIGHT, maps=True).json()["images"]
        logits = {entry["label"]: np.mean(entry["map"]) for entry in found["classes"]}
        shares = torch.tensor([*logits.values()]).softmax(0).tolist()
        assert shares == pytest.approx([entry["probability"] for entry in found["classes"]], abs=1e-3)


def test_what_is_given_for_the_other_kind_of_model_is_refused(run: Path, tiny: Path) -> None:
    with pytest.raises(UserError, match="--engine nonsense is for exports"):
        put_to_work(run, How(engine="nonsense"))
    with pytest.raises(UserError, match="--device cuda is for runs"):
        put_to_work(tiny, How(device="cuda"))
    with pytest.raises(UserError, match="--precision bf16 is for runs"):
        put_to_work(tiny, How(precision="bf16"))


@pytest.mark.parametrize("name", ["resnet8", "densenet"])
def test_maps_of_several_classes_are_those_of_each(name: str) -> None:
    torch.manual_seed(0)
    network = create_model("resnet8", num_classes=5)
    if name == "densenet":  # whose logits are no average of shares: Grad-CAM
        network.fc = torch.nn.Sequential(torch.nn.ReLU(), network.fc)
    images, classes = torch.rand(2, 3, 32, 32), torch.tensor([[0, 4, 2], [1, 1, 3]])
    found = activation_maps(network, images, classes)
    for number, column in enumerate(classes.T):
        alone = activation_maps(network, images, column)
        assert alone.method == found.method
        torch.testing.assert_close(found.maps[:, number], alone.maps)
