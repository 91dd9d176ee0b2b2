"""Test signals and files."""

import itertools
from pathlib import Path

import av
import numpy as np
from scipy import signal

from udfs.decode_report import DecodeReport
from udfs.decoder import encode_path
from udfs.decoding import decode
from udfs.encode import AudioTrack, write_media
from udfs.media import probe


def music_like(seconds, rate_hz, rng, channels=2):
    """Chords of random pitch, with noise bursts: every stretch of it differs from every other."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    out = np.zeros((channels, len(time_s)))
    for channel in range(channels):
        for start in np.arange(0, seconds, 0.4):
            begin = round(start * rate_hz)
            note_s = time_s[begin : begin + rate_hz] - start
            frequency_hz = rng.uniform(80, 2000)
            out[channel, begin : begin + rate_hz] += (
                rng.uniform(0.05, 0.3) * np.exp(-5 * note_s) * np.sin(2 * np.pi * frequency_hz * note_s)
            )
        burst = rng.standard_normal(len(time_s)) * (np.sin(2 * np.pi * 0.7 * time_s + channel) > 0.9)
        out[channel] += 0.05 * burst
    return np.clip(out, -0.95, 0.95).astype(np.float32)


def write(path: Path, waveform, rate_hz=48_000, layout=None, **options):
    """Write a waveform (channels, time) given at 48 kHz; resampled where the file's rate differs."""
    if rate_hz != 48_000:
        factor = np.gcd(rate_hz, 48_000)
        waveform = np.clip(signal.resample_poly(waveform, rate_hz // factor, 48_000 // factor, axis=1), -1, 1)
    layout = layout or {1: "mono", 2: "stereo", 6: "5.1"}[waveform.shape[0]]
    write_media(path, [AudioTrack(waveform.astype(np.float32), rate_hz, layout)], **options)
    return path


def write_as(path, container, codec, rate_hz, layout, options, waveform, title=None):
    """Encode a waveform (time), the same in all channels, as FFmpeg's own muxer and encoder do."""
    with av.open(str(path), "w", format=container, options=options) as target:
        # FFmpeg writes no MXF without a picture, and takes no stream once the first packet is there.
        picture = None
        if container == "mxf":
            picture = target.add_stream("mpeg2video", rate=25, width=64, height=64, pix_fmt="yuv420p")
        stream = target.add_stream(codec, rate=rate_hz, layout=layout, bit_rate=192_000)
        if title is not None:
            stream.metadata["title"] = title
        stream.codec_context.open()
        if picture is not None:
            frames = [av.VideoFrame(64, 64, "yuv420p") for _ in range(len(waveform) * 25 // rate_hz)]
            target.mux([packet for frame in [*frames, None] for packet in picture.encode(frame)])
        packed = np.repeat(waveform, stream.layout.nb_channels)[None]
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        frame.sample_rate = rate_hz
        size = stream.codec_context.frame_size or 1024
        cut = av.AudioResampler(stream.format.name, layout, rate_hz, frame_size=size)
        for part in itertools.chain(cut.resample(frame), cut.resample(None), [None]):
            for packet in stream.encode(part):
                target.mux(packet)
    return path


def heard(path):
    """What a scan would make of a file: its description, the samples and what the decoder complained of."""
    [info] = probe(str(path))
    report = DecodeReport()
    blocks = list(decode(str(path), 0, can_seek=info.can_seek, is_timed=info.is_timed, report=report))
    return info, np.concatenate([block.samples for block in blocks], axis=1), report


def spans_of(path, *edges, models=("level/1",), title_id="t"):
    """A file's spans between `edges`, seconds, as a task of a scan gets them."""
    return [
        {
            "title_id": title_id, "content_hash": "h", "track": 0, "path": encode_path(path), "start_s": start,
            "end_s": stop, "can_seek": True, "is_timed": True, "models": list(models),
        }
        for start, stop in itertools.pairwise(edges)
    ]  # fmt: skip


def crc(data: bytes, polynomial: int, bits: int) -> int:
    """Checksum of FLAC's and Ogg's kind: begins with 0, bits in their order."""
    value, top, mask = 0, 1 << (bits - 1), (1 << bits) - 1
    for byte in data:
        value ^= byte << (bits - 8)
        for _ in range(8):
            value = ((value << 1) ^ polynomial if value & top else value << 1) & mask
    return value
