"""Versioned sets of operating points in the table operating_points: added, read, never changed."""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import tables
from jobs.launch import AuscultError
from jobs.literals import literal_frame
from jobs.settings import DEFAULT_POINTS, OperatingPoint, ScanSettings
from jobs.storage import Storage
from udfs.schemas import OPERATING_CURVES, OPERATING_POINTS

if TYPE_CHECKING:
    from udfs.contract import ShippedModel

Points = dict[tuple[str, str, str], OperatingPoint]
ATTEMPTS = 5


def from_settings(models: Iterable["ShippedModel"], settings: ScanSettings) -> Points:
    """Operating point by (model, model_version, defect), for every defect that the models' contracts name.

    Raises:
        AuscultError: a threshold lies below what is stored of a model with frames.
    """
    points = {}
    for model in models:
        contract = model.contract
        for label in contract.defects:
            point = settings.operating_point(label, model.name)
            if contract.frames > 1 and point.threshold < contract.event_score:
                raise AuscultError(
                    f"operating point of {model.name}/{label}: expected a threshold of at least "
                    f"{contract.event_score:g}, from which {model.key} keeps events, found {point.threshold:g}"
                )
            points[model.name, model.version, label] = point
    return points


def unused(models: Iterable["ShippedModel"], settings: ScanSettings) -> list[str]:
    """Warnings of the settings' points that are for none of the models, nor shipped: names that may be misspelt."""
    models = list(models)
    known = sorted({label for model in models for label in model.contract.defects})
    keys = {*DEFAULT_POINTS, *known, *(f"{model.name}/{label}" for model in models for label in model.contract.defects)}
    return [
        f"settings operating_points.{key}: none of the models has such a defect, the point counts for nothing; they have "
        f"{', '.join(known)}"
        for key in settings.operating_points
        if key not in keys
    ]


def from_table(spark: SparkSession, storage: Storage, version: str, base: Points) -> Points:
    """A set of the table over what the settings say.

    Args:
        spark: the session.
        storage: the warehouse.
        version: number of the set, or "latest": for each defect the newest set that has it.
        base: points of the models and defects at hand, which the set replaces where it names them.

    Raises:
        AuscultError: there is no such set, or it names none of the models at hand.
    """
    rows = []
    if storage.has_table("operating_points"):
        rows = tables.read(spark, storage, "operating_points").orderBy("version").collect()
    if not rows:
        raise AuscultError(f"warehouse {storage.root}: it has no operating points yet; jobs/tune.py seeks them")
    known = sorted({row.version for row in rows})
    if version != "latest":
        if not version.isdecimal() or int(version) not in known:
            raise AuscultError(
                f"operating points {version}: expected latest or one of the versions {known} in {storage.root}"
            )
        rows = [row for row in rows if row.version == int(version)]
    found = {
        (row.model, row.model_version, row.defect): OperatingPoint(
            row.threshold, row.min_detected_s, row.window_s, tuple(row.ignored_channels)
        )
        for row in rows
    }
    ours = {key: point for key, point in found.items() if key in base}
    if not ours:
        models = sorted({f"{model}/{number}" for model, number, _ in found})
        wanted = sorted({f"{model}/{number}" for model, number, _ in base})
        raise AuscultError(
            f"operating points {version}: they are for {', '.join(models) or 'no model'}, wanted is {', '.join(wanted)}; "
            "jobs/tune.py seeks points for a version"
        )
    return base | ours


def add(spark: SparkSession, storage: Storage, points: list[dict[str, Any]], curves: list[dict[str, Any]]) -> int:
    """Append a set, and the curves it was chosen from, under a new version number; safe beside other writers.

    Args:
        spark: the session.
        storage: the warehouse.
        points: rows of `udfs.schemas.OPERATING_POINTS` without the version.
        curves: rows of `udfs.schemas.OPERATING_CURVES` without the version.

    Returns:
        The version.
    """
    for name, schema in (("operating_points", OPERATING_POINTS), ("operating_curves", OPERATING_CURVES)):
        if not storage.has_table(name):
            tables.create(spark, storage.locate(name), schema)
    for attempt in range(ATTEMPTS):
        last = tables.read(spark, storage, "operating_points").agg(F.max("version").alias("last")).head()
        version = 1 + ((last.last if last is not None else None) or 0)
        try:
            # A merge and not an append: of two that take the same number at once, Delta lets one through.
            _merge(storage, _frame(spark, points, version, OPERATING_POINTS))
            break
        except Exception as error:
            if "Concurrent" not in type(error).__name__ + str(error) or attempt == ATTEMPTS - 1:
                raise
            time.sleep(0.5 * 2**attempt)
    _frame(spark, curves, version, OPERATING_CURVES).write.format("delta").mode("append").save(
        storage.locate("operating_curves")
    )
    return version


def _frame(spark: SparkSession, rows: list[dict[str, Any]], version: int, schema: Any) -> DataFrame:
    return literal_frame(
        spark, [tuple({**row, "version": version}[name] for name in schema.names) for row in rows], schema
    )


def _merge(storage: Storage, new: DataFrame) -> None:
    (
        DeltaTable.forPath(new.sparkSession, storage.locate("operating_points"))
        .alias("old")
        .merge(new.alias("new"), "old.version = new.version")
        .whenNotMatchedInsertAll()
        .execute()
    )
