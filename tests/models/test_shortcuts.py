import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from residuum.models.shortcuts import (
    SHORTCUTS,
    BareProjection,
    Constant,
    Dropped,
    Gated,
    Identity,
    Projection,
    ShortcutGated,
    ZeroPadded,
)


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


def test_shortcut_only_gating_weighs_the_shortcut_alone():
    shortcut = ShortcutGated(4, 4, 1)
    assert (shortcut.gate.bias == -6).all()
    torch.nn.init.normal_(shortcut.gate.bias)
    x, residual = torch.randn(2, 4, 5, 5), torch.randn(2, 4, 5, 5)
    weight, bias = (p.detach().numpy() for p in (shortcut.gate.weight, shortcut.gate.bias))
    pre = np.einsum("oi,nihw->nohw", weight[:, :, 0, 0], x.numpy()) + bias[:, None, None]
    expected = residual.numpy() + x.numpy() / (1 + np.exp(pre))
    np.testing.assert_allclose(shortcut(x, residual.clone()).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_constant_scaling_halves_both_paths():
    x, residual = torch.randn(2, 4, 5, 5), torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(Constant(4, 4, 1)(x, residual.clone()), 0.5 * residual + 0.5 * x)


def test_dropout_drops_half_of_the_shortcut_and_carries_its_expectation_in_evaluation():
    torch.manual_seed(0)
    shortcut, x = Dropped(4, 4, 1), torch.full((50, 4, 16, 16), 3.0)
    carried = shortcut(x, torch.zeros_like(x))
    assert carried.unique().tolist() == [0.0, 3.0]
    assert carried.mean().item() == pytest.approx(1.5, abs=0.03)
    assert not torch.equal(carried[0], carried[1])
    residual = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(shortcut.eval()(x[:2, :, :5, :5], residual.clone()), residual + 1.5)


@pytest.mark.parametrize("name", ["constant", "shortcut-gated", "dropout"])
def test_the_shortcuts_of_2016_carry_another_size_as_option_a(name):
    x = torch.randn(2, 4, 6, 6)
    carried = ZeroPadded(4, 8, 2).carry(x)
    shortcut = SHORTCUTS[name](4, 8, 2, Projection).eval()
    factor = 1 - torch.sigmoid(shortcut.gate(x)) if name == "shortcut-gated" else 0.5
    torch.testing.assert_close(shortcut(x, torch.zeros(2, 8, 3, 3)), carried * factor)


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
