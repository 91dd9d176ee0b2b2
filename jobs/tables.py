"""The Delta tables of a warehouse: created with their comments, registered by name, written exactly once."""

import functools
import getpass
import json
import random
import socket
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from delta.exceptions import (
    ConcurrentAppendException,
    ConcurrentDeleteDeleteException,
    ConcurrentDeleteReadException,
    ConcurrentTransactionException,
    ConcurrentWriteException,
    DeltaConcurrentModificationException,
    MetadataChangedException,
)
from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DoubleType,
    IntegerType,
    LongType,
    StringType,
    StructField,
    StructType,
)

from jobs.launch import AuscultError, log
from jobs.plan import INCOMPLETE
from jobs.settings import OperatingPoint, ScanSettings
from jobs.storage import Storage
from jobs.temporal_filter import detect
from udfs.media import SHORTFALL_S, shortfall_s
from udfs.schemas import DETECTIONS, SCANS, SEGMENTS, TABLES, TRACKS
from udfs.stages import StageClock

if TYPE_CHECKING:
    from jobs.operating_points import Points
    from udfs.contract import ShippedModel

T = TypeVar("T")
_COPIES = StructType(
    [
        StructField("from_title_id", StringType()),
        StructField("from_track", IntegerType()),
        *(field for field in SEGMENTS if field.name in ("title_id", "track", "content_hash")),
        StructField("models", ArrayType(StringType())),
    ]
)
STAGING = "_staging"
COMMIT_TRIES = 10
WAITS_WORDS = "the title with the same file could not be scored; this one waits to be scored by itself"
CONFLICTS = (  # what Delta raises where another writer was faster; they have no common base
    ConcurrentAppendException,
    ConcurrentDeleteDeleteException,
    ConcurrentDeleteReadException,
    ConcurrentTransactionException,
    ConcurrentWriteException,
    DeltaConcurrentModificationException,
    MetadataChangedException,
)


def prepare(spark: SparkSession, storage: Storage) -> None:
    """Create the tables of a scan that are missing.

    Raises:
        AuscultError: the warehouse cannot be written, or a table there has columns of other types.
    """
    try:
        storage.make_folder(STAGING)
        for name, schema in TABLES.items():
            location = storage.locate(name)
            if DeltaTable.isDeltaTable(spark, location):
                found = {field.name: field.dataType for field in spark.read.format("delta").load(location).schema}
                if not found:  # registered by name in a SQL shell before the first scan
                    storage.delete(name)
                else:
                    _add_columns(spark, storage, name, [field for field in schema if field.name not in found])
                    if wrong := [
                        field.name for field in schema if found.get(field.name, field.dataType) != field.dataType
                    ]:
                        raise AuscultError(
                            f"warehouse {storage.root}: table {name} has columns {wrong} of other types than this version's; "
                            "take another --warehouse"
                        )
                    continue
            create(spark, location, schema)
    except AuscultError:
        raise
    except Exception as error:
        raise AuscultError(f"warehouse {storage.root}: cannot be written: {first_line(error)}") from error


def _add_columns(spark: SparkSession, storage: Storage, name: str, fields: list[StructField]) -> None:
    """Add columns that a table of an earlier version lacks; its rows have NULL there."""
    if fields:
        log.info("table %s: added the columns %s", name, ", ".join(field.name for field in fields))
        empty = spark.createDataFrame([], StructType(fields))
        writer = empty.write.format("delta").mode("append").option("mergeSchema", "true")
        persist(lambda: writer.save(storage.locate(name)), f"table {name}")


def create(spark: SparkSession, location: str, schema: StructType) -> None:
    """Create a table where there is none, without features that deltalake and DuckDB cannot read (deletion vectors).

    Every chunk adds small files; Delta merges them by itself after a commit that leaves more than fifty.
    """
    table = DeltaTable.createIfNotExists(spark).location(location).addColumns(schema)
    table.property("delta.enableDeletionVectors", "false").property("delta.autoOptimize.autoCompact", "true").execute()


def first_line(error: Exception) -> str:
    """What an error says, without its stack."""
    java = getattr(error, "java_exception", None)
    text = str(java.getMessage()) if java is not None else str(error)
    return (text.splitlines() or [type(error).__name__])[0][:300]


def read(spark: SparkSession, storage: Storage, name: str) -> DataFrame:
    """A table of the warehouse."""
    return spark.read.format("delta").load(storage.locate(name))


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


def persist(write: Callable[[], T], what: str) -> T:
    """Do a write again where Delta let another writer's change of the same moment win; it must bear being repeated."""
    for attempt in range(COMMIT_TRIES - 1):
        try:
            return write()
        except CONFLICTS as error:
            log.info("%s: written again, for another writer was faster: %s", what, first_line(error))
            time.sleep(random.uniform(0.0, min(0.2 * 2**attempt, 10.0)))
    return write()


