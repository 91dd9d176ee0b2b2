"""Cuts stretches out of titles for people to hear and see: Opus clips and spectrograms, made on the executors."""

import io
import math
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    DoubleType,
    IntegerType,
    StringType,
    StructField,
    StructType,
)

from udfs.decoder import Decoder, encode_path, worker_decoder
from udfs.decoding import DecodeReport
from udfs.encode import AudioTrack, write_media
from udfs.media import MediaError, TrackInfo

RATE_HZ = 48_000  # Opus' own rate, and enough for what the detectors hear
LATENCY_S = 0.25  # decoded beyond a stretch, for the resampler's filter
STEREO = ("FL", "FR")

PICTURE_WIDTH_PX, PICTURE_HEIGHT_PX = 960, 240
AXIS_LEFT, AXIS_RIGHT = 0.06, 0.995  # where the time axis begins and ends, share of the picture's width
LOWEST_HZ = 20.0
QUIETEST_DB, LOUDEST_DB = -105.0, -10.0  # range of the colours; 0 dB is a sine at full scale
_FFT = 4096
_FFT_HOP = 1024
_FRAMES_AT_ONCE = 512  # ten seconds: the transform of a whole stretch would take hundreds of MB
_PICTURE_QUALITY = 70


def _column(name: str, data_type: Any, comment: str) -> StructField:
    return StructField(name, data_type, True, {"comment": comment})


# What the clip UDF takes: one row per detection.
CLIP_ORDERS = StructType(
    [
        _column("task", IntegerType(), "Task that cuts it"),
        _column("number", IntegerType(), "Names the detection in the answer"),
        _column("path", StringType(), "Local path of the file, undecodable bytes percent-encoded"),
        _column("track", IntegerType(), "Number among the title's audio tracks, from 0"),
        _column("content_hash", StringType(), "Content that the detection is about"),
        _column("start_s", DoubleType(), "Begin of the detection, seconds from the title's zero"),
        _column("end_s", DoubleType(), "End of the detection"),
        _column("channels", ArrayType(StringType()), "Channels to hear, by name"),
        _column("from_s", DoubleType(), "Begin of the picture, seconds from the title's zero"),
        _column("to_s", DoubleType(), "End of the picture"),
        _column("clip_start_s", DoubleType(), "Begin of the clip, within the picture"),
        _column("clip_end_s", DoubleType(), "End of the clip"),
        _column("bit_rate", IntegerType(), "Bits per second of the clip; NULL where no clip is wanted"),
        _column("has_picture", BooleanType(), "Whether a picture is wanted"),
    ]
)

# What it returns: one row per detection.
CLIPS = StructType(
    [
        _column("number", IntegerType(), "As ordered"),
        _column("error_code", StringType(), "Why there is nothing, short code; NULL where there is something"),
        _column("error", StringType(), "Why there is nothing, in words"),
        _column("audio", BinaryType(), "The clip, Opus in WebM"),
        _column("picture", BinaryType(), "The spectrogram, WebP"),
        _column("clip_end_s", DoubleType(), "End of the clip: earlier than ordered where the title ends"),
        _column("missing_s", DoubleType(), "Seconds of the clip that could not be decoded: silence"),
        _column("heard", ArrayType(StringType()), "Channels that are heard, by name"),
        _column("is_stereo", BooleanType(), "Whether they are heard left and right; else as their mean"),
    ]
)
_ARROW_CLIPS = to_arrow_schema(CLIPS, timezone="UTC")


@dataclass(frozen=True)
class Stretch:
    """Where to cut.

    Args:
        start_s: begin, seconds from the title's zero.
        end_s: end (exclusive).
        channels: names of the channels to hear; FL and FR give stereo, others their mean. A name that the track
            does not have is left out; all channels are taken where none is left.
    """

    start_s: float
    end_s: float
    channels: tuple[str, ...]


