"""Measures model versions on a labelled catalogue.

Reads: a folder that jobs/simulate.py wrote, model versions from the MLflow registry.
Writes: the Delta table evaluations in the warehouse; metrics and pictures in the MLflow run of each version.
One row per: model version x facet x value x class x metric.
Launch: spark-submit jobs/evaluate.py --catalogue OUT [--model models:/NAME/VERSION ...]
Takes: the time of a scan of the catalogue, once per version: it scans with jobs/scan.py what was not scanned before.
"""

import argparse
import math
import sys
import tempfile
import uuid
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs import event_evaluation, sql
from jobs.event_evaluation import FACETS, SEED, EventEvaluation
from jobs.launch import DEFAULT_MODEL_URI, AuscultError, log, run, session
from jobs.literals import literal_frame

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

    from jobs.registry import ResolvedModel
    from jobs.storage import Storage
    from models.metrics import Estimate


@dataclass
class Evaluation:
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
        """Balanced accuracy, recalls and precisions over all segments and by facet, as rows of `evaluations`."""
        return _figures(self)

    def draw_pictures(self, rows: list[dict[str, Any]], folder: Path) -> list[Path]:
        """Confusion matrix, precision against recall, and recall against severity, as PNG files."""
        return _draw_pictures(self, rows, folder)

    def difference_from(self, other: "Evaluation", rng: np.random.Generator) -> "Estimate":
        """Balanced accuracy minus another version's on the same titles, by a paired bootstrap."""
        from models.metrics import paired_difference

        titles = sorted({*self.titles, *other.titles})
        return paired_difference(self.matrices(titles), other.matrices(titles), rng)

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


def evaluate(
    catalogue: str, warehouse: str, uris: list[str], settings: Path | None = None
) -> list[Evaluation | EventEvaluation]:
    """Scan a labelled catalogue with model versions, as far as that was not done, and count what they said.

    Raises:
        AuscultError: the catalogue is not a labelled one, a model is not to be had, or the scan failed.
    """
    from jobs import registry, scan
    from jobs.storage import Storage

    models = registry.resolve(uris)
    spark = session("auscult evaluate")
    labelled = Storage(spark, catalogue)
    for name in ("titles", "labels"):
        if not labelled.has_table(name):
            raise AuscultError(
                f"catalogue {catalogue}: expected the Delta tables titles and labels that jobs/simulate.py writes, "
                f"found no {name}"
            )
    # The versions, not the aliases: an alias that moves meanwhile must not change what is measured.
    chosen = [argument for model in models for argument in ("--model", f"models:/{model.shipped.key}")]
    given = [] if settings is None else ["--settings", str(settings)]
    with redirect_stdout(sys.stderr):  # the scan's report is not what this job prints
        status = scan.main(["--catalogue", labelled.locate("titles"), "--warehouse", warehouse, *chosen, *given])
    if status != 0:
        raise AuscultError(f"the scan of {catalogue} ended with status {status}; nothing was evaluated")
    storage = Storage(spark, warehouse)
    return [
        (event_evaluation.count if model.shipped.contract.frames > 1 else _count)(spark, labelled, storage, model)
        for model in models
    ]


def located(catalogue: str, warehouse: str | None = None) -> tuple[str, str]:
    """A labelled catalogue's folder, absolute, and the warehouse for its scans (by default inside it)."""
    catalogue = catalogue if "://" in catalogue else str(Path(catalogue).resolve())
    return catalogue, warehouse or f"{catalogue}/warehouse"


def _count(spark: "SparkSession", labelled: "Storage", storage: "Storage", model: "ResolvedModel") -> Evaluation:
    from jobs import tables

    contract = model.shipped.contract
    if not contract.clean_labels:
        raise AuscultError(
            f"model {model.shipped.key}: its contract names no clean_labels, so nothing says 'no defect'"
        )
    clean = contract.clean_labels[0]
    classes = (clean, *contract.defects)
    mapped = [(label, clean if label in contract.clean_labels else label) for label in contract.labels]
    labels = tables.read(spark, labelled, "labels")
    if strangers := {row.defect for row in labels.select("defect").distinct().collect()} - set(classes):
        log.warning("%s knows no %s: left out of its figures", model.shipped.key, ", ".join(sorted(strangers)))
    judged = _sql(
        spark,
        "judged",
        segments=tables.read(spark, storage, "segments").where(
            f"model = '{model.shipped.name}' AND model_version = '{model.shipped.version}'"
        ),
        titles=tables.read(spark, labelled, "titles"),
        labels=labels,
    ).persist()
    names = literal_frame(spark, mapped, "label string, class string")
    found = _sql(spark, "evaluation", judged=judged, classes=names, clean=clean).toPandas()
    scores = _sql(spark, "precision_recall", judged=judged, classes=names).toPandas()
    judged.unpersist()
    counts: pd.DataFrame = found[found["truth"].isin(classes)]  # type: ignore[index]
    if counts.empty:
        raise AuscultError(f"model {model.shipped.key}: no segment of the catalogue was scored")
    return Evaluation(model.shipped.name, model.shipped.version, classes, counts, scores)


