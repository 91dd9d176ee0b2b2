"""What jobs/evaluate.py says of models with frames: events found, missed and made up."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs import sql
from jobs.evaluation_pictures import draw_precision_recall, draw_recall_by_severity
from jobs.evaluation_rows import FACETS, SEED, WHOLE, figure_row
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
        label: what it finds.
        tolerance_s: how far apart a planted and a found event may lie.
        events: columns clean_title_id, format, kind, severity, is_planted, is_met, hundredths (of the score), events
            (jobs/sql/event_matches.sql).
        hours: columns clean_title_id, format, kind, hours: channel hours that were scored.
    """

    name: str
    version: str
    label: str
    tolerance_s: float
    events: "pd.DataFrame"
    hours: "pd.DataFrame"
    figure = "F1"

    def figures(self) -> list[dict[str, Any]]:
        """F1, precision, recall and false events per hour at the threshold with the largest F1, as `evaluations` has them."""
        threshold = self.threshold
        rows = [figure_row(WHOLE, self.label, "threshold", threshold)]
        parts = [(facet, value) for facet in FACETS for value in sorted(self.events[facet].dropna().unique())]
        for facet, value in (WHOLE, *parts):
            where = {} if (facet, value) == WHOLE else {facet: value}
            counts = self.counts(where=where, threshold=threshold)
            whole, drawn = counts.sum(axis=0), metrics.bootstrap(counts, np.random.default_rng(SEED))
            for metric, figure in METRICS.items():
                if facet == "severity" and metric != "recall":
                    continue
                with np.errstate(invalid="ignore"):
                    estimate = metrics.estimate(float(figure(whole)), figure(drawn))
                rows.append(figure_row((facet, value), self.label, metric, estimate, whole[FOUND] + whole[MISSED]))
        return [found for found in rows if not math.isnan(found["value"])]

    def draw_pictures(self, rows: list[dict[str, Any]], folder: Path) -> list[Path]:
        """Precision against recall, and recall against severity, as PNG files."""
        counts = np.stack([self.counts(threshold=step).sum(axis=0) for step in np.arange(0, 101) / 100])
        curve = folder / "precision_recall.png"
        draw_precision_recall(curve, f"{self.key}, events", {self.label: (precision(counts), recall(counts))})
        return [curve, *draw_recall_by_severity(folder / "recall_by_severity.png", self.key, rows)]

    def difference_from(self, other: "EventEvaluation", rng: np.random.Generator) -> Estimate:
        """F1 minus another version's on the same titles, each at its own best threshold, by a paired bootstrap."""
        titles = sorted({*self.titles, *other.titles})
        both = np.stack([each.counts(titles, threshold=each.threshold) for each in (self, other)], axis=1)
        scores = f1(metrics.bootstrap(both, rng))  # (resamples, 2)
        whole = f1(both.sum(axis=0))
        return metrics.estimate(float(whole[0] - whole[1]), scores[:, 0] - scores[:, 1])

    @property
    def classes(self) -> tuple[str, ...]:
        """What it finds."""
        return (self.label,)

    @property
    def key(self) -> str:
        """Name and version, as `scored_with` has them."""
        return f"{self.name}/{self.version}"

    @property
    def titles(self) -> list[str]:
        """The clean titles, in order."""
        return sorted(self.hours["clean_title_id"].unique())

    @property
    def threshold(self) -> float:
        """The score, in hundredths from the model's `event_score` on, from which events give the largest F1."""
        found = self.events[~self.events["is_planted"]]
        steps = sorted(found["hundredths"].unique()) or [100]
        scores = [f1(self.counts(threshold=step / 100).sum(axis=0)) for step in steps]
        return float(steps[int(np.argmax(np.nan_to_num(scores)))]) / 100

    def counts(
        self, titles: list[str] | None = None, where: dict[str, str] | None = None, threshold: float = 0.0
    ) -> np.ndarray:
        """Counts (titles, 5): planted events that were found and missed; found ones that are right and wrong; hours.

        Args:
            titles: clean titles in order; None takes all.
            where: values of columns; of a severity only planted events are counted.
            threshold: score from which a found event counts.
        """
        events, hours = self.events, self.hours
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


METRICS = {"f1": f1, "precision": precision, "recall": recall, "false_events_per_hour": false_per_hour}


def count(
    spark: "SparkSession", labelled: "LabelledCatalogue", storage: "Storage", model: "ResolvedModel"
) -> EventEvaluation:
    """Match what was found with what was planted: no more than one frame apart."""
    from pyspark.sql import functions as F

    from jobs import tables

    shipped = model.shipped
    [label] = shipped.contract.defects
    segments = tables.read(spark, storage, "segments").where(
        (F.col("model") == shipped.name) & (F.col("model_version") == shipped.version)
    )
    titles = labelled.titles
    events = spark.sql(
        sql.text("event_matches"),
        segments=segments,
        titles=titles,
        labels=labelled.labels,
        label=label,
        tolerance_s=shipped.contract.frame_s,
    ).toPandas()
    hours = (
        segments.join(titles.select("title_id", "clean_title_id", "format", "kind"), "title_id")
        .groupBy("clean_title_id", "format", "kind")
        .agg((F.sum(F.col("end_s") - F.col("start_s")) / 3600).alias("hours"))
        .toPandas()
    )
    return EventEvaluation(shipped.name, shipped.version, label, shipped.contract.frame_s, events, hours)


def table(evaluations: list[EventEvaluation], rows: dict[str, list[dict[str, Any]]]) -> str:
    """The figures over all titles as a Markdown table, a line a version and kind of content."""
    lines = [
        "| model | content | F1 | precision | recall | false events per hour | planted events | score from |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for evaluation in evaluations:
        mine = rows[evaluation.key]
        [threshold] = [row["value"] for row in mine if row["metric"] == "threshold"]
        for facet, value in dict.fromkeys((row["facet"], row["facet_value"]) for row in mine):
            if facet not in ("all", "kind"):
                continue
            found = {row["metric"]: row for row in mine if (row["facet"], row["facet_value"]) == (facet, value)}
            cells = [
                f"{found[name]['value']:.4f} ({found[name]['low']:.4f} to {found[name]['high']:.4f})"
                if name in found
                else ""
                for name in METRICS
            ]
            planted = max(row["segments"] or 0 for row in found.values())
            lines.append(f"| {evaluation.key} | {value} | {' | '.join(cells)} | {planted} | {threshold:.2f} |")
    return "\n".join(lines)
