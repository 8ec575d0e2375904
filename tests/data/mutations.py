"""Ways to break the bytes of image files; case number i is a function of (files, seed, i) alone."""

import re
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from seed_images import PNG_MAGIC, Seed, png_file

EXTREMES = {  # by width in bytes: what breaks arithmetic, and around 13,377, whose square is all but MAX_PIXELS
    1: (0, 1, 0x7F, 0x80, 0xFF),
    2: (0, 1, 0xFF, 0x100, 13_377, 0x7FFF, 0x8000, 0xFFFF),
    4: (0, 1, 0xFF, 13_377, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF),
}
CODES = {1: "B", 2: "H", 4: "I"}


class Draw:
    """Random choices from one Philox stream a case; its raw words are the same in every version of NumPy."""

    def __init__(self, seed: int, case: int) -> None:
        self._next = np.random.Philox(key=np.array([seed, case], np.uint64)).random_raw

    def below(self, limit: int) -> int:
        """0 to limit - 1; 0 where there is nothing to choose from."""
        return int(self._next()) % max(1, limit)

    def of(self, choices: Sequence[Any]) -> Any:
        return choices[self.below(len(choices))]

    def place(self, length: int) -> int:
        """An offset; every second one in the first kB, where the headers are."""
        return self.below(min(length, 1024) if self.below(2) else length)

    def size(self, longest: int) -> int:
        """1 to `longest`, the short ones much the likelier."""
        return 1 + self.below(2 ** self.below(max(1, longest).bit_length()))


# ---- The parts of a file ----


def png_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """(type, data) of each chunk, as far as they can be followed."""
    chunks, at = [], len(PNG_MAGIC)
    while at + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        chunks.append((bytes(content[at + 4 : at + 8]), bytes(content[at + 8 : at + 8 + length])))
        at += 12 + length
    return chunks


def jpeg_segments(content: bytes) -> list[bytes]:
    """The marker segments of a JPEG, each from its 0xFF on; what follows a scan's header up to the next is its part."""
    starts = [marker.start() for marker in _MARKER.finditer(content)]
    return [content[start:end] for start, end in zip(starts, [*starts[1:], len(content)], strict=True)]


_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")  # all but the restarts in a scan


def header_fields(content: bytes) -> list[tuple[int, str]]:
    """(offset, struct code) of the integers in the header that tell dimensions, lengths and offsets."""
    match content[:4]:
        case b"\x89PNG":
            return [(8, ">I"), (16, ">I"), (20, ">I"), (24, "B"), (25, "B"), (28, "B")]
        case b"GIF8":
            return [
                (6, "<H"),
                (8, "<H"),
                (10, "B"),
                *_after(content, b",", [(1, "<H"), (3, "<H"), (5, "<H"), (7, "<H")]),
            ]
        case b"RIFF":
            vp8 = [(4, "<I"), (14, "<H"), (16, "<H"), (9, "<I"), (12, "<I")]
            return [(4, "<I"), (16, "<I"), (24, "<H"), (27, "<H"), *_after(content, b"VP8", vp8)]
        case b"II*\0" | b"II+\0":
            return _directory(content, "<")
        case b"MM\0*" | b"MM\0+":
            return _directory(content, ">")
    if content.startswith(b"BM"):
        return [(at, "<I") for at in (2, 10, 14, 18, 22, 30, 34, 46)] + [(28, "<H")]
    if content.startswith(b"\xff\xd8"):
        return _jpeg_fields(content)
    return []


def _after(content: bytes, mark: bytes, fields: list[tuple[int, str]]) -> list[tuple[int, str]]:
    at = content.find(mark, 12)
    return [(at + offset, code) for offset, code in fields] if at >= 0 else []


