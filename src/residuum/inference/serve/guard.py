"""What stands before every request: who may ask, under which name, and what a browser may do with the answer."""

import hmac
import time
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from residuum.inference.serve.metrics import Metrics
from residuum.inference.serve.problems import Problem

OPEN = frozenset({"/", "/healthz", "/readyz", "/page.css", "/page.js"})
"""Paths that need no key."""
_KNOWN = OPEN | {"/predict", "/models", "/metrics", "/openapi.json"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_CLOSE = {"Connection": "close"}
_SHORT = 2**20  # bytes


class Guard:
    """An application behind its door.

    key: None lets everybody in. hosts: names that the Host header may have, None for any: a page elsewhere whose name
    is made to lead to this machine still says its own.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, key: str | None, hosts: Collection[str] | None) -> None:
        self._app, self._metrics, self._key, self._hosts = app, metrics, key, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, path = time.monotonic(), scope["path"] if scope["path"] in _KNOWN else "other"
        headers = Headers(scope=scope)
        more = _is_long(headers)

        async def received() -> Message:
            nonlocal more
            message = await receive()
            more = more and message.get("more_body", False)
            return message

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.answered(path, message["status"], time.monotonic() - start)
                MutableHeaders(scope=message).update(_HEADERS | (_CLOSE if more else {}))
            await send(message)

        refusal = self._refusal(scope["path"], headers)
        await (self._app if refusal is None else refusal.response())(scope, received, guarded)

    def _refusal(self, path: str, headers: Headers) -> Problem | None:
        if self._hosts is not None and _name(headers.get("host", "")) not in self._hosts:
            return Problem(403, "this server is asked under another name than its own; allow it with --allow-host")
        if path not in OPEN and _is_of_another_site(headers):
            return Problem(403, "a page of another site asks; only this server's own page may")
        if self._key is not None and path not in OPEN and not self._is_known(headers):
            wanted = {"WWW-Authenticate": "Bearer"}
            return Problem(401, "the API key is missing or wrong; send it as Authorization: Bearer KEY", wanted)
        return None

    def _is_known(self, headers: Headers) -> bool:
        assert self._key is not None
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._key.encode())


def _is_of_another_site(headers: Headers) -> bool:
    """Whether a page from elsewhere asks. A browser says so; to plain http on a network only by the Origin."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site not in ("same-origin", "none")
    return origin is not None and origin.lower().partition("://")[2] != headers.get("host", "").lower()


def _is_long(headers: Headers) -> bool:
    """Whether the body that is announced is longer than what is sooner read to its end than a connection made anew."""
    length = headers.get("content-length", "0")
    return "transfer-encoding" in headers or not length.isdecimal() or int(length[:20]) > _SHORT


def _name(host: str) -> str:
    """The host without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
