"""Refusals as problem+json (RFC 9457): a title, the status, and one sentence that says what to do."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from residuum.errors import printable

MEDIA_TYPE = "application/problem+json"
_LONGEST = 300  # characters of a sentence that quotes the client


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """A request that is refused. detail: one sentence for the person who sent it; more: further members."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers
        self.more = more

    def response(self) -> JSONResponse:
        """The problem as the answer to a request."""
        return problem_response(self.status, self.detail, self.headers, **self.more)


def problem_response(status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> JSONResponse:
    """An answer in problem+json."""
    content = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    return JSONResponse(content, status, headers, MEDIA_TYPE)


def handle_problems(app: FastAPI) -> None:
    """Have everything that `app` refuses answered as a problem, its own mistakes too."""

    @app.exception_handler(Problem)
    async def ours(_: Request, problem: Problem) -> JSONResponse:
        return problem.response()

    @app.exception_handler(HTTPException)
    async def theirs(request: Request, error: HTTPException) -> JSONResponse:
        return problem_response(error.status_code, _sentence(request, error), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        got = printable(str(first.get("input")), 40)
        return problem_response(422, f"{place} is {got}; {_lowered(str(first['msg']))}")

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        sentence = "the server made a mistake, which is in its log; try again, or tell who runs it"
        return problem_response(500, sentence, {"Connection": "close"})  # which is what uvicorn then does


def _sentence(request: Request, error: HTTPException) -> str:
    path = printable(request.url.path)
    if error.status_code == 404:
        return f"there is nothing at {path}; there are /, /predict, /models, /openapi.json, /healthz and /metrics"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        return f"{path} does not take {request.method}; it takes {allowed}"
    return printable(str(error.detail), _LONGEST)


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]
