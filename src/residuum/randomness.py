"""Random numbers that are functions of (seed, stream, epoch, sample index) alone.

No generator is carried from one draw to the next, so the number of workers, the device and an interruption change
nothing. The generator is Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), vectorised
over samples; its published test vectors are in the tests.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)

Words = NDArray[np.uint64]


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Philox4x32-10. counter: (N, 4) of 32-bit words; returns (N, 4) of random 32-bit words, both held in uint64."""
    c0, c1, c2, c3 = counter.T
    k0, k1 = key
    for _ in range(10):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> _SHIFT) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _SHIFT) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1)


def _key(seed: int, stream: str) -> tuple[int, int]:
    digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def random_words(seed: int, stream: str, epoch: int, indices: NDArray[np.int64], count: int) -> Words:
    """(N, count) random 32-bit words for N sample indices. `stream` names the purpose, so that purposes never share."""
    key = _key(seed, stream)
    index = np.asarray(indices, dtype=np.uint64)
    blocks = []
    for block in range(-(-count // 4)):
        fixed = [np.full_like(index, epoch), np.full_like(index, block)]
        blocks.append(philox(np.stack([index & _LOW, index >> _SHIFT, *fixed], axis=1), key))
    return np.concatenate(blocks, axis=1)[:, :count] if blocks else np.empty((len(index), 0), np.uint64)


def uniform(seed: int, stream: str, epoch: int, indices: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """(N, count) numbers in [0, 1), one row a sample index."""
    return random_words(seed, stream, epoch, indices, count).astype(np.float64) / 2**32


def permutation(seed: int, stream: str, epoch: int, length: int) -> NDArray[np.int64]:
    """A random order of range(length) for this epoch: indices sorted by 64 random bits each."""
    words = random_words(seed, stream, epoch, np.arange(length), 2)
    return np.argsort(words[:, 0] << _SHIFT | words[:, 1], kind="stable")


def derived_seed(seed: int, stream: str, step: int = 0) -> int:
    """A 63-bit seed for a generator that somebody else owns (torch's), at one step of one purpose."""
    words = random_words(seed, stream, 0, np.array([step]), 2)[0]
    return int(words[0] << _SHIFT | words[1]) & (2**63 - 1)
