"""Keeps a warehouse's tables in order: finds duplicates and gaps, mends them, forgets titles that are gone, compacts, vacuums.

Reads: every Delta table of the warehouse, what scans have staged; --forget-gone the catalogue.
Writes: nothing (--check, --dry-run); --mend the tables tracks, segments, detections and scans; --forget-gone takes rows out
    of tracks, segments and detections; --compact and --vacuum the files of all tables, never a row.
One row per: prints one line per kind of problem, table compacted and table vacuumed.
Launch: spark-submit jobs/maintain.py [--check] [--mend] [--forget-gone CATALOGUE] [--compact] [--vacuum] [--dry-run]
Takes: one pass over the table segments without its scores; compaction rewrites what lies in small files.
"""

import argparse
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.launch import AuscultError, default_warehouse, run, session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.consistency import Findings
    from jobs.lease import Lease
    from jobs.storage import Storage

EXIT_PROBLEMS = 4
SAFE_RETAIN_H = 168.0


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line; needs no Spark.

    Raises:
        AuscultError: a retention that would take files from under readers, without --force-retention.
    """
    parser = argparse.ArgumentParser(prog="maintain.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--warehouse", default=default_warehouse(), help="where the tables are (default: %(default)s)")
    parser.add_argument(
        "--check", action="store_true", help="count rows, find duplicates and gaps (the default); only reads"
    )
    parser.add_argument("--mend", action="store_true", help="mend what --check finds")
    parser.add_argument(
        "--forget-gone",
        metavar="CATALOGUE",
        help="take titles out of the tables that were scanned from this catalogue and are not in it any more, whether or not "
        "another catalogue lists them (its next scan scores them again)",
    )
    parser.add_argument("--settings", type=Path, metavar="YAML", help="of the scan: which files of a folder are titles")
    parser.add_argument("--force-forget", action="store_true", help="allow --forget-gone to forget more than half")
    parser.add_argument("--compact", action="store_true", help="merge the tables' small files")
    parser.add_argument("--vacuum", action="store_true", help="delete files that no table needs any more")
    parser.add_argument(
        "--retain-h",
        type=float,
        default=SAFE_RETAIN_H,
        metavar="HOURS",
        help="vacuum keeps files that were needed this many hours ago (default: %(default)s); Delta forgets what was "
        "removed longer ago than a table's delta.deletedFileRetentionDuration (168 h), so raise that too to keep more",
    )
    parser.add_argument("--force-retention", action="store_true", help=f"allow --retain-h below {SAFE_RETAIN_H:.0f}")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done and stop")
    options = parser.parse_args(argv)
    if not math.isfinite(options.retain_h) or options.retain_h < 0:
        parser.error(f"--retain-h: expected hours from 0, found {options.retain_h}")
    if options.vacuum and options.retain_h < SAFE_RETAIN_H and not options.force_retention:
        raise AuscultError(
            f"--retain-h {options.retain_h:g}: below {SAFE_RETAIN_H:.0f} h long queries, time travel and writers at work "
            "lose files that they still need; once nobody reads or writes this warehouse, add --force-retention"
        )
    options.check = options.check or not (options.mend or options.forget_gone or options.compact or options.vacuum)
    return options


def compact(spark: "SparkSession", storage: "Storage", *, is_dry: bool) -> None:
    """Merge small files of every table; rows stay, files that others may still read stay until a vacuum.

    Delta lets appends (verdicts, operating points) pass beside a compaction. It does not let MERGE: a scan merges into
    `tracks` with every chunk and into `scans` at its end, and has to do so again where a compaction commits meanwhile.
    Hence the lease; object storage needs it anyway, where two writers lose commits.
    """
    from delta.tables import DeltaTable

    from jobs import tables

    print(f"{'table':20} {'files':>7} {'MB':>10}" + ("" if is_dry else f"  compacted: {'files':>7} {'MB':>10}"))
    for name in tables.names(spark, storage):
        table = DeltaTable.forPath(spark, storage.locate(name))
        before = _size(table)
        if is_dry:
            print(f"{name:20} {before}")
            continue
        tables.persist(table.optimize().executeCompaction, f"compaction of {name}")
        print(f"{name:20} {before}             {_size(table)}")


def _size(table: Any) -> str:
    row = table.detail().select("numFiles", "sizeInBytes").collect()[0]
    return f"{row.numFiles:7d} {row.sizeInBytes / 1e6:10.3f}"


def vacuum(spark: "SparkSession", storage: "Storage", retain_h: float, *, is_dry: bool) -> None:
    """Delete files that no version of the last `retain_h` hours needs.

    Raises:
        AuscultError: a scan that counts as running began before that.
    """
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    from jobs import tables

    names = tables.names(spark, storage)
    if "scans" in names:
        age_h = (F.unix_timestamp(F.current_timestamp()) - F.unix_timestamp("started_at")) / 3600
        running = (
            tables.read(spark, storage, "scans").where("state = 'running'").select("scan_id", age_h.alias("age_h"))
        )
        for row in running.orderBy(F.desc("age_h")).limit(1).collect():
            if row.age_h > retain_h:
                raise AuscultError(
                    f"vacuum: scan {row.scan_id} has been running for {row.age_h:.1f} h, longer than --retain-h "
                    f"{retain_h:g}; if it is dead, --mend or the next scan says so in the table scans"
                )
    settings = {
        # Delta's own listing makes as many tasks as this, 10,000 of them by default, for tables of one folder each.
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "8",
        # Else Delta 4 ignores the hours it is given, unless they are 0, and takes the table's property.
        "spark.databricks.delta.vacuum.retentionWindowIgnore.enabled": "false",
    }
    if retain_h < SAFE_RETAIN_H:
        settings["spark.databricks.delta.retentionDurationCheck.enabled"] = "false"
    print(f"{'table':20} files " + ("to delete" if is_dry else "deleted"))
    with _settings(spark, settings):
        for name in names:
            location = storage.locate(name)
            # Only SQL has the dry run.
            unused = spark.sql(
                f"VACUUM delta.{tables.quoted([location])[0]} RETAIN {retain_h:.6f} HOURS DRY RUN"
            ).count()
            if unused and not is_dry:
                DeltaTable.forPath(spark, location).vacuum(retain_h)
            print(f"{name:20} {unused:d}")


@contextmanager
def _settings(spark: "SparkSession", values: dict[str, str]) -> Iterator[None]:
    """Settings of the session for a while."""
    before = {name: spark.conf.get(name, None) for name in values}
    try:
        for name, value in values.items():
            spark.conf.set(name, value)
        yield
    finally:
        for name, old in before.items():
            if old is None:
                spark.conf.unset(name)
            else:
                spark.conf.set(name, old)


def main(argv: list[str]) -> int:
    """Check, mend, forget, compact, vacuum: what was asked for, in this order."""
    options = arguments(argv)
    from jobs.settings import read_settings

    settings = read_settings(options.settings)
    spark = session("auscult maintain")
    from jobs import commits, gone, tables
    from jobs.catalogue import read_catalogue
    from jobs.consistency import check
    from jobs.lease import Lease
    from jobs.storage import Storage, absolute

    warehouse = absolute(options.warehouse)
    try:
        storage = Storage(spark, warehouse)
        tables.names(spark, storage)
    except AuscultError:
        raise
    except Exception as error:
        raise AuscultError(f"warehouse {warehouse}: {tables.first_line(error)}") from error
    catalogue = None
    if options.forget_gone is not None:
        catalogue = read_catalogue(spark, options.forget_gone, settings)
        if not catalogue.titles:
            raise AuscultError(
                f"--forget-gone {options.forget_gone}: there are no titles in it; is its storage mounted?"
            )
    found = None
    if options.check or (options.mend and options.dry_run):
        found = check(spark, storage)
        found.print()
    if options.dry_run:
        if catalogue is not None:
            gone.forget(spark, storage, catalogue, is_dry=True)
        if options.compact:
            compact(spark, storage, is_dry=True)
        if options.vacuum:
            vacuum(spark, storage, options.retain_h, is_dry=True)
        print("nothing was written (--dry-run)")
    elif options.mend or catalogue is not None or options.compact or options.vacuum:
        with Lease(storage, f"maintain-{tables.new_scan_id()}") as lease:
            if options.mend:
                found = _mend_all(spark, storage, lease)
            elif lease.was_abandoned and storage.has_table("scans"):
                commits.recover(spark, storage)  # nobody after us would see that a scan has died
            if catalogue is not None:
                gone.forget(spark, storage, catalogue, is_forced=options.force_forget, check=lease.check)
            if options.compact:
                compact(spark, storage, is_dry=False)
            if options.vacuum:
                vacuum(spark, storage, options.retain_h, is_dry=False)
    return 0 if found is None or found.is_clean else EXIT_PROBLEMS


def _mend_all(spark: "SparkSession", storage: "Storage", lease: "Lease") -> "Findings":
    """Finish what a dead scan left, mend what a check finds, and check once more."""
    from jobs import commits, tables
    from jobs.consistency import check, mend

    # Nobody else holds the lease: whoever is still "running" is dead. What it staged is committed first, since
    # orphans can only be told once no commit is half done.
    is_dead = "scans" in tables.names(spark, storage) and bool(
        tables.read(spark, storage, "scans").where("state = 'running'").limit(1).collect()
    )
    if storage.folders(tables.STAGING) or is_dead:
        print(f"finished {commits.recover(spark, storage)} chunks that a dead scan had scored")
    found = check(spark, storage)
    found.print()
    if found.is_clean:
        print("nothing else to mend")
        return found
    lease.check()
    mend(spark, storage, found)
    found = check(spark, storage)
    print("after mending:")
    found.print()
    return found


if __name__ == "__main__":
    run(main)
