"""Scans a catalogue of titles for defects.

Reads: the catalogue's media files, model versions from the MLflow registry.
Writes: the Delta tables tracks, segments, detections and scans of the warehouse.
One row per: see udfs/schemas.py.
Launch: spark-submit jobs/scan.py --catalogue FOLDER_OR_TABLE
Takes: on two CPU cores half a minute to start and 10 to 30 seconds per hour of stereo with the default model; run it again to
    go on after an interruption.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.launch import (
    DEFAULT_MODEL_URI,
    AuscultError,
    default_warehouse,
    log,
    plan_for_small_tables,
    run,
    session,
)
from jobs.scan_report import print_result

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

EXIT_TOO_MANY_REJECTED = 3


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line; needs no Spark, so that --help and mistakes answer at once."""
    parser = argparse.ArgumentParser(prog="scan.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--catalogue",
        required=True,
        help="folder (searched recursively), or a CSV, JSON, Parquet file or Delta table with a column uri",
    )
    parser.add_argument(
        "--warehouse",
        default=default_warehouse(),
        help="where the Delta tables live: path or Hadoop URI (default: %(default)s)",
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="URI",
        help=f"models:/NAME@ALIAS or models:/NAME/VERSION; repeatable (default: {DEFAULT_MODEL_URI})",
    )
    parser.add_argument("--settings", type=Path, metavar="YAML", help="settings that differ from conf/scan.yaml")
    parser.add_argument(
        "--operating-points",
        metavar="VERSION",
        help="a set that jobs/tune.py wrote into the warehouse, or latest; over those of the settings",
    )
    parser.add_argument(
        "--retry",
        action="append",
        default=[],
        metavar="CODE",
        help="score titles again whose tracks have this error_code (after an update, say); repeatable; all for every code",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="scan the first N titles only")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    options = parser.parse_args(argv)
    if options.limit is not None and options.limit < 1:
        parser.error(f"--limit: expected at least 1, found {options.limit}")
    return options


def main(argv: list[str]) -> int:
    """Check everything, plan, score, report."""
    options = arguments(argv)
    from jobs.settings import read_settings

    settings = read_settings(options.settings)
    from jobs import registry

    models = registry.resolve(options.model or [DEFAULT_MODEL_URI])
    spark = session("auscult scan")
    plan_for_small_tables(spark)
    from jobs import commits, gone, operating_points, tables
    from jobs.catalogue import read_catalogue
    from jobs.lease import Lease
    from jobs.scan_run import ScanRun
    from jobs.storage import Storage, absolute
    from udfs.decoder_findings import DECODER

    catalogue = read_catalogue(spark, options.catalogue, settings, options.limit)
    titles = catalogue.titles
    if catalogue.ignored:
        left_out = ", ".join(f"{count} {reason}" for reason, count in catalogue.ignored.most_common(8))
        log.info("left out, as no titles (see ignored_suffixes, ignored_folders): %s", left_out)
    if not titles:
        raise AuscultError(f"catalogue {options.catalogue}: there are no titles in it")
    warehouse = absolute(options.warehouse)
    try:
        storage = Storage(spark, warehouse)
    except Exception as error:
        raise AuscultError(f"warehouse {warehouse}: {tables.first_line(error)}") from error
    scan_id = tables.new_scan_id()
    detectors = [*(model.shipped for model in models), DECODER]
    points = operating_points.from_settings(detectors, settings)
    for warning in operating_points.unused(detectors, settings):
        log.warning("%s", warning)
    if options.operating_points is not None:
        points = operating_points.from_table(spark, storage, options.operating_points, points)
    scan = ScanRun(spark, storage, settings, models, points, scan_id, options.retry)
    if options.dry_run:
        scan.count(titles)
        return 0
    registry.check(models, settings.cpu_runtime)
    tables.prepare(spark, storage)
    registry.ship(spark, models)
    if (risk := storage.exclusion_risk()) is not None:
        log.warning("%s", risk)
    with Lease(storage, scan_id) as lease:
        scan.lease = lease
        row = tables.new_scan(scan_id, catalogue.name, settings, scan.models, points, _device(spark))
        if (lease.was_abandoned or storage.folders(tables.STAGING)) and (recovered := commits.recover(spark, storage)):
            log.info("brought in %d chunks that an interrupted scan had scored", recovered)
        for warning in (
            *tables.changed_models(spark, storage, scan.models),
            *tables.changed_points(spark, storage, points),
        ):
            log.warning("%s", warning)
        tables.begin_scan(spark, storage, row)
        try:
            scan.score(titles)
        except BaseException:
            try:
                spark.sparkContext.cancelAllJobs()  # where only this process was told to end, they would be waited for
                lease.check()
                tables.end_scan(spark, storage, {**row, **scan.figures(), "state": "failed"})
            except Exception as error:  # what went wrong first is to be told; the next scan finds this one dead
                log.info("the table scans goes without this scan's end: %s", tables.first_line(error))
            raise
        figures = scan.figures()
        tables.end_scan(spark, storage, {**row, **figures, "state": "finished"})
        storage.delete(f"{tables.STAGING}/{scan_id}")
    if options.limit is None and (line := gone.told(spark, storage, catalogue)) is not None:
        log.info("%s", line)
    print_result(spark, storage, scan_id, scan.tally, figures, has_many=len(models) > 1)
    share = scan.tally.rejected_titles / len(titles)
    if share > settings.max_rejected_share:
        print(
            f"error: {share:.0%} of the titles were rejected, more than max_rejected_share {settings.max_rejected_share:.0%}",
            file=sys.stderr,
        )
        return EXIT_TOO_MANY_REJECTED
    return 0


def _device(spark: "SparkSession") -> str:
    return "gpu" if spark.conf.get("spark.task.resource.gpu.amount", None) else "cpu"


if __name__ == "__main__":
    run(main)
