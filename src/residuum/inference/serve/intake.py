"""A request's body to images and wishes: bounded in bytes, time and number before anything is decoded."""

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from residuum.errors import counted, printable
from residuum.inference.serve.gate import Held
from residuum.inference.serve.multipart import Form
from residuum.inference.serve.problems import Problem
from residuum.inference.serve.settings import Settings

RAW = ("image/", "application/octet-stream", "application/x-www-form-urlencoded")
"""Types of a body that is one image. The last is what curl says of any bytes; what they are is told by themselves."""
TAKEN = "multipart/form-data, application/json, image/* and application/octet-stream"
MOST_TOP = 1000
MOST_MAPPED = 10
"""Of the classes of each image, how many may have maps: of a network without CAM each takes computing of its own."""
LEAST_DEADLINE = 1.0  # seconds
_MOST_PARTS = 200  # of JSON beside the images: each takes many times its length, and no other thread runs meanwhile


@dataclass(frozen=True)
class Wishes:
    """What a request asks for: the `top` classes, of which model (None: the first), with their maps or without.

    deadline: seconds, None for the server's.
    """

    top: int = 5
    model: str | None = None
    maps: bool = False
    deadline: float | None = None


@dataclass(frozen=True)
class Asked:
    """images: the content of each as sent, or in a sentence why there is none."""

    images: list[bytes | str]
    wishes: Wishes


async def read_request(request: Request, wishes: Wishes, settings: Settings, held: Held) -> Asked:
    """The images of a request: of a multipart form, of JSON, or its body itself.

    wishes: of the query; those in the body go before them. Raises Problem for a body that is too long, too slow, or
    not what its Content-Type says.
    """
    try:
        async with asyncio.timeout(settings.body_seconds):
            asked = await _read(request, wishes, settings, held)
    except TimeoutError:
        problem = f"the body did not arrive within {settings.body_seconds:g} s; send smaller or fewer images"
        raise Problem(408, problem, {"Connection": "close"}) from None
    if not asked.images:
        raise Problem(400, "the request holds no image; see /openapi.json for how to send one")
    if len(asked.images) > settings.images:
        raise Problem(413, f"more than {settings.images} images in one request; send them in several")
    if asked.wishes.maps and asked.wishes.top > MOST_MAPPED:
        raise Problem(422, f"top is {asked.wishes.top}; with maps it is a whole number from 1 to {MOST_MAPPED}")
    return asked


async def _read(request: Request, wishes: Wishes, settings: Settings, held: Held) -> Asked:
    content_type = request.headers.get("content-type", "application/octet-stream")
    kind = content_type.partition(";")[0].strip().lower()
    chunks = _chunks(request, settings.body_bytes, held)
    if kind == "multipart/form-data":
        form = Form(content_type, settings.images)
        async for chunk in chunks:
            form.write(chunk)
        form.finish()
        return Asked([*form.files], with_fields(wishes, form.fields))
    if kind != "application/json" and not kind.startswith(RAW):
        raise Problem(415, f"a body of type {printable(kind, 40)}; taken are {TAKEN}")
    body = b"".join([chunk async for chunk in chunks])
    if kind != "application/json":
        return Asked([body] if body else [], wishes)
    _make_room_for_copies(body, settings, held)
    return await asyncio.to_thread(_from_json, body, wishes, settings.images)


async def _chunks(request: Request, most: int, held: Held) -> AsyncIterator[bytes]:
    """The body as it comes, never more than `most` bytes of it, whatever its Content-Length says."""
    too_long = Problem(413, f"a body of more than {counted(most, 'byte')}; send smaller or fewer images")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > most:
        raise too_long
    received = 0
    try:
        async for chunk in request.stream():
            received += len(chunk)
            if received > most:
                raise too_long
            held.add(len(chunk))
            yield chunk
    except ClientDisconnect:
        raise Problem(400, "the client went away before its request was complete") from None


def _make_room_for_copies(body: bytes, settings: Settings, held: Held) -> None:
    """Of the text and of the strings in it, which hold four bytes a character once one of them takes that many."""
    copies = 2 * len(body) * (1 if body.isascii() and b"\\u" not in body else 4)
    if len(body) + copies > settings.held_bytes:
        raise Problem(413, f"JSON of {counted(len(body), 'byte')} takes too much memory; send the images in a form")
    held.add(copies)


def _from_json(body: bytes, wishes: Wishes, most: int) -> Asked:
    parts = sum(body.count(mark) for mark in (b"[", b"{", b","))  # none of which is in base64
    if parts > most + _MOST_PARTS:
        raise Problem(400, f"the body is JSON of {parts:,} parts; send only images and fields, see /openapi.json")
    try:
        found = json.loads(body)
    except ValueError as error:
        raise Problem(400, f"the body is no JSON ({printable(str(error), 60)}); see /openapi.json") from None
    images = found.get("images") if isinstance(found, dict) else None
    if not isinstance(images, list):
        raise Problem(422, 'the JSON holds no list "images" of images in base64; see /openapi.json')
    if len(images) > most:
        raise Problem(413, f"more than {most} images in one request; send them in several")
    fields = {key: value for key, value in found.items() if key != "images" and value is not None}
    return Asked([_from_base64(image) for image in images], with_fields(wishes, fields))


def _from_base64(text: Any) -> bytes | str:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else "not text in base64"
    except (binascii.Error, ValueError):
        return "not in base64"


def with_fields(wishes: Wishes, fields: dict[str, Any]) -> Wishes:
    """The wishes as the fields of a body change them. Raises Problem for a field or a value that there is not."""
    unknown = fields.keys() - vars(wishes).keys()
    if unknown:
        allowed = ", ".join(vars(wishes))
        raise Problem(422, f"unknown field {printable(min(unknown), 40)}; allowed are {allowed}, and files")
    return replace(wishes, **{name: _READ[name](name, value) for name, value in fields.items()})


def _whole(name: str, value: Any) -> int:
    text = str(value) if not isinstance(value, (bool, float)) else ""
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and 1 <= int(text) <= MOST_TOP):
        raise _wrong(name, value, f"a whole number from 1 to {MOST_TOP}")
    return int(text)


def _number(name: str, value: Any) -> float:
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else 0.0
    except (ValueError, OverflowError):
        number = 0.0
    if not LEAST_DEADLINE <= number < float("inf"):
        raise _wrong(name, value, f"a number of seconds from {LEAST_DEADLINE:g}")
    return number


def _yes_or_no(name: str, value: Any) -> bool:
    known = {"true": True, "1": True, "false": False, "0": False}
    found = known.get(str(value).lower())
    if found is None:
        raise _wrong(name, value, "true or false")
    return found


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(name, value, "a name; see /models")
    return value


def _wrong(name: str, value: Any, allowed: str) -> Problem:
    return Problem(422, f"{name} is {printable(str(value), 40)}; it is {allowed}")


_READ: dict[str, Callable[[str, Any], Any]] = {"top": _whole, "deadline": _number, "maps": _yes_or_no, "model": _text}
