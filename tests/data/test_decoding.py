import os
import pickle
import struct
import subprocess
import sys
import time
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_bytes import encoded
from PIL import Image, PngImagePlugin

from residuum.data.decoding import MAX_PIXELS, MAX_SCANNED_PIXELS, BadImage, decode, probe

# pytest puts its own list of filters in the place of ours
pytestmark = pytest.mark.filterwarnings("ignore::Warning:PIL.TiffImagePlugin", "ignore::Warning:PIL.Image")

RAMP = np.linspace(0, 255, 48).reshape(6, 8)  # height 6, width 8
GREY = Image.fromarray(RAMP.astype(np.uint8))
COLOUR = Image.merge("RGB", [GREY, GREY.transpose(Image.Transpose.ROTATE_180), Image.new("L", (8, 6), 90)])


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 100) + b"IDAT"


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats_give_the_pixels_that_were_saved(kind: str) -> None:
    content = encoded(COLOUR, kind, **({"lossless": True} if kind == "WEBP" else {}))
    np.testing.assert_array_equal(decode(content, "x", 3), np.asarray(COLOUR))
    assert probe(content, "x") == (8, 6, "RGB")


def test_file_and_its_bytes_decode_alike_whatever_the_file_is_called(tmp_path: Path) -> None:
    (tmp_path / "really_a_png.jpg").write_bytes(encoded(COLOUR, "PNG"))
    np.testing.assert_array_equal(decode(tmp_path / "really_a_png.jpg", "x", 3), np.asarray(COLOUR))


def test_grey_is_repeated_in_three_channels_and_colour_becomes_its_luma_in_one() -> None:
    np.testing.assert_array_equal(decode(encoded(GREY, "PNG"), "x", 1)[..., 0], np.asarray(GREY))
    np.testing.assert_array_equal(decode(encoded(GREY, "PNG"), "x", 3), np.stack([np.asarray(GREY)] * 3, 2))
    np.testing.assert_array_equal(decode(encoded(COLOUR, "PNG"), "x", 1)[..., 0], np.asarray(COLOUR.convert("L")))


def test_result_is_writable_and_contiguous() -> None:
    image = decode(encoded(COLOUR, "PNG"), "x", 3)
    assert image.flags.writeable
    assert image.flags.c_contiguous
    assert image.dtype == np.uint8


def test_one_bit_image_is_black_and_white() -> None:
    image = decode(encoded(GREY.convert("1"), "PNG"), "x", 1)
    assert set(np.unique(image)) == {0, 255}


def test_palette_gives_its_colours() -> None:
    palette = COLOUR.quantize(16)
    np.testing.assert_array_equal(decode(encoded(palette, "PNG"), "x", 3), np.asarray(palette.convert("RGB")))


def test_transparent_palette_entry_becomes_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 100, 0])
    image.putpixel((1, 0), 1)
    assert decode(encoded(image, "PNG", transparency=0), "x", 3).tolist() == [[[255, 255, 255], [0, 100, 0]]]


def test_alpha_is_composited_over_white() -> None:
    image = Image.new("RGBA", (2, 1), (200, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 51))  # a fifth of black over white
    assert decode(encoded(image, "PNG"), "x", 3).tolist() == [[[200, 0, 0], [204, 204, 204]]]
    grey = Image.new("LA", (1, 1), (0, 0))
    assert decode(encoded(grey, "PNG"), "x", 1).tolist() == [[[255]]]


def test_transparent_colour_key_becomes_white() -> None:
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    decoded = decode(encoded(image, "PNG", transparency=(1, 2, 3)), "x", 3)
    assert decoded.tolist() == [[[255, 255, 255], [9, 9, 9]]]


def test_cmyk_jpeg_keeps_its_colours() -> None:
    content = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")
    assert probe(content, "x").mode == "CMYK"
    red, green, blue = decode(content, "x", 3)[0, 0].tolist()
    assert red > 245
    assert max(green, blue) < 10


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_peers_6_sixteen_bit_grey_is_scaled_not_clipped_to_white(kind: str) -> None:
    levels = np.rint(RAMP * 257).astype(np.uint16)
    content = encoded(Image.fromarray(levels), kind)
    assert probe(content, "x").mode.startswith("I;16")
    np.testing.assert_array_equal(decode(content, "x", 1)[..., 0], np.rint(levels / 257))


