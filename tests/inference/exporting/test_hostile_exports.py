"""Exports from strangers are opened without running what they ask for."""

import re
import shutil
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from residuum.errors import UserError
from residuum.inference.deployed import deploy
from residuum.inference.engines import open_engine
from residuum.inference.exported import Exported, export_folder
from residuum.inference.exported_program import save_program
from residuum.inference.predictors import open_model

pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


@pytest.mark.parametrize(
    ("entry", "change"),
    [
        ("models/model.json", lambda text: text.replace("torch.ops.aten.relu_.default", "torch.os.system")),
        ("models/model.json", lambda text: re.sub(r"Symbol\('(\w+)'", r"exec('\1'", text)),
        (
            "data/weights/model_weights_config.json",
            lambda text: text.replace('"use_pickle": false', '"use_pickle": true'),
        ),
        ("data/aotinductor/model.so", None),
        ("data/sample_inputs/model.pt", None),
    ],
)
def test_a_program_that_could_run_code_is_not_opened(
    entry: str, change, exports: dict[str, Exported], tmp_path: Path
) -> None:
    changed = 0
    with zipfile.ZipFile(exports["torch"].file) as old, zipfile.ZipFile(tmp_path / "model.pt2", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if change is not None and name.endswith(entry):
                content, before = change(content.decode()).encode(), content
                changed += content != before
            if change is not None or not name.endswith(entry):
                new.writestr(name, content)
        if change is None:
            changed += 1
            new.writestr(f"model/{entry}", b"\x80\x04code")
    assert changed == 1
    with pytest.raises(UserError, match="which could run code and is not opened"):
        open_engine(replace(exports["torch"], file=tmp_path / "model.pt2"))


def changed(exported: Exported, folder: Path, change: Callable[[str], str]) -> Exported:
    """A copy of an export to torch whose graph is another; `change` must find what it replaces."""
    file = folder / "model.pt2"
    with zipfile.ZipFile(exported.file) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("models/model.json"):
                content, before = change(content.decode()).encode(), content
                assert content != before
            new.writestr(name, content)
    return replace(exported, file=file)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("torch.ops.aten.relu_.default", "torch.ops.aten.from_file.default"),
        ('"guards_code": []', '"guards_code": ["exit()"]'),
        ('"builtins.dict"', '"collections.defaultdict"'),
        ('"forward_arg_names": ["images"]', '"forward_arg_names": ["images=exit()"]'),
        ('"name": "images"', '"name": "images=exit()"'),
        ('"images": {', '"images=exit()": {'),
    ],
)
def test_a_program_is_opened_only_with_operators_and_names_of_networks(
    old: str, new: str, exports: dict[str, Exported], tmp_path: Path
) -> None:
    hostile = changed(exports["torch"], tmp_path, lambda text: text.replace(old, new).replace(quoted(old), quoted(new)))
    with pytest.raises(UserError, match="which could run code and is not opened"):
        open_engine(hostile)


def quoted(text: str) -> str:
    """As it stands in a text within JSON."""
    return text.replace('"', '\\"')


def test_what_is_checked_is_what_is_read_where_an_archive_has_two_of_a_name(
    exports: dict[str, Exported], images: np.ndarray, tmp_path: Path
) -> None:
    exported, written = exports["torch"], tmp_path / "written"
    code = f"__import__('pathlib').Path('{written}').write_text('x')"
    hostile = changed(exported, tmp_path, lambda text: re.sub(r"Symbol\('\w+', [^)]*\)", code, text, count=1))
    with zipfile.ZipFile(hostile.file) as old, zipfile.ZipFile(exported.file) as harmless:
        entries = {name: old.read(name) for name in old.namelist()}
        graph = next(name for name in entries if name.endswith("models/model.json"))
        for first in (graph, graph.capitalize()):
            with zipfile.ZipFile(tmp_path / "twice.pt2", "w") as new, warnings.catch_warnings(action="ignore"):
                for name in (first, first):
                    new.writestr(name, entries[graph])
                for name in entries:
                    new.writestr(name, harmless.read(name) if name == graph else entries[name])
            with suppress(UserError):
                found = open_engine(replace(exported, file=tmp_path / "twice.pt2"))(images)
                assert np.array_equal(found, open_engine(exported)(images))
            assert not written.exists()


def test_a_network_of_operators_that_are_not_opened_again_is_not_exported(tmp_path: Path) -> None:
    class Sums(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.cumsum(dim=1)

    with pytest.raises(UserError, match=r"computes aten\.cumsum\.default, which no export to torch has"):
        save_program(Sums().eval(), (3, 4, 4), tmp_path / "model.pt2")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_data_outside_the_folder_are_not_read(name: str, exports: dict[str, Exported], tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    model = onnx.load(exports["onnx"].file)
    file = tmp_path / "export" / "model.onnx"
    onnx.save(model, file, save_as_external_data=True, location="weights.bin")
    open_engine(replace(exports["onnx"], file=file), name)
    (tmp_path / "export" / "weights.bin").rename(tmp_path / "weights.bin")
    file.write_bytes(file.read_bytes().replace(b"\x0bweights.bin", b"\x0e../weights.bin"))
    with pytest.raises(UserError, match="cannot be opened"):
        open_engine(replace(exports["onnx"], file=file), name)


@pytest.mark.parametrize("target", ["onnx", "openvino", "torch"])
def test_a_file_without_its_folder_is_named_with_what_it_needs(
    target: str, exports: dict[str, Exported], tmp_path: Path
) -> None:
    file = Path(shutil.copy(exports[target].file, tmp_path))
    for use in (export_folder, open_model, deploy):
        with pytest.raises(UserError, match=rf"{file} is a part of an export: it needs the config\.json"):
            use(file)
