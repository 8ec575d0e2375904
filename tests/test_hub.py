"""A model on the Hub is loaded as from a folder, by all that take a model; what cannot be had is said in one line."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

from cli.verbs import refused, said
from residuum.data.preprocessing import Preprocessing
from residuum.errors import UserError
from residuum.model_config import model_folder
from residuum.models.catalogue import create_model
from residuum.pretrained import load_weights
from residuum.weights import Classifier, load, save_model

huggingface_hub = pytest.importorskip("huggingface_hub")

NAME = "hf:ada/digits"
DIGITS = tuple("0123456789")
COMMITS = ("0123456789" * 4, "fedcba9876" * 4)


def classifier() -> Classifier:
    torch.manual_seed(0)
    network = create_model("resnet8", num_classes=10, in_channels=1).eval()
    return Classifier(network, "resnet8", DIGITS, Preprocessing(1, 16, mean=(0.3,), std=(0.3,)))


class Hub:
    """Repositories as folders below `root`; `downloaded` names the files that were fetched, `asked` the revisions."""

    def __init__(self, root: Path, cache: Path) -> None:
        self.root, self.cache = root, cache
        self.downloaded: list[str] = []
        self.asked: list[str | None] = []

    def snapshot_download(self, repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        self.asked.append(revision)
        commit = revision if revision in COMMITS else COMMITS[len(self.asked) > 1]  # the branch moves at once
        target = self.cache / repo_id / commit
        for file in sorted((self.root / repo_id).iterdir()):
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns) and not (target / file.name).exists():
                target.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target / file.name)
                self.downloaded.append(file.name)
        return str(target)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = Hub(tmp_path / "hub", tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", found.snapshot_download)
    save_model(found.root / "ada" / "digits", classifier())
    return found


def test_a_model_on_the_hub_is_the_model(hub: Hub) -> None:
    loaded, own = load(NAME), classifier()
    images = torch.randn(2, 1, 16, 16)
    assert loaded.classes == DIGITS
    assert torch.equal(loaded.network(images), own.network(images))
    assert hub.asked == [None, COMMITS[0]]  # config and weights of one commit


@pytest.mark.parametrize("revision", ["v1.0", "0123456789abcdef", "refs/pr/2"])
def test_a_revision_is_asked_for(hub: Hub, revision: str) -> None:
    load(f"{NAME}@{revision}")
    assert hub.asked == [revision, COMMITS[0]]


def test_only_what_is_needed_is_downloaded(hub: Hub) -> None:
    for other in ("README.md", "tf_model.h5", "pytorch_model.bin", "run.json", "model.onnx", "model.ckpt"):
        (hub.root / "ada" / "digits" / other).touch()
    load(NAME)
    assert hub.downloaded == ["config.json", "model.safetensors"]


def test_of_an_export_what_engines_read_is_downloaded(hub: Hub) -> None:
    folder = hub.root / "ada" / "digits"
    config = json.loads((folder / "config.json").read_text())
    config["residuum"]["export"] = {"to": "onnx", "number": "fp32"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.onnx").touch()
    assert (model_folder(Path(NAME)) / "model.onnx").is_file()
    assert hub.downloaded == ["config.json", "model.onnx"]


def test_an_export_of_it_lies_in_the_working_folder(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    out, _ = said(capsys, "export", f"{NAME}@v1.0", "--to", "torch", "--data", "digits")
    assert "residuum describe digits-torch\n" in out
    assert (tmp_path / "digits-torch" / "model.pt2").is_file()
    said(capsys, "export", NAME, "--to", "hub")
    assert (tmp_path / "digits-hub" / "README.md").is_file()


def test_a_model_of_another_kind_is_refused_before_its_weights_are_downloaded(hub: Hub) -> None:
    config = {"model_type": "vit", "hidden_size": 768}
    (hub.root / "ada" / "digits" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"^hf:ada/digits is no model for residuum: hf:ada/digits/config.json is not"):
        load(NAME)
    assert hub.downloaded == ["config.json"]


def test_a_repository_without_a_configuration_is_refused(hub: Hub) -> None:
    (hub.root / "ada" / "digits" / "config.json").unlink()
    with pytest.raises(UserError, match=r"is no model for residuum: hf:ada/digits/config\.json is no file"):
        load(NAME)


def test_weights_that_were_pickled_are_taken_where_there_are_no_others(hub: Hub) -> None:
    folder = hub.root / "ada" / "digits"
    torch.save(classifier().network.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    images = torch.randn(2, 1, 16, 16)
    assert torch.equal(load(NAME).network(images), classifier().network(images))
    assert hub.downloaded == ["config.json", "pytorch_model.bin"]


@pytest.mark.parametrize(
    "name", ["hf:", "hf:ada", "hf:ada/", "hf:ada/b/c", "hf:ada/digits@", "hf:../digits", "hf:a/b\n"]
)
def test_what_names_no_model_is_refused(hub: Hub, name: str) -> None:
    with pytest.raises(UserError, match="does not name a model of the Hub; write hf:owner/name") as caught:
        load(name)
    assert "\n" not in str(caught.value)
    assert hub.asked == []


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"loading hf:ada/digits needs huggingface_hub.*residuum\[hub\]"):
        load(NAME)


def test_a_full_disk_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(OSError, match="No space left"):
        load(NAME)


# The verbs.


def test_verbs_take_a_model_on_the_hub(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert "conv1" in said(capsys, "describe", NAME)[0]
    assert "top-1 accuracy" in said(capsys, "evaluate", NAME, "digits", "--device", "cpu")[0]
    assert "verdict" in said(capsys, "diagnose", NAME, "digits", "--device", "cpu")[0]


def test_predict_takes_a_model_on_the_hub(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    Image.new("L", (8, 8), 128).save(tmp_path / "one.png")
    assert "one.png" in said(capsys, "predict", NAME, tmp_path / "one.png", "--device", "cpu")[0]


def test_training_starts_from_a_model_on_the_hub(hub: Hub) -> None:
    network = create_model("resnet8", num_classes=10, in_channels=1)
    assert load_weights(network, "resnet8", NAME, DIGITS) == []
    assert torch.equal(network.state_dict()["fc.weight"], classifier().network.state_dict()["fc.weight"])
    assert load_weights(network, "resnet8", NAME, tuple("abcdefghij")) == [
        f"{NAME} knows classes of other names: the last layer starts anew."
    ]


def test_what_only_a_run_can_do_is_refused(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is a model without its run" in refused(capsys, "compare", NAME, NAME)
    assert "is a model without its run" in refused(capsys, "report", NAME)
    assert "where no temperature is kept" in refused(capsys, "evaluate", NAME, "digits", "--calibrate", "test")


# The library itself, with a Hub of our own on this machine.

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SCRIPT = """
import sys
from residuum.errors import UserError
from residuum.model_config import model_folder
for name in sys.argv[1:]:
    try:
        print(sorted(file.name for file in model_folder(name).iterdir()))
    except UserError as error:
        print(error)
