"""Ogg pages (RFC 3533), for files that no muxer writes."""

import struct
from dataclasses import dataclass, replace

from signals import crc

LAST = 4  # flag of a stream's last page


@dataclass(frozen=True)
class Page:
    """One page: flags, position of its last sample, number of the stream, number of the page, lengths, contents."""

    flags: int
    granule: int
    serial: int
    number: int
    lacing: bytes
    body: bytes

    def packed(self) -> bytes:
        """The page's bytes, with a checksum that is right."""
        head = struct.pack("<4sBBqII", b"OggS", 0, self.flags, self.granule, self.serial, self.number)
        rest = bytes([len(self.lacing)]) + self.lacing + self.body
        return head + struct.pack("<I", crc(head + bytes(4) + rest, 0x04C11DB7, 32)) + rest


def pages(data: bytes) -> list[Page]:
    """The pages of a file."""
    found, at = [], 0
    while at < len(data):
        magic, _, flags, granule, serial, number, _, count = struct.unpack_from("<4sBBqIIIB", data, at)
        assert magic == b"OggS"
        lacing = data[at + 27 : at + 27 + count]
        begin = at + 27 + count
        at = begin + sum(lacing)
        found.append(Page(flags, granule, serial, number, lacing, data[begin:at]))
    return found


def joined(parts: list[Page]) -> bytes:
    """A file of pages, numbered anew."""
    return b"".join(replace(page, number=number).packed() for number, page in enumerate(parts))
