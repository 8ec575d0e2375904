"""The application: its routes, and what happens to a request whose client goes away."""

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp

import residuum
from residuum.errors import UserError
from residuum.inference.serve import documents
from residuum.inference.serve.answers import classify
from residuum.inference.serve.guard import Guard
from residuum.inference.serve.intake import LEAST_DEADLINE, MOST_TOP, Wishes, read_request
from residuum.inference.serve.metrics import CONTENT_TYPE
from residuum.inference.serve.models import chosen, facts
from residuum.inference.serve.problems import Problem, handle_problems
from residuum.inference.serve.service import Served, Service

_PAGE = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
_GONE = 499  # as nginx has it: the client closed the request; nobody reads the answer


def create_app(service: Service, key: str | None = None, hosts: Collection[str] | None = None) -> ASGIApp:
    """The server as an ASGI application.

    key: what clients must send, None for nothing. hosts: the names under which it may be asked, None for any.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(
        title="residuum serve",
        version=residuum.__version__,
        summary="Classes of images, with their probabilities.",
        docs_url=None,  # whose pages ask other hosts for their scripts
        redoc_url=None,
        lifespan=lifespan,
    )
    handle_problems(app)
    _add_predict(app, service)
    _add_facts(app, service)
    _add_page(app)
    return Guard(app, service.metrics, key, hosts)


def _add_predict(app: FastAPI, service: Service) -> None:
    @app.post("/predict", responses=documents.PREDICTED, openapi_extra=documents.PREDICT)
    async def predict(
        request: Request,
        top: Annotated[int, Query(ge=1, le=MOST_TOP, description="How many classes of each image.")] = 5,
        model: Annotated[str | None, Query(max_length=200, description="Which model; by default the first.")] = None,
        maps: Annotated[bool, Query(description=documents.OF_MAPS)] = False,
        deadline: Annotated[
            float | None, Query(ge=LEAST_DEADLINE, description="Seconds to the answer; at most the server's.")
        ] = None,
    ) -> Response:
        """Classify images: a multipart form of files, JSON with images in base64, or one image as the body."""
        if not service.ready:
            raise Problem(503, "the server is not ready yet; try again in a second", {"Retry-After": "1"})
        wishes = Wishes(top, model, maps, deadline)
        with service.gate.request(), service.gate.body() as held:
            asked = await read_request(request, wishes, service.settings, held)
            served = _served(service, asked.wishes.model)
            answer = await _unless_gone(request, classify(service, served, asked))
        if answer is None:
            service.metrics.cancelled()
            return Response(status_code=_GONE)
        return answer


def _served(service: Service, name: str | None) -> Served:
    try:
        return service.models[chosen(name, service.models)]
    except UserError as error:
        raise Problem(404, str(error)) from None


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Response]) -> Response | None:
    """What `work` gives; None where the client goes away before, and the work is dropped."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        gone.cancel()
        task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


def _add_facts(app: FastAPI, service: Service) -> None:
    refusals = documents.problem_answers(401, 403)

    @app.get("/models", response_model=documents.Models, responses=refusals)
    async def models() -> Response:
        """The models in service, and what the server allows."""
        found = [
            {**facts(name, served.opened), "since": served.since, "reload_refused": served.refused}
            for name, served in service.models.items()
        ]
        return JSONResponse({"models": found, "limits": asdict(service.settings)})

    @app.get("/healthz", response_model=documents.State)
    async def healthz() -> Response:
        """Whether the process lives."""
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", response_model=documents.State, responses=documents.problem_answers(503))
    async def readyz() -> Response:
        """Whether new requests had better come here: not before the models are ready, nor once it is stopping."""
        if service.draining or not service.ready:
            raise Problem(503, "the server is stopping" if service.draining else "the server is not ready yet")
        return JSONResponse({"status": "ok"})

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **refusals},
    )
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


def _add_page(app: FastAPI) -> None:
    files = {path.name: (path.read_bytes(), _TYPES[path.suffix]) for path in sorted(_PAGE.iterdir())}

    def add(route: str, name: str) -> None:
        content, media_type = files[name]

        @app.get(route, include_in_schema=False)
        async def file() -> Response:
            return Response(content, media_type=media_type)

    add("/", "page.html")
    add("/page.css", "page.css")
    add("/page.js", "page.js")
