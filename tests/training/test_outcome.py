"""Published figures stand beside the network that was published, and beside no other of its name."""

from types import SimpleNamespace
from typing import Any

import pytest

from residuum.training import outcome
from residuum.training.run import ModelChoice


def published(monkeypatch: pytest.MonkeyPatch, **choices: Any) -> dict[str, Any]:
    def found(dataset: object, split: str, networks: list[tuple[str, str | None, str]]) -> list[tuple[Any, ...]]:
        return [networks[0]], ()

    monkeypatch.setattr(outcome, "published_on", found)
    context = SimpleNamespace(run=SimpleNamespace(model=ModelChoice("resnet20", **choices)), dataset=None)
    return outcome._published(context, "1-crop 32", ["test"])


@pytest.mark.parametrize(
    "choices", [{}, {"shortcut": "B"}, {"weights": "runs/first"}, {"freeze_until": "layer3"}], ids=str
)
def test_the_network_of_the_paper_is_compared(monkeypatch: pytest.MonkeyPatch, choices: dict[str, Any]) -> None:
    asked = published(monkeypatch, **choices)["test"]
    assert asked == [("resnet20", choices.get("shortcut"), "1-crop 32")]


@pytest.mark.parametrize(
    "choices",
    [
        {"zero_gamma": True},
        {"drop_path": 0.1},
        {"normalisation": "group"},
        {"activation": "tanh"},
        {"initialisation": "he"},
        {"shortcut": "B", "initialisation": "xavier"},
    ],
    ids=str,
)
def test_a_network_that_nobody_has_published_is_not(monkeypatch: pytest.MonkeyPatch, choices: dict[str, Any]) -> None:
    assert published(monkeypatch, **choices) == {"test": ()}
