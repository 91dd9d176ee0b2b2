"""Files of Direct Stream Digital, which FFmpeg reads and does not write: one bit a sample, as labels keep their masters."""

import struct
from collections.abc import Callable

import numba
import numpy as np

CD_HZ = 44_100


@numba.njit  # type: ignore[untyped-decorator]
def _modulated(waveform: np.ndarray) -> np.ndarray:  # (samples,) within +-0.5 to bits, by a delta-sigma of second order
    bits = np.zeros(len(waveform), dtype=np.uint8)
    first, second, level = 0.0, 0.0, 1.0
    for at in range(len(waveform)):
        first += waveform[at] - level
        second += first - level
        level = 1.0 if second >= 0 else -1.0
        bits[at] = level > 0
    return bits


def _bits(waveform: np.ndarray, rate_hz: int, multiple: int) -> np.ndarray:
    """Bits (channels, samples) of a waveform (channels, samples) of full scale +-1, which is half of what the bits can say."""
    count = round(waveform.shape[1] / rate_hz * multiple * CD_HZ)
    at = np.arange(count) / (multiple * CD_HZ) * rate_hz
    own = np.arange(waveform.shape[1])
    return np.stack([_modulated(0.5 * np.interp(at, own, channel)) for channel in waveform])


def dsf(waveform: np.ndarray, rate_hz: int, multiple: int) -> bytes:
    """A DSF file (Sony, "DSF File Format Specification", 1.01) of DSD64, DSD128 ..."""
    bits = _bits(waveform, rate_hz, multiple)
    channels, count = bits.shape
    packed = np.packbits(bits, axis=1, bitorder="little")
    blocks = -(-packed.shape[1] // 4096)
    filled = np.pad(packed, ((0, 0), (0, blocks * 4096 - packed.shape[1])), constant_values=0x69)
    data = filled.reshape(channels, blocks, 4096).transpose(1, 0, 2).tobytes()
    form = struct.pack("<4sQIIIIIIQII", b"fmt ", 52, 1, 0, channels, channels, multiple * CD_HZ, 1, count, 4096, 0)
    head = struct.pack("<4sQQQ", b"DSD ", 28, 28 + len(form) + 12 + len(data), 0)
    return head + form + struct.pack("<4sQ", b"data", 12 + len(data)) + data


def dsdiff(waveform: np.ndarray, rate_hz: int, multiple: int) -> bytes:
    """A DSDIFF file (Philips, "Direct Stream Digital Interchange File Format", 1.5), not compressed; mono or stereo."""
    packed = np.packbits(_bits(waveform, rate_hz, multiple), axis=1, bitorder="big")

    def chunk(name: bytes, content: bytes) -> bytes:
        return name + struct.pack(">Q", len(content)) + content + bytes(len(content) % 2)

    places = {1: b"C000", 2: b"SLFTSRGT"}[len(packed)]
    properties = (
        b"SND "
        + chunk(b"FS  ", struct.pack(">I", multiple * CD_HZ))
        + chunk(b"CHNL", struct.pack(">H", len(packed)) + places)
        + chunk(b"CMPR", b"DSD \x0enot compressed\0")
    )
    body = b"DSD " + chunk(b"FVER", struct.pack(">I", 0x01050000)) + chunk(b"PROP", properties)
    return chunk(b"FRM8", body + chunk(b"DSD ", packed.T.tobytes()))


MAKERS: dict[str, Callable[[np.ndarray, int, int], bytes]] = {"dsf": dsf, "dff": dsdiff}