@dataclass
class Sound:
    """What was cut.

    Args:
        start_s: begin, seconds from the title's zero.
        samples: float32 (1 or 2, time) at `RATE_HZ`; zeros where nothing could be decoded.
        heard: names of the channels.
        decoded: which samples were decoded, bool (time,).
    """

    start_s: float
    samples: np.ndarray
    heard: tuple[str, ...]
    decoded: np.ndarray

    def part(self, start_s: float, end_s: float) -> "Sound":
        """The same between two times, ended where the title ends."""
        begin = max(0, round((start_s - self.start_s) * RATE_HZ))
        end = min(round((end_s - self.start_s) * RATE_HZ), _last(self.decoded))
        cut = slice(begin, max(begin, end))
        return Sound(self.start_s + begin / RATE_HZ, self.samples[:, cut], self.heard, self.decoded[cut])


def _last(decoded: np.ndarray) -> int:
    found = np.flatnonzero(decoded)
    return int(found[-1]) + 1 if found.size else 0


def heard_channels(names: tuple[str, ...], wanted: tuple[str, ...]) -> list[int]:
    """Indices of the wanted channels; all of them where the track has none of those (a downmix is of all).

    Example:
        >>> heard_channels(("FL", "FR", "FC"), ("FC",))
        [2]
        >>> heard_channels(("FL", "FR"), ("MIX",))
        [0, 1]
    """
    return [index for index, name in enumerate(names) if name in wanted] or list(range(len(names)))


def sounds(decoder: Decoder, path: str, info: TrackInfo, stretches: list[Stretch]) -> Iterator[tuple[int, Sound]]:
    """Cut stretches out of one track: yields (index in `stretches`, sound), in order of their ends.

    Where a seek is exact each is decoded by itself. Elsewhere decoding starts at the title's begin, so the track is
    gone through once for all of them.

    Args:
        decoder: the child process to decode in.
        path: file, as `udfs.decoder.encode_path` writes it.
        info: the track, as `Decoder.probe` describes it.
        stretches: what to cut, in any order.

    Raises:
        MediaError: decoding failed; what was complete before has been yielded.
    """
    order = sorted(range(len(stretches)), key=lambda index: stretches[index].start_s)
    groups = [[index] for index in order] if info.can_seek else [order]
    for group in groups:
        yield from _sounds_of_one_pass(decoder, path, info, {index: stretches[index] for index in group})


def _sounds_of_one_pass(
    decoder: Decoder, path: str, info: TrackInfo, waiting: dict[int, Stretch]
) -> Iterator[tuple[int, Sound]]:
    begun: dict[int, Sound] = {}
    if not waiting:
        return
    first_s = min(stretch.start_s for stretch in waiting.values())
    stop_s = max(stretch.end_s for stretch in waiting.values())
    for _, block in decoder.decode(
        path,
        info.track,
        first_s,
        stop_s + LATENCY_S,
        [RATE_HZ],
        can_seek=info.can_seek,
        is_timed=info.is_timed,
        report=DecodeReport(),
    ):
        block_end = block.position + block.samples.shape[1]
        for index, stretch in list(waiting.items()):
            begin, end = round(stretch.start_s * RATE_HZ), round(stretch.end_s * RATE_HZ)
            if block_end > begin and block.position < end:
                if index not in begun:  # only now: many long stretches of a film would not fit into memory at once
                    begun[index] = _silence(stretch)
                _add(begun[index], stretch, block.position - begin, block.samples, block.channel_names)
            if block_end >= end:
                del waiting[index]
                yield index, begun.pop(index) if index in begun else _silence(stretch)
    for index, stretch in waiting.items():  # the title ends before them
        yield index, begun.pop(index) if index in begun else _silence(stretch)


def _silence(stretch: Stretch) -> Sound:
    length = round(stretch.end_s * RATE_HZ) - round(stretch.start_s * RATE_HZ)
    rows = 2 if set(stretch.channels) == set(STEREO) else 1
    return Sound(stretch.start_s, np.zeros((rows, length), dtype=np.float32), (), np.zeros(length, dtype=bool))


