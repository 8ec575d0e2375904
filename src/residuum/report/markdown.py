"""Records as Markdown, for pages that others render: words of strangers are shown there and not obeyed."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from residuum.records import Table
from residuum.report.cells import cell_texts, numeric_columns

_MEANS_SOMETHING = re.compile(r"([\\`*{}\[\]<>#|~&$@]|:(?=\S)|(?<![^\W_])_|_(?![^\W_])|(?<=[Ww]{3})\.)")
_ADDRESS = re.compile(r"(?<=[\w.+-])\\@(?=\w)")  # is a link in spite of the backslash
_STARTS_LIST = re.compile(r"^(\s*\d*)([-+.)])(?=[\s-])")
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+")


def words(text: str) -> str:
    """Foreign text as words of a sentence: no markup, link, entity or line of its own."""
    shown = _ADDRESS.sub("<!-- -->@", _MEANS_SOMETHING.sub(r"\\\1", _INVISIBLE.sub(" ", text)))
    return _STARTS_LIST.sub(r"\1\\\2", shown)


def code(text: str) -> str:
    """Foreign text in a line, as it is written."""
    shown = _INVISIBLE.sub(" ", text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    pad = " " if "`" in shown else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def block(text: str, language: str) -> str:
    """Lines of code of our own."""
    return f"```{language}\n{text.strip()}\n```"


def table_markdown(table: Table) -> str:
    """A table with its title above and its notes below."""
    rules = ["---:" if right else "---" for right in numeric_columns(table)]
    lines = [[words(name) for name in table.columns], rules, *([*map(words, row)] for row in cell_texts(table))]
    title = [f"{words(table.title)}:"] if table.title else []
    return "\n\n".join([*title, "\n".join(f"| {' | '.join(line)} |" for line in lines), *map(words, table.notes)])


def metadata(values: Mapping[str, Any], remark: str = "") -> str:
    """The head of a card in YAML, a line a value, each value as JSON has it; `remark` is a comment of our own."""
    lines = [f"# {remark}"] if remark else []
    return "\n".join(["---", *lines, *_yaml(values), "---"])


def _scalar(value: object) -> str:
    """As JSON has it, but 1e-05 is 1.0e-05: without a point YAML reads text."""
    text = json.dumps(value)
    return text.replace("e", ".0e") if isinstance(value, float) and "e" in text and "." not in text else text


def _yaml(value: Mapping[str, Any] | Sequence[Any]) -> list[str]:
    pairs = value.items() if isinstance(value, Mapping) else [("-", one) for one in value]
    lines: list[str] = []
    for key, one in pairs:
        start = key if key == "-" else f"{key}:"
        if not isinstance(one, (Mapping, list, tuple)):
            lines.append(f"{start} {_scalar(one)}")
            continue
        inner = [f"  {line}" for line in _yaml(one)]
        lines += [f"- {inner[0][2:]}", *inner[1:]] if key == "-" else [start, *inner]
    return lines
