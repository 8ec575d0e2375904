"""The filters of the first layer as pictures."""

import numpy as np
from numpy.typing import NDArray
from torch import nn

from residuum.errors import UserError
from residuum.state_dicts import first_layer

_GREY = 127.5


def first_layer_filters(network: nn.Module) -> NDArray[np.uint8]:
    """Each filter of the first convolution as a picture: (F, k, k, 3), or (F, k, k, 1) for one input channel.

    Mid-grey is a weight of 0; each filter's largest absolute weight is 0 or 255. Three channels are taken for red,
    green and blue. As in Krizhevsky et al. 2012, "ImageNet Classification with Deep CNNs", figure 3.
    Raises UserError where the first layer has no filters a picture could show.
    """
    name, layer = first_layer(network)
    shape = tuple(layer.weight.shape)
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise UserError(
            f"the first layer, {name}, has weights of shape {'x'.join(map(str, shape))}; only a convolution of 1 or 3 "
            "channels makes pictures: leave its filters out"
        )
    weights = layer.weight.detach().float().cpu().numpy().transpose(0, 2, 3, 1)
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    shares = np.divide(weights, largest, out=np.zeros_like(weights), where=largest > 0)
    return np.rint(_GREY + _GREY * shares).astype(np.uint8)