def _commit_chunk(spark: SparkSession, storage: Storage, folder: str) -> Committed:
    manifest = json.loads(storage.read_text(f"{folder}/manifest.json"))
    scan_id, chunk = manifest["scan_id"], manifest["chunk"]
    reports: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    clock = StageClock()
    if manifest["has_spans"]:
        rows = spark.read.parquet(storage.locate(f"{folder}/rows"))
        for row in rows.where("is_report").drop("scores").orderBy("start_s").collect():
            reports[row.title_id, row.track].append(row.asDict())
            clock.add(row.asDict().get("stages_s") or {})  # what an earlier version staged has none
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
    tracks = [_track_row(track, reports[track["title_id"], track["track"]], scan_id) for track in planned]
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
        copied = F.broadcast(spark.createDataFrame(rows, _COPIES)).alias("copied")
        source = read(spark, storage, "segments") if is_stored else segments
        assert source is not None
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
        _append(found, storage.locate("detections"), manifest["scan_id"], manifest["chunk"])


def _drop_outdated(spark: SparkSession, storage: Storage, manifest: dict[str, Any]) -> None:
    """Delete what is no longer true of titles that were scanned before.

    Detections of content that a track no longer has go (its segments stay, under their content hash).
    Where the same content is scored again (after an accident, or because the file was away or was another for a
    while), what was there of it goes from both tables. Rows of this same scan are spared, so that repeating a
    commit deletes nothing it has written.
    """
    if manifest["seen_before"]:
        titles = spark.createDataFrame([(title,) for title in manifest["seen_before"]], "title_id string")
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
    (
        DeltaTable.forPath(spark, storage.locate(table))
        .alias("old")
        .merge(spark.createDataFrame(keys, schema).alias("gone"), f"{same} AND old.scan_id <> '{scan_id}'")
        .whenMatchedDelete()
        .execute()
    )


def _track_row(track: dict[str, Any], mine: list[dict[str, Any]], scan_id: str) -> dict[str, Any]:
    """A planned track with the outcome of its spans, given in order."""
    row = {**track, "scan_id": scan_id}
    if row["status"] == "rejected" or not mine:
        return row
    row["decoded_s"] = sum(report["decoded_s"] for report in mine)
    failed = next((report for report in mine if report["error_code"] is not None), None)
    declared_s, duration_s = row.pop("declared_s", None), row["duration_s"]
    if failed is not None:
        row["error_code"], row["error"] = failed["error_code"], failed["error"]
    elif declared_s is not None and declared_s > duration_s + shortfall_s(declared_s):
        row["error_code"] = "truncated"
        row["error"] = f"the header announces {declared_s:.1f} s, the file holds {duration_s:.1f} s; deliver it again"
    elif row["decoded_s"] < duration_s - max(SHORTFALL_S, 0.01 * duration_s):
        row["error_code"] = "short_decode"
        row["error"] = f"the packets announce {duration_s:.1f} s, {row['decoded_s']:.1f} s could be decoded"
    elif row["decoded_s"] == 0.0:
        row["error_code"], row["error"] = "no_samples", "the track is there and holds no audio; the file may be cut off"
    if row["error_code"] is not None:
        row["status"] = "partial" if row["decoded_s"] > 0 else "rejected"
    return row


def merge_tracks(spark: SparkSession, storage: Storage, tracks: list[dict[str, Any]], gone: list[list[Any]]) -> None:
    """Bring `tracks` to what was seen: one row per title and track, further catalogue columns kept.

    Args:
        spark: the session.
        storage: the warehouse.
        tracks: rows by column name; `columns` holds the catalogue's own.
        gone: [title_id, track] of rows whose track is no longer there.
    """
    location = storage.locate("tracks")
    present = read(spark, storage, "tracks").schema
    own = _own_columns(present, tracks)
    schema = StructType([*TRACKS.fields, *own, StructField("is_gone", BooleanType())])
    rows: list[tuple[Any, ...]] = []
    for track in tracks:
        values = {**track["columns"], **{name: track.get(name) for name in TRACKS.names}, "is_gone": False}
        values["modified_at"] = _timestamp(track["modified_ns"])
        rows.append(tuple(_fitted(values.get(field.name), field.dataType) for field in schema))
    for title_id, number in gone:
        values = {"title_id": title_id, "track": number, "is_gone": True}
        rows.append(tuple(values.get(field.name) for field in schema))
    if not rows:
        return
    columns = [name for name in schema.names if name != "is_gone"]
    update: dict[str, str | Column] = {name: f"new.{name}" for name in quoted(columns)}
    update["`scored_with`"] = (
        "CASE WHEN old.content_hash = new.content_hash "
        "THEN array_sort(array_union(coalesce(old.scored_with, array()), new.scored_with)) ELSE new.scored_with END"
    )
    (
        DeltaTable.forPath(spark, location)
        .alias("old")
        .merge(
            spark.createDataFrame(rows, schema).alias("new"),
            "old.title_id = new.title_id AND old.track <=> new.track",
        )
        .withSchemaEvolution()
        .whenMatchedDelete("new.is_gone")
        .whenMatchedUpdate(set=update)
        .whenNotMatchedInsert("NOT new.is_gone", values={name: f"new.{name}" for name in quoted(columns)})
        .execute()
    )


