"""The Delta tables of a warehouse: created with their comments, read by name, and the rows of `scans`."""

import getpass
import json
import random
import socket
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, fields
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
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructField, StructType, TimestampType

from jobs.launch import AuscultError, log
from jobs.literals import literal_frame
from jobs.settings import OperatingPoint, ScanSettings
from jobs.storage import Storage
from udfs.schemas import REVIEWS, SCANS, TABLES

if TYPE_CHECKING:
    from jobs.operating_points import Points
    from udfs.contract import ShippedModel

T = TypeVar("T")
STAGING = "_staging"  # folder of what is scored and not committed, see jobs.commits
STORED_SCORES = "stored scores"  # for a catalogue in `scans`: the run of jobs/detect.py, which opens no title
WRITE_TRIES = 10
LOOKED_BACK = 100  # runs
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
            if not storage.has_table(name):
                create(spark, location, schema)
                continue
            found = {field.name: field.dataType for field in spark.read.format("delta").load(location).schema}
            add_columns(spark, storage, name, [field for field in schema if field.name not in found])
            if wrong := [field.name for field in schema if found.get(field.name, field.dataType) != field.dataType]:
                raise AuscultError(
                    f"warehouse {storage.root}: table {name} has columns {wrong} of other types than this version's; "
                    "take another --warehouse"
                )
    except AuscultError:
        raise
    except Exception as error:
        raise AuscultError(f"warehouse {storage.root}: cannot be written: {first_line(error)}") from error


def add_columns(spark: SparkSession, storage: Storage, name: str, fields: list[StructField]) -> None:
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
    is_named_only = DeltaTable.isDeltaTable(spark, location) and not spark.read.format("delta").load(location).columns
    maker = DeltaTable.replace(spark) if is_named_only else DeltaTable.createIfNotExists(spark)
    table = maker.location(location).addColumns(schema)
    table.property("delta.enableDeletionVectors", "false").property("delta.autoOptimize.autoCompact", "true").execute()


def first_line(error: Exception) -> str:
    """What an error says, without its stack."""
    java = getattr(error, "java_exception", None)
    text = str(java.getMessage()) if java is not None else str(error)
    return (text.splitlines() or [type(error).__name__])[0][:300]


def read(spark: SparkSession, storage: Storage, name: str) -> DataFrame:
    """A table of the warehouse; columns that a table of an earlier version lacks are NULL."""
    table = spark.read.format("delta").load(storage.locate(name))
    missing = [field for field in TABLES.get(name, ()) if table.columns and field.name not in table.columns]
    return table.withColumns({field.name: F.lit(None).cast(field.dataType) for field in missing}) if missing else table


def times_as_text(frame: DataFrame) -> DataFrame:
    """A frame with its times as text, ISO 8601 in UTC: collecting makes them those of the driver's own zone.

    The session's zone is UTC (jobs/launch.py).
    """
    names = [field.name for field in frame.schema if isinstance(field.dataType, TimestampType)]
    return frame.withColumns(
        {
            name: F.date_format(column, "yyyy-MM-dd'T'HH:mm:ss.SSSSSS'Z'")
            for name, column in zip(names, quoted(names), strict=True)
        }
    )


def require(storage: Storage, name: str) -> None:
    """See that a scan's table is there.

    Raises:
        AuscultError: it is not.
    """
    if not storage.has_table(name):
        raise AuscultError(f"warehouse {storage.root}: there is no table {name}; scan first (jobs/scan.py)")


def read_reviews(spark: SparkSession, storage: Storage) -> DataFrame:
    """The table `reviews`; empty in a warehouse of an earlier version, which has none."""
    return read(spark, storage, "reviews") if storage.has_table("reviews") else spark.createDataFrame([], REVIEWS)


def persist(write: Callable[[], T], what: str) -> T:
    """Do a write again where Delta let another writer's change of the same moment win; it must bear being repeated."""
    for attempt in range(WRITE_TRIES - 1):
        try:
            return write()
        except CONFLICTS as error:
            log.info("%s: written again, for another writer was faster: %s", what, first_line(error))
            time.sleep(random.uniform(0.0, min(0.2 * 2**attempt, 10.0)))
    return write()


def quoted(names: list[str]) -> list[str]:
    """Column names as SQL takes any of them."""
    return ["`" + name.replace("`", "``") + "`" for name in names]


def names(spark: SparkSession, storage: Storage) -> list[str]:
    """The warehouse's Delta tables that have columns, those that other jobs added among them.

    Raises:
        AuscultError: there is none.
    """
    found = [name for name in storage.folders("") if storage.has_table(name)]
    if not found:
        raise AuscultError(f"warehouse {storage.root}: there are no tables; scan first or give another --warehouse")
    return found


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


def changed_points(spark: SparkSession, storage: Storage, points: "Points") -> list[str]:
    """Warnings of operating points that are not those which the last run applied to the same model version's defect."""
    applied_any = F.expr(f"titles_done > 0 OR catalogue = '{STORED_SCORES}'")
    scans = read(spark, storage, "scans").where(applied_any).orderBy(F.desc("started_at")).limit(LOOKED_BACK)
    known = [entry.name for entry in fields(OperatingPoint)]
    last: dict[tuple[str, str, str], tuple[str, OperatingPoint]] = {}
    for row in scans.select("scan_id", "settings").collect():
        for applied in json.loads(row.settings or "{}").get("applied_points", []):
            values = {name: applied[name] for name in known if name in applied}
            values["ignored_channels"] = tuple(values.get("ignored_channels", ()))
            key = applied["model"], applied["model_version"], applied["defect"]
            last.setdefault(key, (row.scan_id, OperatingPoint(**values)))
    changed: dict[str, dict[str, None]] = defaultdict(dict)
    for key, point in points.items():
        if key in last and last[key][1] != point:
            changed[last[key][0]][key[2]] = None
    return [
        f"operating points of {', '.join(defects)} are others than those of {scan_id}: titles that were done before keep the "
        "detections they have; jobs/detect.py applies points to stored scores"
        for scan_id, defects in changed.items()
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
    return literal_frame(spark, [tuple(row.get(name) for name in SCANS.names)], SCANS)