def _add(sound: Sound, stretch: Stretch, offset: int, samples: np.ndarray, names: tuple[str, ...]) -> None:
    chosen = heard_channels(names, stretch.channels)
    begin, end = max(0, offset), min(sound.samples.shape[1], offset + samples.shape[1])
    taken = samples[chosen, begin - offset : end - offset]
    # Two rows: left and right as they are; where a track changes its layout midway, the mean on both.
    is_pair = sound.samples.shape[0] == 2 and tuple(names[index] for index in chosen) == STEREO
    sound.samples[:, begin:end] = taken if is_pair else taken.mean(axis=0)
    sound.decoded[begin:end] = True
    sound.heard = sound.heard or tuple(names[index] for index in chosen)


def opus(samples: np.ndarray, bit_rate: int) -> bytes:
    """Opus in WebM.

    Args:
        samples: float32 (1 or 2, time) at `RATE_HZ`, full scale +-1.
        bit_rate: bits per second.
    """
    layout = "mono" if samples.shape[0] == 1 else "stereo"
    with tempfile.TemporaryDirectory(prefix="auscult-clip-") as folder:
        path = Path(folder) / "clip.webm"
        write_media(path, [AudioTrack(samples, RATE_HZ, layout, bit_rate=bit_rate)])
        return path.read_bytes()


def clip(
    path: str | bytes, track: int, start_s: float, end_s: float, channels: tuple[str, ...], bit_rate: int
) -> bytes:
    """A stretch of a file as Opus in WebM; ended where the title ends.

    Args:
        path: local file.
        track: number among its audio tracks, from 0.
        start_s: begin, seconds from the title's zero.
        end_s: end (exclusive).
        channels: as `Stretch.channels`.
        bit_rate: bits per second.

    Raises:
        MediaError: the file, the track or sound at that place is not there.
    """
    decoder = Decoder()
    try:
        encoded = encode_path(path)
        info = track_of(decoder.probe(encoded), track)
        [(_, sound)] = sounds(decoder, encoded, info, [Stretch(start_s, end_s, channels)])
    finally:
        decoder.close()
    return opus(_audible(sound.part(start_s, end_s)).samples, bit_rate)


def track_of(tracks: list[TrackInfo], track: int) -> TrackInfo:
    """A decodable audio track of a file, by number.

    Raises:
        MediaError: the file does not have it any more, or it cannot be decoded.
    """
    if track >= len(tracks):
        raise MediaError("changed", f"expected audio track {track}, the file has {len(tracks)} now; scan it again")
    info = tracks[track]
    if info.error_code is not None:
        raise MediaError(info.error_code, info.error or "")
    return info


def _audible(sound: Sound) -> Sound:
    if not sound.decoded.any():
        raise MediaError("no_sound", "no sound could be decoded at this place; check the file by hand")
    return sound


