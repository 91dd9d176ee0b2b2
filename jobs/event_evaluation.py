"""What jobs/evaluate.py says of models with frames: events found, missed and made up."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs import confidence, sql
from jobs.evaluation_pictures import draw_precision_recall, draw_recall_by_severity
from jobs.evaluation_rows import FACETS, SEED, WHOLE, figure_row
from jobs.launch import AuscultError, log
from jobs.literals import literal_frame
from models import metrics
from models.metrics import Estimate

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

    from jobs.labelled import LabelledCatalogue
    from jobs.registry import ResolvedModel
    from jobs.storage import Storage

FOUND, MISSED, RIGHT, WRONG, HOURS = range(5)


@dataclass
class EventEvaluation:
    """What one version of a model with frames found in a labelled catalogue.

    Args:
        name: registered model name.
        version: its version.
        classes: the kinds of events that it finds, each with a threshold and figures of its own.
        tolerance_s: how far apart a planted and a found event may lie.
        events: columns clean_title_id, format, kind, severity, label, is_planted, is_met, hundredths (of the score), events
            (jobs/sql/event_matches.sql).
        hours: columns clean_title_id, format, kind, hours: channel hours that were scored.
    """

    name: str
    version: str
    classes: tuple[str, ...]
    tolerance_s: float
    events: "pd.DataFrame"
    hours: "pd.DataFrame"

    def figures(self) -> list[dict[str, Any]]:
        """F1, precision, recall and false events per hour at the threshold with the largest F1, as `evaluations` has them.

        Of several kinds of events the mean F1 as well. Intervals are over clean titles (`jobs.confidence`).
        """
        thresholds = self.thresholds
        rows = [figure_row(WHOLE, label, "threshold", threshold) for label, threshold in thresholds.items()]
        parts = [(facet, value) for facet in FACETS for value in sorted(self.events[facet].dropna().unique())]
        for facet, value in (WHOLE, *parts):
            where = {} if (facet, value) == WHOLE else {facet: value}
            counts = self._counts_by_class(thresholds, where=where)  # (titles, classes, 5)
            drawn = metrics.bootstrap(counts, np.random.default_rng(SEED))
            planted, of_f1 = counts[..., FOUND].sum(axis=0) + counts[..., MISSED].sum(axis=0), []
            for index, label in enumerate(self.classes):
                for metric, measure in MEASURES.items():
                    if facet == "severity" and metric != "recall":
                        continue
                    estimate = measure(counts[:, index], drawn[:, index])
                    rows.append(figure_row((facet, value), label, metric, estimate, planted[index]))
                    of_f1 += [estimate] if metric == "f1" else []
            if len(of_f1) > 1:
                mean = float(mean_f1(counts.sum(axis=0)))
                estimate = confidence.of_mean(mean, mean_f1(drawn), of_f1, len(counts))
                rows.append(figure_row((facet, value), None, "f1", estimate, planted.sum()))
        return [found for found in rows if not math.isnan(found["value"])]

    def draw_pictures(self, rows: list[dict[str, Any]], folder: Path) -> list[Path]:
        """Precision against recall, and recall against severity, as PNG files."""
        curves = {}
        for label in self.classes:
            counts = np.stack([self.counts(label, threshold=step).sum(axis=0) for step in np.arange(0, 101) / 100])
            curves[label] = (precision(counts), recall(counts))
        curve = folder / "precision_recall.png"
        draw_precision_recall(curve, f"{self.key}, events", curves)
        return [curve, *draw_recall_by_severity(folder / "recall_by_severity.png", self.key, rows)]

    def difference_from(self, other: "EventEvaluation", rng: np.random.Generator) -> Estimate:
        """F1 minus another version's on the same titles, each at its own best thresholds, by a paired bootstrap.

        Of several kinds of events the mean F1. Both versions have the same kinds.
        """
        titles = sorted({*self.titles, *other.titles})
        both = np.stack([each._counts_by_class(each.thresholds, titles) for each in (self, other)], axis=1)
        scores = mean_f1(metrics.bootstrap(both, rng))  # (resamples, 2)
        whole = mean_f1(both.sum(axis=0))
        return metrics.estimate(float(whole[0] - whole[1]), scores[:, 0] - scores[:, 1])

    @property
    def figure(self) -> str:
        """What `difference_from` compares, in words."""
        return "F1" if len(self.classes) == 1 else "mean F1"

    @property
    def key(self) -> str:
        """Name and version, as `scored_with` has them."""
        return f"{self.name}/{self.version}"

    @property
    def titles(self) -> list[str]:
        """The clean titles, in order."""
        return sorted(self.hours["clean_title_id"].unique())

    @property
    def thresholds(self) -> dict[str, float]:
        """By class the score, in hundredths from the model's `event_score` on, from which events give the largest F1."""
        best = {}
        for label in self.classes:
            found = self.events[~self.events["is_planted"].astype(bool) & (self.events["label"] == label)]
            steps = sorted(found["hundredths"].unique()) or [100]
            scores = [f1(self.counts(label, threshold=step / 100).sum(axis=0)) for step in steps]
            best[label] = float(steps[int(np.argmax(np.nan_to_num(scores)))]) / 100
        return best

    def _counts_by_class(
        self, thresholds: dict[str, float], titles: list[str] | None = None, where: dict[str, str] | None = None
    ) -> np.ndarray:
        """Counts (titles, classes, 5), see `counts`."""
        return np.stack([self.counts(label, titles, where, thresholds[label]) for label in self.classes], axis=1)

    def counts(
        self,
        label: str,
        titles: list[str] | None = None,
        where: dict[str, str] | None = None,
        threshold: float = 0.0,
    ) -> np.ndarray:
        """Counts (titles, 5): planted events that were found and missed; found ones that are right and wrong; hours.

        Args:
            label: the kind of events.
            titles: clean titles in order; None takes all.
            where: values of columns; of a severity only planted events are counted.
            threshold: score from which a found event counts.
        """
        events, hours = self.events[self.events["label"] == label], self.hours
        for column, value in (where or {}).items():
            events = events[events[column] == value]
            hours = hours[hours[column] == value] if column in hours else hours
        titles = self.titles if titles is None else titles
        place = {title: number for number, title in enumerate(titles)}
        counts = np.zeros((len(titles), 5))
        for row in events.itertuples():
            counts_as_found = row.is_met and row.hundredths >= round(threshold * 100)
            if row.is_planted:
                what = FOUND if counts_as_found else MISSED
            elif row.hundredths >= round(threshold * 100):
                what = RIGHT if row.is_met else WRONG
            else:
                continue
            if row.clean_title_id in place:
                counts[place[row.clean_title_id], what] += row.events
        for row in hours.itertuples():
            if row.clean_title_id in place:
                counts[place[row.clean_title_id], HOURS] += row.hours
        return counts


