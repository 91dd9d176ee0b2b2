"""Brings a scored chunk into the tables, exactly once: segments, then detections, then tracks."""

import functools
import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, IntegerType, StringType, StructField, StructType

from jobs import interrupted
from jobs.launch import AuscultError
from jobs.literals import literal_frame
from jobs.plan import INCOMPLETE
from jobs.settings import OperatingPoint
from jobs.storage import Storage
from jobs.tables import STAGING, first_line, persist, prepare, read
from jobs.temporal_filter import detect
from jobs.track_rows import merge_tracks, outcome
from udfs.schemas import DETECTIONS, SCORED, SEGMENTS, TABLES
from udfs.stages import StageClock

_COPIES = StructType(
    [
        StructField("from_title_id", StringType()),
        StructField("from_track", IntegerType()),
        *(field for field in SEGMENTS if field.name in ("title_id", "track", "content_hash")),
        StructField("models", ArrayType(StringType())),
    ]
)
WAITS_WORDS = "the title with the same file could not be scored; this one waits to be scored by itself"


def staged(scan_id: str, chunk: int) -> str:
    """Folder of a chunk's results between scoring and commit; names sort in the order of commits."""
    return f"{STAGING}/{scan_id}/{chunk:06d}"


@dataclass(frozen=True)
class Committed:
    """What a commit wrote.

    Args:
        tracks: the rows that `tracks` received.
        stages_s: seconds by stage that the chunk's tasks took, summed over them (`udfs.stages`).
        alone: (title, track) of those that took no scores, since the scoring of the title with the same file went wrong:
            that may have been the other file's fault (it vanished, say). They are to be scored by themselves.
    """

    tracks: list[dict[str, Any]]
    stages_s: dict[str, float]
    alone: set[tuple[str, int]]


def commit_chunk(spark: SparkSession, storage: Storage, folder: str) -> Committed:
    """Commit a scored chunk: segments, then detections, then tracks, each exactly once.

    The folder holds `manifest.json` (what was planned) and `rows` (what the UDF returned). A commit
    that was cut off is simply done again: the appends carry Delta transaction numbers, by which a
    repeated one is skipped, and `tracks` is merged by key. A title counts as done only with its
    row in `tracks`, which comes last. So it is too where somebody else (OPTIMIZE, an analyst's UPDATE)
    changed a table at the same moment and Delta let the other one win.
    """
    return persist(lambda: _commit_chunk(spark, storage, folder), f"chunk {folder}")


def _commit_chunk(spark: SparkSession, storage: Storage, folder: str) -> Committed:
    manifest = json.loads(storage.read_text(f"{folder}/manifest.json"))
    scan_id, chunk = manifest["scan_id"], manifest["chunk"]
    reports: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    clock = StageClock()
    if manifest["has_spans"]:
        rows = spark.read.schema(SCORED).parquet(storage.locate(f"{folder}/rows"))
        for row in sorted(rows.where("is_report").drop("scores", "events").collect(), key=lambda row: row.start_s):
            reports[row.title_id, row.track].append(row.asDict())
            clock.add(row.stages_s or {})  # what an earlier version staged has none
        segments = rows.where("NOT is_report").withColumn("scan_id", F.lit(scan_id)).select(SEGMENTS.names)
    else:
        segments = None
    copies = manifest.get("copies", [])  # an earlier version's scan has none
    failed = [
        copy
        for copy in copies
        if not copy["is_stored"]
        and any(report["error_code"] for report in reports[copy["from_title_id"], copy["from_track"]])
    ]
    alone = {(copy["title_id"], copy["track"]) for copy in failed}
    if len(copies) > len(failed):
        copies = [copy for copy in copies if copy not in failed]
        segments = _with_copies(spark, storage, segments, copies, scan_id, reports)
    if segments is not None:
        _append(segments, storage.locate("segments"), scan_id, chunk)
        _append_detections(spark, storage, segments, manifest)
    _drop_outdated(spark, storage, manifest)
    # Should the scan die before it scores them, the next one finds them marked.
    waits = {"status": "rejected", "error_code": INCOMPLETE, "error": WAITS_WORDS, "scored_with": []}
    planned = [track | (waits if (track["title_id"], track["track"]) in alone else {}) for track in manifest["tracks"]]
    tracks = [outcome(track, reports[track["title_id"], track["track"]], scan_id) for track in planned]
    merge_tracks(spark, storage, tracks, manifest["gone"])
    storage.delete(folder)
    return Committed(tracks, clock.taken(), alone)


def _with_copies(
    spark: SparkSession,
    storage: Storage,
    segments: DataFrame | None,
    all_copies: list[dict[str, Any]],
    scan_id: str,
    reports: dict[tuple[str, int], list[dict[str, Any]]],
) -> DataFrame:
    """A chunk's segments and, under their own titles, those of tracks whose file is another title's.

    That one was scored with the same chunk (then its reports go for the copy, too) or is in the table `segments`.
    """
    parts = [] if segments is None else [segments]
    for is_stored in (True, False):
        copies = [copy for copy in all_copies if copy["is_stored"] == is_stored]
        if not copies:
            continue
        rows = [tuple(copy[name] for name in _COPIES.names) for copy in copies]
        copied = F.broadcast(literal_frame(spark, rows, _COPIES)).alias("copied")
        source = read(spark, storage, "segments") if is_stored else segments
        assert source is not None
        # By name, so that Delta opens those files only that may have them.
        source = source.where(F.col("title_id").isin(sorted({copy["from_title_id"] for copy in copies})))
        same = F.expr(
            "stored.title_id = copied.from_title_id AND stored.track = copied.from_track AND "
            "stored.content_hash = copied.content_hash AND "
            "array_contains(copied.models, concat_ws('/', stored.model, stored.model_version))"
        )
        taken = {name: f"copied.{name}" for name in ("title_id", "track")} | {"scan_id": f"'{scan_id}'"}
        columns = [F.expr(taken.get(name, f"stored.{name}")).alias(name) for name in SEGMENTS.names]
        parts.append(source.alias("stored").join(copied, same).select(columns))
        if not is_stored:
            for copy in copies:
                reports[copy["title_id"], copy["track"]] = reports[copy["from_title_id"], copy["from_track"]]
    return functools.reduce(DataFrame.union, parts)


