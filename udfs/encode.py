"""Writes audio files in the codecs and containers that catalogues have, with PyAV."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

# Suffix -> (FFmpeg container, encoder).
FORMATS = {
    ".flac": ("flac", "flac"),
    ".wav": ("wav", "pcm_s16le"),
    ".mp3": ("mp3", "libmp3lame"),
    ".m4a": ("ipod", "aac"),
    ".aac": ("adts", "aac"),
    ".mp4": ("mp4", "aac"),
    ".mkv": ("matroska", "aac"),
    ".mka": ("matroska", "aac"),
    ".opus": ("ogg", "libopus"),
    ".webm": ("webm", "libopus"),
}
OPUS_RATES_HZ = (48_000, 24_000, 16_000, 12_000, 8_000)
_PICTURE = (64, 36)


@dataclass(frozen=True)
class AudioTrack:
    """Audio to write.

    Args:
        waveform: float32 (channels, time), full scale +-1.
        sample_rate_hz: its rate.
        layout: FFmpeg channel layout, such as mono, stereo or 5.1.
        language: ISO 639-2 code for the track's tag.
        bit_rate: bits per second of lossy codecs; None takes the encoder's default.
    """

    waveform: np.ndarray
    sample_rate_hz: int
    layout: str
    language: str | None = None
    bit_rate: int | None = None


def write_media(path: Path, tracks: list[AudioTrack], *, codec: str | None = None, picture: bool = False) -> None:
    """Write one file.

    Args:
        path: its suffix chooses container and codec (`FORMATS`).
        tracks: audio tracks, in order.
        codec: encoder other than the suffix's own.
        picture: add a black video track, as films have one.

    Raises:
        ValueError: the suffix is unknown.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"{path.name}: expected one of {', '.join(FORMATS)}")
    container_name, default_codec = FORMATS[path.suffix]
    path.parent.mkdir(parents=True, exist_ok=True)
    # Bit-exact: no encoder version and no date in the file, so that the same audio gives the same bytes.
    with av.open(str(path), "w", format=container_name, options={"fflags": "+bitexact"}) as container:
        video = None
        if picture:
            video = container.add_stream("mpeg4", rate=5)
            video.width, video.height, video.pix_fmt = *_PICTURE, "yuv420p"
        streams = [_add_stream(container, codec or default_codec, track) for track in tracks]
        if video is not None:
            seconds = max(track.waveform.shape[1] / track.sample_rate_hz for track in tracks)
            _write_picture(container, video, seconds)
        for stream, track in zip(streams, tracks, strict=True):
            _write_audio(container, stream, track)


def _add_stream(container: Any, codec: str, track: AudioTrack) -> Any:
    stream = _bit_exact_stream(container, codec, track.sample_rate_hz, track.layout)
    if track.bit_rate is not None:
        stream.bit_rate = track.bit_rate
    if track.language is not None:
        stream.metadata["language"] = track.language
    return stream


def _bit_exact_stream(container: Any, codec: str, rate_hz: int, layout: str) -> Any:
    stream = container.add_stream(codec, rate=rate_hz, layout=layout)
    stream.codec_context.flags |= 1 << 23  # AV_CODEC_FLAG_BITEXACT
    return stream


def _write_picture(container: Any, stream: Any, seconds: float) -> None:
    black = np.zeros((_PICTURE[1], _PICTURE[0], 3), dtype=np.uint8)
    for number in range(max(1, round(seconds * 5))):
        frame = av.VideoFrame.from_ndarray(black, format="rgb24")
        frame.pts = number
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _write_audio(container: Any, stream: Any, track: AudioTrack) -> None:
    encoder = _Encoder(container, stream, track.sample_rate_hz, track.layout)
    encoder.write(track.waveform)
    encoder.close()


class _Encoder:
    """Encodes one track as its samples come."""

    def __init__(self, container: Any, stream: Any, rate_hz: int, layout: str) -> None:
        self.container, self.stream, self.rate_hz, self.layout = container, stream, rate_hz, layout
        self.converter = av.AudioResampler(format=stream.codec_context.format.name, layout=layout, rate=rate_hz)
        self.size = stream.codec_context.frame_size or 4096
        self.position = 0
        self.rest: np.ndarray | None = None  # less than a frame, (time, channels)

    def write(self, samples: np.ndarray) -> None:
        """Encode float32 (channels, time) at full scale +-1; what does not fill a frame waits."""
        packed = np.ascontiguousarray(samples.T, dtype=np.float32)
        if self.rest is not None:
            packed = np.concatenate([self.rest, packed])
        whole = packed.shape[0] - packed.shape[0] % self.size
        for start in range(0, whole, self.size):
            self._frame(packed[start : start + self.size])
        self.rest = packed[whole:].copy()

    def _frame(self, packed: np.ndarray) -> None:
        frame = av.AudioFrame.from_ndarray(packed.reshape(1, -1), format="flt", layout=self.layout)
        frame.sample_rate = self.rate_hz
        frame.pts = self.position
        frame.time_base = Fraction(1, self.rate_hz)
        self.position += packed.shape[0]
        for converted in self.converter.resample(frame):
            self.container.mux(self.stream.encode(converted))

    def close(self) -> None:
        """Encode the rest."""
        if self.rest is not None and len(self.rest):
            self._frame(self.rest)
        self.container.mux(self.stream.encode(None))


def write_stream(path: Path, blocks: Iterable[np.ndarray], rate_hz: int, layout: str) -> int:
    """Write one audio track as its samples come; the file appears complete or not at all.

    Args:
        path: its suffix chooses container and codec (`FORMATS`).
        blocks: float32 (channels, time) pieces, full scale +-1.
        rate_hz: their rate.
        layout: FFmpeg channel layout with as many channels.

    Returns:
        Samples written, per channel.
    """
    container_name, codec = FORMATS[path.suffix]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with av.open(str(part), "w", format=container_name, options={"fflags": "+bitexact"}) as container:
            stream = _bit_exact_stream(container, codec, rate_hz, layout)
            encoder = _Encoder(container, stream, rate_hz, layout)
            samples = 0
            for block in blocks:
                samples += block.shape[1]
                encoder.write(block)
            encoder.close()
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    return samples
