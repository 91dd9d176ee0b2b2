"""How much of a title's hits a rolling window can hold, for many thresholds and windows at once.

The rules are those of jobs/sql/detections.sql: a window `[start, start + Y)` that begins at a hit and holds at least X
of hits is full, and full windows that overlap or touch make one detection. For one threshold and one Y, window i holds
S_i, and P_i is the most that any window holds which begins in the Y before it. Window i is then the first of a
detection for exactly those X with P_i < X <= S_i. A title's pairs (P_i, S_i) therefore give its detections for every X,
and the largest S_i says whether there is any.
"""

from collections.abc import Callable, Iterator, Sequence

import numba
import numpy as np
import pyarrow as pa
from pyspark.sql.pandas.types import to_arrow_schema

from udfs.schemas import RISES

LONGEST_WINDOW_MS = (1 << 31) - 1  # 24 days
_ARROW_RISES = to_arrow_schema(RISES, timezone="UTC")


def rises(
    start_ms: np.ndarray, end_ms: np.ndarray, score: np.ndarray, threshold: float, window_ms: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs (P, S) with S > P of one title, defect, threshold and window length.

    Args:
        start_ms: int64 (moments,), in order: begins of segments or events, those of all channels.
        end_ms: int64 (moments,): their ends.
        score: float64 (moments,): their scores.
        threshold: score from which a moment is a hit; NaN never is.
        window_ms: Y, milliseconds.

    Returns:
        P, S (milliseconds) and how often each pair occurs, int64 (pairs,): at X there are as many detections as pairs
        with P < X <= S, each as often as it occurs.

    >>> start = np.arange(0, 9000, 1000)
    >>> rises(start, start + 1000, np.array([0.9, 0.9, 0, 0, 0, 0.9, 0, 0, 0]), threshold=0.5, window_ms=3000)
    (array([0, 0]), array([1000, 2000]), array([1, 1]))
    """
    above, up_to, count = _rises(start_ms, end_ms, score, threshold, window_ms)
    return above, up_to, count


@numba.njit(cache=False)  # type: ignore[untyped-decorator]
def _rises(
    start_ms: np.ndarray, end_ms: np.ndarray, score: np.ndarray, threshold: float, window_ms: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    hits = np.flatnonzero(score >= threshold)
    starts, ends = np.empty(len(hits), dtype=np.int64), np.empty(len(hits), dtype=np.int64)
    count, reach = 0, 0
    for place in hits:  # time that hits share counts once, whichever of them begins first and goes on longest
        if count == 0 or start_ms[place] > starts[count - 1]:
            if count:
                ends[count - 1] = min(reach, int(start_ms[place]))
            starts[count] = start_ms[place]
            count += 1
        reach = max(reach, int(end_ms[place]))
    if count:
        ends[count - 1] = reach
    held = np.empty(count, dtype=np.int64)
    begun, stop = 0, 0
    for hit in range(count):
        while stop < count and starts[stop] < starts[hit] + window_ms:
            begun += ends[stop] - starts[stop]
            stop += 1
        held[hit] = begun - max(0, ends[stop - 1] - (starts[hit] + window_ms))
        begun -= ends[hit] - starts[hit]
    pairs = np.empty(count, dtype=np.int64)  # P above S, so that equal pairs come together when sorted
    found = 0
    # Windows that may still be the fullest of the Y before a later one: falling `held`, rising start.
    line = np.empty(count, dtype=np.int64)
    first = last = 0
    for hit in range(count):
        while first < last and starts[line[first]] < starts[hit] - window_ms:
            first += 1
        before = held[line[first]] if first < last else 0
        if held[hit] > before:
            pairs[found] = (before << 31) | held[hit]
            found += 1
        while first < last and held[line[last - 1]] <= held[hit]:
            last -= 1
        line[last] = hit
        last += 1
    pairs = np.sort(pairs[:found])
    begins = np.flatnonzero(np.append(np.ones(min(found, 1), dtype=np.int64), np.diff(pairs)))
    distinct = pairs[begins]
    return distinct >> 31, distinct & LONGEST_WINDOW_MS, np.diff(np.append(begins, found))


def rises_udf(
    thresholds: Sequence[float], windows_ms: Sequence[int]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function for `DataFrame.mapInArrow(f, udfs.schemas.RISES)` over rows of jobs/sql/moments.sql.

    Args:
        thresholds: scores from which a moment is a hit.
        windows_ms: window lengths, milliseconds.
    """

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            keys = [field.name for field in RISES if field.name in batch.schema.names]
            moments = batch.column("moments")
            offsets = moments.offsets.to_numpy()
            start_ms, end_ms, score = (
                moments.values.field(name).to_numpy(zero_copy_only=False) for name in ("start_ms", "end_ms", "score")
            )
            columns: dict[str, list] = {
                name: [] for name in ("row", "threshold", "window_s", "above_ms", "up_to_ms", "count")
            }
            for row in range(batch.num_rows):
                part = slice(offsets[row], offsets[row + 1])
                order = np.argsort(start_ms[part], kind="stable")
                begins, ends, scores = start_ms[part][order], end_ms[part][order], score[part][order]
                for threshold in thresholds:
                    for window_ms in windows_ms:
                        above, up_to, count = _rises(begins, ends, scores, threshold, window_ms)
                        if not len(above):
                            continue
                        columns["row"].append(row)
                        columns["threshold"].append(threshold)
                        columns["window_s"].append(window_ms / 1000)
                        columns["above_ms"].append(above)
                        columns["up_to_ms"].append(up_to)
                        columns["count"].append(count)
            taken = batch.select(keys).take(pa.array(columns.pop("row"), pa.int64()))
            arrays = [
                taken.column(field.name) if field.name in keys else pa.array(columns[field.name], field.type)
                for field in _ARROW_RISES
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=_ARROW_RISES)

    return work
