"""What jobs/evaluate.py says of models that give each segment a class: confusions, recalls, precisions."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs import confidence, sql
from jobs.evaluation_pictures import draw_confusion, draw_precision_recall, draw_recall_by_severity
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

# What is labelled with another detector's defect, under a name that judged.sql takes only where nothing else lies there.
FOREIGN = "\U0010ffff"


@dataclass
class ClassEvaluation:
    """What one model version said about a labelled catalogue.

    Args:
        name: registered model name.
        version: its version.
        classes: the clean class first, then the model's defects.
        counts: columns clean_title_id, format, kind, severity, truth, said, segments (jobs/sql/evaluation.sql).
        scores: columns class, score, defective_segments, other_segments (jobs/sql/precision_recall.sql).
    """

    name: str
    version: str
    classes: tuple[str, ...]
    counts: "pd.DataFrame"
    scores: "pd.DataFrame"
    figure = "balanced accuracy"

    def figures(self) -> list[dict[str, Any]]:
        """Balanced accuracy, recalls and precisions over all segments and by facet, as rows of `evaluations`.

        Intervals are over clean titles (`jobs.confidence`).
        """
        rows = self._figures_of(WHOLE)
        for label in self.classes[1:]:
            segments = int(self.counts.loc[self.counts["truth"] == label, "segments"].sum())
            if segments:
                precision, recall, _score = self.precision_recall(label)
                rows.append(
                    figure_row(WHOLE, label, "average_precision", average_precision(precision, recall), segments)
                )
        for facet in FACETS:
            for value in sorted(self.counts[facet].dropna().unique()):
                rows += self._figures_of((facet, value))
        return [found for found in rows if not math.isnan(found["value"])]

    def _figures_of(self, part: tuple[str, str]) -> list[dict[str, Any]]:
        facet, value = part
        matrices = self.matrices(where={} if part == WHOLE else {facet: value})
        whole, drawn = matrices.sum(axis=0), metrics.bootstrap(matrices, np.random.default_rng(SEED))
        is_of_all = facet != "severity"  # that is of one defect only
        rows = []
        recalls = _estimates(metrics.recalls(whole), metrics.recalls(drawn), matrices.sum(axis=2))
        precisions = _estimates(metrics.precisions(whole), metrics.precisions(drawn), matrices.sum(axis=1))
        if is_of_all:
            mean = float(metrics.mean_recall(whole))
            balanced = confidence.of_mean(mean, metrics.mean_recall(drawn), recalls, len(matrices))
            rows.append(figure_row(part, None, "balanced_accuracy", balanced, whole.sum()))
        for index, label in enumerate(self.classes):
            rows.append(figure_row(part, label, "recall", recalls[index], whole[index].sum()))
            if is_of_all:
                rows.append(figure_row(part, label, "precision", precisions[index], whole[:, index].sum()))
        return rows

    def precision_recall(self, label: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Precision, recall and score, each (thresholds,), of one class at falling scores.

        Precision holds for the share of defects in this catalogue; where defects are rarer it is lower.
        """
        of_it = self.scores[self.scores["class"] == label].sort_values("score", ascending=False)
        hits, others = of_it["defective_segments"].to_numpy().cumsum(), of_it["other_segments"].to_numpy().cumsum()
        return hits / np.maximum(hits + others, 1), hits / max(hits[-1], 1), of_it["score"].to_numpy()

    def draw_pictures(self, rows: list[dict[str, Any]], folder: Path) -> list[Path]:
        """Confusion matrix, precision against recall, and recall against severity, as PNG files."""
        confusion, curves = folder / "confusion.png", folder / "precision_recall.png"
        draw_confusion(confusion, self.key, self.classes, self.matrices().sum(axis=0))
        by_label = {label: self.precision_recall(label)[:2] for label in self.classes[1:]}
        named = {f"{label}, area {average_precision(*both):.3f}": both for label, both in by_label.items()}
        draw_precision_recall(curves, self.key, named)
        return [confusion, curves, *draw_recall_by_severity(folder / "recall_by_severity.png", self.key, rows)]

    def difference_from(self, other: "ClassEvaluation", rng: np.random.Generator) -> Estimate:
        """Balanced accuracy minus another version's on the same titles, by a paired bootstrap."""
        titles = sorted({*self.titles, *other.titles})
        return metrics.paired_difference(self.matrices(titles), other.matrices(titles), rng)

    def matrices(self, titles: list[str] | None = None, where: dict[str, str] | None = None) -> np.ndarray:
        """Confusion matrices (titles, classes, classes) of the segments that fit, rows true, columns said.

        Args:
            titles: clean titles in order; None takes those that occur.
            where: values of columns.
        """
        counts = self.counts
        for column, value in (where or {}).items():
            counts = counts[counts[column] == value]
        titles = sorted(counts["clean_title_id"].unique()) if titles is None else titles
        found = np.zeros((len(titles), len(self.classes), len(self.classes)))
        place = {title: number for number, title in enumerate(titles)}
        number = {label: index for index, label in enumerate(self.classes)}
        for row in counts.itertuples():
            if row.clean_title_id in place:
                found[place[row.clean_title_id], number[row.truth], number[row.said]] += row.segments
        return found

    @property
    def key(self) -> str:
        """Name and version, as `scored_with` has them."""
        return f"{self.name}/{self.version}"

    @property
    def titles(self) -> list[str]:
        """The clean titles, in order."""
        return sorted(self.counts["clean_title_id"].unique())


