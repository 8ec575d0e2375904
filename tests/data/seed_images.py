"""Real images in every format that is read: two photographs and ten digits that scikit-learn brings."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from image_bytes import encoded
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
MAGIC = {
    "JPEG": b"\xff\xd8\xff\xe0",
    "PNG": PNG_MAGIC,
    "WEBP": b"RIFF\x1a\0\0\0WEBPVP8 ",
    "BMP": b"BM",
    "GIF": b"GIF89a",
    "TIFF": b"II*\0\x08\0\0\0",
    "PPM": b"P6\n",
}


class Seed(NamedTuple):
    """A file to start from: its format, what is special about it, and its bytes or where they are."""

    format: str
    kind: str
    source: bytes | Path

    def read(self) -> bytes:
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()


def files_under(folder: Path) -> list[Seed]:
    """Every JPEG and PNG file under a folder, as it is."""
    formats = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in formats)
    return [Seed(formats[path.suffix.lower()], "file", path) for path in paths]


def built_in() -> list[Seed]:
    """Two photographs and some digits that scikit-learn brings, as they are and in all that FORMATS can hold."""
    import sklearn.datasets  # slow, and not needed for other files

    photos = sorted((Path(sklearn.datasets.__file__).parent / "images").glob("*.jpg"))
    whole = [Seed("JPEG", "photo", path.read_bytes()) for path in photos]
    with Image.open(photos[0]) as china, Image.open(photos[1]) as flower:
        frames = [china.resize((60, 40)), flower.resize((60, 40))]
    digits = sklearn.datasets.load_digits().images[:10] * 15
    drawn = [Seed("PNG", "digit", encoded(Image.fromarray(digit.astype(np.uint8)), "PNG")) for digit in digits]
    return whole + drawn + _raster_seeds(frames) + _jpegs(frames) + _pngs(frames[0]) + _handmade(frames[0])


def _saved(image: Image.Image, format: str, kind: str, **options: Any) -> Seed:
    return Seed(format, kind, encoded(image, "MPO" if kind == "mpo" else format, **options))


def _jpegs(frames: list[Image.Image]) -> list[Seed]:
    photo, exif = frames[0], Image.Exif()
    exif[0x0112] = 6
    return [
        _saved(photo, "JPEG", "baseline"),
        _saved(photo, "JPEG", "progressive", progressive=True),
        _saved(photo, "JPEG", "full colour", subsampling=0, optimize=True),
        _saved(photo, "JPEG", "restarts", restart_marker_blocks=2),
        _saved(photo, "JPEG", "rotated", exif=exif),
        _saved(photo.convert("L"), "JPEG", "grey"),
        _saved(photo.convert("CMYK"), "JPEG", "cmyk"),
        _saved(photo, "JPEG", "mpo", save_all=True, append_images=frames[1:]),
    ]


def _pngs(photo: Image.Image) -> list[Seed]:
    deep = np.asarray(photo).astype(">u2") * 257
    exif, xmp = Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x0112] = 6
    xmp.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="8"/>')
    return [
        *(_saved(photo.convert(mode), "PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
        _saved(photo.quantize(16), "PNG", "transparent palette", transparency=3),
        _saved(photo, "PNG", "colour key", transparency=(1, 2, 3)),
        _saved(photo, "PNG", "rotated", exif=exif),
        _saved(photo, "PNG", "rotated in xmp", pnginfo=xmp),
        _saved(Image.fromarray(deep[..., 0].astype("<u2")), "PNG", "16-bit grey"),
        Seed("PNG", "16-bit", _png(deep, interlaced=False)),
        Seed("PNG", "interlaced", _png(np.asarray(photo), interlaced=True)),
        Seed("PNG", "16-bit interlaced", _png(deep, interlaced=True)),
    ]


def _raster_seeds(frames: list[Image.Image]) -> list[Seed]:
    photo, exif = frames[0], Image.Exif()
    exif[0x0112] = 6
    floats = Image.fromarray(np.asarray(photo.convert("L")) / np.float32(255))
    deep = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    packed = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "lzma", "zstd")
    return [
        *(_saved(photo, form, "animated", save_all=True, append_images=frames[1:]) for form in ("GIF", "WEBP", "PNG")),
        _saved(photo, "GIF", "still", interlace=0),
        _saved(photo.quantize(16), "GIF", "transparent", transparency=3, comment=b"a comment"),
        _saved(photo, "WEBP", "lossy", exif=exif),
        _saved(photo, "WEBP", "lossless", lossless=True),
        _saved(photo.convert("RGBA"), "WEBP", "alpha"),
        *(_saved(photo, "TIFF", method, compression=method) for method in packed),
        *(_saved(photo.convert(mode), "TIFF", mode) for mode in ("1", "L", "P", "RGBA", "CMYK")),
        _saved(Image.merge("LAB", photo.split()), "TIFF", "LAB"),  # converted, it would hold a profile with the date
        *(_saved(photo.convert("1"), "TIFF", fax, compression=fax) for fax in ("group3", "group4", "tiff_ccitt")),
        _saved(photo.convert("YCbCr"), "TIFF", "ycbcr", compression="jpeg"),
        _saved(photo, "TIFF", "big", big_tiff=True, exif=exif),
        _saved(photo, "TIFF", "frames", save_all=True, append_images=frames[1:]),
        *(_saved(image, "TIFF", image.mode) for image in (floats, deep, deep.convert("I"))),
        *(_saved(photo.convert(mode), "BMP", mode) for mode in ("1", "L", "P", "RGB", "RGBA")),
        *(_saved(image, "PPM", image.mode) for image in (photo, photo.convert("L"), photo.convert("1"), floats, deep)),
    ]


def _handmade(photo: Image.Image) -> list[Seed]:
    """What Pillow reads and cannot write: the packed BMPs, and PPM in words or of an uncommon depth."""
    grey = photo.convert("L").resize((20, 12))
    rows = [bytes(row) for row in np.asarray(grey)]
    words = " ".join(str(value) for row in rows for value in row).encode()
    return [
        Seed("BMP", "rle8", _bmp(20, 12, 8, b"".join(_runs(row) + b"\0\0" for row in rows) + b"\0\1")),
        Seed("BMP", "rle4", _bmp(20, 12, 4, b"\x0a\x12\0\2\1\0\0\4\x12\x34\0\0" * 12 + b"\0\1")),
        Seed("PPM", "words", b"P2\n# in words\n20 12\n255\n" + words),
        Seed("PPM", "bits", b"P1\n8 2\n0101010110101010"),
        Seed("PPM", "few levels", b"P5 20 12 100\n" + b"".join(rows)),
    ]


def _runs(row: bytes) -> bytes:
    return b"".join(bytes([2, value]) for value in row[::2])


def _bmp(width: int, height: int, bits: int, packed: bytes) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, {8: 1, 4: 2}[bits], len(packed), 0, 0, 2**bits, 0)
    start = 14 + len(header) + 4 * 2**bits
    return b"BM" + struct.pack("<IHHI", start + len(packed), 0, 0, start) + header + bytes(4 * 2**bits) + packed


def _png(image: NDArray[Any], interlaced: bool) -> bytes:
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]  # Adam7
    if not interlaced:
        passes = [(0, 0, 1, 1)]
    rows = b"".join(b"\0" + row.tobytes() for y, x, down, right in passes for row in image[y::down, x::right])
    height, width, _ = image.shape
    header = struct.pack(">IIBBBBB", width, height, 8 * image.itemsize, 2, 0, 0, interlaced)
    return png_file([(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")])


def png_file(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A PNG of these chunks, their check sums right."""
    framed = (struct.pack(">I", len(data)) + kind + data + _crc(kind + data) for kind, data in chunks)
    return PNG_MAGIC + b"".join(framed)


def _crc(content: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(content))
