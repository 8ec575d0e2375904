"""The documentation names what there is: every public name, recipe, verb and flag, and no other."""

import re
from pathlib import Path

import pytest

import residuum
from residuum import cli
from residuum.cli import main
from residuum.training.recipes import RECIPES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
VERBS = tuple(verb.__name__ for verb in cli.VERBS)


def first_column(page: Path) -> list[str]:
    """The words in code at the start of each table row."""
    return re.findall(r"^\| `([\w-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_api_page_lists_the_public_names() -> None:
    described = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert [name for name in residuum.__all__ if f"`{name}" not in described] == []
    assert set(first_column(ROOT / "docs" / "api.md")) <= set(residuum.__all__)


def test_recipes_page_lists_the_recipes() -> None:
    assert first_column(ROOT / "docs" / "recipes.md") == list(RECIPES)


def test_readme_lists_the_verbs() -> None:
    assert first_column(ROOT / "README.md") == list(VERBS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_in_the_documentation_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        main([verb, "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    text = re.sub(r"`python benchmarks/[^`]*`", "", page.read_text(encoding="utf-8"))  # which have flags of their own
    theirs = {"--nproc-per-node", "--max-restarts", "--logdir", "--data-binary", "--no-deps"}
    theirs |= {"--rm", "--read-only", "--memory"}  # docker's
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= known | theirs


def test_every_promise_names_a_test_that_is_there() -> None:
    promises = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    _, *groups = re.split(r"^`(tests/[\w/.]+)`$", promises, flags=re.MULTILINE)
    named = {file: re.findall(r"`(test_\w+)`", text) for file, text in zip(groups[::2], groups[1::2], strict=True)}
    assert sum(map(len, named.values())) > 20
    for file, tests in named.items():
        code = (ROOT / file).read_text(encoding="utf-8")
        assert [test for test in tests if f"def {test}(" not in code] == [], file


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []
