"""Training only the end of a network."""

from types import MethodType

from torch import nn

from residuum.errors import UserError, unknown_name


def freeze_until(network: nn.Module, name: str) -> None:
    """Freeze the children of `network` that are defined before the child called `name`.

    Frozen: no gradients, and evaluation mode for good, so that batch statistics stay and dropout is off also
    after `network.train()`. Parameters of the network outside any child are frozen too. Raises UserError for
    an unknown name, and where nothing would be left to train.
    """
    children = dict(network.named_children())
    if name not in children:
        raise unknown_name("child to freeze until", name, children)
    before = list(children.values())[: list(children).index(name)]
    if not before:
        return
    for parameter in network.parameters(recurse=False):
        parameter.requires_grad_(False)
    for child in before:
        child.requires_grad_(False).eval()
        child.train = MethodType(_stay, child)  # type: ignore[method-assign]
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(
            f"freezing until {name!r} leaves nothing to train; name an earlier one of {', '.join(children)}"
        )


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    """In place of `module.train(mode)`: a bound method, which a deep copy of the module binds to the copy."""
    return module
