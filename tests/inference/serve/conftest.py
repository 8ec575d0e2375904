"""A server for the tests that leave it as it is; none of them is collected without the packages that serving needs."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from local_server import Server

NEEDED = ("fastapi", "uvicorn", "httpx2", "onnx", "onnxruntime", "python_multipart", "prometheus_client")
collect_ignore_glob = [] if all(map(find_spec, NEEDED)) else ["test_*.py"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from small_exports import export

    return export(tmp_path_factory.mktemp("exports") / "tiny")


@pytest.fixture(scope="module")
def server(tiny: Path) -> "Iterator[Server]":
    from local_server import served

    with served(tiny) as found:
        yield found
