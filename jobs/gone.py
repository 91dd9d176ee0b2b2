"""Titles that were scanned from a catalogue and are not in it any more: told of, and forgotten when that is asked for."""

import pandas as pd
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.catalogue import Catalogue
from jobs.launch import AuscultError
from jobs.storage import Storage
from jobs.tables import persist, read

EXAMPLES = 3
TABLES = ("detections", "segments", "tracks")  # the last one last: a title is known as long as it is there


def titles(spark: SparkSession, storage: Storage, catalogue: Catalogue) -> DataFrame:
    """The title_id of each title whose rows in `tracks` are of a scan of this catalogue, in which it is no more."""
    scans = read(spark, storage, "scans").where(F.col("catalogue") == catalogue.name).select("scan_id")
    present = spark.createDataFrame(pd.DataFrame({"title_id": [title.title_id for title in catalogue.titles]}))
    known = (
        read(spark, storage, "tracks").join(F.broadcast(scans), "scan_id", "left_semi").select("title_id").distinct()
    )
    return known.join(present, "title_id", "left_anti")


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


def forget(spark: SparkSession, storage: Storage, catalogue: Catalogue, *, is_dry: bool, is_forced: bool) -> None:
    """Delete the rows of such titles from tracks, segments and detections; verdicts stay, for they are of the content.

    Raises:
        AuscultError: more than half of what is known of the catalogue would go, without `is_forced`: its storage may not be
            there.
    """
    found = titles(spark, storage, catalogue).persist()
    count = found.count()
    print(
        f"{count} titles of catalogue {catalogue.name} are not in it any more"
        + (f": {_examples(found)}" if count else "")
    )
    if count and not is_dry:
        scans = read(spark, storage, "scans").where(F.col("catalogue") == catalogue.name).select("scan_id")
        known = read(spark, storage, "tracks").join(F.broadcast(scans), "scan_id", "left_semi")
        total = known.select("title_id").distinct().count()
        if 2 * count > total and not is_forced:
            raise AuscultError(
                f"--forget-gone {catalogue.name}: {count} of {total} titles would be forgotten; see that its storage is "
                "mounted whole, then add --force-forget"
            )
        for name in TABLES:
            table = DeltaTable.forPath(spark, storage.locate(name)).alias("old")
            merge = table.merge(found.alias("gone"), "old.title_id = gone.title_id").whenMatchedDelete()
            persist(merge.execute, f"forgetting titles in {name}")
        print("forgotten in " + ", ".join(TABLES))
    found.unpersist()


def _examples(found: DataFrame) -> str:
    rows = found.orderBy("title_id").limit(EXAMPLES).collect()
    return ", ".join("".join(c if c.isprintable() else "?" for c in row.title_id) for row in rows)