def spectrogram(
    samples: np.ndarray, start_s: float, shown: tuple[float, float], marked: tuple[float, float], highest_hz: float
) -> bytes:
    """Draw a spectrogram as WebP of `PICTURE_WIDTH_PX` x `PICTURE_HEIGHT_PX`.

    Time runs from `AXIS_LEFT` to `AXIS_RIGHT` of the width without labels, so that a page can set other curves below
    it; frequency is logarithmic. Each pixel shows the loudest of what falls into it, so that a click is seen in a
    minute of film. The margins are transparent.

    Args:
        samples: float32 (channels, time) at `RATE_HZ`; the loudest channel is shown.
        start_s: time of the first sample.
        shown: begin and end of the time axis, seconds.
        marked: begin and end of the stretch to mark, seconds.
        highest_hz: upper end of the frequency axis: half the title's sample rate.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    highest_hz = min(max(highest_hz, 20 * LOWEST_HZ), RATE_HZ / 2)
    columns = round(PICTURE_WIDTH_PX * (AXIS_RIGHT - AXIS_LEFT))
    pixels = _levels_db(samples, start_s, shown, highest_hz, PICTURE_HEIGHT_PX - 16, columns)
    figure = Figure(figsize=(PICTURE_WIDTH_PX / 100, PICTURE_HEIGHT_PX / 100), dpi=100)
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0.0)
    axes = figure.add_axes((AXIS_LEFT, 8 / PICTURE_HEIGHT_PX, AXIS_RIGHT - AXIS_LEFT, 1 - 16 / PICTURE_HEIGHT_PX))
    axes.imshow(
        pixels, aspect="auto", origin="lower", extent=(*shown, 0.0, 1.0), cmap="magma", vmin=QUIETEST_DB, vmax=LOUDEST_DB,
        interpolation="nearest",
    )  # fmt: skip
    octaves = math.log2(highest_hz / LOWEST_HZ)
    ticks_hz = [hz for hz in (50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000) if hz < 0.97 * highest_hz]
    axes.set_yticks(
        [math.log2(hz / LOWEST_HZ) / octaves for hz in ticks_hz],
        [f"{hz} Hz" if hz < 1000 else f"{hz // 1000} kHz" for hz in ticks_hz],
        color="#808080",  # read on white and on black
        fontsize=7,
    )
    axes.tick_params(axis="y", color="#808080", length=3)
    axes.set_xticks([])
    for edge_s in marked:
        if shown[0] < edge_s < shown[1]:
            axes.axvline(edge_s, color="white", linestyle=(0, (4, 3)), linewidth=1.2)
    axes.axvspan(max(marked[0], shown[0]), min(marked[1], shown[1]), ymin=0.975, facecolor="#4fc3f7", edgecolor="none")
    axes.set_xlim(shown)
    axes.set_ylim(0.0, 1.0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    out = io.BytesIO()
    figure.savefig(out, format="webp", pil_kwargs={"quality": _PICTURE_QUALITY, "method": 4})
    return out.getvalue()


def _levels_db(
    samples: np.ndarray, start_s: float, shown: tuple[float, float], highest_hz: float, rows: int, columns: int
) -> np.ndarray:
    """Pixels of a spectrogram, dB below a full-scale sine: (rows, columns), the lowest frequency first."""
    import librosa

    # Edges of the rows in bins of the transform. The row of a bass octave lies between two bins: interpolated.
    bins = LOWEST_HZ * (highest_hz / LOWEST_HZ) ** (np.arange(rows + 1) / rows) * _FFT / RATE_HZ
    begins, ends = np.ceil(bins[:-1]).astype(int), np.ceil(bins[1:]).astype(int)
    is_wide = ends > begins
    middles = (bins[:-1] + bins[1:]) / 2
    below = np.floor(middles).astype(int)
    share = (middles - below)[:, None]

    pixels = np.full((rows, columns), QUIETEST_DB, dtype=np.float32)
    padded = np.pad(samples, ((0, 0), (_FFT // 2, _FFT // 2)))
    frames = 1 + samples.shape[1] // _FFT_HOP
    for first in range(0, frames, _FRAMES_AT_ONCE):
        count = min(_FRAMES_AT_ONCE, frames - first)
        piece = padded[:, first * _FFT_HOP : (first + count - 1) * _FFT_HOP + _FFT]
        spectra = np.abs(librosa.stft(piece, n_fft=_FFT, hop_length=_FFT_HOP, center=False)).max(axis=0)
        levels = 20 * np.log10(np.maximum(spectra * (4 / _FFT), 1e-9))  # (bins, frames); Hann's window sums to half
        by_row = levels[below] * (1 - share) + levels[np.minimum(below + 1, _FFT // 2)] * share
        by_row[is_wide] = np.maximum.reduceat(levels[: ends[is_wide][-1]], begins[is_wide], axis=0)
        place = _columns_of(start_s + (first + np.arange(count)) * (_FFT_HOP / RATE_HZ), shown, columns)
        places, begin_of = np.unique(place, return_index=True)
        by_column = np.maximum.reduceat(by_row, begin_of, axis=1)
        pixels[:, places] = np.maximum(pixels[:, places], by_column)
    return _without_holes(pixels, frames, start_s, shown)


def _columns_of(at_s: np.ndarray, shown: tuple[float, float], columns: int) -> np.ndarray:
    found = np.floor((at_s - shown[0]) / (shown[1] - shown[0]) * columns + 1e-6).astype(int)
    return np.clip(found, 0, columns - 1)


def _without_holes(pixels: np.ndarray, frames: int, start_s: float, shown: tuple[float, float]) -> np.ndarray:
    """Repeat columns where there are more pixels than frames (stretches below twenty seconds)."""
    columns = pixels.shape[1]
    step_s, frame_s = (shown[1] - shown[0]) / columns, _FFT_HOP / RATE_HZ
    if step_s >= frame_s:
        return pixels
    at_s = shown[0] + (np.arange(columns) + 0.5) * step_s - start_s
    frame = np.clip(np.floor(at_s / frame_s), 0, frames - 1)
    filled = pixels[:, _columns_of(start_s + frame * frame_s, shown, columns)]
    filled[:, (at_s < 0) | (at_s > frames * frame_s)] = QUIETEST_DB
    return filled


def clip_udf(timeout_s: float) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function for `DataFrame.mapInArrow(f, CLIPS)` over rows of `CLIP_ORDERS`.

    Args:
        timeout_s: longest silence of the decoder before a file is given up.
    """

    def cut(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        # Orders are paths and numbers; of the answers one at a time is held.
        for row in answers([order for batch in batches for order in batch.to_pylist()], worker_decoder(timeout_s)):
            yield pa.RecordBatch.from_pylist([row], schema=_ARROW_CLIPS)

    return cut


def answers(orders: list[dict[str, Any]], decoder: Decoder) -> Iterator[dict[str, Any]]:
    """One row of `CLIPS` for each of `CLIP_ORDERS`; each file is opened once, and a bad one costs its own rows only."""
    by_path: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for order in orders:
        by_path[order["path"]].append(order)
    for path, mine in by_path.items():
        try:
            tracks = decoder.probe(path)
        except MediaError as error:
            yield from (_nothing(order, error) for order in mine)
            continue
        for number in sorted({order["track"] for order in mine}):
            yield from _answers_of_track(
                decoder, path, tracks, number, [order for order in mine if order["track"] == number]
            )


def _answers_of_track(
    decoder: Decoder, path: str, tracks: list[TrackInfo], track: int, orders: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    waiting = dict(enumerate(orders))
    try:
        info = track_of(tracks, track)
        for index, order in list(waiting.items()):
            if order["content_hash"] != info.content_hash:
                del waiting[index]
                yield _nothing(
                    order, MediaError("changed", "the file holds other audio than was scanned; scan it again")
                )
        wanted = list(waiting)
        stretches = [
            Stretch(orders[index]["from_s"], orders[index]["to_s"], tuple(orders[index]["channels"] or ()))
            for index in wanted
        ]
        for place, sound in sounds(decoder, path, info, stretches):
            yield _answer(waiting.pop(wanted[place]), sound, info)
    except MediaError as error:
        yield from (_nothing(order, error) for order in waiting.values())


def _answer(order: dict[str, Any], sound: Sound, info: TrackInfo) -> dict[str, Any]:
    try:
        part = _audible(sound.part(order["clip_start_s"], order["clip_end_s"]))
        audio = picture = None
        if order["bit_rate"] is not None:
            audio = opus(part.samples, order["bit_rate"])
        if order["has_picture"]:
            whole = sound.part(order["from_s"], order["to_s"])
            picture = spectrogram(
                whole.samples,
                whole.start_s,
                (order["from_s"], order["to_s"]),
                (order["start_s"], order["end_s"]),
                info.sample_rate_hz / 2,
            )
    except MediaError as error:
        return _nothing(order, error)
    return {
        "number": order["number"],
        "audio": audio,
        "picture": picture,
        "clip_end_s": part.start_s + part.samples.shape[1] / RATE_HZ,
        "missing_s": float((~part.decoded).sum()) / RATE_HZ,
        "heard": list(sound.heard),
        "is_stereo": sound.samples.shape[0] == 2,
    }


def _nothing(order: dict[str, Any], error: MediaError) -> dict[str, Any]:
    return {"number": order["number"], "error_code": error.code, "error": error.message}
