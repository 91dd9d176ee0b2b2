"""Measures model versions on a labelled catalogue.

Reads: a folder that jobs/simulate.py wrote, or a catalogue and a file of labels (jobs/labelled.py); model versions from
    the MLflow registry.
Writes: the Delta table evaluations in the warehouse; metrics and pictures in the MLflow run of each version.
One row per: model version x facet x value x class x metric.
Launch: spark-submit jobs/evaluate.py --catalogue CATALOGUE [--labels LABELS] [--model models:/NAME/VERSION ...]
Takes: the time of a scan of the catalogue, once per version: it scans with jobs/scan.py what was not scanned before.
"""

import argparse
import sys
import tempfile
import uuid
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import class_evaluation, event_evaluation, labelled
from jobs.class_evaluation import ClassEvaluation
from jobs.event_evaluation import EventEvaluation
from jobs.launch import DEFAULT_MODEL_URI, AuscultError, default_warehouse, log, run, session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.storage import Storage


def evaluate(
    catalogue: str, warehouse: str, uris: list[str], settings: Path | None = None, labels: str | None = None
) -> list[ClassEvaluation | EventEvaluation]:
    """Scan a labelled catalogue with model versions, as far as that was not done, and count what they said.

    Args:
        catalogue: folder that jobs/simulate.py wrote; with `labels` whatever jobs/scan.py takes.
        warehouse: of the scans.
        uris: of the versions.
        settings: of the scans.
        labels: file of labels (`jobs.labelled`).

    Raises:
        AuscultError: the catalogue is not a labelled one, its labels are wrong, a model is not to be had, or the scan
            failed.
    """
    from jobs import registry, scan
    from jobs.settings import read_settings
    from jobs.storage import Storage

    models = registry.resolve(uris)
    spark = session("auscult evaluate")
    storage = Storage(spark, warehouse)
    if labels is None:
        known = labelled.simulated(spark, catalogue)
    else:
        ours, elsewhere = read_settings(settings), labelled.sought_in(spark, storage)
        vocabulary = labelled.vocabulary([model.shipped.contract for model in models], ours, elsewhere)
        known = labelled.by_people(spark, catalogue, labels, vocabulary, ours)
    # The versions, not the aliases: an alias that moves meanwhile must not change what is measured.
    chosen = [argument for model in models for argument in ("--model", f"models:/{model.shipped.key}")]
    given = [] if settings is None else ["--settings", str(settings)]
    with redirect_stdout(sys.stderr):  # the scan's report is not what this job prints
        status = scan.main(["--catalogue", known.source, "--warehouse", warehouse, *chosen, *given])
    if status != 0:
        raise AuscultError(f"the scan of {catalogue} ended with status {status}; nothing was evaluated")
    for model in models:
        _warn_of_unscored(spark, known, storage, model.shipped.key)
    return [
        (event_evaluation if model.shipped.contract.frames > 1 else class_evaluation).count(
            spark, known, storage, model
        )
        for model in models
    ]


def _warn_of_unscored(spark: "SparkSession", known: labelled.LabelledCatalogue, storage: "Storage", key: str) -> None:
    from jobs import tables

    scored = tables.read(spark, storage, "tracks").where(f"array_contains(scored_with, '{key}')")
    lost = sorted(
        row.title_id for row in known.titles.join(scored, "title_id", "left_anti").select("title_id").collect()
    )
    if lost:
        log.warning(
            "%d labelled titles have no track that %s has scored, and are left out (tracks.error says why), the first: %s",
            len(lost),
            key,
            lost[0],
        )


def located(catalogue: str, warehouse: str | None = None, labels: str | None = None) -> tuple[str, str]:
    """A labelled catalogue's place, absolute, and the warehouse for its scans.

    By default that is inside a simulated catalogue, and the one of all scans where labels come from people.
    """
    catalogue = catalogue if "://" in catalogue else str(Path(catalogue).resolve())
    return catalogue, warehouse or (f"{catalogue}/warehouse" if labels is None else default_warehouse())


def keep(
    evaluations: list[ClassEvaluation | EventEvaluation], catalogue: str, warehouse: str
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
    parser.add_argument(
        "--catalogue",
        required=True,
        help="folder that jobs/simulate.py wrote; with --labels any catalogue, as for jobs/scan.py",
    )
    parser.add_argument(
        "--labels",
        help="CSV, JSON, Parquet or Delta: title_id, defect (empty: fine; one that no detector knows is an error), start_s, "
        "end_s, and where wanted track, channels, group",
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="URI",
        help=f"repeatable, as for jobs/scan.py (default: {DEFAULT_MODEL_URI})",
    )
    parser.add_argument(
        "--warehouse",
        help="where its segments and evaluations go (default: warehouse/ in the simulated catalogue, else as for "
        "jobs/scan.py)",
    )
    parser.add_argument("--settings", type=Path, metavar="YAML", help="settings of the scan")
    options = parser.parse_args(argv)
    catalogue, warehouse = located(options.catalogue, options.warehouse, options.labels)
    uris = options.model or [DEFAULT_MODEL_URI]
    evaluations = evaluate(catalogue, warehouse, uris, options.settings, options.labels)
    rows = keep(evaluations, catalogue, warehouse)
    parts = []
    for module, kind in ((class_evaluation, ClassEvaluation), (event_evaluation, EventEvaluation)):
        if of_it := [evaluation for evaluation in evaluations if isinstance(evaluation, kind)]:
            parts.append(module.table(of_it, rows))
    print("\n\n".join(parts))
    print(f"\nby format, kind and severity: the table {warehouse}/evaluations; pictures: the versions' MLflow runs")
    return 0


if __name__ == "__main__":
    run(main)
