"""Forms of several files, read as they arrive, in bounded memory. What the client calls its files is not looked at."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from residuum.errors import printable
from residuum.inference.serve.problems import Problem

_ENCODED_NAME = re.compile(rb";\s*filename\*", re.IGNORECASE)  # which the parser leaves out
_LONGEST_FIELD, _MOST_FIELDS = 1024, 16  # bytes of a value that is no file; how many of those


@dataclass
class _Part:
    name: str
    is_file: bool
    content: bytearray = field(default_factory=bytearray)


class Form:
    """What a multipart body holds: `files` in order, whatever their fields are called, and the other `fields`.

    Fed with `write` until `finish`. Raises Problem for what is no such form, and for more files than `most`.
    """

    def __init__(self, content_type: str, most: int) -> None:
        _, options = parse_options_header(content_type)
        if not options.get(b"boundary"):
            raise Problem(400, "the Content-Type of the form names no boundary; let your HTTP client write that header")
        self.files: list[bytes] = []
        self.fields: dict[str, str] = {}
        self._most = most
        self._part: _Part | None = None
        self._name, self._value, self._disposition = bytearray(), bytearray(), b""
        self._ended = False
        with _refusing():
            self._parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._header_name,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._data,
                    "on_part_end": self._end,
                    "on_end": self._finished,
                },
            )

    def write(self, chunk: bytes) -> None:
        with _refusing():
            self._parser.write(chunk)

    def finish(self) -> None:
        with _refusing():
            self._parser.finalize()
        if not self._ended:
            raise Problem(400, "the form ends before its last boundary; send it again whole")

    def _begin(self) -> None:
        self._disposition = b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        self._part = _Part(name, is_file=b"filename" in options or bool(_ENCODED_NAME.search(self._disposition)))
        if self._part.is_file and len(self.files) == self._most:
            raise Problem(413, f"more than {self._most} images in one request; send them in several")
        if not self._part.is_file and len(self.fields) == _MOST_FIELDS:
            raise Problem(400, f"more than {_MOST_FIELDS} fields that are no files; send each file with a filename")
        if not self._part.is_file and name in self.fields:
            raise Problem(
                422, f"the field {printable(name, 40)} is there twice; send it once, and files with a filename"
            )

    def _data(self, data: bytes, start: int, end: int) -> None:
        assert self._part is not None
        self._part.content += data[start:end]
        if not self._part.is_file and len(self._part.content) > _LONGEST_FIELD:
            name = printable(self._part.name, 40)
            raise Problem(400, f"the field {name} is long, and no file; send an image with a filename")

    def _end(self) -> None:
        part, self._part = self._part, None
        assert part is not None
        if part.is_file:
            self.files.append(bytes(part.content))
        else:
            self.fields[part.name] = part.content.decode("utf-8", "replace")

    def _finished(self) -> None:
        self._ended = True


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except FormParserError as error:
        raise Problem(400, f"the body is no multipart form ({printable(str(error))}); see /openapi.json") from None
