"""The UDF defect_scores: any stretch of any title, scored by any registered model version inside a query."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql.types import ArrayType, FloatType, MapType, StringType, StructField, StructType

from udfs.batches import ScanOptions
from udfs.contract import ModelContract, ShippedModel
from udfs.decoder import encode_path, worker_decoder
from udfs.media import MediaError
from udfs.predict import model_folder, score_spans, task_device
from udfs.remote import path_of, redacted
from udfs.schemas import SEGMENTS

# Without comments: Spark compares the schema of what a pandas UDF returns with them, and they do not come back.
_SEGMENT = StructType(
    [StructField(name, SEGMENTS[name].dataType) for name in ("channel", "channel_name", "start_s", "end_s", "scores")]
)
DEFECT_SCORES = StructType(
    [
        StructField("scores", MapType(StringType(), FloatType())),  # largest of each label in the stretch
        StructField("segments", ArrayType(_SEGMENT)),  # as the table segments would hold them
        StructField("error", StringType()),  # why there are none, or not all
    ]
)

Columns = tuple[pd.Series, pd.Series, pd.Series, pd.Series]


def defect_scores_udf(
    model: ShippedModel,
    options: ScanOptions,
    device: Callable[[], str] = task_device,
    folder_of: Callable[[ShippedModel], Any] = model_folder,
) -> Callable[[Iterator[Columns]], Iterator[pd.DataFrame]]:
    """The function for `pandas_udf(f, DEFECT_SCORES)` over (uri, track, start_s, end_s).

    Decodes and scores as the scan does. The segments are those of the scan that overlap `[start_s, end_s)`.

    Args:
        model: what scores.
        options: as for the scan.
        device: where.
        folder_of: the model's files.
    """

    def score(batches: Iterator[Columns]) -> Iterator[pd.DataFrame]:
        for columns in batches:
            yield _score_rows(list(zip(*columns, strict=True)), model, options, device(), folder_of)

    return score


def _score_rows(
    rows: list[tuple[Any, ...]],
    model: ShippedModel,
    options: ScanOptions,
    device: str,
    folder_of: Callable[[ShippedModel], Any],
) -> pd.DataFrame:
    errors: list[str | None] = [None] * len(rows)
    spans = []
    for number, row in enumerate(rows):
        try:
            spans.append(_span(number, row, model, options))
        except (ValueError, MediaError) as error:
            errors[number] = str(error)
    segments: list[list[dict[str, Any]]] = [[] for _ in rows]
    for batch in score_spans(spans, [model], options, device, folder_of):
        for found in batch.to_pylist():
            number = int(found["title_id"])
            if found["is_report"]:
                errors[number] = found["error"]
            else:
                _, _, asked_s, until_s = rows[number]
                if found["end_s"] <= asked_s or found["start_s"] >= until_s:
                    continue  # begun earlier, see _span
                scores = dict(found["scores"])
                segments[number].append({**{name: found[name] for name in _SEGMENT.names}, "scores": scores})
    for number, its in enumerate(segments):
        its.sort(key=lambda segment: (segment["start_s"], segment["channel"]))
        if not its and errors[number] is None:
            errors[number] = "there is no segment in this stretch"
    peaks = [
        {label: max(segment["scores"][label] for segment in its) for label in model.contract.labels} if its else None
        for its in segments
    ]
    return pd.DataFrame({
        "scores": pd.Series(peaks, dtype=object),
        "segments": pd.Series([its or None for its in segments], dtype=object),
        "error": pd.Series(errors, dtype=object),
    })  # fmt: skip


def _span(number: int, row: tuple[Any, ...], model: ShippedModel, options: ScanOptions) -> dict[str, Any]:
    uri, track, start_s, end_s = row
    if not isinstance(uri, str) or any(value is None or value != value for value in (track, start_s, end_s)):
        raise ValueError("expected uri, track, start_s and end_s, found NULL")
    if not 0 <= start_s < end_s:
        raise ValueError(f"expected 0 <= start_s < end_s, found {start_s:g} and {end_s:g}")
    path = _path(uri)
    tracks = worker_decoder(options.decode_timeout_s).probe(path)
    info = next((found for found in tracks if found.track == int(track)), None)
    if info is None:
        raise ValueError(f"{uri}: there is no audio track {int(track)}; it has {len(tracks)}")
    # A segment earlier: the track's last segment, which lies beside the grid, begins in the one before.
    begin_s = grid_start_s(max(0.0, float(start_s) - model.contract.segment_s), model.contract)
    return {
        "title_id": str(number),
        "content_hash": "",
        "track": info.track,
        "path": path,
        "start_s": begin_s,
        "end_s": float(end_s),
        "can_seek": info.can_seek,
        "is_timed": info.is_timed,
        "models": [model.key],
    }


def grid_start_s(start_s: float, contract: ModelContract) -> float:
    """Begin of the first segment of the title's grid that overlaps a stretch from `start_s` on, seconds.

    >>> grid_start_s(3.4, ModelContract(48_000, 1.0, 1.0, ("hum",), ()))
    3.0
    >>> grid_start_s(3.0, ModelContract(48_000, 1.0, 0.5, ("hum",), ()))
    2.5
    """
    hop_s = contract.hop_samples / contract.sample_rate_hz
    length_s = contract.segment_samples / contract.sample_rate_hz
    return max(0, math.floor(np.round((start_s - length_s) / hop_s, 9)) + 1) * hop_s


def _path(uri: str) -> str:
    path = path_of(uri)
    if path is None and "://" in uri:
        raise ValueError(f"{redacted(uri)}: expected a path or a URI as in tracks.uri; mount the storage on every node")
    return encode_path(uri) if path is None else path