def quoted(names: list[str]) -> list[str]:
    """Column names as SQL takes any of them."""
    return ["`" + name.replace("`", "``") + "`" for name in names]


def _own_columns(present: StructType, tracks: list[dict[str, Any]]) -> list[StructField]:
    """Fields for the catalogue's own columns: as the table has them, else by their values."""
    fields = {field.name: field for field in present if field.name not in TRACKS.names}
    seen: dict[str, list[Any]] = defaultdict(list)
    for track in tracks:
        for name, value in track["columns"].items():
            seen[name].append(value)
    for name, values in seen.items():
        if name not in fields:
            comment = {"comment": "Column of the catalogue"}
            fields[name] = StructField(name, _type_of(values), True, comment)
    return list(fields.values())


def _type_of(values: list[Any]) -> DataType:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return BooleanType()
    if kinds == {int}:
        return LongType()
    if kinds and kinds <= {int, float}:
        return DoubleType()
    return StringType()


def _fitted(value: Any, data_type: DataType) -> Any:
    """A catalogue's value as the column's type; NULL where it does not fit."""
    try:
        if value is None:
            return None
        if isinstance(data_type, StringType):
            return str(value)
        if isinstance(data_type, LongType) and not isinstance(value, bool):
            return int(value)
        if isinstance(data_type, DoubleType):
            return float(value)
    except (TypeError, ValueError):
        return None
    return value


def _timestamp(nanoseconds: int | None) -> datetime | None:
    if nanoseconds is None:
        return None
    # Whole microseconds by integers: a float of today's seconds is not exact.
    return datetime.fromtimestamp(nanoseconds // 10**9, UTC).replace(microsecond=nanoseconds // 1000 % 10**6)


def recover(spark: SparkSession, storage: Storage) -> int:
    """Finish what an interrupted scan had scored but not committed; returns the chunks it brought in.

    Call only while holding the warehouse's lease.
    """
    recovered = 0
    for scan_id in storage.folders(STAGING):
        for chunk in storage.folders(f"{STAGING}/{scan_id}"):
            folder = f"{STAGING}/{scan_id}/{chunk}"
            if storage.exists(f"{folder}/rows/_SUCCESS"):
                commit_chunk(spark, storage, folder)
                recovered += 1
        storage.delete(f"{STAGING}/{scan_id}")
    DeltaTable.forPath(spark, storage.locate("scans")).update("state = 'running'", {"state": "'interrupted'"})
    return recovered


def new_scan_id() -> str:
    """A name for a run; names sort by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"


def new_scan(
    scan_id: str,
    catalogue: str,
    settings: ScanSettings,
    models: list["ShippedModel"],
    points: "Points",
    device: str | None,
) -> dict[str, Any]:
    """The row of `scans` of a run that starts now."""
    applied = [
        dict(zip(("model", "model_version", "defect"), key, strict=True)) | asdict(points[key]) for key in points
    ]
    return {
        "scan_id": scan_id,
        "state": "running",
        "started_by": f"{getpass.getuser()}@{socket.gethostname()}",
        "started_at": datetime.now(UTC),
        "catalogue": catalogue,
        "settings": json.dumps({**settings.to_dict(), "applied_points": applied}, sort_keys=True),
        "models": [(model.name, model.version, model.digest, device) for model in models],
    }


def changed_models(spark: SparkSession, storage: Storage, models: list["ShippedModel"]) -> list[str]:
    """Warnings of versions whose files are not those that an earlier scan of this warehouse recorded."""
    earlier = read(spark, storage, "scans").selectExpr("scan_id", "inline(models)")
    known = {(row.name, row.version): row for row in earlier.orderBy("scan_id").collect()}
    return [
        f"model {model.key}: its files have digest {model.digest[:16]}, those of scan {known[key].scan_id} had "
        f"{known[key].digest[:16]}: scores under one version now come of two models; register the new files as a version "
        "of their own"
        for model in models
        if (key := (model.name, model.version)) in known and known[key].digest != model.digest
    ]


def begin_scan(spark: SparkSession, storage: Storage, row: dict[str, Any]) -> None:
    """Add a scan's row."""
    _scan_frame(spark, row).write.format("delta").mode("append").save(storage.locate("scans"))


def end_scan(spark: SparkSession, storage: Storage, row: dict[str, Any]) -> None:
    """Update a scan's row with what came of it."""
    frame = _scan_frame(spark, row)
    scans = DeltaTable.forPath(spark, storage.locate("scans")).alias("old")
    merge = scans.merge(frame.alias("new"), "old.scan_id = new.scan_id").whenMatchedUpdateAll()
    persist(merge.execute, f"scan {row['scan_id']}")


def _scan_frame(spark: SparkSession, row: dict[str, Any]) -> DataFrame:
    return spark.createDataFrame([tuple(row.get(name) for name in SCANS.names)], SCANS)
