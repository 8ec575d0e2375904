"""How to use a model, as its card says it: by residuum, and by timm and transformers where they have the network."""

from collections.abc import Iterator

from residuum.cli.card_facts import CardFacts
from residuum.report.markdown import block, code

_COLOURS = {1: "L", 3: "RGB"}


def use(facts: CardFacts) -> Iterator[str]:
    """The paragraphs, with code that runs once OWNER is put in its place."""
    yield "Put the name of the repository's owner in place of `OWNER`, or the path of a copy in place of it all."
    yield block(_COMMAND.format(name=facts.name), "sh")
    yield block(_RESIDUUM.format(name=facts.name), "python")
    if facts.timm_name is None:
        network = code(facts.classifier.architecture)
        yield (
            f"timm and transformers do not have {network} as it is here, and refuse this folder; a network of a like "
            "name there may be another one, which would give other answers. residuum alone loads it."
        )
        return
    kind = {
        "name": facts.name,
        "colours": _COLOURS[facts.classifier.preprocessing.channels],
        "probabilities": _probabilities(facts),
    }
    yield f"timm has the network as {code(facts.timm_name)}:"
    yield block(_TIMM.format(**kind), "python")
    yield "transformers loads it through timm:"
    yield block(_TRANSFORMERS.format(**kind), "python")
    yield from _unknown_elsewhere(facts)


def _probabilities(facts: CardFacts) -> str:
    temperature = facts.classifier.temperature
    logits = "logits" if temperature == 1 else f"(logits / {temperature:.6g})"
    return f"{logits}.sigmoid()" if facts.classifier.multi_label else f"{logits}.softmax(dim=1)"


def _unknown_elsewhere(facts: CardFacts) -> Iterator[str]:
    """What timm and transformers cannot know of this model."""
    classifier = facts.classifier
    if classifier.temperature != 1:
        yield (
            f"They know nothing of the temperature, {classifier.temperature:.6g}, by which the logits are divided "
            "above; without it the classes rank alike, and the probabilities are other ones."
        )
    if classifier.preprocessing.mean_image is not None:
        yield (
            "They know nothing of the mean image that training subtracted from every image "
            "(`preprocessing.safetensors`), and subtract a mean colour: their answers differ from those measured here."
        )
    if classifier.multi_label:
        yield "timm does not know that each class is a yes or no of its own: take the sigmoid, as above."
    if classifier.preprocessing.channels == 1:
        yield "They do not make images grey by themselves; `convert` above does."


_COMMAND = """
pip install 'residuum[hub]'
residuum predict hf:OWNER/{name} photo.jpg
"""

_RESIDUUM = """
from pathlib import Path

import residuum

model = residuum.load("hf:OWNER/{name}")
for prediction in residuum.predict(model, [Path("photo.jpg")]):
    print(prediction.labels, prediction.probabilities)
"""

_TIMM = """
import timm
import torch
from PIL import Image, ImageOps

model = timm.create_model("hf-hub:OWNER/{name}", pretrained=True).eval()
view = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("{colours}")
with torch.inference_mode():
    logits = model(view(image)[None])
probabilities = {probabilities}[0]
print(model.pretrained_cfg["label_names"][int(probabilities.argmax())], float(probabilities.max()))
"""

_TRANSFORMERS = """
import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoModelForImageClassification

processor = AutoImageProcessor.from_pretrained("OWNER/{name}")
model = AutoModelForImageClassification.from_pretrained("OWNER/{name}").eval()
image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("{colours}")
with torch.inference_mode():
    logits = model(**processor(image)).logits
probabilities = {probabilities}[0]
print(model.config.id2label[int(probabilities.argmax())], float(probabilities.max()))
"""
