"""The search for operating points: which threshold, X and Y tell defective titles from others best.

Works on what udfs/rolling.py made of the scores, in memory: labelled titles are hundreds or thousands.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from jobs import confidence


@dataclass(frozen=True)
class Objective:
    """What a good operating point is.

    Args:
        kind: maximise F1, precision where recall reaches `limit`, or recall where there are at most `limit` detections
            per 100 hours.
        limit: see there; unused for F1.
    """

    kind: Literal["f1", "precision", "recall"] = "f1"
    limit: float = 0.0

    def __str__(self) -> str:
        return {
            "f1": "f1",
            "precision": f"precision_at_recall_{self.limit:g}",
            "recall": f"recall_within_{self.limit:g}_detections_per_100_h",
        }[self.kind]


@dataclass(frozen=True)
class Evidence:
    """One defect's scores over labelled titles, as rolling windows see them.

    Args:
        titles: title ids, in the order of the arrays.
        thresholds: (thresholds,).
        windows_s: (windows,), seconds.
        held_ms: int64 (titles, thresholds, windows): the most milliseconds of hits that a window holds.
        above_ms: by (threshold, window) index: int64 (pairs,), see `udfs.rolling.rises`.
        up_to_ms: the same.
        count: the same.
        title_of: by (threshold, window) index: int64 (pairs,), the title of each.
        is_defective: bool (titles,).
        groups: int64 (titles,): titles of one group are made from the same recording.
        hours: float64 (titles,), audio hours.
    """

    titles: list[str]
    thresholds: np.ndarray
    windows_s: np.ndarray
    held_ms: np.ndarray
    above_ms: dict[tuple[int, int], np.ndarray]
    up_to_ms: dict[tuple[int, int], np.ndarray]
    count: dict[tuple[int, int], np.ndarray]
    title_of: dict[tuple[int, int], np.ndarray]
    is_defective: np.ndarray
    groups: np.ndarray
    hours: np.ndarray

    def says(self, threshold: float, min_detected_s: float, window_s: float) -> np.ndarray:
        """Which titles an operating point of the grid detects, bool (titles,)."""
        held = self.held_ms[:, _index(self.thresholds, threshold), _index(self.windows_s, window_s)]
        return held >= max(1, round(min_detected_s * 1000))


def gather(
    rises: pd.DataFrame,
    titles: list[str],
    thresholds: np.ndarray,
    windows_s: np.ndarray,
    is_defective: np.ndarray,
    groups: np.ndarray,
    hours: np.ndarray,
) -> Evidence:
    """Evidence of one defect from rows of `udfs.schemas.RISES`; titles without rows have no hits.

    Args:
        rises: columns title_id, threshold, window_s, above_ms, up_to_ms, count, one row per title, track and pair.
        titles: the labelled titles, in the order of the arrays.
        thresholds: see `Evidence`.
        windows_s: see `Evidence`.
        is_defective: see `Evidence`.
        groups: see `Evidence`.
        hours: see `Evidence`.
    """
    place = {title: number for number, title in enumerate(titles)}
    held = np.zeros((len(titles), len(thresholds), len(windows_s)), dtype=np.int64)
    above, up_to, count, title_of = {}, {}, {}, {}
    for (threshold, window_s), part in rises.groupby(["threshold", "window_s"]):
        key = _index(thresholds, threshold), _index(windows_s, window_s)
        numbers = part["title_id"].map(place).to_numpy()
        np.maximum.at(held, (numbers, *key), [max(values) for values in part["up_to_ms"]])
        above[key] = np.concatenate(part["above_ms"].to_list())
        up_to[key] = np.concatenate(part["up_to_ms"].to_list())
        count[key] = np.concatenate(part["count"].to_list())
        title_of[key] = np.repeat(numbers, [len(values) for values in part["up_to_ms"]])
    return Evidence(titles, thresholds, windows_s, held, above, up_to, count, title_of, is_defective, groups, hours)


def _index(values: np.ndarray, value: float) -> int:
    found = np.flatnonzero(np.isclose(values, value, rtol=0, atol=1e-9))
    if not len(found):
        raise ValueError(f"{value:g} is not in the grid {values.tolist()}")
    return int(found[0])


def curve(evidence: Evidence, taken: np.ndarray | None = None, *, with_filter: bool = True) -> pd.DataFrame:
    """Every operating point that makes a difference, with what it says of the titles.

    For one threshold and one Y, titles are detected in the order of the most that a window holds in them, so that X
    matters only where it passes one of these sums. Between two of them X is put halfway.

    Args:
        evidence: of one defect.
        taken: bool (titles,): the titles that count; None for all.
        with_filter: False leaves X and Y out: one hit makes a detection, and only the threshold is sought.

    Returns:
        Columns threshold, min_detected_s, window_s, margin (the share of Y over which X may move without a difference),
        precision, recall, f1, detections_per_100_h; empty where no title has hits.
    """
    taken = np.ones(len(evidence.is_defective), dtype=bool) if taken is None else taken
    parts = [_part(evidence, taken, *key, with_filter=with_filter) for key in _keys(evidence, with_filter=with_filter)]
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return found.dropna() if len(found) else found


def _keys(evidence: Evidence, *, with_filter: bool) -> Iterator[tuple[int, int]]:
    for threshold in range(len(evidence.thresholds)):
        for window in range(len(evidence.windows_s)):
            if (threshold, window) in evidence.above_ms and (with_filter or window == 0):
                yield threshold, window


def _part(evidence: Evidence, taken: np.ndarray, threshold: int, window: int, *, with_filter: bool) -> pd.DataFrame:
    held = evidence.held_ms[taken, threshold, window]
    if not with_filter:
        held = np.minimum(held, 1)
    defective = evidence.is_defective[taken]
    order = np.argsort(-held, kind="stable")
    sums = held[order]
    last_of_sum = np.flatnonzero((np.diff(sums, append=0) != 0) & (sums > 0))
    high = sums[last_of_sum]
    low = np.append(high[1:], 0)
    true = np.cumsum(defective[order])[last_of_sum]
    detected = last_of_sum + 1
    missed = defective.sum() - true
    at_ms = np.maximum((low + high + 1) // 2, 1) if with_filter else high
    counted = taken[evidence.title_of[threshold, window]]
    count = evidence.count[threshold, window][counted]
    begun, over = (
        _below(each[threshold, window][counted], count, at_ms) for each in (evidence.above_ms, evidence.up_to_ms)
    )
    detections = begun - over
    window_s = evidence.windows_s[window]
    return pd.DataFrame(
        {
            "threshold": evidence.thresholds[threshold],
            "min_detected_s": at_ms / 1000,
            "window_s": window_s,
            "margin": (high - low) / (1000 * window_s),
            "precision": true / detected,
            "recall": true / defective.sum() if defective.any() else np.nan,
            "f1": 2 * true / (true + detected + missed),
            "detections_per_100_h": 100 * detections / evidence.hours[taken].sum(),
        }
    )


def _below(values: np.ndarray, count: np.ndarray, at: np.ndarray) -> np.ndarray:
    """How many of `values`, each `count` times, lie below each of `at`."""
    order = np.argsort(values, kind="stable")
    total = np.concatenate([[0], np.cumsum(count[order])])
    return total[np.searchsorted(values[order], at)]


def choose(points: pd.DataFrame, objective: Objective) -> "pd.Series | None":
    """The best row of a curve; of equals the one whose X has most room, then the shorter window.

    Returns:
        A row of `points`; None where none keeps to the objective's limit.
    """
    if objective.kind == "precision":
        points = points[points["recall"] >= objective.limit] if len(points) else points
        order = ["precision", "recall"]
    elif objective.kind == "recall":
        points = points[points["detections_per_100_h"] <= objective.limit] if len(points) else points
        order = ["recall", "precision"]
    else:
        order = ["f1", "precision"]
    if not len(points):
        return None
    rank = [*order, "margin", "window_s", "threshold"]
    return points.sort_values(rank, ascending=[False, False, False, True, False], kind="stable").iloc[0]


def front(points: pd.DataFrame) -> pd.DataFrame:
    """The points of a curve that no other beats, by rising recall.

    Not beaten in precision at that recall or more, or not in detections per 100 hours: one point may find the same titles
    with fewer detections than another that is as precise.
    """
    precise = points.sort_values(["recall", "precision", "margin"], ascending=False, kind="stable")
    precise = precise[precise["precision"] > precise["precision"].cummax().shift(fill_value=-1.0)]
    few = points.sort_values(
        ["recall", "detections_per_100_h", "precision"], ascending=[False, True, False], kind="stable"
    )
    few = few[few["detections_per_100_h"] < few["detections_per_100_h"].cummin().shift(fill_value=np.inf)]
    both = pd.concat([precise, few]).drop_duplicates()
    return both.sort_values(["recall", "precision"], ascending=[True, False], kind="stable").reset_index(drop=True)


def cross_validate(
    evidence: Evidence, objective: Objective, folds: int, seed: int, *, with_filter: bool = True
) -> np.ndarray | None:
    """What points sought on the other titles say of each title, bool (titles,).

    Titles of one group are never on both sides. A fold whose search finds no point that keeps to the objective's limit
    detects nothing.

    Returns:
        None where fewer than two groups have the defect, or fewer than two have not.
    """
    defective = evidence.is_defective
    least = min(len(np.unique(evidence.groups[defective])), len(np.unique(evidence.groups[~defective])))
    if least < 2:
        return None
    says = np.zeros(len(defective), dtype=bool)
    splitter = StratifiedGroupKFold(min(folds, least), shuffle=True, random_state=seed)
    for fit, test in splitter.split(np.zeros(len(defective)), defective, evidence.groups):
        taken = np.zeros(len(defective), dtype=bool)
        taken[fit] = True
        point = choose(curve(evidence, taken, with_filter=with_filter), objective)
        if point is None:
            continue
        if with_filter:
            said = evidence.says(point["threshold"], point["min_detected_s"], point["window_s"])
        else:
            said = evidence.held_ms[:, _index(evidence.thresholds, point["threshold"]), 0] > 0
        says[test] = said[test]
    return says


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval; NaN where nothing could be counted."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f}-{self.high:.2f})"


def figures(
    says: np.ndarray, is_defective: np.ndarray, groups: np.ndarray, resamples: int, seed: int
) -> dict[str, Figure]:
    """Precision, recall and F1 of what was said of titles, with intervals over groups of titles (`jobs.confidence`).

    Args:
        says: bool (titles,) or (titles, defects).
        is_defective: the same shape.
        groups: int64 (titles,).
        resamples: of the bootstrap.
        seed: of the bootstrap.

    >>> found = figures(np.array([True, True, False]), np.array([True, False, True]), np.arange(3), 100, seed=0)
    >>> found["precision"].value, found["recall"].value, found["f1"].value
    (0.5, 0.5, 0.5)
    >>> print(figures(np.array([True, True]), np.array([True, True]), np.arange(2), 100, seed=0)["recall"])
    1.00 (0.34-1.00)
    """
    flat = (len(groups), -1)
    says, truth = says.reshape(flat), is_defective.reshape(flat)
    counts = np.stack([(says & truth).sum(1), (says & ~truth).sum(1), (~says & truth).sum(1)], axis=1)
    _, number = np.unique(groups, return_inverse=True)
    by_group = np.zeros((number.max() + 1, 3))
    np.add.at(by_group, number, counts)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(by_group), (resamples, len(by_group)))
    spread = _shares(by_group[drawn].sum(axis=1))
    values = _shares(by_group.sum(axis=0, keepdims=True))[0]
    true, false, missed = by_group.T
    found = {}
    for index, (name, of, interval) in enumerate(
        [
            ("precision", true + false, confidence.of_share),
            ("recall", true + missed, confidence.of_share),
            ("f1", true + false + missed, confidence.of_f1),
        ]
    ):
        estimate = interval(float(values[index]), spread[:, index], int((of > 0).sum()), float(of.sum()))
        found[name] = Figure(estimate.value, estimate.low, estimate.high)
    return found


def _shares(counts: np.ndarray) -> np.ndarray:
    """(n, 3) of precision, recall, F1 from (n, 3) of true positives, false positives, false negatives."""
    true, false, missed = counts.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([true / (true + false), true / (true + missed), 2 * true / (2 * true + false + missed)], axis=1)
