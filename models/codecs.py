"""What lossy codecs make of a waveform: encoded and decoded again in memory, with PyAV."""

from collections.abc import Callable
from typing import Any

import av
import numpy as np
from av.codec.context import CodecContext

CODECS = {  # name -> (encoder, decoder, sample format of the encoder)
    "mp3": ("libmp3lame", "mp3float", "fltp"),
    "aac": ("aac", "aac", "fltp"),
    "opus": ("libopus", "opus", "flt"),
}


def recode(waveform: np.ndarray, sample_rate: int, codec: str, bit_rate: int) -> np.ndarray:
    """Encode and decode one channel.

    Args:
        waveform: float32 (samples,), full scale +-1.
        sample_rate: Hz; one that the codec knows.
        codec: key of `CODECS`.
        bit_rate: bits per second.

    Returns:
        float32 (samples,), aligned with `waveform`.

    Raises:
        ValueError: Opus at another rate than 48 kHz, the only one that it decodes to.
    """
    packets, new_decoder = encode(waveform, sample_rate, codec, bit_rate)
    return decode(packets, new_decoder(), len(waveform))


def encode(
    waveform: np.ndarray, sample_rate: int, codec: str, bit_rate: int
) -> tuple[list[av.Packet], Callable[[], Any]]:
    """One channel's packets, and what makes a decoder for them; arguments and errors as of `recode`."""
    if codec == "opus" and sample_rate != 48_000:
        raise ValueError(f"opus: expected 48000 Hz, found {sample_rate}")
    encoder_name, decoder_name, sample_format = CODECS[codec]
    encoder = CodecContext.create(encoder_name, "w")
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = (  # type: ignore[attr-defined]
        sample_rate,
        "mono",
        sample_format,
        bit_rate,
    )
    if codec == "mp3":
        encoder.options = {"compression_level": "7"}  # half the time at next to the same sound
    encoder.open()
    extradata = encoder.extradata

    def new_decoder() -> Any:
        decoder = CodecContext.create(decoder_name, "r")
        decoder.extradata = extradata
        decoder.sample_rate, decoder.layout = sample_rate, "mono"  # type: ignore[attr-defined]
        return decoder

    size = encoder.frame_size  # type: ignore[attr-defined]
    # Two frames of silence more push out the last of the sound.
    padded = np.concatenate([waveform, np.zeros(-len(waveform) % size + 2 * size, dtype=np.float32)])
    packets: list[av.Packet] = []
    for start in range(0, len(padded), size):
        frame = av.AudioFrame.from_ndarray(padded[None, start : start + size], format=sample_format, layout="mono")
        frame.sample_rate, frame.pts = sample_rate, start
        packets += encoder.encode(frame)  # type: ignore[attr-defined]
    packets += encoder.encode(None)  # type: ignore[attr-defined]
    return packets, new_decoder


def decode(packets: list[av.Packet], decoder: Any, samples: int) -> np.ndarray:
    """What a decoder makes of the packets of `encode`, float32 (samples,)."""
    decoded = np.zeros(samples, dtype=np.float32)
    for packet in packets:
        for frame in decoder.decode(packet):
            place(frame, packet.duration or 0, decoded)
    return decoded


def place(frame: av.AudioFrame, duration: int, decoded: np.ndarray) -> None:
    """Write a decoded frame of one channel to its place in `decoded`, float32 (samples,).

    Args:
        frame: with its packet's time stamp, which is negative in what the encoder puts before the sound.
        duration: samples of its packet. Of the first one a decoder may have dropped some, and leaves the time stamp.
        decoded: what the stream is decoded into.
    """
    samples = frame.to_ndarray()[0]
    if samples.dtype == np.int16:
        samples = samples.astype(np.float32) / 32768
    first = frame.pts or 0
    if first < 0:
        first += max(duration - len(samples), 0)
    begin, end = max(first, 0), min(first + len(samples), len(decoded))
    if begin < end:
        decoded[begin:end] = samples[begin - first : end - first]