def test_peers_6_big_endian_and_32_bit_holders_of_16_bit_grey_are_scaled_too() -> None:
    levels = np.rint(RAMP * 257)
    for content in (
        encoded(Image.fromarray(levels.astype(">u2")), "TIFF"),
        encoded(Image.fromarray(levels.astype(np.int32)), "TIFF"),
        encoded(Image.fromarray(levels.astype(np.int32)), "PPM"),
    ):
        np.testing.assert_array_equal(decode(content, "x", 1)[..., 0], np.rint(levels / 257))


def test_integers_beyond_16_bits_are_refused() -> None:
    content = encoded(Image.fromarray(np.array([[0, 70_000]], np.int32)), "TIFF")
    with pytest.raises(BadImage, match="range is unknown"):
        decode(content, "x", 1)


def test_floats_are_read_as_unit_or_byte_range_and_refused_outside() -> None:
    for scale in (1, 255):
        content = encoded(Image.fromarray((RAMP / 255 * scale).astype(np.float32)), "TIFF")
        np.testing.assert_allclose(decode(content, "x", 1)[..., 0], RAMP, atol=0.51)
    for outside in (-1.0, 300.0, float("nan")):
        content = encoded(Image.fromarray(np.array([[0.0, outside]], np.float32)), "TIFF")
        with pytest.raises(BadImage, match="range is unknown"):
            decode(content, "x", 1)


def test_ycbcr_and_lab_become_rgb() -> None:
    ycbcr = Image.new("YCbCr", (16, 16), (100, 100, 200))
    content = encoded(ycbcr, "TIFF", compression="tiff_lzw")
    np.testing.assert_allclose(decode(content, "x", 3)[0, 0], ycbcr.convert("RGB").getpixel((0, 0)), atol=1)
    lab = Image.merge("LAB", [Image.new("L", (4, 4), level) for level in (255, 128, 128)])
    assert decode(encoded(lab, "TIFF"), "x", 3).min() > 250  # lightness 100, no colour: white


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_peers_6_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    upright = Image.new("RGB", (32, 16), "white")
    upright.paste("black", (0, 0, 8, 8))  # the dark corner is top left when seen the right way round
    stored = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(upright if stored is None else upright.transpose(stored), kind, exif=exif)
    image = decode(content, "x", 1)[..., 0]
    assert image.shape == (16, 32)
    assert image[:6, :6].max() < 40
    assert image[:, 10:].min() > 215
    assert probe(content, "x")[:2] == (32, 16)


def chunks_behind_the_pixels(png: bytes, kind: bytes) -> bytes:
    start = png.index(kind) - 4
    (length,) = struct.unpack_from(">I", png, start)
    chunk, end = png[start : start + 12 + length], png.index(b"IEND") - 4
    return png[:start] + png[start + len(chunk) : end] + chunk + png[end:]


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("kind", [b"eXIf", b"iTXt"])
def test_png_turned_by_exif_or_xmp_anywhere_is_of_the_size_that_probe_tells(kind: bytes, behind: bool) -> None:
    exif, xmp = Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x0112] = 6
    xmp.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    content = encoded(COLOUR, "PNG", **({"exif": exif} if kind == b"eXIf" else {"pnginfo": xmp}))
    if behind:
        content = chunks_behind_the_pixels(content, kind)
    turned = np.asarray(COLOUR.transpose(Image.Transpose.ROTATE_270))
    np.testing.assert_array_equal(decode(content, "x", 3), turned)
    assert probe(content, "x") == (6, 8, "RGB")


def test_last_exif_of_a_png_counts_for_probe_as_for_decode() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(COLOUR, "PNG", exif=exif)
    start, end = content.index(b"eXIf") - 4, content.index(b"IEND") - 4
    upright = b"eXIf" + content[start + 8 : content.index(b"IDAT") - 8].replace(b"\0\6", b"\0\1")
    chunk = struct.pack(">I", len(upright) - 4) + upright + struct.pack(">I", zlib.crc32(upright))
    assert decode(content[:end] + chunk + content[end:], "x", 3).shape == (6, 8, 3)
    assert probe(content[:end] + chunk + content[end:], "x") == (8, 6, "RGB")


