"""The SQL filter against an independent brute-force reference."""

import numpy as np
import pytest

from jobs.settings import OperatingPoint
from jobs.temporal_filter import detect
from udfs.schemas import SEGMENTS


def reference(hits, threshold, min_detected_s, window_s, ignored=()):
    """Stretches of one title, straight from the definition: all windows on a fine grid of starts.

    hits: (start_s, end_s, score, channel, name). Works in integer milliseconds on a bit array.
    """
    good = [h for h in hits if h[2] >= threshold and not np.isnan(h[2]) and h[4] not in ignored]
    if not good:
        return []
    to_ms = lambda seconds: round(seconds * 1000)  # noqa: E731
    window = to_ms(window_s)
    covered = np.zeros(max(to_ms(h[1]) for h in good) + window + 1, dtype=np.int64)
    for start_s, end_s, *_ in good:
        covered[to_ms(start_s) : to_ms(end_s)] = 1
    total = np.concatenate([[0], np.cumsum(covered)])
    starts = sorted({to_ms(h[0]) for h in good})
    full = [s for s in starts if total[min(s + window, len(covered))] - total[s] >= to_ms(min_detected_s)]
    # no window anywhere may hold more than the best of those that begin at a hit
    best_anywhere = max(total[min(s + window, len(covered))] - total[s] for s in range(0, len(covered) - window, 50))
    assert max(total[min(s + window, len(covered))] - total[s] for s in starts) >= best_anywhere
    stretches = []
    for anchor in full:
        if stretches and anchor <= stretches[-1][1]:
            stretches[-1][1] = anchor + window
        else:
            stretches.append([anchor, anchor + window])
    out = []
    for low, high in stretches:
        inside = [h for h in good if low <= to_ms(h[0]) < high]
        mask = np.zeros(len(covered), dtype=bool)
        for h in good:
            if to_ms(h[0]) < high:
                mask[max(to_ms(h[0]), low) : to_ms(h[1])] = True
        # a hit that begins after the stretch takes over where they overlap
        later = [to_ms(h[0]) for h in good if to_ms(h[0]) >= high]
        if later:
            mask[min(later) :] = False
        where = np.flatnonzero(mask)
        names = [name for _, name in sorted({(h[3], h[4]) for h in inside})]
        out.append((where[0] / 1000, (where[-1] + 1) / 1000, mask.sum() / 1000, max(h[2] for h in inside), names))
    return out


def random_title(rng):
    # No length: events, each with its own.
    hop, length = [(1.0, 1.0), (0.5, 1.0), (2.0, 2.0), (0.25, 0.75), (1.0, 0.5), (0.25, None)][rng.integers(6)]
    channels = [("FC",), ("FL", "FR"), ("FL", "FR", "FC", "LFE", "BL", "BR")][rng.integers(3)]
    count = int(rng.integers(0, 60))
    rows, noisy = [], rng.random()
    bad = False
    for number in range(count):
        if rng.random() < 0.1:
            bad = not bad
        if rng.random() < 0.15:
            continue  # a gap
        for channel, name in enumerate(channels):
            score = float(np.float32(rng.choice([0.5, rng.random(), np.nan], p=[0.1, 0.85, 0.05])))
            if bad and noisy < 0.7:
                score = float(np.float32(max(score, 0.6)))
            lasts = float(rng.choice([0.003, 0.1, 0.4, 3.0])) if length is None else length
            rows.append((number * hop, number * hop + lasts, score, channel, name))
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_reference_on_random_titles(spark, seed):
    rng = np.random.default_rng(seed)
    points = {
        "a": OperatingPoint(0.5, 5.0, 20.0),
        "b": OperatingPoint(0.5, 8.0, 8.0),  # X = Y
        "c": OperatingPoint(0.7, 0.25, 3.0, ("LFE",)),
        "d": OperatingPoint(0.5, 20.0, 10.0),  # X > Y can never be met
    }
    titles = {f"t{number}": random_title(rng) for number in range(120)}
    rows = [
        (title, "h", 0, channel, name, "m", "1", start, end, dict.fromkeys(points, score), None, None, "s")
        for title, hits in titles.items()
        for start, end, score, channel, name in hits
    ]
    segments = spark.createDataFrame(rows, SEGMENTS)
    found = detect(spark, segments, {("m", "1", defect): point for defect, point in points.items()}).collect()
    checked = 0
    for title, hits in titles.items():
        for defect, point in points.items():
            expected = reference(hits, point.threshold, point.min_detected_s, point.window_s, point.ignored_channels)
            mine = sorted((r for r in found if (r.title_id, r.defect) == (title, defect)), key=lambda r: r.start_s)
            actual = [(r.start_s, r.end_s, r.detected_s, r.peak_score, list(r.channels)) for r in mine]
            assert actual == [tuple(row) for row in expected], (title, defect)
            checked += len(expected)
            assert defect != "d" or not mine
    assert checked > 100


def test_both_channels_in_one_second_count_once(spark):
    rows = [
        ("t", "h", 0, channel, name, "m", "1", float(s), s + 1.0, {"hum": 0.9}, None, None, "s")
        for s in range(4)
        for channel, name in enumerate(["FL", "FR"])
    ]
    segments = spark.createDataFrame(rows, SEGMENTS)
    assert detect(spark, segments, {("m", "1", "hum"): OperatingPoint(0.5, 5.0, 10.0)}).count() == 0
    [row] = detect(spark, segments, {("m", "1", "hum"): OperatingPoint(0.5, 4.0, 10.0)}).collect()
    assert (row.start_s, row.end_s, row.detected_s, row.channels) == (0.0, 4.0, 4.0, ["FL", "FR"])


def test_events_take_the_place_of_their_segments(spark):
    """A detection has the bounds of the events in it, and only those count that reach the threshold."""
    point = OperatingPoint(0.9, 0.002, 10.0)

    def row(start_s, *events, channel=0):
        found = [
            {"label": label, "start_s": at, "end_s": at + 0.003 * len(said), "scores": said}
            for label, at, said in events
        ]
        score = max((max(said) for label, _, said in events if label == "click"), default=0.1)
        return ("t", "h", 0, channel, "FL", "m", "1", start_s, start_s + 0.28, {"click": score}, found, None, "s")

    rows = [
        row(0.0),
        row(0.28, ("click", 0.3, [0.95]), ("click", 0.4, [0.6, 0.7]), ("pop", 0.5, [0.99])),
        row(0.28, ("click", 0.3, [0.97, 0.6]), channel=1),
        row(5.04, ("click", 5.1, [0.5, 0.92, 0.5])),
        row(60.2, ("click", 60.25, [0.8])),
        row(80.08, ("click", 80.1, [1.0])),
    ]
    segments = spark.createDataFrame(rows, SEGMENTS)
    found = detect(spark, segments, {("m", "1", "click"): point}).orderBy("start_s").collect()
    kept = [(row.start_s, row.end_s, row.detected_s, round(row.peak_score, 2)) for row in found]
    assert kept == [(0.3, 5.109, 0.015, 0.97), (80.1, 80.103, 0.003, 1.0)]
