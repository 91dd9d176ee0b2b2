"""Rows of the table `tracks`: what came of a planned track, and how it is brought into the table."""

from datetime import UTC, datetime
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import Column, SparkSession
from pyspark.sql.types import BooleanType, StructField, StructType

from jobs.catalogue_columns import fitted, own_fields
from jobs.literals import literal_frame
from jobs.storage import Storage
from jobs.tables import quoted, read
from udfs.media import SHORTFALL_S, is_cut_short
from udfs.schemas import TRACKS


def outcome(track: dict[str, Any], mine: list[dict[str, Any]], scan_id: str) -> dict[str, Any]:
    """A planned track with the outcome of its spans, given in order."""
    row = {**track, "scan_id": scan_id}
    if row["status"] == "rejected" or not mine:
        return row
    row["decoded_s"] = sum(report["decoded_s"] for report in mine)
    failed = next((report for report in mine if report["error_code"] is not None), None)
    declared_s, duration_s = row.pop("declared_s", None), row["duration_s"]
    expected_s = duration_s - row.pop("begins_s", 0.0)  # what an earlier version staged has none
    beyond_s, ends_midway = row.pop("beyond_s", 0.0), row.pop("ends_midway", False)
    if encrypted_share := row.pop("encrypted_share", 0.0):
        row["error_code"] = "encrypted"
        row["error"] = f"{encrypted_share:.0%} of the track is scrambled and was not scored; deliver it decrypted"
    elif failed is not None:
        row["error_code"], row["error"] = failed["error_code"], failed["error"]
    elif is_cut_short(declared_s, duration_s):
        row["error_code"] = "truncated"
        row["error"] = f"the header announces {declared_s:.1f} s, the file holds {duration_s:.1f} s; deliver it again"
    elif ends_midway:
        row["error_code"] = "truncated"
        row["error"] = (
            f"the file ends in the middle of a page, {duration_s:.1f} s from its beginning; how much is missing nothing says: "
            f"deliver it again"
        )
    elif row["decoded_s"] < expected_s - max(SHORTFALL_S, 0.01 * expected_s):
        row["error_code"] = "short_decode"
        row["error"] = f"the packets announce {expected_s:.1f} s, {row['decoded_s']:.1f} s could be decoded"
    elif beyond_s > 0.0:
        row["error_code"] = "beyond_header"
        row["error"] = (
            f"the header announces {duration_s:.1f} s, the file goes on for some {beyond_s:.1f} s more, which players leave out "
            f"and so did the scan; deliver it again"
        )
    elif row["decoded_s"] == 0.0:
        row["error_code"], row["error"] = "no_samples", "the track is there and holds no audio; the file may be cut off"
    if row["error_code"] is not None:
        row["status"] = "partial" if row["decoded_s"] > 0 else "rejected"
    return row


def merge_tracks(spark: SparkSession, storage: Storage, tracks: list[dict[str, Any]], gone: list[list[Any]]) -> None:
    """Bring `tracks` to what was seen: one row per title and track.

    Of the catalogue's own columns those change that these tracks' titles have; what others gave the table stays.

    Args:
        spark: the session.
        storage: the warehouse.
        tracks: rows by column name; `columns` holds the catalogue's own.
        gone: [title_id, track] of rows whose track is no longer there.
    """
    location = storage.locate("tracks")
    present = read(spark, storage, "tracks").schema
    own = own_fields(present, (track["columns"] for track in tracks))
    marks = [StructField("is_gone", BooleanType()), StructField("is_renewed", BooleanType())]
    schema = StructType([*TRACKS.fields, *own, *marks])
    rows: list[tuple[Any, ...]] = []
    for track in tracks:
        values = {**fitted(track["columns"], own), **{name: track.get(name) for name in TRACKS.names}, "is_gone": False}
        values["is_renewed"] = track.get("is_renewed", False)
        values["modified_at"] = _timestamp(track["modified_ns"])
        rows.append(tuple(values[name] for name in schema.names))
    for title_id, number in gone:
        values = {"title_id": title_id, "track": number, "is_gone": True}
        rows.append(tuple(values.get(field.name) for field in schema))
    if not rows:
        return
    columns = [name for name in schema.names if name not in ("is_gone", "is_renewed")]
    update: dict[str, str | Column] = {name: f"new.{name}" for name in quoted(columns)}
    update["`scored_with`"] = (
        "CASE WHEN old.content_hash = new.content_hash "
        "THEN array_sort(array_union(coalesce(old.scored_with, array()), new.scored_with)) ELSE new.scored_with END"
    )
    update["`scan_id`"] = "CASE WHEN new.is_renewed THEN old.scan_id ELSE new.scan_id END"  # that one has not scored it
    (
        DeltaTable.forPath(spark, location)
        .alias("old")
        .merge(
            literal_frame(spark, rows, schema).alias("new"),
            "old.title_id = new.title_id AND old.track <=> new.track",
        )
        .withSchemaEvolution()
        .whenMatchedDelete("new.is_gone")
        .whenMatchedUpdate(set=update)
        .whenNotMatchedInsert("NOT new.is_gone", values={name: f"new.{name}" for name in quoted(columns)})
        .execute()
    )


def _timestamp(nanoseconds: int | None) -> datetime | None:
    if nanoseconds is None:
        return None
    # Whole microseconds by integers: a float of today's seconds is not exact.
    return datetime.fromtimestamp(nanoseconds // 10**9, UTC).replace(microsecond=nanoseconds // 1000 % 10**6)