def count(
    spark: "SparkSession", labelled: "LabelledCatalogue", storage: "Storage", model: "ResolvedModel"
) -> ClassEvaluation:
    """Count what a version said of the segments of a labelled catalogue that its scan has scored.

    Segments with nothing but defects that it does not know are left out: none of its classes is right there.

    Raises:
        AuscultError: the model says nothing of segments without a defect, or none was scored.
    """
    from pyspark.sql import functions as F

    from jobs import tables

    contract = model.shipped.contract
    if not contract.clean_labels:
        raise AuscultError(
            f"model {model.shipped.key}: its contract names no clean_labels, so nothing says 'no defect'"
        )
    clean = contract.clean_labels[0]
    classes = (clean, *contract.defects)
    mapped = [(label, clean if label in contract.clean_labels else label) for label in contract.labels]
    labels = labelled.labels.where(~F.col("defect").isin(*contract.clean_labels))
    strangers = {row.defect for row in labels.select("defect").distinct().collect()} - set(contract.defects)
    ours = F.col("defect").isin(*contract.defects)
    all_judged = spark.sql(
        sql.text("judged"),
        segments=tables.read(spark, storage, "segments").where(
            f"model = '{model.shipped.name}' AND model_version = '{model.shipped.version}'"
        ),
        titles=labelled.titles,
        labels=labels.withColumn("defect", F.when(ours, F.col("defect")).otherwise(FOREIGN)),
    ).persist()
    judged = all_judged.where(~F.col("defect").eqNullSafe(FOREIGN))
    if strangers:
        log.warning(
            "%s knows no %s: %d segments of %d, in which nothing else lies, are left out of its figures",
            model.shipped.key,
            ", ".join(sorted(strangers)),
            all_judged.where(F.col("defect") == FOREIGN).count(),
            all_judged.count(),
        )
    names = literal_frame(spark, mapped, "label string, class string")
    counts: Any = spark.sql(sql.text("evaluation"), judged=judged, classes=names, clean=clean).toPandas()
    scores: Any = spark.sql(sql.text("precision_recall"), judged=judged, classes=names).toPandas()
    all_judged.unpersist()
    if counts.empty:
        beside = f", but those with {', '.join(sorted(strangers))}, which it does not know" if strangers else ""
        raise AuscultError(f"model {model.shipped.key}: no segment of the catalogue was scored{beside}")
    return ClassEvaluation(model.shipped.name, model.shipped.version, classes, counts, scores)


def _estimates(values: np.ndarray, drawn: np.ndarray, segments: np.ndarray) -> list[Estimate]:
    """Shares (classes,) with their intervals, of draws (resamples, classes) and what they are of (titles, classes)."""
    return [
        confidence.of_share(float(values[index]), drawn[:, index], int((of > 0).sum()), float(of.sum()))
        for index, of in enumerate(segments.T)
    ]


def average_precision(precision: np.ndarray, recall: np.ndarray) -> float:
    """Area under the precision-recall curve, as steps.

    >>> round(average_precision(np.array([1.0, 0.5, 2 / 3]), np.array([0.5, 0.5, 1.0])), 3)
    0.833
    """
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def table(evaluations: list[ClassEvaluation], rows: dict[str, list[dict[str, Any]]]) -> str:
    """The figures over all segments as a Markdown table, a line a version."""
    lines = ["| model | balanced accuracy | recall (precision) by class | segments |", "|---|---|---|---|"]
    for evaluation in evaluations:
        found = {(row["label"], row["metric"]): row for row in rows[evaluation.key] if row["facet"] == "all"}
        whole = found[None, "balanced_accuracy"]
        by_class = ", ".join(
            f"{label} {found[label, 'recall']['value']:.3f}"
            + (f" ({found[label, 'precision']['value']:.3f})" if (label, "precision") in found else "")
            for label in evaluation.classes
            if (label, "recall") in found
        )
        lines.append(
            f"| {evaluation.key} | {whole['value']:.3f} ({whole['low']:.3f} to {whole['high']:.3f}) | {by_class} "
            f"| {whole['segments']} |"
        )
    return "\n".join(lines)
