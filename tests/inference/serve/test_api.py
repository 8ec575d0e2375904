"""What the API answers: each image in its order, by itself, whatever the form of the request."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from local_server import DARK, LIGHT, RED, Server, picture, served
from PIL import Image
from small_exports import CLASSES, export

from residuum.data.decoding import decode
from residuum.inference.deployed import deploy
from residuum.inference.serve.documents import PLAIN_PIXEL

DAMAGED = LIGHT[:50]
PROBLEM = "application/problem+json"


def labels(response: object) -> list[str | None]:
    return [image["classes"][0]["label"] if "classes" in image else None for image in response.json()["images"]]


def form(*images: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", ("x.png", image)) for image in images]


def test_a_form_of_several_files_is_answered_in_its_order(server: Server) -> None:
    found = server.client.post("/predict", files=form(RED, LIGHT, DARK, LIGHT))
    assert found.status_code == 200
    assert labels(found) == ["red", "light", "dark", "light"]
    assert [image["index"] for image in found.json()["images"]] == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "application/octet-stream", "text/plain", None])
def test_a_body_is_an_image_by_its_content_whatever_its_type_says(server: Server, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    found = server.client.post("/predict", content=RED, headers=headers)
    if kind == "text/plain":
        assert (found.status_code, found.headers["content-type"]) == (415, PROBLEM)
    else:
        assert labels(found) == ["red"]


def test_json_holds_images_in_base64(server: Server) -> None:
    images = [base64.b64encode(image).decode() for image in (DARK, RED)]
    found = server.client.post("/predict", json={"images": images, "top": 2, "model": "tiny"})
    assert labels(found) == ["dark", "red"]
    assert [len(image["classes"]) for image in found.json()["images"]] == [2, 2]


def test_probabilities_are_those_of_the_model_itself(server: Server, tiny: Path) -> None:
    deployed = deploy(tiny)
    image = picture((190, 120, 130), size=(31, 17))
    view = deployed.preprocessing.view(decode(image, "image", 3))
    expected = dict(zip(CLASSES, deployed.probabilities(view[None])[0].tolist(), strict=True))
    (found,) = server.predict(image).json()["images"]
    assert {entry["label"]: entry["probability"] for entry in found["classes"]} == pytest.approx(expected, abs=1e-6)
    shares = [entry["probability"] for entry in found["classes"]]
    assert shares == sorted(shares, reverse=True)


def test_every_image_says_how_long_it_took(server: Server) -> None:
    answer = server.predict(LIGHT).json()
    timing = answer["images"][0]["timing"]
    assert set(timing) == {"decode_ms", "wait_ms", "compute_ms", "batch"}
    assert 0 < timing["decode_ms"] + timing["wait_ms"] + timing["compute_ms"] <= answer["timing"]["total_ms"]


def test_a_bad_image_among_several_is_an_error_of_its_own(server: Server) -> None:
    found = server.client.post("/predict", files=form(LIGHT, DAMAGED, b"", RED))
    assert found.status_code == 200
    assert labels(found) == ["light", None, None, "red"]
    errors = [image.get("error") for image in found.json()["images"]]
    assert errors == [None, "truncated; send another image", "empty (0 bytes); send another image", None]


def test_only_bad_images_are_a_problem(server: Server) -> None:
    found = server.client.post("/predict", files=form(DAMAGED, b"nothing"))
    assert (found.status_code, found.headers["content-type"]) == (422, PROBLEM)
    assert "none of the 2 images can be used" in found.json()["detail"]
    assert [image["index"] for image in found.json()["images"]] == [0, 1]
    assert server.predict(DAMAGED).json()["detail"] == "the image cannot be used: truncated; send another image"


@pytest.mark.parametrize(
    ("query", "words"),
    [({"top": 0}, "top"), ({"top": "many"}, "top"), ({"deadline": -1}, "deadline"), ({"maps": "perhaps"}, "maps")],
)
def test_a_wrong_value_in_the_query_is_named(server: Server, query: dict[str, object], words: str) -> None:
    found = server.predict(LIGHT, **query)
    assert (found.status_code, found.headers["content-type"]) == (422, PROBLEM)
    assert found.json()["detail"].startswith(f"{words} is {next(iter(query.values()))}; ")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"top": "0"}, "top is 0; it is a whole number from 1 to 1000"),
        ({"deadline": "nan"}, "deadline is nan; it is a number of seconds from 1"),
        ({"maps": "2"}, "maps is 2; it is true or false"),
        ({"colour": "red"}, "unknown field colour; allowed are top, model, maps, deadline, and files"),
    ],
)
def test_a_wrong_field_of_a_form_is_named(server: Server, fields: dict[str, str], words: str) -> None:
    found = server.client.post("/predict", files=form(LIGHT), data=fields)
    assert (found.status_code, found.json()["detail"]) == (422, words)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[" * 100_000, 400),
        (b"\xff\xfe", 400),
        (b"[]", 422),
        (b'{"images": "text"}', 422),
        (b'{"images": []}', 400),
        (b'{"images": [3]}', 422),
        (b'{"images": ["not base64!"]}', 422),
        (b'{"images": ["QUJD"], "top": true}', 422),
        (b'{"images": ["QUJD"], "deadline": 1e999}', 422),
    ],
)
def test_json_that_is_no_request_is_a_problem(server: Server, body: bytes, status: int) -> None:
    found = server.client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert (found.status_code, found.headers["content-type"]) == (status, PROBLEM)
    assert found.json()["status"] == status


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=x", b"no boundary at all"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=a; filename=b\r\n\r\nhalf"),
        ("multipart/form-data; boundary=" + "x" * 300, b"--x--"),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A: " + b"b" * 100_000 + b"\r\n\r\n\r\n--x--\r\n"),
    ],
)
def test_a_form_that_is_none_is_a_problem(server: Server, kind: str, body: bytes) -> None:
    found = server.client.post("/predict", content=body, headers={"Content-Type": kind})
    assert (found.status_code, found.headers["content-type"]) == (400, PROBLEM)


def test_a_request_without_an_image_is_a_problem(server: Server) -> None:
    assert server.predict(b"").status_code == 400
    assert server.client.post("/predict", files=[("top", (None, "3"))]).status_code == 400


def test_what_is_not_there_is_a_problem(server: Server) -> None:
    assert server.client.get("/nothing").headers["content-type"] == PROBLEM
    found = server.client.get("/predict")
    assert (found.status_code, found.json()["detail"]) == (405, "/predict does not take GET; it takes POST")


def test_several_models_are_told_apart_by_name(tiny: Path, tmp_path: Path) -> None:
    other = export(tmp_path / "other", classes=(*CLASSES, "blue"))
    with served(tiny, other) as server:
        assert [model["name"] for model in server.client.get("/models").json()["models"]] == ["tiny", "other"]
        assert len(server.predict(LIGHT).json()["images"][0]["classes"]) == 3
        answer = server.predict(LIGHT, model="other").json()
        assert (answer["model"], len(answer["images"][0]["classes"])) == ("other", 4)
        unknown = server.predict(LIGHT, model="othr")
        assert (unknown.status_code, unknown.headers["content-type"]) == (404, PROBLEM)
        assert "did you mean other?" in unknown.json()["detail"]


def test_models_are_described_without_the_places_of_their_files(server: Server) -> None:
    text = server.client.get("/models").text
    assert "secret" not in text
    (model,) = server.client.get("/models").json()["models"]
    assert model["classes"] == list(CLASSES)
    assert model["preprocessing"]["seen"] == 1.0
    assert model["card"]["data"] == "photos"
    assert model["card"]["test score"] == "91.5"
    assert model["engine"].startswith(("OpenVINO", "ONNX Runtime"))


def test_health_and_metrics_are_told(server: Server) -> None:
    assert server.client.get("/healthz").json() == server.client.get("/readyz").json() == {"status": "ok"}
    before = server.metric('residuum_images_total{model="tiny",outcome="classified"}')
    server.client.post("/predict", files=form(LIGHT, DAMAGED))
    assert server.metric('residuum_images_total{model="tiny",outcome="classified"}') == before + 1
    assert server.metric('residuum_requests_total{path="/predict",status="200"}') >= 1


def test_the_document_describes_every_route_and_its_examples_work(server: Server) -> None:
    document = server.client.get("/openapi.json").json()
    assert set(document["paths"]) == {"/predict", "/models", "/healthz", "/readyz", "/metrics"}
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]
    found = server.client.post("/predict", json=content["application/json"]["example"])
    assert labels(found) == ["light"]


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream"])
def test_the_examples_that_are_bytes_work(server: Server, kind: str) -> None:
    document = server.client.get("/openapi.json").json()["paths"]["/predict"]["post"]
    content = document["requestBody"]["content"]
    body = content["image/*" if kind.startswith("image/") else kind]["example"]
    assert labels(server.client.post("/predict", content=body, headers={"Content-Type": kind})) == ["light"]
    fields = dict(content["multipart/form-data"]["example"])
    images = form(*(image.encode() for image in fields.pop("image")))
    assert labels(server.client.post("/predict", files=images, data=fields)) == ["light", "light"]
    for status, answer in document["responses"].items():
        if status != "200":
            assert answer["content"][PROBLEM]["example"]["status"] == int(status)


def test_a_field_twice_is_refused_and_a_file_whose_name_is_encoded_is_a_file(server: Server) -> None:
    part = "--x\r\nContent-Disposition: form-data; name={}\r\n\r\n{}\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    twice = "".join(part.format("top", top) for top in (1, 2)) + "--x--\r\n"
    found = server.client.post("/predict", content=twice, headers=kind)
    assert (found.status_code, "the field top is there twice" in found.json()["detail"]) == (422, True)
    named = part.format("image; filename*=UTF-8''x.png", PLAIN_PIXEL) + "--x--\r\n"
    assert labels(server.client.post("/predict", content=named, headers=kind)) == ["light"]


def test_an_image_for_which_the_model_gives_no_numbers_is_an_error_of_its_own(tiny: Path) -> None:
    with served(tiny) as server:
        batcher = server.service.models["tiny"].thread
        batcher._probabilities = lambda views: np.where(views[:, :1, 0, 0] > 100, np.nan, np.ones((len(views), 3)) / 3)
        found = server.client.post("/predict", files=form(LIGHT, DARK))
        (light, dark) = found.json()["images"]
        assert light == {"index": 0, "error": "the model gives no numbers for it; send another image"}
        assert len(dark["classes"]) == 3


def test_maps_show_where_a_class_is(server: Server) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, 5:] = 255
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    (image,) = server.predict(stream.getvalue(), maps=True).json()["images"]
    maps = {entry["label"]: np.array(entry["map"]) for entry in image["classes"]}
    assert maps["light"].shape == (8, 8)
    assert (maps["light"][:, 5:] > 1).all()
    assert (maps["light"][:, :5] < 0).all()
    assert (maps["dark"][:, :5] > 1).all()


def test_a_model_without_features_has_no_maps_and_says_so(tmp_path: Path) -> None:
    with served(export(tmp_path / "plain", features=False)) as server:
        assert server.client.get("/models").json()["models"][0]["maps"] is False
        answer = server.predict(LIGHT, maps=True)
        assert "map" not in answer.json()["images"][0]["classes"][0]
