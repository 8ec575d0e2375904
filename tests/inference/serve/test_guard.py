"""Who may ask: a key compared as a whole, no other site's pages, no other name; and headers that bind browsers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_server import LIGHT, Server, served

KEY = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def locked(tiny: Path) -> Iterator[Server]:
    with served(tiny, key=KEY) as found:
        yield found


@pytest.mark.parametrize("path", ["/models", "/metrics", "/openapi.json"])
def test_without_the_key_nothing_is_told(locked: Server, path: str) -> None:
    found = locked.client.get(path)
    assert (found.status_code, found.headers["www-authenticate"]) == (401, "Bearer")
    assert found.headers["content-type"] == "application/problem+json"
    assert locked.client.get(path, headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


@pytest.mark.parametrize("headers", [{"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}])
def test_with_the_key_images_are_classified(locked: Server, headers: dict[str, str]) -> None:
    assert locked.client.post("/predict", content=LIGHT, headers=headers).status_code == 200


@pytest.mark.parametrize("key", ["x", KEY[:-1], f"{KEY}x", KEY.upper(), "ü"])
def test_a_wrong_key_is_refused(locked: Server, key: str) -> None:
    header = f"Bearer {key}".encode()
    assert locked.client.post("/predict", content=LIGHT, headers={"Authorization": header}).status_code == 401


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/healthz", "/readyz"])
def test_the_page_and_the_probes_need_no_key(locked: Server, path: str) -> None:
    assert locked.client.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/", "/models", "/nothing"])
def test_every_answer_binds_the_browser(server: Server, path: str) -> None:
    headers = server.client.get(path, headers={"Origin": "https://elsewhere.example"}).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert not [name for name in headers if name.startswith("access-control")]


def test_a_page_of_another_site_may_not_ask(server: Server) -> None:
    found = server.client.post("/predict", content=LIGHT, headers={"Sec-Fetch-Site": "cross-site"})
    assert found.status_code == 403
    assert server.client.post("/predict", content=LIGHT, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://photos.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "http://photos.example", "Host": "photos.example"}, 200),
        ({"Origin": "https://photos.example", "Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_an_origin_is_that_of_the_asked_host_or_known_to_the_browser(
    server: Server, headers: dict[str, str], status: int
) -> None:
    assert server.client.post("/predict", content=LIGHT, headers=headers).status_code == status
    assert server.client.get("/", headers=headers).status_code == 200


def test_only_its_own_names_are_answered_to(tiny: Path) -> None:
    with served(tiny, hosts={"127.0.0.1", "localhost", "::1", "photos.example"}) as server:
        for host, status in (
            ("localhost:8000", 200),
            ("[::1]:8000", 200),
            ("PHOTOS.example", 200),
            ("evil.example", 403),
            ("127.0.0.1.evil.example", 403),
            ("[", 403),
        ):
            assert server.client.get("/models", headers={"Host": host}).status_code == status, host