def _append(frame: DataFrame, location: str, scan_id: str, chunk: int) -> None:
    (
        frame.write.format("delta")
        .mode("append")
        .option("txnAppId", f"scan/{scan_id}")
        .option("txnVersion", chunk)
        .save(location)
    )


def _append_detections(spark: SparkSession, storage: Storage, segments: DataFrame, manifest: dict[str, Any]) -> None:
    points = {
        (point["model"], point["model_version"], point["defect"]): OperatingPoint(**point["point"])
        for point in manifest["operating_points"]
    }
    if points:
        found = (
            detect(spark, segments, points).withColumn("scan_id", F.lit(manifest["scan_id"])).select(DETECTIONS.names)
        )
        rows = found.toArrow()  # few: most chunks have none, and then nothing is committed
        if rows.num_rows:
            frame = spark.createDataFrame(rows, DETECTIONS)
            _append(frame, storage.locate("detections"), manifest["scan_id"], manifest["chunk"])


def _drop_outdated(spark: SparkSession, storage: Storage, manifest: dict[str, Any]) -> None:
    """Delete what is no longer true of titles that were scanned before.

    Detections of content that a track no longer has go (its segments stay, under their content hash).
    Where the same content is scored again (after an accident, or because the file was away or was another for a
    while), what was there of it goes from both tables. Rows of this same scan are spared, so that repeating a
    commit deletes nothing it has written.
    """
    if manifest["seen_before"]:
        titles = literal_frame(spark, [(title,) for title in manifest["seen_before"]], "title_id string")
        old = (
            read(spark, storage, "detections")
            .where(F.col("scan_id") != manifest["scan_id"])
            .join(titles, "title_id", "left_semi")
            .select("title_id", "track", "content_hash")
            .distinct()
            .collect()
        )
        now = {(track["title_id"], track["track"]): track.get("content_hash") for track in manifest["tracks"]}
        now |= dict.fromkeys(map(tuple, manifest["gone"]))
        outdated = [tuple(row) for row in old if (row[0], row[1]) in now and now[row[0], row[1]] != row[2]]
        _delete(spark, storage, "detections", ["title_id", "track", "content_hash"], outdated, manifest["scan_id"])
    if manifest["again"]:
        models = {(point["model"], point["model_version"]) for point in manifest["operating_points"]}
        keys = [(*track, *model) for track in manifest["again"] for model in sorted(models)]
        for name in ("segments", "detections"):
            columns = ["title_id", "track", "content_hash", "model", "model_version"]
            _delete(spark, storage, name, columns, keys, manifest["scan_id"])


def _delete(
    spark: SparkSession, storage: Storage, table: str, columns: list[str], keys: list[tuple[Any, ...]], scan_id: str
) -> None:
    """Delete the rows with one of `keys` in `columns` that other scans than `scan_id` wrote."""
    if not keys:
        return
    schema = StructType([field for name in columns for field in TABLES[table] if field.name == name])
    same = " AND ".join(f"old.{name} = gone.{name}" for name in columns)
    is_theirs = F.expr(f"{same} AND old.scan_id <> '{scan_id}'")
    # By name as well, so that Delta opens those files only that may have them.
    named = F.col("old.title_id").isin(sorted({key[columns.index("title_id")] for key in keys}))
    (
        DeltaTable.forPath(spark, storage.locate(table))
        .alias("old")
        .merge(literal_frame(spark, keys, schema).alias("gone"), is_theirs & named)
        .whenMatchedDelete()
        .execute()
    )


def recover(spark: SparkSession, storage: Storage) -> int:
    """Finish what an interrupted scan had scored but not committed; returns the chunks it brought in.

    Call only while holding the warehouse's lease.
    """
    prepare(spark, storage)  # tables of an earlier version may lack columns that the chunks have
    recovered = 0
    late = set()
    for scan_id in storage.folders(STAGING):
        for chunk in storage.folders(f"{STAGING}/{scan_id}"):
            folder = f"{STAGING}/{scan_id}/{chunk}"
            if storage.exists(f"{folder}/rows/_SUCCESS"):
                try:
                    commit_chunk(spark, storage, folder)
                except (ValueError, TypeError, KeyError, OverflowError, AnalysisException) as error:
                    raise AuscultError(
                        f"warehouse {storage.root}: chunk {folder}, scored by a scan that ended before, cannot be brought in: "
                        f"{first_line(error)}; please report this. To go on without it, delete that folder and run "
                        "jobs/maintain.py --mend: its titles are scored again"
                    ) from error
                recovered += 1
                late.add(scan_id)
        storage.delete(f"{STAGING}/{scan_id}")
    interrupted.close(spark, storage, late)
    return recovered