"""


class Answers(BaseHTTPRequestHandler):
    """What the library asks the Hub, for `ada/digits`, the gated `ada/gated` and the broken `ada/broken`."""

    folder: Path

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = self.path.partition("?")[0]
        files = sorted(self.folder.iterdir())
        if "/ada/broken/" in path:
            self.send(500, b"")
        elif "/ada/" not in path or ("/digits/" not in path and "/gated/" not in path):
            self.send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif "/revision/" in path and not path.endswith(("/main", COMMIT)):
            self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif "/revision/" in path:
            found = {"id": "ada/digits", "sha": COMMIT, "siblings": [{"rfilename": file.name} for file in files]}
            self.send(200, json.dumps(found).encode())
        elif "/tree/" in path:
            entries = [self.entry(file) for file in files]
            self.send(200, json.dumps(entries).encode())
        elif "/gated/" in path:
            self.send(403, b"", {"X-Error-Code": "GatedRepo"})
        else:
            content = (self.folder / path.rpartition("/")[2]).read_bytes()
            self.send(200, content, {"ETag": f'"{len(content):040x}"', "X-Repo-Commit": COMMIT})

    def entry(self, file: Path) -> dict[str, Any]:
        size = file.stat().st_size
        return {"type": "file", "path": file.name, "size": size, "oid": f"{size:040x}"}

    def send(self, code: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    save_model(tmp_path / "served", classifier())
    (tmp_path / "served" / "README.md").write_text("A card.")
    handler = type("Here", (Answers,), {"folder": tmp_path / "served"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def asked(cache: Path, endpoint: str, *names: str, offline: bool = False) -> list[str]:
    """What a process of its own says of each name."""
    import os

    settings = {"HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": str(int(offline))}
    settings |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, *names], capture_output=True, text=True, env={**os.environ, **settings}
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


def test_the_library_fetches_keeps_and_finds_again(tmp_path: Path, endpoint: str) -> None:
    whole, cache = "['config.json', 'model.safetensors']", tmp_path / "cache"
    assert asked(cache, endpoint, NAME, f"{NAME}@{COMMIT}") == [whole, whole]
    assert asked(cache, endpoint, NAME, offline=True) == [whole]
    assert asked(cache, "http://127.0.0.1:9", NAME) == [whole]  # where nobody answers


def test_what_the_library_cannot_get_is_said_in_a_line(tmp_path: Path, endpoint: str) -> None:
    cache = tmp_path / "cache"
    nobody, gated, revision, broken = asked(
        cache, endpoint, "hf:ada/nobody", "hf:ada/gated", f"{NAME}@later", "hf:ada/broken"
    )
    assert nobody.startswith("the Hub has no model ada/nobody, or it is private")
    assert gated.startswith("hf:ada/gated is given only to those whom its owner lets in; ask at https://hugg")
    assert revision.startswith("ada/digits has no revision later")
    assert broken.startswith("hf:ada/broken is not, or not whole, in the Hub's cache and the Hub does not answer")
    (unreachable,) = asked(cache, "http://127.0.0.1:9", "hf:ada/other")
    assert unreachable.startswith("hf:ada/other is not, or not whole, in the Hub's cache and the Hub does not answer")
    (offline,) = asked(cache, endpoint, "hf:ada/other", offline=True)
    assert offline.startswith("hf:ada/other is not, or not whole, in the Hub's cache and HF_HUB_OFFLINE is set")
