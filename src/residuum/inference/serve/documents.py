"""What the OpenAPI document says beyond the routes themselves: bodies, answers and examples."""

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field

from residuum.inference.serve.intake import LEAST_DEADLINE, MOST_MAPPED, MOST_TOP, TAKEN
from residuum.inference.serve.problems import MEDIA_TYPE

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC"
"""A PNG of one white pixel in base64."""
PLAIN_PIXEL = "P3 1 1 255 255 255 255\n"
"""The same as a PPM, which is text."""
OF_MAPS = f"With each class its activation map; `top` is then at most {MOST_MAPPED}."


class RankedClass(BaseModel):
    """A class, its probability, and where asked for its activation map: rows of the square that the model saw."""

    label: str
    probability: float = Field(ge=0, le=1)
    map: list[list[float]] | None = None


class ImageTiming(BaseModel):
    """Milliseconds of an image: decoding, waiting for the model, and computing its batch of `batch` images."""

    decode_ms: float
    wait_ms: float
    compute_ms: float
    batch: int


class ImageAnswer(BaseModel):
    """What was found of the image at `index` of the request: `classes`, best first, or an `error`."""

    index: int
    classes: list[RankedClass] | None = None
    timing: ImageTiming | None = None
    error: str | None = None


class RequestTiming(BaseModel):
    """Milliseconds from the whole request to the answer."""

    total_ms: float


class Prediction(BaseModel):
    """The answer to a request: one entry an image, in their order."""

    model: str
    images: list[ImageAnswer]
    timing: RequestTiming


class ModelFacts(BaseModel):
    """A model: what it is, what computes it, what it wants of images, and its card."""

    name: str
    architecture: str
    engine: str
    classes: list[str]
    multi_label: bool
    maps: bool
    preprocessing: dict[str, Any]
    card: dict[str, str]
    since: float
    reload_refused: bool


class Models(BaseModel):
    """The models in service; the first answers where a request names none."""

    models: list[ModelFacts]
    limits: dict[str, float]


class State(BaseModel):
    """ "ok", or why not."""

    status: str


_PROBLEM = {
    "type": "object",
    "description": "RFC 9457.",
    "properties": {
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "images": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["title", "status", "detail"],
}
_EXAMPLE = {
    "model": "digits",
    "images": [
        {
            "index": 0,
            "classes": [{"label": "7", "probability": 0.98}, {"label": "1", "probability": 0.01}],
            "timing": {"decode_ms": 1.2, "wait_ms": 0.1, "compute_ms": 4.8, "batch": 1},
        },
        {"index": 1, "error": "truncated; send another image"},
    ],
    "timing": {"total_ms": 6.4},
}
_FIELDS = {
    "top": {"type": "integer", "minimum": 1, "maximum": MOST_TOP},
    "model": {"type": "string"},
    "maps": {"type": "boolean", "description": OF_MAPS},
    "deadline": {"type": "number", "minimum": LEAST_DEADLINE},
}
_REASONS = {
    400: "No image, or a body that is not what its Content-Type says.",
    401: "The API key is missing or wrong.",
    403: "From a page of another site, or to a host that this server is not.",
    404: "No such model.",
    408: "The body came too slowly.",
    413: "Too many bytes or images.",
    415: "A type of body that is not taken.",
    422: "No image could be read, or a field has a value that is not allowed.",
    429: "The server is busy; Retry-After says for how many seconds.",
    503: "The server is not ready yet.",
    504: "The deadline has passed.",
}
_DETAILS = {
    400: "the request holds no image; see /openapi.json for how to send one",
    401: "the API key is missing or wrong; send it as Authorization: Bearer KEY",
    403: "a page of another site asks; only this server's own page may",
    404: "unknown model 'digit'; did you mean digits? (allowed: digits)",
    408: "the body did not arrive within 30 s; send smaller or fewer images",
    413: "more than 32 images in one request; send them in several",
    415: f"a body of type text/plain; taken are {TAKEN}",
    422: "the image cannot be used: truncated; send another image",
    429: "the server is busy; try again in 1 s",
    503: "the server is not ready yet; try again in a second",
    504: "no answer within 10 s; send fewer images, or try again when the server is less busy",
}


def problem_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for its OpenAPI entry."""
    return {status: {"description": _REASONS[status], "content": _refusal(status)} for status in statuses}


def _refusal(status: int) -> dict[str, Any]:
    example = {"title": HTTPStatus(status).phrase, "status": status, "detail": _DETAILS[status]}
    return {MEDIA_TYPE: {"schema": _PROBLEM, "example": example}}


_RAW = {"schema": {"type": "string", "format": "binary"}, "example": PLAIN_PIXEL}
PREDICT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "image": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1},
                        **_FIELDS,
                    },
                    "required": ["image"],
                    "additionalProperties": False,
                },
                "example": {"image": [PLAIN_PIXEL, PLAIN_PIXEL], "top": 3},
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "images": {"type": "array", "items": {"type": "string", "format": "byte"}, "minItems": 1},
                        **_FIELDS,
                    },
                    "required": ["images"],
                    "additionalProperties": False,
                },
                "example": {"images": [PIXEL], "top": 3},
            },
            "image/*": _RAW,
            "application/octet-stream": _RAW,
        },
    }
}
PREDICTED: dict[int | str, dict[str, Any]] = {
    200: {"model": Prediction, "content": {"application/json": {"example": _EXAMPLE}}},
    **problem_answers(400, 401, 403, 404, 408, 413, 415, 422, 429, 503, 504),
}
