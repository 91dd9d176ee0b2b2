"""Decodes whole recordings to arrays on disk, for training."""

import os
from pathlib import Path

import numpy as np

from udfs.decode_report import DecodeReport
from udfs.decoder import Decoder
from udfs.media import MediaError


def write_recording(decoder: Decoder, path: str, target: Path, rate_hz: int, seconds: float) -> str | None:
    """Decode the first track's first `seconds` into a .npy file of int16 (channels, time).

    Args:
        decoder: decodes it.
        path: file, as `udfs.decoder.encode_path` writes it.
        target: .npy file to write; it appears complete or not at all.
        rate_hz: rate to resample to.
        seconds: longest piece to keep.

    Returns:
        None, or why the recording is left out.
    """
    parts: list[np.ndarray] = []
    try:
        info = decoder.probe(path)[0]
        blocks = decoder.decode(
            path, 0, 0.0, seconds, [rate_hz], can_seek=False, is_timed=info.is_timed, report=DecodeReport()
        )
        for _, block in blocks:
            if parts and block.samples.shape[0] != parts[0].shape[0]:
                break
            parts.append((block.samples * 32767).astype(np.int16))
    except MediaError as error:
        if not parts:
            return f"{path}: {error.message}"
    samples = np.concatenate(parts, axis=1) if parts else np.zeros((1, 0), dtype=np.int16)
    if samples.shape[1] < 1.2 * rate_hz:
        return f"{path}: shorter than a segment"
    part = target.with_suffix(f".{os.getpid()}.part")
    with open(part, "wb") as file:
        np.save(file, samples)
    part.rename(target)
    return None