def _directory(content: bytes, order: str) -> list[tuple[int, str]]:
    """The tags of a TIFF's first directory: type, count and value of each."""
    if len(content) < 8:
        return []
    (at,) = struct.unpack_from(order + "I", content, 4)
    (tags,) = struct.unpack_from(order + "H", content, at) if at + 2 <= len(content) else (0,)
    entries = range(at + 2, min(at + 2 + 12 * tags, len(content)), 12)
    return [
        (entry + offset, order + code) for entry in entries for offset, code in ((2, "H"), (4, "I"), (8, "I"), (8, "H"))
    ]


def _jpeg_fields(content: bytes) -> list[tuple[int, str]]:
    fields, at = [], 0
    for segment in jpeg_segments(content):
        if segment[1] not in (0xD8, 0xD9):
            fields.append((at + 2, ">H"))
        if 0xC0 <= segment[1] <= 0xCF and segment[1] not in (0xC4, 0xC8, 0xCC):
            fields += [(at + 5, ">H"), (at + 7, ">H"), (at + 9, "B"), (at + 11, "B")]
        at += len(segment)
    return fields


# ---- Mutations: (draw, content, another file) -> content ----


def flip_bit(draw: Draw, content: bytes, other: bytes) -> bytes:
    return _overwrite(content, at := draw.place(len(content)), bytes([content[at] ^ 1 << draw.below(8)]))


def overwrite(draw: Draw, content: bytes, other: bytes) -> bytes:
    return _overwrite(content, draw.place(len(content)), _noise(draw))


def insert(draw: Draw, content: bytes, other: bytes) -> bytes:
    at = draw.place(len(content))
    return content[:at] + _noise(draw) + content[at:]


def truncate(draw: Draw, content: bytes, other: bytes) -> bytes:
    return content[: 1 + draw.place(len(content))]


def delete(draw: Draw, content: bytes, other: bytes) -> bytes:
    at = draw.place(len(content))
    return content[:at] + content[at + draw.size(len(content)) :]


def duplicate(draw: Draw, content: bytes, other: bytes) -> bytes:
    at, to = draw.place(len(content)), draw.place(len(content))
    block = content[at : at + draw.size(4096)]
    return content[:to] + block * draw.size(16) + content[to:]


def splice(draw: Draw, content: bytes, other: bytes) -> bytes:
    return content[: draw.place(len(content))] + other[draw.place(len(other)) :]


def transplant(draw: Draw, content: bytes, other: bytes) -> bytes:
    start = draw.place(len(other))
    return _overwrite(content, draw.place(len(content)), other[start : start + draw.size(4096)])


def write_extreme(draw: Draw, content: bytes, other: bytes) -> bytes:
    width = draw.of((1, 2, 4))
    value = struct.pack(draw.of("<>") + CODES[width], draw.of(EXTREMES[width]))
    return _overwrite(content, draw.place(len(content)), value)


def write_header_extreme(draw: Draw, content: bytes, other: bytes) -> bytes:
    """One to three of the header's own numbers, among them its dimensions: the bombs."""
    for _ in range(draw.size(3)):
        if not (fields := header_fields(content)):
            return _replace_number(draw, content)
        at, code = draw.of(fields)
        value = struct.pack(code, draw.of(EXTREMES[struct.calcsize(code)]))
        content = _overwrite(content, min(at, len(content)), value)
    return content


def break_png_chunk(draw: Draw, content: bytes, other: bytes) -> bytes:
    """Change, remove, repeat, move, rename or bring in a chunk."""
    chunks = png_chunks(content)
    if not content.startswith(PNG_MAGIC) or not chunks:
        return write_header_extreme(draw, content, other)
    at, to = draw.below(len(chunks)), draw.below(len(chunks))
    kind, data = chunks[at]
    match draw.below(6):
        case 0:
            del chunks[at]
        case 1:
            chunks[to:to] = [(kind, data)] * draw.size(64)
        case 2:
            chunks[at], chunks[to] = chunks[to], chunks[at]
        case 3:
            chunks[to:to] = png_chunks(other)[1:-1] if other.startswith(PNG_MAGIC) else [(b"eXIf", other[:99])]
        case 4:
            chunks[at] = (draw.of((b"PLTE", b"tRNS", b"iCCP", b"zTXt", b"acTL", b"fcTL", b"fdAT", b"eXIf")), data)
        case _:
            chunks[at] = (kind, draw.of(ANYWHERE)(draw, data or b"\0", other))
    return png_file(chunks)


