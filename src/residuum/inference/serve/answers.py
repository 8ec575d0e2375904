"""From the images of a request to its answer: decoded, computed, ranked; each image by itself."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from fastapi import Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray

from residuum.data.decoding import BadImage
from residuum.inference.serve.batching import Computed
from residuum.inference.serve.decoders import View
from residuum.inference.serve.intake import Asked
from residuum.inference.serve.problems import Problem
from residuum.inference.serve.service import Served, Service

_DIGITS = 6  # of a probability
_MAP_DIGITS = 4  # significant ones, of a map
_MANY = 1000  # values in an answer, past which it is not the event loop that writes it

Maps = NDArray[np.float32]  # (T, h, w)


@dataclass(frozen=True)
class _Classified:
    view: View
    computed: Computed
    decoding: float
    best: NDArray[np.int64]  # (T,)


_Outcome = _Classified | str


async def classify(service: Service, served: Served, asked: Asked) -> Response:
    """The answer to a request. Raises Problem where no image could be read, or the deadline passed."""
    start = time.monotonic()
    seconds = min(asked.wishes.deadline or service.settings.deadline, service.settings.deadline)
    try:
        with service.gate.waiting(len(asked.images)), served.used():
            async with asyncio.timeout(seconds):
                outcomes = await _outcomes(service, served, asked, start + seconds)
                maps = await _maps(served, outcomes) if asked.wishes.maps else {}
    except TimeoutError:
        problem = f"no answer within {seconds:g} s; send fewer images, or try again when the server is less busy"
        raise Problem(504, problem) from None
    _count(service, served, outcomes)
    write = partial(_written, served, outcomes, maps, start)
    values = sum(grids.size for grids in maps.values()) + len(outcomes) * asked.wishes.top
    return await asyncio.to_thread(write) if values > _MANY else write()


def _written(served: Served, outcomes: Sequence[_Outcome], maps: Mapping[int, Maps], start: float) -> Response:
    images = [_entry(served, index, outcome, maps.get(index)) for index, outcome in enumerate(outcomes)]
    _refuse_only_bad(images)
    timing = {"total_ms": _ms(time.monotonic() - start)}
    return JSONResponse({"model": served.named.name, "images": images, "timing": timing})


async def _outcomes(service: Service, served: Served, asked: Asked, deadline: float) -> list[_Outcome]:
    async with asyncio.TaskGroup() as group:  # which cancels the others where one fails
        tasks = [
            group.create_task(_outcome(service, served, content, asked.wishes.top, deadline))
            for content in asked.images
        ]
    return [task.result() for task in tasks]


async def _outcome(service: Service, served: Served, content: bytes | str, top: int, deadline: float) -> _Outcome:
    if isinstance(content, str):
        return content
    start = time.monotonic()
    try:
        view = await service.decoders.decode(content, served.opened.deployed.preprocessing)
    except BadImage as bad:
        return bad.reason
    decoding = time.monotonic() - start
    computed = await served.thread.submit(view, deadline)
    if not np.isfinite(computed.probabilities).all():
        return "the model gives no numbers for it"
    best = np.argsort(-computed.probabilities, kind="stable")[:top]  # of equals the lower index first
    return _Classified(view, computed, decoding, best)


async def _maps(served: Served, outcomes: Sequence[_Outcome]) -> dict[int, Maps]:
    """Of each image that was classified, by its index, the maps (T, h, w) of its best classes.

    One image after the other: in between the model computes for others, and past the deadline no more are made.
    """
    make, maps = served.opened.maps, {}
    for index, outcome in enumerate(outcomes):
        if make is not None and isinstance(outcome, _Classified):
            (found,) = await served.thread.call(partial(make, np.stack([outcome.view]), np.stack([outcome.best])))
            if np.isfinite(found).all():
                maps[index] = found
    return maps


def _entry(served: Served, index: int, outcome: _Outcome, maps: Maps | None) -> dict[str, Any]:
    if isinstance(outcome, str):
        return {"index": index, "error": f"{outcome}; send another image"}
    names, computed = served.opened.deployed.classes, outcome.computed
    classes: list[dict[str, Any]] = [
        {"label": names[best], "probability": round(float(computed.probabilities[best]), _DIGITS)}
        for best in outcome.best
    ]
    if maps is not None:
        for entry, grid in zip(classes, maps, strict=True):
            entry["map"] = [[float(f"{value:.{_MAP_DIGITS}g}") for value in row] for row in grid]
    timing = {
        "decode_ms": _ms(outcome.decoding),
        "wait_ms": _ms(computed.waited),
        "compute_ms": _ms(computed.computed),
        "batch": computed.batch,
    }
    return {"index": index, "classes": classes, "timing": timing}


def _refuse_only_bad(images: Sequence[dict[str, Any]]) -> None:
    if any("classes" in image for image in images):
        return
    (first, *others) = images
    what = f"none of the {len(images)} images can be used; the first" if others else "the image cannot be used"
    raise Problem(422, f"{what}: {first['error']}", images=[*images])


def _count(service: Service, served: Served, outcomes: Sequence[_Outcome]) -> None:
    bad = sum(isinstance(outcome, str) for outcome in outcomes)
    service.metrics.images(served.named.name, "classified", len(outcomes) - bad)
    service.metrics.images(served.named.name, "bad", bad)


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)
