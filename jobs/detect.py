"""Applies other operating points to stored scores: no audio is decoded again.

Reads: the tables segments and tracks; operating points from the table operating_points or a settings file; the models'
    contracts in MLflow.
Writes: the table detections (the rows of the chosen model versions are replaced in one commit), a row in scans.
One row per: title x track x defect x stretch.
Launch: spark-submit jobs/detect.py --operating-points VERSION | --settings conf/scan.yaml [--dry-run]
Takes: one pass over the stored scores.
"""

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.launch import AuscultError, default_warehouse, log, run, session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from jobs.operating_points import Points
    from jobs.storage import Storage
    from udfs.contract import ShippedModel


def stored_versions(spark: "SparkSession", storage: "Storage") -> list[str]:
    """The model versions whose scores the warehouse holds, as models:/NAME/VERSION."""
    from jobs import tables

    keys = tables.read(spark, storage, "tracks").selectExpr("explode(scored_with) AS key").distinct().collect()
    return sorted(f"models:/{row.key}" for row in keys)


def detections(
    spark: "SparkSession", storage: "Storage", models: list["ShippedModel"], points: "Points"
) -> "DataFrame":
    """Detections of model versions in what the tracks hold now; rows of `udfs.schemas.DETECTIONS` but scan_id."""
    from jobs import tables
    from jobs.temporal_filter import detect

    if not points:
        raise AuscultError(f"models {', '.join(model.key for model in models)}: their contracts name no defect")
    now = tables.read(spark, storage, "tracks").select("title_id", "track", "content_hash")
    segments = tables.read(spark, storage, "segments").join(now, ["title_id", "track", "content_hash"], "left_semi")
    return detect(spark, segments, points)


def main(argv: list[str]) -> int:
    """Filter anew, replace, say what changed."""
    parser = argparse.ArgumentParser(prog="detect.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--settings", type=Path, metavar="YAML", help="as for jobs/scan.py")
    parser.add_argument("--operating-points", metavar="VERSION", help="as for jobs/scan.py")
    parser.add_argument("--warehouse", default=default_warehouse(), help="where the tables are (default: %(default)s)")
    parser.add_argument(
        "--model", action="append", metavar="URI", help="repeatable; default: every version that has scored something"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would change and stop")
    options = parser.parse_args(argv)
    if options.settings is None and options.operating_points is None:
        parser.error(
            "which operating points? --settings YAML, --operating-points VERSION, or both (the version counts)"
        )
    from jobs.settings import read_settings

    settings = read_settings(options.settings)
    from jobs import commits, operating_points, registry, tables
    from jobs.lease import Lease
    from jobs.storage import Storage, absolute
    from udfs.schemas import DETECTIONS

    spark = session("auscult detect")
    storage = Storage(spark, absolute(options.warehouse))
    tables.require(storage, "segments")
    models = registry.shipped(options.model or stored_versions(spark, storage))
    points = operating_points.from_settings(models, settings)
    for warning in operating_points.unused(models, settings):
        log.warning("%s", warning)
    if options.operating_points is not None:
        points = operating_points.from_table(spark, storage, options.operating_points, points)
    started, scan_id = time.monotonic(), tables.new_scan_id()
    row = tables.new_scan(scan_id, tables.STORED_SCORES, settings, models, points, device=None)
    ours = " OR ".join(f"(model = '{model.name}' AND model_version = '{model.version}')" for model in models)
    with Lease(storage, scan_id):
        if not options.dry_run:
            tables.prepare(spark, storage)  # those of an earlier version lack columns
            if storage.folders(tables.STAGING):
                commits.recover(spark, storage)
        before = tables.read(spark, storage, "detections").where(ours)
        counts = {(row.defect, "before"): row["count"] for row in before.groupBy("defect").count().collect()}
        # Kept while it is counted and written: the filter should run once.
        found = detections(spark, storage, models, points).selectExpr("*", f"'{scan_id}' AS scan_id")
        found = found.select(DETECTIONS.names).persist()
        counts |= {(row.defect, "after"): row["count"] for row in found.groupBy("defect").count().collect()}
        if not options.dry_run:
            location = storage.locate("detections")
            replacing = found.write.format("delta").mode("overwrite").option("replaceWhere", ours)
            tables.persist(lambda: replacing.save(location), f"detections of {scan_id}")
            counted, measured = (
                ("titles_done", "titles_skipped", "titles_rejected"),
                ("audio_done_h", "audio_skipped_h", "audio_h_per_h"),
            )
            figures: dict[str, Any] = {**dict.fromkeys(counted, 0), **dict.fromkeys(measured, 0.0)}
            ended = {"state": "finished", "finished_at": datetime.now(UTC), "wall_s": time.monotonic() - started}
            tables.begin_scan(spark, storage, {**row, **figures, **ended})
        found.unpersist()
    print(f"{'defect':16} {'detections before':>18} {'after':>6}")
    for defect in sorted({defect for defect, _ in counts}):
        print(f"{defect:16} {counts.get((defect, 'before'), 0):18d} {counts.get((defect, 'after'), 0):6d}")
    print(
        "nothing was written (--dry-run)" if options.dry_run else f"written: {storage.root}/detections, run {scan_id}"
    )
    return 0


if __name__ == "__main__":
    run(main)
