"""Frozen dataclasses from plain values: the one place where a run's types are checked."""

import dataclasses
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from residuum.errors import UserError, printable, unknown_name

T = TypeVar("T")

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def from_plain(cls: type[T], plain: Any, path: str = "") -> T:
    """An instance of the dataclass `cls` from what `json.loads` gives: dicts, lists, numbers, strings.

    Fields that are absent take their default. Raises UserError for an unknown or missing field and for a
    wrong type; `path` names the place in its message.
    """
    if not isinstance(plain, Mapping):
        raise UserError(f"{path or 'a run'} takes a group of fields, got {plain!r}")
    annotations = get_type_hints(cls)
    prefix = f"{path}." if path else ""
    for key in plain:
        if key not in annotations:
            raise unknown_name("field", f"{prefix}{key}", [prefix + name for name in annotations])
    _require_all_present(cls, plain, prefix)
    return cls(**{key: conform(value, annotations[key], prefix + key) for key, value in plain.items()})


def _require_all_present(cls: Any, plain: Mapping[str, Any], prefix: str) -> None:
    for field in dataclasses.fields(cls):
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if field.name not in plain and not has_default:
            raise UserError(f"field {prefix}{field.name} is missing; it has no default")


def conform(value: Any, annotation: Any, path: str) -> Any:
    """`value` as the annotation wants it (a list becomes a tuple, a whole number a float), or UserError."""
    wanted = without_none(annotation)
    if value is None and wanted is not annotation:
        return None
    if dataclasses.is_dataclass(wanted):
        return from_plain(wanted, value, path)  # type: ignore[arg-type]
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is Literal:
        if value in arguments:
            return value
        raise unknown_name(path, str(value), arguments)
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(value) == len(kinds):
            return tuple(conform(item, kind, path) for item, kind in zip(value, kinds, strict=True))
    if wanted is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if isinstance(wanted, type) and type(value) is wanted and wanted is not float:
        return value
    raise UserError(f"{path} takes {in_words(annotation)}, got {printable(repr(value))}")


def without_none(annotation: Any) -> Any:
    """`int` for `int | None`; any other annotation as it is."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation
    (wanted,) = (argument for argument in get_args(annotation) if argument is not types.NoneType)
    return wanted


def in_words(annotation: Any) -> str:
    """What a field takes, for a message: "a number", "a number or none", "2 numbers"."""
    if (wanted := without_none(annotation)) is not annotation:
        return f"{in_words(wanted)} or none"
    if get_origin(annotation) is tuple:
        arguments = get_args(annotation)
        kind = in_words(arguments[0]).split(" ", 1)[1] + "s"
        return f"a list of {kind}" if arguments[-1] is Ellipsis else f"{len(arguments)} {kind}"
    return _WORDS[annotation]


def leaves(cls: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field below the dataclass `cls` that holds a value, as ("optimizer.lr", its annotation)."""
    for name, annotation in get_type_hints(cls).items():
        if dataclasses.is_dataclass(annotation):
            yield from leaves(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", annotation
