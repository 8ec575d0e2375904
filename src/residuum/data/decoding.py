"""Image files to uint8 arrays: each gives a defined result or a named refusal, nothing else."""

import io
import logging
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
IMAGE_SUFFIXES = frozenset(
    ("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "pbm", "pnm")
)
"""Of their files: what in a folder is taken for an image."""
MAX_PIXELS = 2**28 * 2 // 3  # 179 million, half a gigabyte in RGB: Pillow, too, refuses more as a bomb
MAX_SCANNED_PIXELS = 32 * MAX_PIXELS  # every scan of a JPEG passes over all its pixels; 10 are usual, 18 in CMYK
MAX_PIXELS_IN_PYTHON = 2**23  # of what Pillow decodes in Python, a microsecond a pixel: BMP in runs, rare PPMs
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"})

# Pillow warns of what is a defined result or a refusal here. A filter and not `catch_warnings`, which swaps
# the process-wide list back and forth and is not safe among threads. Its log has no handler of its own, and
# would go to the terminal.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())

_JPEG_START = b"\xff\xd8"
_WHITE = (255, 255, 255, 255)
_UPRIGHT = {  # EXIF orientation -> what turns the stored image into the one to be seen
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS = frozenset({5, 6, 7, 8})
_ORIENTATION_TAG = 0x0112
_PNG_ORIENTATION_SIGNS = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")


class BadImage(Exception):  # noqa: N818 - a fact about a file that is counted and reported, more than an error
    """A file that gives no image. `name` says which, `reason` why, in a few words."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)  # both, so that it survives pickling between processes
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class _UnknownRangeError(ValueError):
    pass


class _TooMuchWorkError(ValueError):
    pass


class _ExcessError(ValueError):
    pass


class Limits(NamedTuple):
    """What is refused by its header: an image of more pixels, and a file of more frames (None: of which any number)."""

    pixels: int = MAX_PIXELS
    frames: int | None = None


_NO_OTHERS = Limits()


class ImageFacts(NamedTuple):
    """What a header tells: width and height in pixels as seen (EXIF applied); Pillow's mode ("L", "RGB")."""

    width: int
    height: int
    mode: str


def decode(source: bytes | Path, name: str, channels: int, limits: Limits = _NO_OTHERS) -> NDArray[np.uint8]:
    """The image in a file or in its bytes as (H, W, channels) uint8, channels 1 (luma, ITU-R 601) or 3 (RGB).

    EXIF orientation is applied; the first frame of an animation is taken; transparency is composited over
    white. 16-bit grey is divided by 257 and rounded (16-bit colour keeps its high bytes); 32-bit integers are
    read as 16-bit ones and floats as [0, 1] or else [0, 255], and refused outside those ranges. Raises
    BadImage for all that gives no image: missing, empty, truncated, damaged, none of FORMATS (told by
    content), more pixels or frames than MAX_PIXELS or `limits` (told by the header), or minutes of
    work asked for by a small file (see `_refuse_endless_work`).

    Takes up to 28 bytes of memory a pixel (5 GB at MAX_PIXELS, most in WEBP) and 50 times the size of the file (most
    in TIFF tags); where that is not to be had, BadImage too.
    """
    assert channels in (1, 3)
    mode = "L" if channels == 1 else "RGB"
    with _opened(source, name, entirely=True) as image:
        _refuse_excess(image, limits)
        _refuse_endless_work(image)
        pixels = _jpeg_pixels(image, mode)
        if pixels is None:
            image.load()
        turn = _UPRIGHT.get(_orientation(image))
        if pixels is None or turn is not None:
            stored = image if pixels is None else Image.fromarray(pixels)
            upright = stored if turn is None else stored.transpose(turn)
            pixels = np.array(_in_mode(_to_8_bit(upright), mode))
    return pixels[:, :, None] if channels == 1 else pixels


def _jpeg_pixels(image: ImageFile.ImageFile, mode: str) -> NDArray[np.uint8] | None:
    """A sound JPEG of this mode as stored, decoded by simplejpeg, to the byte as Pillow and a fifth sooner; else None.

    None leaves it to Pillow, which alone decides what is refused and why.
    """
    decode_jpeg = _simplejpeg()
    if decode_jpeg is None or image.format not in ("JPEG", "MPO") or image.mode != mode:
        return None
    try:
        pixels = decode_jpeg(_content(image), "GRAY" if mode == "L" else "RGB", strict=True)
    except Exception:  # of any kind, on hostile bytes
        return None
    if pixels.shape[:2] != (image.height, image.width):
        return None
    return pixels[:, :, 0] if mode == "L" else pixels


@cache
def _simplejpeg() -> Callable[..., NDArray[np.uint8]] | None:
    try:
        from simplejpeg import decode_jpeg
    except ImportError:  # no wheel for this machine
        return None
    return decode_jpeg


def probe(source: bytes | Path, name: str) -> ImageFacts:
    """Size and mode; the pixels, which may still be damaged, are left alone. Raises BadImage as `decode`.

    Only for some PNGs with EXIF or XMP are they decoded: what turns the image may stand behind them.
    """
    with _opened(source, name) as image:
        width, height = image.size
        if _is_turned_when_loaded(image):
            width, height = height, width
        return ImageFacts(width, height, image.mode)


def _is_turned_when_loaded(image: ImageFile.ImageFile) -> bool:
    if image.format == "TIFF":  # whose plugin gives the size as turned already
        return False
    if image.format == "PNG":
        assert image.fp is not None
        content, pixels = _content(image), image.fp.tell()
        if not any(sign in content for sign in _PNG_ORIENTATION_SIGNS):
            return False  # where Pillow would decode all to see what is behind the pixels
        if any(content.find(sign, pixels) >= 0 for sign in _PNG_ORIENTATION_SIGNS):
            image.load()
    return _orientation(image) in _QUARTER_TURNS


def read_bytes(path: Path, name: str) -> bytes:
    """A file as it is stored, undecoded. Raises BadImage where it is missing, empty or unreadable."""
    try:
        with _stream(path, name) as stream:
            return stream.read()
    except OSError as error:
        raise BadImage(name, _reason(error)) from error


@contextmanager
def _opened(source: bytes | Path, name: str, entirely: bool = False) -> Iterator[ImageFile.ImageFile]:
    """`entirely`: the pixels are wanted, too, so that a JPEG had better be read in one go."""
    try:
        with _stream(source, name, entirely) as stream, Image.open(stream, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except BadImage:
        raise
    except Exception as error:
        # On hostile bytes Pillow raises nearly anything; this is the one door for all of it.
        raise BadImage(name, _reason(error)) from error


def _stream(source: bytes | Path, name: str, entirely: bool = False) -> BinaryIO:
    if isinstance(source, bytes):
        if not source:
            raise BadImage(name, "empty (0 bytes)")
        return io.BytesIO(source)
    status = os.stat(source)
    if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for ever
        raise BadImage(name, "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file")
    if not status.st_size:
        raise BadImage(name, "empty (0 bytes)")
    stream = open(source, "rb")  # noqa: SIM115 - its reader closes it
    if not entirely or stream.peek(2)[:2] != _JPEG_START:
        return stream
    with stream:
        return io.BytesIO(stream.read())


def _reason(error: Exception) -> str:
    match error:
        case FileNotFoundError():
            return "no such file"
        case PermissionError():
            return "no permission to read it"
        case UnidentifiedImageError():
            return f"not an image, or a damaged header (read are {', '.join(FORMATS)})"
        case Image.DecompressionBombError():
            return f"more than {MAX_PIXELS:,} pixels"
        case MemoryError():
            return "too big for the memory of this machine"
        case _UnknownRangeError() | _TooMuchWorkError() | _ExcessError():
            return str(error)
    text = " ".join(str(error).split())[:120]
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "truncated"
    return f"damaged ({text or type(error).__name__})"


def _refuse_excess(image: ImageFile.ImageFile, limits: Limits) -> None:
    if image.width * image.height > limits.pixels:
        raise _ExcessError(f"{image.width:,} x {image.height:,} pixels, more than {limits.pixels:,}")
    if limits.frames is not None and (frames := getattr(image, "n_frames", 1)) > limits.frames:
        raise _ExcessError(f"{frames:,} frames, more than {limits.frames:,}")


def _refuse_endless_work(image: ImageFile.ImageFile) -> None:
    """Refuse what takes a time out of proportion to both the file and the picture.

    A JPEG's scan of a few bytes may pass over all its pixels, and a file may hold any number of them; Pillow
    decodes some formats in Python, where two bytes may stand for a whole line.
    """
    pixels = image.width * image.height
    if pixels > MAX_PIXELS_IN_PYTHON and any(tile[0] in Image.DECODERS for tile in image.tile):
        raise _TooMuchWorkError(f"more than {MAX_PIXELS_IN_PYTHON:,} pixels in a coding that is slow to read")
    if image.format in ("JPEG", "MPO") and (scans := _scans(image, MAX_SCANNED_PIXELS // pixels)):
        raise _TooMuchWorkError(f"{scans:,} scans over the same {pixels:,} pixels")


def _scans(image: ImageFile.ImageFile, allowed: int) -> int:
    """How many scans a JPEG has, where they are more than `allowed`; else 0. A preview inside the file counts too."""
    assert image.fp is not None
    position = image.fp.tell()
    room = image.fp.seek(0, os.SEEK_END) // 10  # the header alone of a scan; most files need not be read for this
    image.fp.seek(position)
    scans = _content(image).count(b"\xff\xda") if room > allowed else 0
    return scans if scans > allowed else 0


def _content(image: ImageFile.ImageFile) -> bytes:
    """The whole file that an image is being read from."""
    assert image.fp is not None
    position = image.fp.tell()
    image.fp.seek(0)
    content = image.fp.read()
    image.fp.seek(position)
    return content


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # which copies even where nothing changes


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # EXIF that cannot be read says nothing about the pixels, which may be sound
        return 1


def _to_8_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray(_from_integers(np.asarray(image)))
    if image.mode == "F":
        return Image.fromarray(_from_floats(np.asarray(image)))
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None
        return converted
    if image.has_transparency_data:
        rgba = _in_mode(image, "RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, _WHITE), rgba)
    return image


def _from_integers(values: NDArray[np.integer]) -> NDArray[np.uint8]:
    if values.min() < 0 or values.max() > 65535:
        raise _UnknownRangeError("32-bit values outside 0 to 65535: their range is unknown")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _from_floats(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= 255:  # also false for NaN
        raise _UnknownRangeError("float values outside 0 to 255: their range is unknown")
    return np.rint(values * (255 if high <= 1 else 1)).astype(np.uint8)