def recall(counts: np.ndarray) -> np.ndarray:
    """Share of planted events that were found, of counts (..., 5); NaN where none was planted."""
    return metrics.ratio(counts[..., FOUND], counts[..., FOUND] + counts[..., MISSED])


def precision(counts: np.ndarray) -> np.ndarray:
    """Share of found events that were planted, of counts (..., 5); NaN where none was found."""
    return metrics.ratio(counts[..., RIGHT], counts[..., RIGHT] + counts[..., WRONG])


def f1(counts: np.ndarray) -> np.ndarray:
    """Harmonic mean of precision and recall, of counts (..., 5); 0 where nothing was found, NaN where none was planted.

    >>> f1(np.array([[8.0, 2.0, 8.0, 0.0, 1.0], [0.0, 2.0, 0.0, 5.0, 1.0], [0.0, 0.0, 0.0, 5.0, 1.0]])).round(3).tolist()
    [0.889, 0.0, nan]
    """
    share, said = recall(counts), np.nan_to_num(precision(counts))
    return np.where(share == 0, 0.0, metrics.ratio(2 * share * said, share + said))


def false_per_hour(counts: np.ndarray) -> np.ndarray:
    """Found events that nobody planted, per channel hour, of counts (..., 5)."""
    return metrics.ratio(counts[..., WRONG], counts[..., HOURS])


def mean_f1(counts: np.ndarray) -> np.ndarray:
    """Mean over classes of F1, of counts (..., classes, 5); a class of which nothing was planted does not count."""
    found = f1(counts)
    return metrics.ratio(np.nansum(found, axis=-1), (~np.isnan(found)).sum(axis=-1))


Measure = Callable[[np.ndarray, np.ndarray], Estimate]


