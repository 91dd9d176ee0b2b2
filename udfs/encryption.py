"""Tells that a track is encrypted: what FFmpeg has no key for it decodes to noise, or passes over without a word.

Packaged titles of streaming services, cinema packages, recordings off air and protected downloads hold their sound so. As
noise at full scale it would be hiss from end to end.
"""

import os
from collections.abc import Collection
from typing import BinaryIO

import av
import numpy as np

HEAD_BYTES = 1 << 20  # where a file's headers are looked for
# SMPTE ST 429-6: the key of an encrypted element, and of the set in the header that says how; the seventh byte is a version.
_MXF_KEYS = (
    bytes.fromhex("060e2b34020401"),
    bytes.fromhex("0d010301027e0100"),
    bytes.fromhex("060e2b34025301"),
    bytes.fromhex("0d01040102020000"),
)
_ASF_OBJECTS = (  # content encryption, the plain and the extended
    bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"),
    bytes.fromhex("14e68a292226174cb935dae07ee9289c"),
)
_MP4_ENTRIES = {"drms": "FairPlay", "aavd": "Audible"}  # of ISO/IEC 23001-7, which has "enca", the packets tell
_TS_PACKETS = (188, 192, 204)  # bytes: plain, with a time code (M2TS), with Reed-Solomon bytes
_TS_WINDOW = 1000  # packets read at a place
_TS_WINDOWS = 64  # places in a file: 12 MB at most


def scheme_of(path: str, container: str, stream: av.audio.stream.AudioStream) -> str | None:
    """What a track is encrypted with by the word of the file's headers; None where they know of nothing.

    Args:
        path: the file.
        container: short name of its demuxer.
        stream: the track.
    """
    if container == "mov":
        codec = stream.codec_context
        return _MP4_ENTRIES.get(codec.codec_tag) if codec is not None else None
    if container == "matroska":
        return "ContentEncryption" if "enc_key_id" in {name.lower() for name in stream.metadata} else None
    if container not in ("mxf", "asf"):
        return None
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if container == "asf":
        return "Windows Media DRM" if any(guid in head for guid in _ASF_OBJECTS) else None
    for first, last in zip(_MXF_KEYS[::2], _MXF_KEYS[1::2], strict=True):
        at = head.find(first)
        while at >= 0:
            if head[at + 8 : at + 16] == last:
                return "SMPTE ST 429-6"
            at = head.find(first, at + 1)
    return None


def scrambled_shares(path: str, pids: Collection[int]) -> dict[int, float]:
    """How much of some streams of an MPEG transport stream is scrambled (ISO/IEC 13818-1, transport_scrambling_control).

    Args:
        path: the file; of a large one a thousand packets are looked at in each of 64 places.
        pids: the streams' packet identifiers.

    Returns:
        Shares of the packets with payload, 0 to 1, of those streams that have any.
    """
    seen, scrambled = dict.fromkeys(pids, 0), dict.fromkeys(pids, 0)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        step = _packet_size(file)
        span = (_TS_WINDOW + 1) * step  # one more, since a window begins within a packet
        places = np.linspace(0, max(size - span, 0), min(_TS_WINDOWS, max(-(-size // span), 1)), dtype=np.int64)
        for place in places.tolist():
            file.seek(place)
            headers = _headers(file.read(span), step)
            pid = (headers[:, 1].astype(np.uint16) & 0x1F) << 8 | headers[:, 2]
            for wanted in pids:
                flags = headers[(pid == wanted) & (headers[:, 3] & 0x10 != 0), 3]
                seen[wanted] += len(flags)
                scrambled[wanted] += int(np.count_nonzero(flags & 0x80))
    return {pid: scrambled[pid] / seen[pid] for pid in pids if seen[pid]}


def _packet_size(file: BinaryIO) -> int:
    file.seek(0)
    head = file.read(_TS_WINDOW * max(_TS_PACKETS))
    return max(_TS_PACKETS, key=lambda step: len(_headers(head, step)) * step)


def _headers(content: bytes, step: int) -> np.ndarray:
    """First four bytes (packets, 4) of the packets in a piece of a stream, from wherever the most of them begin."""
    values = np.frombuffer(content[: len(content) // step * step], dtype=np.uint8).reshape(-1, step)
    if len(values) < 2:
        return np.empty((0, 4), dtype=np.uint8)
    begin = int(np.argmax(np.count_nonzero(values == 0x47, axis=0)))
    shifted = np.frombuffer(content[begin:], dtype=np.uint8)
    packets = shifted[: len(shifted) // step * step].reshape(-1, step)
    return packets[packets[:, 0] == 0x47, :4]
