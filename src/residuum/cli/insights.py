"""Looking inside a trained model with its data at hand: sections of a report."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from residuum.data.decoding import BadImage
from residuum.errors import UserError
from residuum.records import Gallery, Part, Picture, Scatter, Section
from residuum.report.names import isolated

if TYPE_CHECKING:
    from torch import Tensor

    from residuum.data.sources import DataSet
    from residuum.data.splits import Split
    from residuum.evaluation.answers import Answers, LabelAnswers
    from residuum.weights import Classifier

MISTAKES = 12
LOOKED_UP = 6
NEIGHBOURS = 5
MOST_SEARCHED = 5000  # training images among which the nearest are looked for
MOST_POINTS = 1000
MOST_SECONDS = 15.0  # for either of them
BATCH = 64

View = NDArray[np.uint8]
Features = NDArray[np.float32]


@dataclass(frozen=True)
class Subject:
    """A model, what it said of a split, and the data; device: where to compute."""

    classifier: "Classifier"
    answers: "Answers | LabelAnswers"
    dataset: "DataSet"
    split: str
    device: str

    @property
    def images(self) -> "Split":
        """The images of the split."""
        return self.dataset.held_out(self.split)[1]


def insights(subject: Subject) -> list[Section]:
    """The sections that can be made: a network may have no map of activations, or no filters that can be shown."""
    from residuum.evaluation.answers import Answers

    sections = [("What the first layer looks for", [*_filters(subject)])]
    if isinstance(subject.answers, Answers):
        mistakes = _Mistakes(subject, subject.answers)
        sections = [
            ("The most confident mistakes", [*mistakes.gallery(), *mistakes.neighbours()]),
            ("Where images lie in the space of features", [*_embedding(subject, subject.answers)]),
            *sections,
        ]
    return [Section(title, tuple(parts)) for title, parts in sections if parts]


def confident_mistakes(answers: "Answers") -> list[int]:
    """The wrong answers that the model was surest of, at most 12, surest first."""
    wrong = np.flatnonzero(~answers.right & (answers.predictions >= 0))
    order = np.argsort(-answers.confidences[wrong], kind="stable")
    return [int(index) for index in wrong[order][:MISTAKES]]


class _Mistakes:
    """The wrong answers that the model was surest of, those whose images can still be read, and what explains them."""

    def __init__(self, subject: Subject, answers: "Answers") -> None:
        self._subject, self._answers = subject, answers
        self._chosen = confident_mistakes(answers)
        self._views = dict(_views(subject.images, subject.classifier, self._chosen))

    def gallery(self) -> Iterator[Part]:
        """What the network saw and, beside it, where the answer comes from."""
        if not self._chosen:
            yield "There is none: every answer is right."
        if len(self._views) < len(self._chosen):
            yield f"{len(self._chosen) - len(self._views)} of their images can no longer be read."
        if not self._views:
            return
        try:
            yield self._with_maps()
        except UserError as reason:
            pictures = [
                Picture(view, self._caption(index), self._caption(index)) for index, view in self._views.items()
            ]
            yield Gallery("", tuple(pictures), f"Without maps of activations: {reason}.")

    def _with_maps(self) -> Gallery:
        import torch

        from residuum.inference.activation_maps import activation_maps, shown
        from residuum.report.overlays import overlay

        classifier = self._subject.classifier
        said = torch.from_numpy(self._answers.predictions[list(self._views)])
        classifier.network.cpu()
        found = activation_maps(classifier.network, _normalised(classifier, list(self._views.values())), said)
        heats = shown(found.maps, classifier.preprocessing.size).numpy()
        pictures = [
            Picture(
                _beside([view, overlay(view, heat)]),
                f"{self._caption(index)}; beside it where the answer comes from",
                self._caption(index),
            )
            for (index, view), heat in zip(self._views.items(), heats, strict=True)
        ]
        note = (
            f"What the network saw and, beside it, where it saw what it said ({found.method}): the brighter, the more."
        )
        return Gallery("", tuple(pictures), note)

    def _caption(self, index: int) -> str:
        answers = self._answers
        said, label = isolated(answers.classes[answers.predictions[index]]), answers.labels[index]
        truth = isolated(answers.classes[label]) if label >= 0 else "of a class it does not know"
        name = isolated(answers.names[index])
        return f"said {said} ({100 * answers.confidences[index]:.1f} %), is {truth}: {name}"

    def neighbours(self) -> Iterator[Part]:
        """A row a mistake: its image, and the training images whose features are nearest to its own."""
        from residuum.inference.features import nearest

        subject, train = self._subject, self._subject.dataset.splits.get("train")
        chosen = list(self._views)[:LOOKED_UP]
        if train is None or not chosen:
            return
        try:
            searched, base = _features(train, subject, MOST_SEARCHED)
            _, queries = _features(subject.images, subject, chosen)
            places, likeness = nearest(queries, base, min(NEIGHBOURS, len(searched)))
        except UserError:  # none can be read, or its features are no numbers
            return
        pictures: list[Picture] = []
        for index, row, alike in zip(chosen, places, likeness, strict=True):
            near = [searched[place] for place in row]
            views = dict(_views(train, subject.classifier, near))
            pictures.append(Picture(self._views[index], self._caption(index), self._caption(index)))
            pictures += [
                _neighbour(view, self._answers.classes[int(train.labels[place])], float(share), train.names[place])
                for (place, view), share in zip(views.items(), alike, strict=True)
            ]
        among = f"{len(searched):,} of {len(train):,}" if len(searched) < len(train) else f"all {len(train):,}"
        note = (
            f"By the cosine of their features before the last layer, among {among} training images. Often they show "
            "where a mistake comes from, or that a label is wrong."
        )
        yield Gallery("The training images nearest to them", tuple(pictures), note, columns=1 + places.shape[1])


def _neighbour(view: View, label: str, share: float, name: str) -> Picture:
    label = isolated(label)
    return Picture(view, f"training image {isolated(name)} of {label}, cosine {share:.2f}", f"{label} · {share:.2f}")


def _embedding(subject: Subject, answers: "Answers") -> Iterator[Part]:
    from residuum.inference.features import embedding

    names = [*answers.classes, "(unknown)"]
    methods: tuple[tuple[Literal["pca", "t-sne"], str], ...] = (("pca", "Principal components"), ("t-sne", "t-SNE"))
    try:
        chosen, rows = _features(subject.images, subject, MOST_POINTS)
        drawn = [(title, embedding(rows, method)) for method, title in methods]
    except UserError:  # too few, or no numbers
        return
    labels = subject.images.labels[chosen]
    order = np.argsort(labels % len(names), kind="stable")  # in the order of classes, the unknown ones last
    groups = tuple(names[int(labels[place])] for place in order)
    count = f"{len(chosen):,} images by their features before the last layer"
    for title, points in drawn:
        x, y = (tuple(map(float, column)) for column in points[order].T)
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


def _features(split: "Split", subject: Subject, wanted: int | list[int]) -> tuple[list[int], Features]:
    """Which of the wanted images could be read, and their features (N, D); of a number of images as many as there is
    time for, in a random order, always the same.
    """
    from residuum.hardware import choose_device, choose_precision
    from residuum.inference.features import features

    classifier = subject.classifier
    indices = wanted if isinstance(wanted, list) else _drawn(len(split), wanted)
    end = time.monotonic() + MOST_SECONDS
    read: list[int] = []

    def batches() -> "Iterator[Tensor]":
        for start in range(0, len(indices), BATCH):
            found = list(_views(split, classifier, indices[start : start + BATCH]))
            read.extend(index for index, _ in found)
            if found:
                yield _normalised(classifier, [view for _, view in found])
            if not isinstance(wanted, list) and time.monotonic() > end:
                return

    device = choose_device(subject.device)
    dtype = choose_precision(classifier.provenance.get("precision", "auto"), device)
    rows = features(classifier.network, batches(), device, dtype)
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


def _drawn(length: int, most: int) -> list[int]:
    """At most so many indices, at random."""
    return [int(index) for index in np.random.default_rng(0).permutation(length)[:most]]


def _beside(views: Sequence[View]) -> View:
    """Pictures of one height side by side, a white gap between them."""
    size = views[0].shape[0]
    gap = np.full((size, max(1, size // 16), 3), 255, np.uint8)
    colour = [np.repeat(view, 3, axis=2) if view.shape[2] == 1 else view for view in views]
    parts = [part for view in colour for part in (gap, view)][1:]
    return np.concatenate(parts, axis=1)
