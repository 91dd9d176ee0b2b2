"""Files that end too early, by what their containers say of themselves."""

import os

LARGEST_PAGE = 27 + 255 + 255 * 255  # bytes of an Ogg page (RFC 3533)
MOST_BOXES = 1000
# What an MP4 or QuickTime file begins with (ISO/IEC 14496-12; QuickTime's own first).
FIRST_BOXES = frozenset({b"ftyp", b"mdat", b"wide", b"free", b"skip", b"styp", b"pnot", b"uuid"})


def ends_within_page(path: str) -> bool:
    """Whether the last page of an Ogg file has fewer bytes than its header says.

    A file that was cut off between two pages shows no such thing. That its last page is not marked as one proves nothing:
    recordings of broadcasts have no such mark either.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        file.seek(max(0, size - LARGEST_PAGE - 27))
        end = file.read()
    at = end.rfind(b"OggS\0")
    if at < 0:
        return False
    head = end[at : at + 27]
    lacing = end[at + 27 : at + 27 + head[26]] if len(head) == 27 else b""
    return len(head) < 27 or len(lacing) < head[26] or at + 27 + len(lacing) + sum(lacing) > len(end)


def lacks_index(descriptor: int) -> bool:
    """Whether an open file is an MP4 or QuickTime file without `moov`, which says where its samples are.

    It stands at the end of files that were written in one go, so a recording that broke off has none.
    """
    size, at = os.fstat(descriptor).st_size, 0
    for number in range(MOST_BOXES):
        head = os.pread(descriptor, 16, at)
        length, name = int.from_bytes(head[:4], "big"), head[4:8]
        if number == 0 and name not in FIRST_BOXES:
            return False
        if name == b"moov":
            return at + length > size
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0: up to the end of the file
            return number > 0
        at += length
        if at >= size:
            return True
    return False
