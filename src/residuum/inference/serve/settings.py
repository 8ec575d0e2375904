"""What a server allows, and how long it waits."""

import math
from dataclasses import dataclass

from residuum.errors import UserError
from residuum.processor import cores

MIB = 2**20


@dataclass(frozen=True)
class Settings:
    """The limits of a server. Raises UserError for those that contradict each other.

    Of a request: body_bytes, images, body_seconds to send them in, and deadline in seconds from there to the answer.
    Of an image: pixels and frames, both told by its header; decode_seconds and decode_memory in bytes, past which
    decoding it is given up.
    Of a connection: patience, seconds for which it may stay without a whole header, or with an answer unread. Of the
    server: connections at once; requests at once, held_bytes of bodies at once and queue of images not yet answered,
    past which it answers 429; batch images computed together; decoders, processes that decode; grace, seconds for which
    it still answers after it was told to stop; watch, seconds between looks at the models' files, 0 for never.
    """

    body_bytes: int = 32 * MIB
    images: int = 32
    body_seconds: float = 30.0
    deadline: float = 10.0
    pixels: int = 50_000_000
    frames: int = 1_000
    decode_seconds: float = 10.0
    decode_memory: int = 3 * 2**30
    patience: float = 20.0
    connections: int = 512
    requests: int = 128
    held_bytes: int = 512 * MIB
    queue: int = 128
    batch: int = 32
    decoders: int = max(1, min(8, cores() - 1))
    grace: float = 2.0
    watch: float = 2.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < math.inf or (value == 0 and name not in ("grace", "watch")):
                raise UserError(f"{name} is {value}; it is a number above 0")
        if self.images > self.queue:
            raise UserError(f"{self.images} images a request do not fit in a queue of {self.queue}; make it longer")
        if self.body_bytes > self.held_bytes:
            raise UserError(f"a body of {self.body_bytes:,} bytes is more than the {self.held_bytes:,} held at once")
