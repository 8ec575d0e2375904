"""The card of a model: what it is, was trained on and came to, from what its run has recorded and nothing else."""

from collections.abc import Iterator

from residuum.cli.card_facts import CardFacts
from residuum.cli.card_head import head
from residuum.cli.card_results import limits, results
from residuum.cli.card_training import data, training
from residuum.cli.card_use import use
from residuum.report.markdown import code, words


def model_card(facts: CardFacts) -> str:
    """The whole of it: the metadata that the Hub files it under, then Markdown."""
    sections = {
        "Results": results(facts),
        "Limits": limits(facts),
        "How to use it": use(facts),
        "Input": shown_images(facts),
        "Data": data(facts),
        "Training": training(facts),
    }
    parts = [head(facts), f"# {words(facts.name)}", _summary(facts)]
    for title, paragraphs in sections.items():
        parts += [f"## {title}", *paragraphs]
    return "\n\n".join(parts) + "\n"


def _summary(facts: CardFacts) -> str:
    classifier, handling = facts.classifier, facts.classifier.preprocessing
    changed = "".join(f", {code(f'{key}={value}')}" for key, value in classifier.model_args.items() if value)
    parameters = sum(parameter.numel() for parameter in classifier.network.parameters())
    what = "yes or no for each of" if classifier.multi_label else "one of"
    return (
        f"An image classifier: {code(classifier.architecture)}{changed}, {parameters:,} parameters, trained on "
        f"{words(facts.data)} to say {what} {len(classifier.classes):,} classes of "
        f"images of {handling.size}x{handling.size} pixels, {'grey' if handling.channels == 1 else 'in colour'}. "
        "Made with residuum."
    )


def shown_images(facts: CardFacts) -> Iterator[str]:
    """What is done to an image before the network sees it."""
    handling = facts.classifier.preprocessing
    colours, cut = "grey" if handling.channels == 1 else "RGB", f"{handling.size}x{handling.size}"
    mean = "the mean image" if handling.mean_image is not None else _numbers(handling.mean)
    yield (
        f"An image is turned upright by its EXIF, made {colours}, resized to a shorter side of {handling.resized_side} "
        f"pixels ({handling.interpolation}), and its centre of {cut} is cut out; values in 0 to 1, less {mean}, over "
        f"{_numbers(handling.std)}."
    )


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