def _share(figure: Callable[[np.ndarray], np.ndarray], *of: int) -> Measure:
    """A figure with its interval, of counts (titles, 5) and draws of them (resamples, 5).

    Args:
        figure: of counts.
        of: the counts that what it is a share of consists of.
    """
    interval = confidence.of_f1 if figure is f1 else confidence.of_share

    def measure(counts: np.ndarray, drawn: np.ndarray) -> Estimate:
        of_title = counts[:, list(of)].sum(axis=1)
        value = float(figure(counts.sum(axis=0)))
        return interval(value, figure(drawn), int((of_title > 0).sum()), float(of_title.sum()))

    return measure


def _rate(counts: np.ndarray, drawn: np.ndarray) -> Estimate:
    """False events per hour with their interval, of counts (titles, 5) and draws of them (resamples, 5)."""
    whole, titles = counts.sum(axis=0), int((counts[:, HOURS] > 0).sum())
    value = float(false_per_hour(whole))
    return confidence.of_rate(value, false_per_hour(drawn), titles, float(whole[WRONG]), float(whole[HOURS]))


MEASURES: dict[str, Measure] = {
    "f1": _share(f1, FOUND, MISSED, WRONG),
    "precision": _share(precision, RIGHT, WRONG),
    "recall": _share(recall, FOUND, MISSED),
    "false_events_per_hour": _rate,
}


def count(
    spark: "SparkSession", labelled: "LabelledCatalogue", storage: "Storage", model: "ResolvedModel"
) -> EventEvaluation:
    """Match what was found with what was planted: no more than one frame apart.

    What is found where only another detector's defect is labelled counts as made up: the labels of a title name all that
    is known of it.

    Raises:
        AuscultError: the model finds nothing that is a defect.
    """
    from pyspark.sql import functions as F

    from jobs import tables

    shipped = model.shipped
    classes = shipped.contract.defects
    if not classes:
        raise AuscultError(f"model {shipped.key}: all labels of its contract are clean_labels, so it finds no defect")
    others = labelled.labels.where(~F.col("defect").isin(*shipped.contract.labels)).groupBy("defect").count().collect()
    if others:
        log.warning(
            "%s knows no %s: what it finds where that is labelled (%d times) counts as made up",
            shipped.key,
            ", ".join(sorted(row.defect for row in others)),
            sum(row["count"] for row in others),
        )
    segments = tables.read(spark, storage, "segments").where(
        (F.col("model") == shipped.name) & (F.col("model_version") == shipped.version)
    )
    titles = labelled.titles
    events = spark.sql(
        sql.text("event_matches"),
        segments=segments,
        titles=titles,
        labels=labelled.labels,
        sought=literal_frame(spark, [(label,) for label in classes], "label string"),
        tolerance_s=shipped.contract.frame_s,
    ).toPandas()
    hours = (
        segments.join(titles.select("title_id", "clean_title_id", "format", "kind"), "title_id")
        .groupBy("clean_title_id", "format", "kind")
        .agg((F.sum(F.col("end_s") - F.col("start_s")) / 3600).alias("hours"))
        .toPandas()
    )
    return EventEvaluation(shipped.name, shipped.version, classes, shipped.contract.frame_s, events, hours)


def table(evaluations: list[EventEvaluation], rows: dict[str, list[dict[str, Any]]]) -> str:
    """The figures over all titles as a Markdown table, a line a version, kind of events and kind of content."""
    lines = [
        "| model | content | F1 | precision | recall | false events per hour | planted events | score from |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for evaluation, label in [(each, label) for each in evaluations for label in each.classes]:
        mine = [row for row in rows[evaluation.key] if row["label"] == label]
        name = evaluation.key if len(evaluation.classes) == 1 else f"{evaluation.key}, {label}"
        [threshold] = [row["value"] for row in mine if row["metric"] == "threshold"]
        for facet, value in dict.fromkeys((row["facet"], row["facet_value"]) for row in mine):
            if facet not in ("all", "kind"):
                continue
            found = {row["metric"]: row for row in mine if (row["facet"], row["facet_value"]) == (facet, value)}
            cells = [
                f"{found[metric]['value']:.4f} ({found[metric]['low']:.4f} to {found[metric]['high']:.4f})"
                if metric in found
                else ""
                for metric in MEASURES
            ]
            planted = max(row["segments"] or 0 for row in found.values())
            lines.append(f"| {name} | {value} | {' | '.join(cells)} | {planted} | {threshold:.2f} |")
    return "\n".join(lines)
