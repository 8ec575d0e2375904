"""Weights to start from: of an own run, of a file from elsewhere, or downloaded from torchvision or timm."""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from residuum.data.preprocessing import Preprocessing
from residuum.errors import UserError
from residuum.model_config import CONFIG, WEIGHTS, model_folder, read_classes, refuse_exported, trained_folder
from residuum.models.catalogue import PARTS, create_model, find
from residuum.models.normalisation import Shift
from residuum.models.translate import check_origin, our_name_for, translate
from residuum.models.trunk import ResNet
from residuum.models.units import Activation
from residuum.state_dicts import StateDict, first_layer, head, load_state_dict, read_state_dict
from residuum.weights import Classifier, read_architecture, skeleton

_SMALL = 64


def new_classifier(
    name: str, classes: Sequence[str], weights: str | None = None, *, multi_label: bool = False
) -> Classifier:
    """A network of the catalogue, or of a library, that sees images as its paper or its library has it.

    Without `weights` (a source as for `load_weights`) it is untrained: good for trying how evaluation runs, and how
    fast. Weights from a file know no names: their outputs are taken for `classes` in order. Raises UserError for an
    unknown name, and for weights of another number of classes or channels.
    """
    preprocessing = input_of(name, weights)
    network = create_model(name, num_classes=len(classes), in_channels=preprocessing.channels)
    if weights is not None and (notes := load_weights(network, name, weights, classes)):
        raise UserError(
            f"{weights} does not fit as it is ({' '.join(notes)}); train on it with: residuum train --weights"
        )
    provenance = {"untrained": True} if weights is None else {"weights": weights}
    return Classifier(
        network.eval(), name, tuple(classes), preprocessing, multi_label=multi_label, provenance=provenance
    )


def input_of(name: str, weights: str | None = None) -> Preprocessing:
    """How images are shown to a network that brings no preprocessing of its own. Raises UserError for an unknown name.

    timm says it of each of its networks, torchvision of each of its weights: those are known by the name of their file,
    others are taken for the first. Our networks get their paper's input, of which images larger than 64 pixels are the
    centre of one resized to 8/7 of it, and ImageNet's mean and deviation where they see colours.
    """
    channels, size, width = find(name).task.input_size
    if name.startswith("timm/"):
        import timm

        described = timm.get_pretrained_cfg(name.removeprefix("timm/"))
        assert described is not None, "found above"
        return Preprocessing.from_config(described.to_dict())  # type: ignore[no-untyped-call]
    if name.startswith("torchvision/"):
        return _torchvision_input(name.removeprefix("torchvision/"), weights)
    assert size == width
    crop_pct = 0.875 if size > _SMALL else 1.0
    if channels == 1:
        return Preprocessing(1, size, crop_pct, mean=(0.0,), std=(1.0,))
    return Preprocessing(channels, size, crop_pct)


def _torchvision_input(name: str, weights: str | None) -> Preprocessing:
    from torchvision.models import get_model_weights

    known = list(get_model_weights(name))
    own = [one for one in known if weights is not None and Path(weights).name == one.url.rpartition("/")[2]]
    default = [get_model_weights(name).DEFAULT] if weights == f"torchvision/{name}" else []
    shown = [*own, *default, known[0]][0].transforms()
    (size,), (side,) = shown.crop_size, shown.resize_size
    return Preprocessing(3, size, size / side, shown.interpolation.value, tuple(shown.mean), tuple(shown.std))


def load_weights(network: nn.Module, name: str, source: str, classes: Sequence[str] | None = None) -> list[str]:
    """Load the weights of `source` into `network`, the catalogue's `name`; returns notes on what was adapted.

    source: a run or model folder, a `.safetensors` or `torch.save` file, `torchvision/NAME` or `timm/NAME`
    (downloaded). A head for another number of classes, or for others than `classes` where both are known, stays as
    it was initialised. Weights for colour are summed over the three channels for a grey network, which gives what
    grey images in three channels gave.
    Raises UserError, before any download, for weights known to be of another network, and when they are
    missing, damaged or do not fit.
    """
    state = translate(_read(name, network, source), name)
    renewed, notes = _without_other_classes(network, state, source, classes)
    notes += _with_channels(network, state, source)
    load_state_dict(network, state, source, optional=renewed)
    return notes


