"""A run as the folder that `huggingface_hub` uploads, with a card that is written from what the run has recorded."""

from dataclasses import replace
from pathlib import Path

from residuum.errors import UserError
from residuum.files import whole_folder, write_text

CARD = "README.md"


def write_hub_folder(run: Path, out: Path) -> None:
    """Write the model of a run, or of a model folder, to the new folder `out`, whole or not at all, with its card.

    timm and transformers read it where the network is one of timm's. Where the data lie on the disk is left out: of
    their path the name is kept. Raises UserError where there is no model, and where `out` holds anything.
    """
    from residuum.cli.card_facts import facts_of
    from residuum.cli.model_card import model_card
    from residuum.model_config import without_places
    from residuum.weights import load, write_model

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already, and its card may have been edited; name a new folder with -o DIR")
    classifier = load(run)
    facts = facts_of(run, classifier, out.resolve().name)
    with whole_folder(out) as folder:
        write_model(folder, replace(classifier, provenance=without_places(classifier.provenance)))
        write_text(folder / CARD, model_card(facts))