def break_png_pixels(draw: Draw, content: bytes, other: bytes) -> bytes:
    """Change the pixels before they are compressed: filters that do not exist, too many rows and too few."""
    chunks = png_chunks(content)
    try:
        pixels = zlib.decompress(b"".join(data for kind, data in chunks if kind == b"IDAT"))
    except zlib.error:
        return break_png_chunk(draw, content, other)
    pixels = draw.of(ANYWHERE)(draw, pixels or b"\0", other)
    at = [kind for kind, _ in chunks].index(b"IDAT")
    rest = [chunk for chunk in chunks if chunk[0] != b"IDAT"]
    return png_file([*rest[:at], (b"IDAT", zlib.compress(pixels, 1)), *rest[at:]])


def break_jpeg_segment(draw: Draw, content: bytes, other: bytes) -> bytes:
    """Change, remove, repeat, move or rename a marker segment."""
    segments = jpeg_segments(content) if content.startswith(b"\xff\xd8") else []
    if len(segments) < 3:
        return write_header_extreme(draw, content, other)
    at, to = 1 + draw.below(len(segments) - 1), 1 + draw.below(len(segments) - 1)
    match draw.below(6):
        case 0:
            del segments[at]
        case 1:
            segments[to:to] = [segments[at][:4096]] * draw.size(64)
        case 2:
            segments[at], segments[to] = segments[to], segments[at]
        case 3:
            segments[at] = b"\xff" + bytes([0xC0 + draw.below(0x3F)]) + segments[at][2:]
        case 4:
            segments[at] = b"\xff" + segments[at][1:2] + draw.of(ANYWHERE)(draw, segments[at][2:] or b"\0", other)
        case _:
            segments[to:to] = [draw.of(jpeg_segments(other)) if other.startswith(b"\xff\xd8") else other[:99]]
    return b"".join(segments)


def _replace_number(draw: Draw, content: bytes) -> bytes:
    """PPM writes its numbers in words."""
    words = content[:40].split(b" ") if b" " in content[:40] else content[:40].split(b"\n")
    words[draw.below(len(words))] = str(draw.of((0, 1, 65535, 65536, 13_377, 2**31, -1, 10**30, 0.5))).encode()
    return b" ".join(words) + content[40:]


def _overwrite(content: bytes, at: int, value: bytes) -> bytes:
    return content[:at] + value + content[at + len(value) :]


def _noise(draw: Draw) -> bytes:
    return bytes(draw.below(256) for _ in range(draw.size(16)))


Mutation = Callable[[Draw, bytes, bytes], bytes]
ANYWHERE: tuple[Mutation, ...] = (
    flip_bit,
    overwrite,
    insert,
    truncate,
    delete,
    duplicate,
    splice,
    transplant,
    write_extreme,
)
STRUCTURED: tuple[Mutation, ...] = (write_header_extreme, break_png_chunk, break_png_pixels, break_jpeg_segment)


def mutated(seeds: Sequence[Seed], seed: int, case: int) -> tuple[Seed, bytes]:
    """Case number `case` over these files: the one that it began as, and one to four mutations later its bytes.

    In most PNGs the check sums are put right at the end, without which no mutation would get far.
    """
    draw = Draw(seed, case)
    start, other = draw.of(seeds), draw.of(seeds).read()
    content = start.read()
    for _ in range(draw.size(4)):
        content = draw.of(draw.of((ANYWHERE, STRUCTURED)))(draw, content or b"\0", other)
    if content.startswith(PNG_MAGIC) and draw.below(4):
        content = png_file(png_chunks(content))  # so that the broken chunks are believed
    return start, content
