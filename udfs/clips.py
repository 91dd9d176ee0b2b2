"""Cuts stretches out of titles for people to hear and see: Opus clips and spectrograms, made on the executors."""

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
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
    FloatType,
    IntegerType,
    StringType,
    StructField,
    StructType,
)

from udfs.decoder import Decoder, encode_path, worker_decoder
from udfs.encode import AudioTrack, write_media
from udfs.media import MediaError, TrackInfo
from udfs.spectrogram import spectrogram
from udfs.stretches import RATE_HZ, Sound, Stretch, sounds, track_of

CLOSE_UP_S = 0.01  # samples on either side of a moment: a click of one sample is seen, and what surrounds it


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
        _column("close_up_s", DoubleType(), "Moment around which samples are wanted; NULL where none are"),
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
        _column(
            "close_up",
            ArrayType(ArrayType(FloatType())),
            "Samples around that moment, by heard channel, 48,000 a second",
        ),
        _column("close_up_start_s", DoubleType(), "Time of the first of them"),
        _column("clip_end_s", DoubleType(), "End of the clip: earlier than ordered where the title ends"),
        _column("missing_s", DoubleType(), "Seconds of the clip that could not be decoded: silence"),
        _column("heard", ArrayType(StringType()), "Channels that are heard, by name"),
        _column("is_stereo", BooleanType(), "Whether they are heard left and right; else as their mean"),
    ]
)
_ARROW_CLIPS = to_arrow_schema(CLIPS, timezone="UTC")


def opus(samples: np.ndarray, bit_rate: int) -> bytes:
    """Opus in WebM.

    Args:
        samples: float32 (1 or 2, time) at `udfs.stretches.RATE_HZ`, full scale +-1.
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
        channels: as `udfs.stretches.Stretch.channels`.
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


def _audible(sound: Sound) -> Sound:
    if not sound.decoded.any():
        raise MediaError("no_sound", "no sound could be decoded at this place; check the file by hand")
    return sound


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
    near = None
    if (moment_s := order["close_up_s"]) is not None:
        near = sound.part(moment_s - CLOSE_UP_S, moment_s + CLOSE_UP_S)
    return {
        "number": order["number"],
        "audio": audio,
        "picture": picture,
        "close_up": None if near is None else near.samples.tolist(),
        "close_up_start_s": None if near is None else near.start_s,
        "clip_end_s": part.start_s + part.samples.shape[1] / RATE_HZ,
        "missing_s": float((~part.decoded).sum()) / RATE_HZ,
        "heard": list(sound.heard),
        "is_stereo": sound.samples.shape[0] == 2,
    }


def _nothing(order: dict[str, Any], error: MediaError) -> dict[str, Any]:
    return {"number": order["number"], "error_code": error.code, "error": error.message}
