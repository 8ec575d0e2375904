"""Looking inside a trained model with its data at hand: sections of a report."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from residuum.data.decoding import BadImage
from residuum.errors import UserError
from residuum.records import Gallery, Part, Picture, Scatter, Section

if TYPE_CHECKING:
    from torch import Tensor

    from residuum.data.splits import Split
    from residuum.evaluation.answers import Answers
    from residuum.weights import Classifier

MISTAKES = 12
LOOKED_UP = 6
NEIGHBOURS = 5
MOST_SEARCHED = 5000  # training images among which the nearest are looked for
MOST_POINTS = 1000
BATCH = 64

View = NDArray[np.uint8]


@dataclass(frozen=True)
class Subject:
    """A model with one label an image, what it said of a split, the split, and its training images if at hand."""

    classifier: "Classifier"
    answers: "Answers"
    split: "Split"
    train: "Split | None"


def insights(subject: Subject) -> list[Section]:
    """The sections that can be made: a network may have no map of activations, or no filters that can be shown."""
    mistakes = confident_mistakes(subject.answers)
    sections = [
        ("The most confident mistakes", [*_gallery_of_mistakes(subject, mistakes), *_neighbours(subject, mistakes)]),
        ("Where images lie in the space of features", [*_embedding(subject)]),
        ("What the first layer looks for", [*_filters(subject)]),
    ]
    return [Section(title, tuple(parts)) for title, parts in sections if parts]


def confident_mistakes(answers: "Answers") -> list[int]:
    """The wrong answers that the model was surest of, at most 12, surest first."""
    wrong = np.flatnonzero(~answers.right & (answers.predictions >= 0))
    order = np.argsort(-answers.confidences[wrong], kind="stable")
    return [int(index) for index in wrong[order][:MISTAKES]]


def _gallery_of_mistakes(subject: Subject, mistakes: Sequence[int]) -> Iterator[Part]:
    import torch

    from residuum.inference.activation_maps import activation_maps, shown
    from residuum.report.overlays import overlay

    classifier, answers = subject.classifier, subject.answers
    if not mistakes:
        yield "There is none: every answer is right."
        return
    views = [view for _, view in _views(subject.split, classifier, mistakes)]
    said = torch.from_numpy(answers.predictions[list(mistakes)])
    captions = [_caption(answers, index) for index in mistakes]
    try:
        found = activation_maps(classifier.network, _normalised(classifier, views), said)
    except UserError as reason:
        pictures = [Picture(view, caption, caption) for view, caption in zip(views, captions, strict=True)]
        yield Gallery("", tuple(pictures), f"Without maps of activations: {reason}")
        return
    heats = shown(found.maps, classifier.preprocessing.size).numpy()
    pictures = [
        Picture(_beside([view, overlay(view, heat)]), f"{caption}; beside it where the answer comes from", caption)
        for view, heat, caption in zip(views, heats, captions, strict=True)
    ]
    yield Gallery(
        "",
        tuple(pictures),
        f"What the network saw and, beside it, where it saw what it said ({found.method}): the brighter, the more.",
    )


def _caption(answers: "Answers", index: int) -> str:
    said, label = answers.classes[answers.predictions[index]], answers.labels[index]
    truth = answers.classes[label] if label >= 0 else "of a class it does not know"
    return f"said {said} ({100 * answers.confidences[index]:.1f} %), is {truth}: {answers.names[index]}"


def _neighbours(subject: Subject, mistakes: Sequence[int]) -> Iterator[Part]:
    from residuum.inference.features import nearest

    if subject.train is None or not mistakes:
        return
    chosen = list(mistakes[:LOOKED_UP])
    searched, base = _features(subject.train, subject.classifier, _spread(len(subject.train), MOST_SEARCHED))
    if len(searched) < NEIGHBOURS:
        return
    _, queries = _features(subject.split, subject.classifier, chosen)
    places, likeness = nearest(queries, base, NEIGHBOURS)
    pictures = []
    for index, row, alike in zip(chosen, places, likeness, strict=True):
        near = [searched[place] for place in row]
        own = [view for _, view in _views(subject.split, subject.classifier, [index])]
        strip = own + [view for _, view in _views(subject.train, subject.classifier, near)]
        names = [subject.answers.classes[int(subject.train.labels[place])] for place in near]
        told = ", ".join(f"{name} {share:.2f}" for name, share in zip(names, alike, strict=True))
        caption = f"{_caption(subject.answers, index)}. Nearest: {told}"
        pictures.append(Picture(_beside(strip), caption, caption))
    among = (
        f"{len(searched):,} of {len(subject.train):,}" if len(searched) < len(subject.train) else f"{len(searched):,}"
    )
    yield Gallery(
        "The training images nearest to them",
        tuple(pictures),
        f"By the cosine of their features before the last layer, among {among} training images: often they show "
        "whence a mistake comes, or that a label is wrong.",
    )


def _embedding(subject: Subject) -> Iterator[Part]:
    from residuum.inference.features import embedding

    chosen, rows = _features(subject.split, subject.classifier, _spread(len(subject.split), MOST_POINTS))
    names = [*subject.answers.classes, "(unknown)"]
    groups = tuple(names[int(label)] for label in subject.split.labels[chosen])
    count = f"{len(chosen):,} images by their features before the last layer"
    for method, title in (("pca", "Principal components"), ("t-sne", "t-SNE")):
        try:
            points = embedding(rows, method)  # type: ignore[arg-type]
        except UserError:  # too few, or no numbers
            return
        x, y = (tuple(map(float, column)) for column in points.T)
        yield Scatter(f"{title}: {count}", x, y, groups, f"{title} of {count}, a colour a class")


def _filters(subject: Subject) -> Iterator[Part]:
    from residuum.inference.filters import first_layer_filters

    try:
        filters = first_layer_filters(subject.classifier.network)
    except UserError:
        return
    name = f"{len(filters)} filters of {filters.shape[1]}x{filters.shape[2]}"
    pictures = tuple(Picture(one, f"filter {number}", "") for number, one in enumerate(filters, start=1))
    yield Gallery(name, pictures, "Grey is zero; each is scaled by its own largest weight.")


def _features(
    split: "Split", classifier: "Classifier", indices: Sequence[int]
) -> tuple[list[int], NDArray[np.float32]]:
    """Which of the images could be read, and their features (N, D)."""
    import torch

    from residuum.hardware import choose_device, choose_precision
    from residuum.inference.features import features

    read: list[int] = []

    def batches() -> "Iterator[Tensor]":
        for start in range(0, len(indices), BATCH):
            found = list(_views(split, classifier, indices[start : start + BATCH]))
            read.extend(index for index, _ in found)
            if found:
                yield _normalised(classifier, [view for _, view in found])

    device = choose_device()
    rows = features(classifier.network, batches(), device, choose_precision("auto", device))
    classifier.network.to(torch.device("cpu"))
    return read, rows


def _views(split: "Split", classifier: "Classifier", indices: Sequence[int]) -> Iterator[tuple[int, View]]:
    """What the network sees of these images; those that cannot be read are passed over."""
    for index in indices:
        try:
            image = split.read(index, classifier.preprocessing.channels)
        except BadImage:
            continue
        yield index, classifier.preprocessing.view(image)


def _normalised(classifier: "Classifier", views: Sequence[View]) -> "Tensor":
    import torch

    return classifier.preprocessing.normalise(torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2))


def _spread(length: int, most: int) -> list[int]:
    """At most so many indices, evenly spaced."""
    return list(range(length)) if length <= most else [number * length // most for number in range(most)]


def _beside(views: Sequence[View]) -> View:
    """Pictures of one height side by side, a white gap between them."""
    size = views[0].shape[0]
    gap = np.full((size, max(1, size // 16), 3), 255, np.uint8)
    colour = [np.repeat(view, 3, axis=2) if view.shape[2] == 1 else view for view in views]
    parts = [part for view in colour for part in (gap, view)][1:]
    return np.concatenate(parts, axis=1)
