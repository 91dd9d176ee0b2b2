"""Tells that a track is encrypted: what FFmpeg has no key for it decodes to noise, or passes over without a word.

Packaged titles of streaming services, cinema packages, recordings off air and protected downloads hold their sound so. As
noise at full scale it would be hiss from end to end.
"""

import os
import re
import uuid
from collections.abc import Collection, Sequence
from typing import BinaryIO, NamedTuple

import av
import numpy as np

HEAD_BYTES = 1 << 20  # where a file's headers are looked for
LEAST_SCRAMBLED = 0.01  # of a transport stream: bad reception sets the flag of a packet now and then
# What stands in the headers of a file whose tracks are all encrypted, by its container.
_HEADS = {
    # The key of an encrypted element, and of the set that says how; the eighth byte is a version.
    "mxf": (
        "SMPTE ST 429-6",
        rb"\x06\x0e\x2b\x34\x02(\x04\x01.\x0d\x01\x03\x01\x02\x7e\x01\0|\x53\x01.\x0d\x01\x04\x01\x02\x02\0\0)",
    ),
    # The objects "content encryption" and "extended content encryption".
    "asf": (
        "Windows Media DRM",
        b"|".join(
            re.escape(uuid.UUID(name).bytes_le)
            for name in ("2211b3fb-bd23-11d2-b4b7-00a0c955fc6e", "298ae614-2622-4c17-b935-dae07ee9289c")
        ),
    ),
}
_MP4_ENTRIES = {"drms": "FairPlay", "aavd": "Audible"}  # of ISO/IEC 23001-7, which has "enca", the packets tell
_TS_PACKETS = (188, 192, 204)  # bytes: plain, with a time code (M2TS), with Reed-Solomon bytes
_TS_WINDOW = 1000  # packets read at a place
_TS_WINDOWS = 64  # places in a file: 12 MB at most


class Encryption(NamedTuple):
    """With what a track is encrypted, and how much of it, 0 to 1."""

    scheme: str
    share: float


CLEAR = Encryption("", 0.0)


def of_tracks(
    path: str, container: str, streams: Sequence[av.audio.stream.AudioStream], packaged: Collection[int]
) -> list[Encryption]:
    """What is encrypted of the tracks of a file.

    Args:
        path: the file.
        container: short name of its demuxer.
        streams: the tracks.
        packaged: indices of streams whose packets say that they are encrypted (ISO/IEC 23001-7).
    """
    if container == "mpegts":  # FFmpeg passes over scrambled packets, so that the rest is sound
        shares = scrambled_shares(path, [stream.id for stream in streams])
        told = [shares.get(stream.id, 0.0) for stream in streams]
        return [Encryption("MPEG-TS scrambling", share) if share > LEAST_SCRAMBLED else CLEAR for share in told]
    of_file = _scheme_of_file(path, container)
    schemes = [
        of_file or ("ISO/IEC 23001-7" if stream.index in packaged else _scheme_of_track(container, stream))
        for stream in streams
    ]
    return [Encryption(scheme, 1.0) if scheme is not None else CLEAR for scheme in schemes]  # made noise of as a whole


def _scheme_of_file(path: str, container: str) -> str | None:
    if container not in _HEADS:
        return None
    scheme, pattern = _HEADS[container]
    with open(path, "rb") as file:
        return scheme if re.search(pattern, file.read(HEAD_BYTES), re.DOTALL) else None


def _scheme_of_track(container: str, stream: av.audio.stream.AudioStream) -> str | None:
    if container == "mov":
        codec = stream.codec_context
        return _MP4_ENTRIES.get(codec.codec_tag) if codec is not None else None
    is_told = container == "matroska" and "enc_key_id" in {name.lower() for name in stream.metadata}
    return "ContentEncryption" if is_told else None


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
