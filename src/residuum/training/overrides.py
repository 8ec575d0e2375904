"""`--set optimizer.lr=0.05`: typed changes to a run by field path; and the difference of two runs."""

from collections.abc import Iterable
from operator import attrgetter
from typing import Any, Literal, get_args, get_origin

from residuum.errors import UserError, unknown_name
from residuum.training.fields import conform, leaves, without_none
from residuum.training.run import Run

_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_ALTERNATIVES = {"epochs": "iterations", "iterations": "epochs"}


def apply_overrides(run: Run, overrides: Iterable[str]) -> Run:
    """The run with every "path=value" applied, in order, and checked as a whole.

    `optimiser.` is read as `optimizer.`. Setting `epochs` takes the place of `iterations` and the other way
    round. Raises UserError for an unknown field, a wrong type or a value out of range.
    """
    record = run.to_dict()
    for override in overrides:
        path, value = _parse_override(override)
        if path in _ALTERNATIVES and value is not None:
            record[_ALTERNATIVES[path]] = None
        *groups, name = path.split(".")
        target = record
        for group in groups:
            target = target[group]
        target[name] = value
    return Run.from_dict(record)


def naming(model: str | None, overrides: Iterable[str]) -> list[str]:
    """The overrides after one that names the network, where one is named."""
    return [*([f"model.name={model}"] if model else []), *overrides]


def _parse_override(override: str) -> tuple[str, Any]:
    """The field's full path and the typed value of "optimizer.lr=0.05"."""
    path, equals, text = (part.strip() for part in override.partition("="))
    if not equals or not path:
        raise UserError(f"--set takes FIELD=VALUE, got {override!r}; for example --set optimizer.lr=0.05")
    path = path.replace("optimiser.", "optimizer.", 1) if path.startswith("optimiser.") else path
    fields = dict(leaves(Run))
    if path not in fields:
        raise _unknown_field(path, list(fields))
    if path == "recipe":
        raise UserError(f"a recipe is not a field to set; choose it with -r {text}")
    return path, conform(_parse(text, fields[path]), fields[path], path)


def _unknown_field(path: str, fields: list[str]) -> UserError:
    inside = [field for field in fields if field.startswith(f"{path}.")]
    if inside:
        return UserError(f"{path!r} is a group of fields; set one of them: {', '.join(inside)}")
    namesakes = [field for field in fields if field.rpartition(".")[2] == path.rpartition(".")[2]]
    if namesakes:
        return UserError(f"unknown field {path!r}; did you mean {' or '.join(namesakes)}?")
    return unknown_name("field", path, fields, hint="run.json in a run folder shows them all")


def _parse(text: str, annotation: Any) -> Any:
    """The text as a plain value of the annotation's kind; other text is left for `conform` to refuse."""
    wanted = without_none(annotation)
    named = get_args(wanted) if get_origin(wanted) is Literal else ()  # "none" is a kind of shortcut
    if wanted is not annotation and text.lower() in ("none", "null") and text not in named:
        return None
    if get_origin(wanted) is tuple:
        items = [item.strip() for item in text.strip("()[]").split(",")]
        kind = wanted.__args__[0]
        return [_parse(item, kind) for item in items if item]
    if wanted is bool:
        return _BOOLEANS.get(text.lower(), text)
    if wanted in (int, float):
        try:
            return wanted(text)
        except ValueError:
            return text
    return text


def values_of(overrides: Iterable[str]) -> dict[str, Any]:
    """The values that the overrides set, by their fields' full paths. Raises UserError as `apply_overrides` does."""
    return dict(map(_parse_override, overrides))


def describe_difference(a: Run, b: Run) -> list[str]:
    """One line a field that differs, "optimizer.lr: 0.1 -> 0.05", in the order of the fields."""
    before, after = settings_of(a), settings_of(b)
    return [f"{path}: {value} -> {after[path]}" for path, value in before.items() if value != after[path]]


def settings_of(run: Run) -> dict[str, Any]:
    """Every field of the run by its path, "optimizer.lr"."""
    return {path: attrgetter(path)(run) for path, _ in leaves(Run)}
