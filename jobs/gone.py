"""Titles that were scanned from a catalogue and are not in it any more: told of, and forgotten when that is asked for."""

from collections.abc import Callable

import pandas as pd
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.catalogue import Catalogue, name_of
from jobs.launch import AuscultError
from jobs.scan_report import printable
from jobs.storage import Storage
from jobs.tables import persist, read, require

EXAMPLES = 3
FORGOTTEN_IN = ("detections", "segments", "tracks")  # the last one last: a title is known as long as it is there
NAMED = 10_000  # titles that a query names, so that Delta opens those files only that may have them


def _known(spark: SparkSession, storage: Storage, catalogue: Catalogue) -> DataFrame:
    """The title_id of each title whose rows in `tracks` are of a scan of this catalogue."""
    scans = read(spark, storage, "scans").select("scan_id", "catalogue").collect()
    # Earlier versions wrote the location as it was typed.
    mine = [row.scan_id for row in scans if row.catalogue and name_of(row.catalogue) == catalogue.name]
    return read(spark, storage, "tracks").where(F.col("scan_id").isin(mine)).select("title_id").distinct()


def titles(spark: SparkSession, storage: Storage, catalogue: Catalogue) -> DataFrame:
    """The title_id of each title whose rows in `tracks` are of a scan of this catalogue, in which it is no more."""
    present = spark.createDataFrame(pd.DataFrame({"title_id": [title.title_id for title in catalogue.titles]}))
    return _known(spark, storage, catalogue).join(present, "title_id", "left_anti")


def told(spark: SparkSession, storage: Storage, catalogue: Catalogue) -> str | None:
    """What an operator should know of such titles; None where there are none."""
    found = titles(spark, storage, catalogue).persist()
    count = found.count()
    examples = _examples(found) if count else ""
    found.unpersist()
    if not count:
        return None
    return (
        f"{count} titles that were scanned from this catalogue are not in it any more ({examples}); what is known of them "
        "stays: jobs/maintain.py --forget-gone CATALOGUE takes it out"
    )


def forget(
    spark: SparkSession,
    storage: Storage,
    catalogue: Catalogue,
    *,
    is_dry: bool = False,
    is_forced: bool = False,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Delete the rows of such titles from tracks, segments and detections; verdicts stay, for they are of the content.

    Args:
        spark: the session.
        storage: the warehouse.
        catalogue: as it is now.
        is_dry: only say what would go.
        is_forced: also where that is more than half of what is known of the catalogue.
        check: called ahead of each write, to stop it (`jobs.lease.Lease.check`).

    Raises:
        AuscultError: there are no tables of a scan; or more than half would go, without `is_forced`: the catalogue's storage
            may not be there.
    """
    for name in (*FORGOTTEN_IN, "scans"):
        require(storage, name)
    found = titles(spark, storage, catalogue).persist()
    count = found.count()
    examples = f": {_examples(found)}" if count else ""
    print(f"{count} titles of catalogue {catalogue.name} are not in it any more{examples}")
    if count and not is_dry:
        total = _known(spark, storage, catalogue).count()
        if 2 * count > total and not is_forced:
            raise AuscultError(
                f"--forget-gone {catalogue.name}: {count} of {total} titles would be forgotten; see that its storage is "
                "mounted whole, then add --force-forget"
            )
        is_same = F.expr("old.title_id = gone.title_id")
        if count <= NAMED:
            is_same &= F.col("old.title_id").isin([row.title_id for row in found.collect()])
        for name in FORGOTTEN_IN:
            check()
            table = DeltaTable.forPath(spark, storage.locate(name)).alias("old")
            merge = table.merge(found.alias("gone"), is_same).whenMatchedDelete()
            persist(merge.execute, f"forgetting titles in {name}")
        print("forgotten in " + ", ".join(FORGOTTEN_IN))
    found.unpersist()


def _examples(found: DataFrame) -> str:
    rows = found.orderBy("title_id").limit(EXAMPLES).collect()
    return ", ".join(printable(row.title_id) for row in rows)
