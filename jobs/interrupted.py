"""Scans that ended before their time: what they had done, and which later scan went on with them."""

from collections.abc import Iterable
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs.storage import Storage
from jobs.tables import persist, read

ENDED_EARLY = frozenset({"interrupted", "failed"})


def close(spark: SparkSession, storage: Storage, scan_ids: Iterable[str] = ()) -> None:
    """Call running scans interrupted, and count what they and those of `scan_ids` did from what is in `tracks`.

    A driver that is killed cannot count; and what it had scored and not committed comes in later.

    Args:
        spark: the session.
        storage: the warehouse.
        scan_ids: of ended scans of which chunks were brought in since.
    """
    scans = DeltaTable.forPath(spark, storage.locate("scans"))
    ids = {row.scan_id for row in scans.toDF().where("state = 'running'").select("scan_id").collect()} | set(scan_ids)
    if not ids:
        return
    scored = F.expr("status <> 'rejected' AND size(scored_with) > 0")
    found = (
        read(spark, storage, "tracks")
        .where(F.col("scan_id").isin(sorted(ids)))
        .groupBy("scan_id", "title_id")
        .agg(F.max(scored).alias("is_done"), F.sum("decoded_s").alias("decoded_s"))
        .groupBy("scan_id")
        .agg(
            F.count_if("is_done").alias("titles_done"),
            F.count_if(~F.col("is_done")).alias("titles_rejected"),
            (F.sum("decoded_s") / 3600).alias("audio_done_h"),
        )
    )
    counts = ("titles_done", "titles_rejected", "audio_done_h")
    merge = (
        scans.alias("old")
        .merge(found.alias("new"), "old.scan_id = new.scan_id AND old.state <> 'finished'")
        .whenMatchedUpdate(set={name: f"greatest(coalesce(old.{name}, 0), new.{name})" for name in counts})
    )
    persist(merge.execute, "interrupted scans")
    persist(lambda: scans.update("state = 'running'", {"state": "'interrupted'"}), "interrupted scans")


def run_of(scans: Iterable[dict[str, Any]], scan_id: str) -> list[dict[str, Any]]:
    """A scan's row and, before it, those of the interrupted scans that it went on with: of the same catalogue and models.

    >>> rows = [dict(scan_id=name, state=state, catalogue=where, started_at=number) for number, (name, state, where) in
    ...         enumerate([("a", "finished", "x"), ("b", "failed", "x"), ("c", "finished", "y"), ("d", "interrupted", "x"),
    ...                    ("e", "finished", "x"), ("f", "finished", "x")])]
    >>> [[row["scan_id"] for row in run_of(rows, wanted)] for wanted in "aef"]
    [['a'], ['b', 'd', 'e'], ['f']]
    >>> rows[3]["models"] = [{"name": "m", "version": "1"}]
    >>> [row["scan_id"] for row in run_of(rows, "e")]
    ['b', 'e']
    """
    rows = sorted(scans, key=lambda row: row["started_at"])
    wanted = next(row for row in rows if row["scan_id"] == scan_id)
    run = [wanted]
    for row in reversed(rows[: rows.index(wanted)]):
        if row["catalogue"] == wanted["catalogue"] and _models(row) == _models(wanted):
            if row["state"] not in ENDED_EARLY:
                break
            run.insert(0, row)
    return run


def _models(row: dict[str, Any]) -> set[tuple[str, str]]:
    return {(model["name"], model["version"]) for model in row.get("models") or ()}