def _read(name: str, network: nn.Module, source: str) -> StateDict:
    path = Path(source)
    if path.is_dir():
        path = trained_folder(path) / WEIGHTS
    if path.exists():
        refuse_exported(path.parent)
        _check_file(name, network, path)
        return read_state_dict(path)
    library, _, model = source.partition("/")
    if library not in _DOWNLOADS or not model:
        raise UserError(f"no weights at {source}; give a run folder, a .safetensors or .pth file, or torchvision/NAME")
    find(source)  # refuses a name that the library does not have
    check_origin(name, source)
    try:
        return _DOWNLOADS[library](model)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{source} cannot be downloaded ({reason}); check the connection, or give a file") from None


def _check_file(name: str, network: nn.Module, path: Path) -> None:
    # Weights can fit by name and shape where the networks differ: residual and plain, v1.5 and v1.
    if not (path.parent / CONFIG).is_file():
        check_origin(name, path.name)
        return
    found, arguments = read_architecture(path.parent)
    check_origin(name, found)
    if our_name_for(found) is None and found != name:  # one of ours that no list holds, such as resnet26
        raise UserError(f"{path} holds the weights of {found}, not of {name}; choose the network by -m {found}")
    if not isinstance(network, ResNet) and "normalisation" not in arguments:
        return
    options = {**arguments, "num_classes": 1, "in_channels": 1}
    trained = skeleton(found, options, path.parent / CONFIG)
    for part, of in _TOLD_BY.items():
        if of(trained) != of(network):
            kind = arguments.get(part) or PARTS[part]
            advice = f"choose the same by --set model.{part}={kind}" if kind else f"leave model.{part} out"
            raise UserError(f"{path} was trained with another {part} ({kind or 'none given'}); {advice}")


def _shortcuts(network: nn.Module) -> list[type[nn.Module]]:
    return [type(unit.downsample) for unit in network.units()] if isinstance(network, ResNet) else []


def _normalisations(network: nn.Module) -> list[str]:
    return [repr(module) for module in network.modules() if isinstance(module, (_BatchNorm, nn.GroupNorm, Shift))]


def _activation(network: nn.Module) -> Activation | None:
    return network.activation if isinstance(network, ResNet) else None


# The weights of one fit into those of the other, by name and by shape.
_TOLD_BY: dict[str, Callable[[nn.Module], object]] = {
    "shortcut": _shortcuts,
    "normalisation": _normalisations,
    "activation": _activation,
}


def _from_torchvision(model: str) -> StateDict:
    from torchvision.models import get_model_weights

    if model in ("googlenet", "inception_v3"):
        raise UserError(f"torchvision's weights of {model} expect another preprocessing than ours; take timm's")

    return dict(get_model_weights(model).DEFAULT.get_state_dict(progress=False, check_hash=True))


def _from_timm(model: str) -> StateDict:
    import timm

    return dict(timm.create_model(model, pretrained=True).state_dict())


_DOWNLOADS = {"torchvision": _from_torchvision, "timm": _from_timm}


def _without_other_classes(
    network: nn.Module, state: StateDict, source: str, classes: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """Takes a head for other classes out of `state`; returns the names taken out, and a note."""
    name, own = head(network)
    given = state.get(f"{name}.weight")
    if given is None or given.shape[1:] != own.weight.shape[1:]:
        return [], []
    if len(given) != len(own.weight):
        note = f"{source} knows {len(given)} classes, not {len(own.weight)}: the last layer starts anew."
    elif classes is not None and _classes_of(source) not in (None, tuple(classes)):
        note = f"{source} knows classes of other names: the last layer starts anew."
    else:
        return [], []
    return [key for key in (f"{name}.weight", f"{name}.bias") if state.pop(key, None) is not None], [note]


def _classes_of(source: str) -> tuple[str, ...] | None:
    """The classes that weights come with; None where nothing tells."""
    path = Path(source)
    folder = model_folder(path) if path.is_dir() else path.parent
    return read_classes(folder) if path.exists() and (folder / CONFIG).is_file() else None


def _with_channels(network: nn.Module, state: StateDict, source: str) -> list[str]:
    """Sums the first convolution of `state` over colours where `network` sees grey images; returns a note."""
    name, own = first_layer(network)
    given = state.get(f"{name}.weight")
    if given is None or given.dim() != 4 or given.shape[1] == own.weight.shape[1]:
        return []
    if (given.shape[1], own.weight.shape[1]) != (3, 1):
        raise UserError(
            f"{source} has {given.shape[1]} input channels, this network {own.weight.shape[1]}; "
            f"set data.channels={given.shape[1]}"
        )
    state[f"{name}.weight"] = given.sum(dim=1, keepdim=True)
    return [f"The weights of {name} are summed over colours: the images are grey."]
