"""A trained model as a value and as a folder: weights, architecture, classes, preprocessing, provenance.

The folder is in the Hub layout: `model.safetensors` and a `config.json` in timm's schema, with a section
"residuum" for what timm has no word for. Where the network is timm's, `architecture` names it and timm loads
the folder; elsewhere it is "residuum_NAME", which timm refuses: a network of the paper is never taken for
another under the same name.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from residuum.data.preprocessing import Preprocessing
from residuum.errors import UserError, listed, printable
from residuum.files import whole_folder, write_json
from residuum.model_config import (
    CONFIG,
    MEAN_IMAGE,
    SECTION,
    WEIGHTS,
    classes_of,
    preprocessing_of,
    read_config,
    refuse_others,
    trained_folder,
    weights_file,
    write_mean_image,
)
from residuum.models.catalogue import create_model, create_skeleton, is_foreign
from residuum.models.translate import OUR_NAMES
from residuum.state_dicts import (
    check_fit,
    fill_skeleton,
    first_layer,
    head,
    load_state_dict,
    read_shapes,
    read_state_dict,
)

# Where the names of the weights are the same, too; those of resnetv2 are not.
_OUR_NAMES = {theirs: ours for theirs, ours in OUR_NAMES.items() if not theirs.startswith("resnetv2")}
_TIMM_NAMES = {ours: theirs for theirs, ours in _OUR_NAMES.items()}
_PREFIX = "residuum_"
_PROBLEM, _SEVERAL = "problem_type", "multi_label_classification"  # in transformers' words
_ADDED = {"temperature", "provenance"}  # what may stand in the section of a model that others saved
_MODEL_ARGS: dict[str, tuple[type, ...]] = {
    "shortcut": (str, type(None)),
    "zero_gamma": (bool,),
    "drop_path": (int, float),
    "normalisation": (str,),
    "activation": (str,),
}
_LONGEST_ARGUMENT = 40
_HARMLESS_TIMM_ARGS = ("num_classes", "in_chans", "drop_rate", "drop_path_rate")


@dataclass(frozen=True)
class Classifier:
    """A network with all that its use needs.

    architecture and model_args are what `create_model` is given to build it anew; classes names its outputs
    in order; with multi_label each output is a yes or no of its own. provenance is free-form JSON: recipe,
    data, seed, versions. temperature: what logits are divided by for probabilities (Guo et al. 2017); above 0.
    """

    network: nn.Module
    architecture: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    model_args: Mapping[str, Any] = field(default_factory=dict)
    multi_label: bool = False
    provenance: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 1.0


def save_model(folder: str | Path, classifier: Classifier) -> None:
    """Write the model to `folder`, whole or not at all; a model that is there already is replaced.

    Raises UserError for a folder that holds anything else, which replacing would delete.
    """
    target = Path(folder)
    refuse_others(target, (WEIGHTS, CONFIG, MEAN_IMAGE), "a model", "save it in a folder of its own")
    with whole_folder(target) as temporary:
        write_model(temporary, classifier)


def write_model(folder: Path, classifier: Classifier) -> None:
    """Write the files of the model into a folder that is there."""
    state = classifier.network.state_dict()
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    (folder / WEIGHTS).write_bytes(save(weights, {"format": "pt"}))
    write_mean_image(folder, classifier.preprocessing)
    write_json(folder / CONFIG, config_of(classifier))


def config_of(classifier: Classifier) -> dict[str, Any]:
    """What stands in the config.json of its folder: timm's schema, and the section for what timm has no word for."""
    own_name = timm_name(classifier.architecture, classifier.model_args)
    head_name, last = head(classifier.network)
    num_classes = {"num_classes": len(classifier.classes)}
    timm_args = {"in_chans": classifier.preprocessing.channels}  # transformers gives the number of classes itself
    preprocessing = classifier.preprocessing.to_config()
    mean_image = preprocessing.pop("mean_image", False)  # timm refuses keys it does not know
    return {
        "architecture": own_name or f"{_PREFIX}{classifier.architecture}",
        **num_classes,
        "num_features": last.weight.shape[1],
        "label_names": list(classifier.classes),
        **({_PROBLEM: _SEVERAL} if classifier.multi_label else {}),
        "model_args": timm_args if own_name else dict(classifier.model_args),
        "pretrained_cfg": {
            **preprocessing,
            "crop_pct": _crop_pct(classifier.preprocessing),
            **num_classes,
            "first_conv": first_layer(classifier.network)[0],
            "classifier": head_name,
        },
        SECTION: {
            "architecture": classifier.architecture,
            "model_args": dict(classifier.model_args),
            "multi_label": classifier.multi_label,
            "temperature": classifier.temperature,
            "mean_image": mean_image,
            "provenance": dict(classifier.provenance),
        },
    }