def _sql(spark: "SparkSession", name: str, **given: Any) -> "DataFrame":
    return spark.sql(sql.text(name), **given)


def precision_recall(evaluation: Evaluation, label: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and score, each (thresholds,), of one class at falling scores.

    Precision holds for the share of defects in this catalogue; where defects are rarer it is lower.
    """
    of_it = evaluation.scores[evaluation.scores["class"] == label].sort_values("score", ascending=False)
    hits, others = of_it["defective_segments"].to_numpy().cumsum(), of_it["other_segments"].to_numpy().cumsum()
    return hits / np.maximum(hits + others, 1), hits / max(hits[-1], 1), of_it["score"].to_numpy()


def average_precision(precision: np.ndarray, recall: np.ndarray) -> float:
    """Area under the precision-recall curve, as steps.

    >>> round(average_precision(np.array([1.0, 0.5, 2 / 3]), np.array([0.5, 0.5, 1.0])), 3)
    0.833
    """
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _figures(evaluation: Evaluation) -> list[dict[str, Any]]:
    rows = _figures_of(evaluation, "all", "all")
    for label in evaluation.classes[1:]:
        precision, recall, _score = precision_recall(evaluation, label)
        segments = int(evaluation.counts.loc[evaluation.counts["truth"] == label, "segments"].sum())
        if segments:
            rows.append(
                {
                    "facet": "all",
                    "facet_value": "all",
                    "label": label,
                    "metric": "average_precision",
                    "value": average_precision(precision, recall),
                    "segments": segments,
                }
            )
    for facet in FACETS:
        for value in sorted(evaluation.counts[facet].dropna().unique()):
            rows += _figures_of(evaluation, facet, value)
    return rows


def _figures_of(evaluation: Evaluation, facet: str, value: str) -> list[dict[str, Any]]:
    from models import metrics

    where = {} if facet == "all" else {facet: value}
    matrices = evaluation.matrices(where=where)
    whole, drawn = matrices.sum(axis=0), metrics.bootstrap(matrices, np.random.default_rng(SEED))
    rows = []

    def add(label: str | None, metric: str, estimate: Any, segments: float) -> None:
        if not math.isnan(estimate.value):
            rows.append(
                {
                    "facet": facet,
                    "facet_value": value,
                    "label": label,
                    "metric": metric,
                    "value": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                    "segments": int(segments),
                }
            )

    if facet != "severity":  # of one defect only
        balanced = metrics.estimate(float(metrics.mean_recall(whole)), metrics.mean_recall(drawn))
        add(None, "balanced_accuracy", balanced, whole.sum())
    recalls, recalls_drawn = metrics.recalls(whole), metrics.recalls(drawn)
    precisions, precisions_drawn = metrics.precisions(whole), metrics.precisions(drawn)
    for index, label in enumerate(evaluation.classes):
        add(label, "recall", metrics.estimate(recalls[index], recalls_drawn[:, index]), whole[index].sum())
        if facet != "severity":
            precision = metrics.estimate(precisions[index], precisions_drawn[:, index])
            add(label, "precision", precision, whole[:, index].sum())
    return rows


def _draw_pictures(evaluation: Evaluation, rows: list[dict[str, Any]], folder: Path) -> list[Path]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matrix = evaluation.matrices().sum(axis=0)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure, axes = pyplot.subplots(figsize=(6, 5), layout="constrained")
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(share):
        axes.text(column, row, f"{value:.3f}", ha="center", va="center", color="white" if value > 0.5 else "black")
    ticks = range(len(evaluation.classes))
    axes.set_xticks(ticks, evaluation.classes, rotation=30)
    axes.set_yticks(ticks, evaluation.classes)
    axes.set(xlabel="said", ylabel="true", title=f"{evaluation.key}, share of the true class")
    made = [folder / "confusion.png", folder / "precision_recall.png"]
    figure.savefig(made[0], dpi=120)
    pyplot.close(figure)
    figure, axes = pyplot.subplots(figsize=(6, 5), layout="constrained")
    for label in evaluation.classes[1:]:
        precision, recall, _score = precision_recall(evaluation, label)
        axes.plot(recall, precision, label=f"{label}, area {average_precision(precision, recall):.3f}")
    axes.set(xlabel="recall", ylabel="precision", title=evaluation.key, xlim=(0, 1.02), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    figure.savefig(made[1], dpi=120)
    pyplot.close(figure)
    severities = [row for row in rows if row["facet"] == "severity" and row["metric"] == "recall"]
    simulators = sorted({row["facet_value"].split(" ")[0] for row in severities})
    if simulators:
        figure, panels = pyplot.subplots(
            1, len(simulators), figsize=(3.2 * len(simulators), 3.4), sharey=True, squeeze=False, layout="constrained"
        )
        for panel, simulator in zip(panels[0], simulators, strict=True):
            of_it = [row for row in severities if row["facet_value"].split(" ")[0] == simulator]
            of_it.sort(key=lambda row: float(row["facet_value"].split(" ")[1].split("..")[0]))
            values = np.array([row["value"] for row in of_it])
            spread = np.array([[row["value"] - row["low"], row["high"] - row["value"]] for row in of_it]).T
            panel.errorbar(range(len(of_it)), values, yerr=np.abs(spread), marker="o", capsize=3)
            names = [row["facet_value"].split(" ", 1)[1] for row in of_it]
            panel.set_xticks(range(len(of_it)), names, rotation=45, ha="right")
            panel.set(title=simulator, ylim=(0, 1.02))
            panel.grid(alpha=0.3)
        panels[0][0].set_ylabel("recall")
        made.append(folder / "recall_by_severity.png")
        figure.savefig(made[-1], dpi=120)
        pyplot.close(figure)
    return made


def table(evaluations: list[Evaluation], rows: dict[str, list[dict[str, Any]]]) -> str:
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


def keep(
    evaluations: list[Evaluation | EventEvaluation], catalogue: str, warehouse: str
) -> dict[str, list[dict[str, Any]]]:
    """Write figures to the table `evaluations` and to the MLflow runs of the versions; returns them by version."""
    from mlflow.exceptions import MlflowException

    from jobs import registry, tables
    from jobs.storage import Storage
    from udfs.schemas import EVALUATIONS

    spark = session("auscult evaluate")
    location = Storage(spark, warehouse).locate("evaluations")
    tables.create(spark, location, EVALUATIONS)
    client = registry.client()
    by_version = {}
    for evaluation in evaluations:
        rows = evaluation.figures()
        by_version[evaluation.key] = rows
        common = {
            "evaluation_id": uuid.uuid4().hex[:12],
            "evaluated_at": datetime.now(UTC),
            "catalogue": catalogue,
            "model": evaluation.name,
            "model_version": evaluation.version,
        }
        values = [tuple({**common, **row}.get(name) for name in EVALUATIONS.names) for row in rows]
        spark.createDataFrame(values, EVALUATIONS).write.format("delta").mode("append").save(location)
        run_id = client.get_model_version(evaluation.name, evaluation.version).run_id
        if not run_id:
            continue
        try:
            for row in rows:
                if row["facet"] == "all":
                    name = f"evaluation.{row['metric']}" + (f".{row['label']}" if row["label"] else "")
                    client.log_metric(run_id, name, row["value"])
            with tempfile.TemporaryDirectory() as folder:
                for picture in evaluation.draw_pictures(rows, Path(folder)):
                    client.log_artifact(run_id, str(picture), "evaluation")
        except MlflowException as error:
            log.warning("run %s: figures and pictures not kept there: %s", run_id, str(error).splitlines()[0])
    return by_version


def main(argv: list[str]) -> int:
    """Evaluate and print."""
    parser = argparse.ArgumentParser(prog="evaluate.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--catalogue", required=True, help="folder that jobs/simulate.py wrote")
    parser.add_argument(
        "--model",
        action="append",
        metavar="URI",
        help=f"repeatable, as for jobs/scan.py (default: {DEFAULT_MODEL_URI})",
    )
    parser.add_argument(
        "--warehouse", help="where its segments and evaluations go (default: warehouse/ in the catalogue)"
    )
    parser.add_argument("--settings", type=Path, metavar="YAML", help="settings of the scan")
    options = parser.parse_args(argv)
    catalogue, warehouse = located(options.catalogue, options.warehouse)
    evaluations = evaluate(catalogue, warehouse, options.model or [DEFAULT_MODEL_URI], options.settings)
    rows = keep(evaluations, catalogue, warehouse)
    by_class = [evaluation for evaluation in evaluations if isinstance(evaluation, Evaluation)]
    by_event = [evaluation for evaluation in evaluations if isinstance(evaluation, EventEvaluation)]
    parts = [table(by_class, rows)] * bool(by_class) + [event_evaluation.table(by_event, rows)] * bool(by_event)
    print("\n\n".join(parts))
    print(f"\nby format, kind and severity: the table {warehouse}/evaluations; pictures: the versions' MLflow runs")
    return 0


if __name__ == "__main__":
    run(main)
