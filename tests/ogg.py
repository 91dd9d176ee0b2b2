"""Ogg pages (RFC 3533), for files that no muxer writes."""

import struct
from dataclasses import dataclass, replace

CONTINUED, FIRST, LAST = 1, 2, 4
_TABLE = []
for _byte in range(256):
    _value = _byte << 24
    for _ in range(8):
        _value = (_value << 1) ^ (0x04C11DB7 if _value & 0x80000000 else 0)
    _TABLE.append(_value & 0xFFFFFFFF)


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
        checksum = 0
        for byte in head + bytes(4) + rest:
            checksum = (checksum << 8 & 0xFFFFFFFF) ^ _TABLE[checksum >> 24 ^ byte]
        return head + struct.pack("<I", checksum) + rest


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
