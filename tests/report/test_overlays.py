"""Heat over a picture: the picture stays to be seen, and more heat is more colour."""

import numpy as np
import pytest

from residuum.report.overlays import overlay


def picture(channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_cold_picture_is_the_picture(channels: int) -> None:
    pixels = picture(channels)
    shown = overlay(pixels, np.zeros((5, 7), np.float32))
    assert shown.dtype == np.uint8
    assert shown.shape == (5, 7, 3)
    assert (shown == pixels).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_picture_shows_through_the_most_heat(channels: int) -> None:
    pixels = picture(channels)
    shown = overlay(pixels, np.ones((5, 7), np.float32)).astype(int)
    for channel in range(3):
        original = pixels[:, :, channel % channels].ravel().astype(int)
        assert np.corrcoef(shown[:, :, channel].ravel(), original)[0, 1] > 0.99
        assert np.ptp(shown[:, :, channel]) >= 0.25 * np.ptp(original)


@pytest.mark.parametrize("grey", [0, 255])
def test_more_heat_is_further_from_the_picture(grey: int) -> None:
    pixels = np.full((1, 256, 1), grey, np.uint8)
    shown = overlay(pixels, np.linspace(0, 1, 256)[None]).astype(float)
    distance = np.abs(shown - grey).sum(axis=2)[0]
    assert distance[0] == 0
    assert distance[64] < distance[128] < distance[192]


def test_order_of_the_heat_is_seen_without_colour() -> None:
    shown = overlay(np.zeros((1, 101, 3), np.uint8), np.linspace(0, 1, 101)[None])
    lightness = shown[0] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness[::5]) > 0).all()


def test_heat_of_another_size_is_no_heat_of_the_picture() -> None:
    with pytest.raises(AssertionError):
        overlay(picture(3), np.zeros((7, 5), np.float32))