def _crop_pct(preprocessing: Preprocessing) -> float:
    """The share by which timm, too, resizes to `resized_side`: it rounds down without an allowance for rounding."""
    size, side, share = preprocessing.size, preprocessing.resized_side, preprocessing.crop_pct
    if math.floor(size / share) < side:
        share = size / side
    while math.floor(size / share) < side:
        share = math.nextafter(share, 0)
    return share


def timm_name(architecture: str, model_args: Mapping[str, Any]) -> str | None:
    """What timm calls this very network; None if it does not have it."""
    if model_args.keys() & {"normalisation", "activation"}:
        return None
    if architecture.startswith("timm/"):
        return architecture.removeprefix("timm/").partition(".")[0]  # without the tag of weights
    return _TIMM_NAMES.get(architecture) if model_args.get("shortcut") in (None, "B") else None


def load(path: str | Path) -> Classifier:
    """The model in a run folder, in its `model/` folder, or in a folder that timm has saved (the Hub layout).

    `hf:owner/name`, or `hf:owner/name@revision`, is such a folder on the Hugging Face Hub, downloaded once. The network
    is on the CPU, in evaluation mode. Without `label_names` the classes are "0", "1", … . Raises UserError when
    anything is missing, damaged, or does not fit the rest. No memory is taken for a network that the weights do not
    fill.
    """
    folder = trained_folder(Path(path))
    where, weights = folder / CONFIG, weights_file(folder)
    shapes, config = read_shapes(weights), read_config(where)
    architecture, model_args = _architecture(config, where)
    preprocessing = preprocessing_of(config, folder)
    options = {**model_args, "num_classes": config["num_classes"], "in_channels": preprocessing.channels}
    network = skeleton(architecture, options, where)
    check_fit(network, shapes, str(weights))
    classes = classes_of(config, where)
    if is_foreign(architecture):  # such a network may hold tensors that stand in no file
        network = create_model(architecture, **options)
        load_state_dict(network, read_state_dict(weights), str(weights))
    else:
        fill_skeleton(network, read_state_dict(weights), str(weights))
    section = config.get(SECTION, {})
    return Classifier(
        network=network.eval(),
        architecture=architecture,
        classes=classes,
        preprocessing=preprocessing,
        model_args=model_args,
        multi_label=section.get("multi_label", config.get(_PROBLEM) == _SEVERAL),
        provenance=section.get("provenance", {}),
        temperature=float(section.get("temperature", 1.0)),
    )


def read_architecture(folder: Path) -> tuple[str, dict[str, Any]]:
    """The name and the arguments that `create_model` needs for the network of a model folder.

    Raises UserError for a damaged config.
    """
    where = folder / CONFIG
    return _architecture(read_config(where), where)


def skeleton(architecture: str, options: Mapping[str, Any], where: Path) -> nn.Module:
    """The network of the config at `where`, without memory for weights. Raises UserError if there is none."""
    try:
        return create_skeleton(architecture, **options)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _architecture(config: Mapping[str, Any], where: Path) -> tuple[str, dict[str, Any]]:
    """Our name of the network and what else `create_model` is given."""
    section, name = config.get(SECTION, {}), config["architecture"]
    _check_name(name, where)
    if section.keys() - _ADDED:
        architecture, model_args = section.get("architecture"), section.get("model_args", {})
        if not isinstance(architecture, str) or not isinstance(model_args, dict):
            raise UserError(f"{where} has no architecture in its section {SECTION!r}; save the model again")
        _check_name(architecture, where)
        if wrong := [printable(f"{key}={value}") for key, value in model_args.items() if not _is_taken(key, value)]:
            raise UserError(f"{where} has model_args that no network takes: {listed(wrong)}; save the model again")
        return architecture, model_args
    if name.startswith(_PREFIX):
        raise UserError(f"{where} lacks the section {SECTION!r} that {name} needs; save the model again")
    model_args = config.get("model_args", {})
    foreign = [
        printable(f"{key}={value}")
        for key, value in model_args.items()
        if key not in _HARMLESS_TIMM_ARGS and (key != "global_pool" or value != "avg")
    ]
    if foreign:
        changes = listed(foreign)
        raise UserError(f"{where} changes {name} by {changes}, which is not supported; load it with timm")
    return _OUR_NAMES.get(name, f"timm/{name}"), {}


def _check_name(architecture: str, where: Path) -> None:
    if architecture != printable(architecture):
        raise UserError(f"{where} names a network {printable(architecture)}; residuum models lists those there are")


def _is_taken(key: str, value: object) -> bool:
    return isinstance(value, _MODEL_ARGS.get(key, ())) and len(str(value)) <= _LONGEST_ARGUMENT
