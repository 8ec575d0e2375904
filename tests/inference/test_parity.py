"""How far an export's logits are from the network's, in what the network's own scatter by over the images."""

import numpy as np
import pytest

from residuum.inference import parity


def test_logits_are_compared_in_what_they_scatter() -> None:
    reference = np.array([[0.0, 2.0], [4.0, 2.0]], np.float32)
    deviation = 2**0.5  # over the images: 2 of the first class, 0 of the second
    row = parity.parity_of("engine", 1, reference + np.array([[0, 0.1], [0, 0]], np.float32), reference)
    assert row.difference == pytest.approx(0.1 / deviation, rel=1e-5)
    assert row.rms == pytest.approx(0.05 / deviation, rel=1e-5)
    assert row.agreement == 100
    offset = reference + np.array([0, 100], np.float32)
    assert parity.spread(offset) == pytest.approx(deviation, rel=1e-5)
    for constant in (reference[:1], np.repeat(reference[:1], 3, axis=0)):
        assert parity.spread(constant) == constant.std()
    assert parity.spread(np.full((3, 2), 5, np.float32)) == 5
    swapped = parity.parity_of("engine", 1, reference[:, ::-1], reference)
    assert swapped.agreement == 0
    for wrong in (np.nan, np.inf):
        assert parity.parity_of("engine", 1, np.full((2, 2), wrong, np.float32), reference).difference == np.inf


def test_images_are_drawn_from_all_of_a_split() -> None:
    assert parity.evenly(10, 3).tolist() == [0, 4, 9]
    assert parity.evenly(3, 10).tolist() == [0, 1, 2]
    assert parity.evenly(1, 5).tolist() == [0]
