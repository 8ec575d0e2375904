"""Philox against its published vectors, and the numbers made from it."""

import numpy as np
import pytest

from residuum.randomness import derived_seed, permutation, philox, random_words, uniform

# Random123 1.14, tests/kat_vectors, "philox4x32 10".
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, answer):
    result = philox(np.array([words(counter)], dtype=np.uint64), tuple(words(key)))
    assert result[0].tolist() == words(answer)


def test_philox_treats_each_row_alone():
    counters = np.array([words(counter) for counter, _, _ in KNOWN_ANSWERS], dtype=np.uint64)
    together = philox(counters, (1, 2))
    assert all(np.array_equal(together[i], philox(counters[i : i + 1], (1, 2))[0]) for i in range(3))


def test_numbers_of_a_sample_do_not_depend_on_its_batch():
    alone = uniform(7, "flip", 3, np.array([41]), 9)
    among = uniform(7, "flip", 3, np.array([2, 41, 5]), 9)
    assert np.array_equal(alone[0], among[1])


def test_more_numbers_keep_the_first_ones():
    indices = np.arange(5)
    assert np.array_equal(uniform(0, "x", 0, indices, 9)[:, :3], uniform(0, "x", 0, indices, 3))
    assert uniform(0, "x", 0, indices, 0).shape == (5, 0)


@pytest.mark.parametrize("other", [(1, "flip", 3), (0, "crop", 3), (0, "flip", 4)])
def test_seed_stream_and_epoch_each_change_the_numbers(other):
    indices = np.arange(100)
    same = uniform(0, "flip", 3, indices, 1) == uniform(*other, indices, 1)
    assert not same.any()


def test_indices_beyond_32_bits_are_told_apart():
    low, high = uniform(0, "x", 0, np.array([5, 5 + 2**32]), 4)
    assert not np.array_equal(low, high)


def test_numbers_are_uniform_in_the_half_open_unit_interval():
    numbers = uniform(0, "x", 0, np.arange(20_000), 5).ravel()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, bins=64, range=(0, 1))[0]
    expected = len(numbers) / 64
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 103.4  # 0.1 % point of the chi-square distribution with 63 degrees of freedom


def test_numbers_of_neighbouring_samples_are_uncorrelated():
    numbers = uniform(0, "x", 0, np.arange(50_001), 1)[:, 0] - 0.5
    correlation = (numbers[1:] * numbers[:-1]).mean() * 12
    assert abs(correlation) < 4 / np.sqrt(50_000)


@pytest.mark.parametrize("length", [1, 2, 1000])
def test_permutation_has_every_index_once(length):
    assert sorted(permutation(0, "order", 0, length)) == list(range(length))


def test_every_permutation_of_three_is_as_likely():
    counts = {}
    for epoch in range(3000):
        order = tuple(permutation(0, "order", epoch, 3).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert sum((count - 500) ** 2 / 500 for count in counts.values()) < 20.5  # 0.1 % point, 5 degrees of freedom


def test_derived_seeds_differ_by_step_and_fit_torch():
    seeds = {derived_seed(0, "mixing", step) for step in [*range(100), 1 << 32, (1 << 32) + 1]}
    assert len(seeds) == 102
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_numbers_stay_what_they_were():
    """Changing how they are made would silently change every run that is resumed or repeated."""
    found = random_words(1, "flip", 2, np.array([3]), 4)[0].tolist()
    assert found == words("d0878d01 7eb5fcf9 b35ef144 df351734")