def test_probe_of_an_ordinary_png_leaves_its_pixels_alone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    for options in ({}, {"exif": exif}):
        content = encoded(Image.new("L", (3000, 3000)), "PNG", **options)
        seconds = []
        for read in (lambda content: probe(content, "x"), lambda content: decode(content, "x", 1)):
            began = time.process_time()
            read(content)
            seconds.append(time.process_time() - began)
        assert seconds[0] < seconds[1] / 4


def test_unreadable_exif_leaves_the_image_as_it_is() -> None:
    content = encoded(COLOUR, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage")
    np.testing.assert_array_equal(decode(content, "x", 3), np.asarray(COLOUR))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    red, green, blue = decode(content, "x", 3)[4, 4].tolist()
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM"])
def test_peers_7_truncated_file_is_refused_by_name(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    with pytest.raises(BadImage, match=r"^cat/7: "):
        decode(content[: len(content) // 2], "cat/7", 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<html>404</html>", "not an image"),
        (png_header(30_000, 30_000), "pixels"),
        (png_header(0, 5), "not an image|damaged"),
        (encoded(GREY, "PNG")[:20], "truncated"),
    ],
    ids=["empty", "html", "bomb", "no width", "cut header"],
)
def test_peers_7_what_is_no_image_is_refused_with_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "cat.png").write_bytes(content)
    for source in (content, tmp_path / "cat.png"):
        for read in (lambda source: decode(source, "cat.png", 3), lambda source: probe(source, "cat.png")):
            with pytest.raises(BadImage, match=rf"^cat.png: .*({reason})"):
                read(source)


def test_bomb_is_told_by_its_header_at_the_limit() -> None:
    width = 10_000
    assert probe(png_header(width, MAX_PIXELS // width), "x").width == width
    with pytest.raises(BadImage, match="178,956,970 pixels"):
        probe(png_header(width, MAX_PIXELS // width + 1), "x")


def packed_bmp(width: int, height: int, packed: bytes) -> bytes:
    """8 bits a pixel in grey, run-length coded, which Pillow reads and cannot write."""
    palette = b"".join(bytes([level, level, level, 0]) for level in range(256))
    start = 14 + 40 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(packed), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(packed), 0, 0, start) + header + palette + packed


def test_run_length_bmp_is_read() -> None:
    levels = np.repeat(np.arange(12, dtype=np.uint8).reshape(3, 4), 2, axis=1)
    rows = [b"".join(bytes([2, level]) for level in row[::2]) + b"\0\0" for row in levels[::-1]]  # from the bottom up
    decoded = decode(packed_bmp(8, 3, b"".join(rows) + b"\0\1"), "x", 1)
    np.testing.assert_array_equal(decoded[..., 0], levels)


def test_tiny_bmp_of_giant_lines_is_refused_at_once() -> None:
    side = 13_000
    content = packed_bmp(side, side, b"\1\1\0\0" * side)  # 53 kB: a pixel and the end of the line, in every line
    began = time.process_time()
    with pytest.raises(BadImage, match="more than 8,388,608 pixels in a coding that is slow to read"):
        decode(content, "x", 3)
    assert time.process_time() - began < 2  # it took 16 s
    assert probe(content, "x").width == side


def progressive_jpeg(side: int, passes: int) -> bytes:
    """`passes` refinement scans of a few bytes each, in which whole runs of blocks are told to stay as they are."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    content = encoded(noise, "JPEG", progressive=True)
    frame, scan = content.index(b"\xff\xc2"), content.index(b"\xff\xda")
    head = content[: frame + 5] + struct.pack(">HH", side, side) + content[frame + 9 : scan]
    table = b"\xff\xc4\0\x14\x10\1" + bytes(15) + b"\xe0"  # AC code "0": 2^14 blocks and as many as 14 bits tell
    runs = (side // 8 + 1) ** 2 // 32_767 + 1
    bits = ("0" + "1" * 14) * runs
    data = int(bits + "1" * (-len(bits) % 8), 2).to_bytes(-(-len(bits) // 8), "big").replace(b"\xff", b"\xff\0")
    direct, first, refined = (b"\xff\xda\0\x08\1\1\0" + tail for tail in (b"\0\0\1", b"\1\x3f\1", b"\1\x3f\x10"))
    return head + direct + b"\0" + table + first + data + (refined + data) * passes + b"\xff\xd9"


def test_jpeg_of_some_scans_is_read_and_one_of_thousands_over_many_pixels_refused() -> None:
    assert decode(progressive_jpeg(1600, 100), "x", 1).shape == (1600, 1600, 1)
    began = time.process_time()
    content = progressive_jpeg(1600, 20_000)  # 320 kB, and it took 18 s
    with pytest.raises(BadImage, match=r"20,00\d scans over the same 2,560,000 pixels"):
        decode(content, "x", 1)
    assert time.process_time() - began < 2
    assert probe(content, "x").width == 1600


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_ordinary_progressive_jpeg_of_the_largest_size_is_within_the_scans_allowed(mode: str) -> None:
    scans = encoded(Image.new(mode, (64, 64)), "JPEG", progressive=True).count(b"\xff\xda")
    assert 1 < scans <= MAX_SCANNED_PIXELS // MAX_PIXELS


def test_eps_is_not_read_since_it_would_start_a_program() -> None:
    with pytest.raises(BadImage, match="not an image"):
        decode(encoded(COLOUR, "EPS"), "x", 3)


def test_folder_missing_file_and_pipe_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, reason in (
        ("", "a folder"),
        ("none", "no such file"),
        ("pipe", "regular"),
        ("loop", "damaged"),
    ):
        with pytest.raises(BadImage, match=reason):
            decode(tmp_path / name, "x", 3)


def test_bad_image_survives_the_way_between_processes() -> None:
    bad = pickle.loads(pickle.dumps(BadImage("cat/1.png", "truncated")))
    assert (bad.name, bad.reason, str(bad)) == ("cat/1.png", "truncated", "cat/1.png: truncated")


def test_no_warning_is_printed(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(9_500, 9_500))  # where Pillow would warn
    palette = GREY.convert("P")
    (tmp_path / "palette.png").write_bytes(encoded(palette, "PNG", transparency=bytes(range(256))))
    (tmp_path / "cut.tiff").write_bytes(encoded(COLOUR, "TIFF")[:-9])
    samples = encoded(COLOUR, "TIFF").replace(struct.pack("<HHIH", 277, 3, 1, 3), struct.pack("<HHIH", 277, 3, 1, 99))
    (tmp_path / "samples.tiff").write_bytes(samples)
    program = """
import sys
from pathlib import Path
from residuum.data.decoding import BadImage, decode
for path in sys.argv[1:]:
    try:
        decode(Path(path), path, 3)
    except BadImage:
        pass
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, tmp_path.iterdir())], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


_SEEDS = [
    encoded(COLOUR, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
    encoded(COLOUR, "PNG"),
    encoded(COLOUR.quantize(16), "PNG", transparency=3),
    encoded(COLOUR, "TIFF", compression="tiff_lzw"),
    encoded(COLOUR, "TIFF"),
    encoded(COLOUR, "GIF"),
    encoded(COLOUR, "WEBP"),
    encoded(COLOUR, "BMP"),
    encoded(COLOUR, "PPM"),
    encoded(Image.fromarray(np.rint(RAMP * 257).astype(np.uint16)), "PNG"),
]


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(_SEEDS),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8),
    st.floats(0, 1),
    st.sampled_from([1, 3]),
)
def test_peers_7_mutated_bytes_give_an_image_or_a_refusal(
    content: bytes, changes: list[tuple[float, int]], kept: float, channels: int
) -> None:
    mutated = bytearray(content[: round(len(content) * kept)] if kept < 0.9 else content)
    for place, value in changes:
        if mutated:
            mutated[int(place * len(mutated))] = value
    for read in (lambda: decode(bytes(mutated), "x", channels), lambda: probe(bytes(mutated), "x")):
        with suppress(BadImage):
            result = read()
            assert not isinstance(result, np.ndarray) or result.shape[2] == channels
