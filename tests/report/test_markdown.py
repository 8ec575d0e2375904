"""Markdown that shows foreign words as they are written, and YAML that any reader takes."""

import pytest

from residuum.records import Table
from residuum.report.markdown import code, metadata, table_markdown, words


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("house cat", "house cat"),
        ("T-shirt/top (20 %), no. 1: new", "T-shirt/top (20 %), no. 1: new"),
        ("n01440764_tench", "n01440764_tench"),
        ("_emphasised_", "\\_emphasised\\_"),
        ("<b>", "\\<b\\>"),
        ("a|b", "a\\|b"),
        ("[x](http://y)", "\\[x\\](http\\://y)"),
        ("a\n\n# b", "a \\# b"),
        ("\x1b[1m\u202e", " \\[1m "),
        ("\\", "\\\\"),
        ("see www.evil.com", "see www\\.evil.com"),
        ("WWW.evil.com", "WWW\\.evil.com"),
        ("write to ada@evil.com", "write to ada<!-- -->@evil.com"),
        ("@ada", "\\@ada"),
        ("- one", "\\- one"),
        ("---", "\\---"),
        ("12. one", "12\\. one"),
        ("-0.5", "-0.5"),
        ("1.5 points", "1.5 points"),
    ],
)
def test_words_mean_nothing_in_markdown(text: str, shown: str) -> None:
    assert words(text) == shown


def test_code_holds_backticks() -> None:
    assert code("resnet50") == "`resnet50`"
    assert code("a`b``c") == "``` a`b``c ```"


def test_a_table_has_its_numbers_to_the_right() -> None:
    table = Table("Scores, in %", ("class", "F1"), (("a|b", 12.345), ("cat", None)), ("A note.",))
    assert table_markdown(table) == (
        "Scores, in %:\n\n| class | F1 |\n| --- | ---: |\n| a\\|b | 12.35 |\n| cat | - |\n\nA note."
    )


def test_metadata_are_read_as_they_were_given() -> None:
    yaml = pytest.importorskip("yaml")
    values = {
        "text": 'a: "b"\n---\n# no',
        "list": ["x", 1, 0.5, True, None],
        "small and large": [1e-05, 1.5e-07, 1e22, "1e-05"],
        "nest": [{"name": "one", "inner": [{"a": 1, "b": {"c": [1, 2]}}, {"a": 2}]}],
        "mapping": {"split": "test", "é": "ü"},
    }
    text = metadata(values, "say it")
    start, head, end = text.split("---\n", 1)[0], text.removeprefix("---\n").removesuffix("\n---"), text[-4:]
    assert (start, end) == ("", "\n---")
    assert yaml.safe_load(head) == values
    assert head.startswith("# say it\n")
    assert "\n---" not in head
