"""JPEGs decoded by simplejpeg are Pillow's to the byte, and what it does not decode is left to Pillow."""

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_bytes import encoded
from numpy.typing import NDArray
from PIL import Image

import residuum.data.decoding as decoding
from residuum.data.decoding import BadImage, decode

simplejpeg = pytest.importorskip("simplejpeg")

Decoder = Callable[..., NDArray[np.uint8]]


def by_pillow(content: bytes, channels: int) -> NDArray[np.uint8]:
    with patch.object(decoding, "_simplejpeg", lambda: None):
        return decode(content, "x", channels)


class Counting:
    """simplejpeg, counting what it was given and what it gave."""

    def __init__(self) -> None:
        self.asked = self.given = 0

    def __call__(self, *args: Any, **options: Any) -> NDArray[np.uint8]:
        self.asked += 1
        pixels = simplejpeg.decode_jpeg(*args, **options)
        self.given += 1
        return pixels


@pytest.fixture
def counting() -> Iterator[Counting]:
    counter = Counting()
    with patch.object(decoding, "_simplejpeg", lambda: counter):
        yield counter


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Smooth colours with noise: every coefficient is in use."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8)).resize((width, height))
    noise = rng.integers(-20, 21, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(small) + noise, 0, 255).astype(np.uint8))


def assert_taken_and_the_same(content: bytes, channels: int) -> None:
    counter = Counting()
    with patch.object(decoding, "_simplejpeg", lambda: counter):
        pixels = decode(content, "x", channels)
    assert counter.given == 1
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, by_pillow(content, channels))


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 100),
    st.sampled_from(["RGB", "L"]),
    st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    st.fixed_dictionaries({"progressive": st.booleans(), "optimize": st.booleans()}),
    st.integers(0, 3),
)
def test_pixels_are_pillows_to_the_byte(
    height: int, width: int, quality: int, mode: str, subsampling: str, options: dict[str, bool], restarts: int
) -> None:
    colours = {"subsampling": subsampling} if mode == "RGB" else {}
    image = picture(height, width, quality).convert(mode)
    content = encoded(image, "JPEG", quality=quality, restart_marker_blocks=restarts, **options, **colours)
    assert_taken_and_the_same(content, 3 if mode == "RGB" else 1)


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411"])
@pytest.mark.parametrize("size", [(1, 1), (17, 33), (64, 48)])
def test_subsamplings_that_pillow_does_not_write_are_the_same(subsampling: str, size: tuple[int, int]) -> None:
    pixels = np.ascontiguousarray(np.asarray(picture(*size)))
    assert_taken_and_the_same(simplejpeg.encode_jpeg(pixels, 80, colorsubsampling=subsampling), 3)


def test_photographs_are_the_same() -> None:
    import sklearn.datasets

    for path in sorted((Path(sklearn.datasets.__file__).parent / "images").glob("*.jpg")):
        assert_taken_and_the_same(path.read_bytes(), 3)


def test_rgb_kept_as_such_by_its_adobe_marker_is_the_same() -> None:
    assert_taken_and_the_same(encoded(picture(20, 30), "JPEG", keep_rgb=True, subsampling=0), 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_alike(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_taken_and_the_same(encoded(picture(9, 14), "JPEG", exif=exif), 3)
    assert_taken_and_the_same(encoded(picture(9, 14).convert("L"), "JPEG", exif=exif), 1)


def test_first_picture_of_several_in_a_file_is_the_same() -> None:
    content = encoded(picture(20, 30), "MPO", save_all=True, append_images=[picture(20, 30, 1)])
    assert_taken_and_the_same(content, 3)


def inverted_ycck() -> bytes:
    """CMYK under YCCK's transform, as Photoshop writes it: only the marker differs."""
    content = encoded(Image.new("CMYK", (16, 16), (10, 80, 200, 30)), "JPEG")
    at = content.index(b"Adobe") + 11
    return content[:at] + b"\2" + content[at + 1 :]


@pytest.mark.parametrize(
    ("content", "channels"),
    [
        (encoded(Image.new("CMYK", (16, 16), (10, 80, 200, 30)), "JPEG"), 3),
        (inverted_ycck(), 3),
        (encoded(picture(20, 30).convert("L"), "JPEG"), 3),
        (encoded(picture(20, 30), "JPEG"), 1),
        (encoded(picture(20, 30), "PNG"), 3),
    ],
    ids=["CMYK", "YCCK", "grey for colour", "colour for grey", "PNG"],
)
def test_other_modes_and_formats_are_pillows(counting: Counting, content: bytes, channels: int) -> None:
    np.testing.assert_array_equal(decode(content, "x", channels), by_pillow(content, channels))
    assert counting.asked == 0


def outcome(content: bytes, channels: int, read: Callable[[bytes, int], NDArray[np.uint8]]) -> str:
    try:
        return repr(read(content, channels).tobytes())
    except BadImage as error:
        return error.reason


@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_file_is_refused_in_pillows_words_wherever_it_ends(progressive: bool) -> None:
    content = encoded(picture(32, 24), "JPEG", progressive=progressive)
    reasons = set()
    for end in range(1, len(content), 7):
        reason = outcome(content[:end], 3, lambda content, channels: decode(content, "x", channels))
        assert reason == outcome(content[:end], 3, by_pillow)
        reasons.add(reason)
    assert "truncated" in reasons


def test_damage_that_pillow_mends_is_mended_by_it(counting: Counting) -> None:
    content = encoded(picture(32, 24), "JPEG", restart_marker_blocks=1)
    damaged = content.replace(b"\xff\xd1", b"\xff\xd5", 1)
    np.testing.assert_array_equal(decode(damaged, "x", 3), by_pillow(damaged, 3))
    assert (counting.asked, counting.given) == (1, 0)


def test_another_size_than_the_header_tells_is_left_to_pillow() -> None:
    content = encoded(picture(20, 30), "JPEG")
    with patch.object(decoding, "_simplejpeg", lambda: lambda *_, **__: np.zeros((30, 20, 3), np.uint8)):
        np.testing.assert_array_equal(decode(content, "x", 3), by_pillow(content, 3))


def test_a_jpeg_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one so big that its scans are counted."""
    content = encoded(picture(1500, 1500), "JPEG", progressive=True)
    (tmp_path / "photo.jpg").write_bytes(content)
    read = []

    class Counted(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            count = super().readinto(buffer)
            read.append(count)
            return count

        def readall(self) -> bytes:
            rest = super().readall()
            read.append(len(rest))
            return rest

    monkeypatch.setattr(decoding, "open", lambda path, mode: io.BufferedReader(Counted(path)), raising=False)
    np.testing.assert_array_equal(decode(tmp_path / "photo.jpg", "x", 3), by_pillow(content, 3))
    assert sum(read) == len(content)


def test_everything_decodes_without_simplejpeg(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(encoded(picture(20, 30), "JPEG"))
    program = """
import sys
from pathlib import Path
sys.modules["simplejpeg"] = None  # as if it were not installed
from residuum.data.decoding import decode
sys.stdout.buffer.write(decode(Path(sys.argv[1]), "x", 3).tobytes())
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "photo.jpg")], capture_output=True, check=True)
    assert done.stdout == decode(tmp_path / "photo.jpg", "x", 3).tobytes()
