"""Integrated loudness after ITU-R BS.1770 and EBU R 128, measured by FFmpeg's filter."""

from collections.abc import Iterable

import av
import numpy as np

MAX_PEAK = 10.0 ** (-1.0 / 20.0)  # -1 dBFS: R 128 s1 leaves so much to true peaks and codecs
SILENCE_LUFS = -70.0  # the gate of BS.1770: what the filter says of silence


def measure(blocks: Iterable[np.ndarray], sample_rate_hz: int, layout: str) -> tuple[float, float]:
    """Loudness and peak of a waveform.

    Args:
        blocks: float32 (channels, time) pieces in order, full scale +-1.
        sample_rate_hz: their rate.
        layout: FFmpeg channel layout, which weighs the channels.

    Returns:
        Integrated loudness in LUFS (`SILENCE_LUFS` or less where there is nothing to hear, or less than 0.4 s of it)
        and the largest absolute sample.
    """
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=sample_rate_hz, format="flt", layout=layout)
    meter, sink = graph.add("ebur128", "metadata=1"), graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    loudness, peak, position = SILENCE_LUFS, 0.0, 0

    def read() -> None:
        nonlocal loudness
        while True:
            try:
                metadata = graph.pull().metadata  # type: ignore[union-attr]
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            loudness = float(metadata.get("lavfi.r128.I", loudness))

    for block in blocks:
        if not block.shape[1]:
            continue
        peak = max(peak, float(np.abs(block).max()))
        # Packed and at most full scale: what lies beyond it is clipped where it is written.
        packed = np.ascontiguousarray(np.clip(block, -1.0, 1.0).T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        frame.sample_rate, frame.pts = sample_rate_hz, position
        position += block.shape[1]
        graph.push(frame)
        read()
    graph.push(None)
    read()
    return loudness, peak


def gain_to(target_lufs: float, loudness_lufs: float, peak: float) -> float:
    """The factor that brings a waveform to a loudness, less where its peak would pass `MAX_PEAK`; 1 for silence.

    >>> round(gain_to(-23.0, -17.0, 0.9), 3), round(gain_to(-23.0, -35.0, 0.5), 3), gain_to(-23.0, -70.0, 0.0)
    (0.501, 1.783, 1.0)
    """
    if loudness_lufs <= SILENCE_LUFS or peak <= 0.0:
        return 1.0
    return float(min(10.0 ** ((target_lufs - loudness_lufs) / 20.0), MAX_PEAK / peak))
