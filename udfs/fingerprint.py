"""Acoustic fingerprints of stretches of titles, by Chromaprint: what makes a re-encoded or recut title known again.

Chromaprint (LGPL) is optional: `pip install pyacoustid` and the system's library (Debian: libchromaprint1).
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import DoubleType, IntegerType, StringType, StructField, StructType

from udfs.decoder import Decoder
from udfs.media import MediaError
from udfs.schemas import FINGERPRINTS
from udfs.stretches import RATE_HZ, Stretch, sounds, track_of

ITEM_S = 4096 / 3 / 11025  # Chromaprint's step: a third of a frame of 4096 samples at 11,025 Hz
ALGORITHM = 1  # Chromaprint's "test 2", the default of AcoustID
HANDLE_S = 5.0  # before and after a stretch: an item looks at 2.6 s, and stretches may be as short as a click
LONGEST_S = 90.0

FINGERPRINT_ORDERS = StructType(
    [
        StructField("content_hash", StringType()),
        StructField("track", IntegerType()),
        StructField("path", StringType()),  # local, undecodable bytes percent-encoded
        StructField("start_s", DoubleType()),
        StructField("end_s", DoubleType()),
    ]
)
FINGERPRINTED = StructType([*FINGERPRINTS.fields, StructField("error", StringType())])  # why there are no items
_ARROW_FINGERPRINTED = to_arrow_schema(FINGERPRINTED, timezone="UTC")


def is_available() -> bool:
    """Whether Chromaprint is installed."""
    try:
        import chromaprint  # noqa: F401
    except ImportError:
        return False
    return True


def fingerprint(samples: np.ndarray) -> np.ndarray:
    """Chromaprint's items, int32 (items,), one each `ITEM_S`; none where there is too little sound.

    Args:
        samples: float32 (channels, time) at `udfs.stretches.RATE_HZ`.

    Raises:
        ImportError: Chromaprint is not installed.
    """
    import chromaprint

    mono = samples.mean(axis=0)
    printer = chromaprint.Fingerprinter(ALGORITHM)
    printer.start(RATE_HZ, 1)
    printer.feed((mono.clip(-1.0, 1.0) * 32767).astype("<i2").tobytes())
    items, _ = chromaprint.decode_fingerprint(printer.finish())
    return np.array(items, dtype=np.uint32).view(np.int32)


def fingerprints_udf(timeout_s: float) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function for `DataFrame.mapInArrow(f, FINGERPRINTED)` over rows of `FINGERPRINT_ORDERS`.

    A stretch that cannot be decoded, or whose file holds other audio by now, gives a row with an error.

    Args:
        timeout_s: longest silence of the decoder before a file is given up.
    """

    def take(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        decoder = Decoder(timeout_s)
        try:
            by_track: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
            for batch in batches:
                for order in batch.to_pylist():
                    by_track[order["path"], order["track"]].append(order)
            for orders in by_track.values():
                rows = list(_of_track(decoder, orders))
                yield pa.RecordBatch.from_pylist(rows, schema=_ARROW_FINGERPRINTED)
        finally:
            decoder.close()

    return take


def _of_track(decoder: Decoder, orders: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    waiting = dict(enumerate(orders))
    stretches = [
        Stretch(max(0.0, order["start_s"] - HANDLE_S), min(order["end_s"], order["start_s"] + LONGEST_S) + HANDLE_S, ())
        for order in orders
    ]
    try:
        info = track_of(decoder.probe(orders[0]["path"]), orders[0]["track"])
        if info.content_hash != orders[0]["content_hash"]:
            raise MediaError("changed", "the file holds other audio than was scanned; scan it again")
        for place, sound in sounds(decoder, orders[0]["path"], info, stretches):
            heard = sound.part(sound.start_s, stretches[place].end_s)
            yield _row(waiting.pop(place), heard.start_s, fingerprint(heard.samples).tolist(), None)
    except MediaError as error:
        for place, order in waiting.items():
            yield _row(order, stretches[place].start_s, [], f"{error.code}: {error.message}")


def _row(order: dict[str, Any], from_s: float, items: list[int], error: str | None) -> dict[str, Any]:
    values = {**order, "from_s": from_s, "item_s": ITEM_S, "items": items, "error": error}
    return {name: values[name] for name in FINGERPRINTED.names}
