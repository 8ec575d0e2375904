import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from residuum.models.shortcuts import SHORTCUTS, BareProjection, Gated, Identity, Projection, ZeroPadded


@settings(max_examples=25, deadline=None)
@given(
    channels=st.integers(1, 4),
    more=st.integers(0, 4),
    size=st.integers(1, 7),
    stride=st.integers(1, 2),
)
def test_option_a_is_a_strided_slice_padded_with_zero_channels(channels, more, size, stride):
    x = torch.randn(2, channels, size, size)
    out = torch.zeros(2, channels + more, -(-size // stride), -(-size // stride))
    expected = np.pad(x.numpy()[:, :, ::stride, ::stride], ((0, 0), (0, more), (0, 0), (0, 0)))
    np.testing.assert_array_equal(ZeroPadded(channels, channels + more, stride)(x, out).numpy(), expected)


def test_gated_shortcut_is_the_highway_equation():
    shortcut = Gated(4, 4, 1)
    x, residual = torch.randn(2, 4, 5, 5), torch.randn(2, 4, 5, 5)
    weight, bias = (p.detach().numpy() for p in (shortcut.gate.weight, shortcut.gate.bias))
    pre = np.einsum("oi,nihw->nohw", weight[:, :, 0, 0], x.numpy()) + bias[:, None, None]
    transform = 1 / (1 + np.exp(-pre))
    expected = residual.numpy() * transform + x.numpy() * (1 - transform)
    np.testing.assert_allclose(shortcut(x, residual).detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    assert (bias < 0).all(), "a highway layer first carries"


@pytest.mark.parametrize(
    ("option", "same_size", "another_size"),
    [("A", Identity, ZeroPadded), ("B", Identity, Projection), ("C", Projection, Projection)],
)
def test_options_of_section_3_3(option, same_size, another_size):
    assert type(SHORTCUTS[option](8, 8, 1, Projection)) is same_size
    assert type(SHORTCUTS[option](8, 16, 2, Projection)) is another_size
    assert type(SHORTCUTS[option](8, 16, 1, Projection)) is another_size


@pytest.mark.parametrize("shortcut", SHORTCUTS.values(), ids=SHORTCUTS)
@pytest.mark.parametrize("projection", [Projection, BareProjection])
def test_every_shortcut_joins_paths_of_another_size(shortcut, projection):
    x, residual = torch.randn(2, 4, 7, 7), torch.randn(2, 8, 4, 4)
    assert shortcut(4, 8, 2, projection)(x, residual.clone()).shape == residual.shape
