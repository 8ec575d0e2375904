"""Records as text: aligned, whole, parseable."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residuum.records import Measurement, Table
from residuum.report.terminal import measurement_text, print_json, print_table, table_text

TABLE = Table(
    "Networks",
    ("name", "parameters", "error [%]", "paper"),
    (("resnet20", 269_722, 8.75, "He15"), ("plain20", 269_722, 91.3, None)),
    ("Errors on CIFAR-10.",),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_table_aligns_numbers_right_and_words_left() -> None:
    assert table_text(TABLE).splitlines() == [
        "Networks",
        "",
        "name      parameters  error [%]  paper",
        "--------  ----------  ---------  -----",
        "resnet20     269,722       8.75  He15",
        "plain20      269,722      91.30  -",
        "Errors on CIFAR-10.",
    ]


def test_piped_table_is_neither_coloured_nor_cut() -> None:
    long = "a_very_long_class_name_" * 20
    stream = io.StringIO()
    print_table(Table("", ("class", "note"), ((long, long),)), stream)
    assert stream.getvalue().count(long) == 2
    assert "\x1b" not in stream.getvalue()


def test_terminal_table_holds_every_cell_and_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    print_table(TABLE, stream)
    for text in ("Networks", "resnet20", "269,722", "91.30", "Errors on CIFAR-10."):
        assert text in stream.getvalue()


def test_names_that_look_like_markup_are_printed_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    print_table(Table("[red]", ("[bold]",), (("[/link]",),)), stream)
    for text in ("[red]", "[bold]", "[/link]"):
        assert text in stream.getvalue()


@pytest.mark.parametrize("table", [Table("", ("a", "b"), ()), Table("", ("a",), ((None,),))])
def test_empty_tables_print(table: Table) -> None:
    assert table_text(table).startswith("a")


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((100.0, 97.3), ("100.00", "97.30")),
        ((0.0431, 0.2), ("0.0431", "0.2000")),
        ((123456.0,), ("123,456",)),
        ((float("nan"), 1.5), ("nan", "1.5000")),
    ],
)
def test_floats_of_a_column_share_their_decimals(values: tuple[float, ...], texts: tuple[str, ...]) -> None:
    rows = table_text(Table("", ("x",), tuple((value,) for value in values))).splitlines()[2:]
    assert tuple(row.strip() for row in rows) == texts


def test_measurement_names_unit_and_interval() -> None:
    measured = Measurement(98.611, "%", 96.79, 99.41)
    assert measurement_text(measured) == "98.61 % (95 % interval 96.79 to 99.41)"
    assert measurement_text(Measurement(0.0431)) == "0.0431"


def test_json_is_one_object_and_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"loss": float("nan"), "table": TABLE, "nested": [float("inf"), "é"]})
    printed = json.loads(capsys.readouterr().out)
    assert printed["loss"] is None
    assert printed["nested"] == [None, "é"]
    assert printed["table"]["rows"][0] == ["resnet20", 269722, 8.75, "He15"]


@given(st.lists(st.tuples(st.text("ab \t|", max_size=8), st.floats() | st.integers() | st.none()), max_size=5))
def test_any_table_prints_one_line_a_row(rows: list[tuple[str, float | int | None]]) -> None:
    assert len(table_text(Table("", ("name", "value"), tuple(rows))).splitlines()) == 2 + len(rows)
