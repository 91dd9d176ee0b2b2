"""Rows of the driver as a part of the plan: the same rows as Spark's own way, and joined without a shuffle."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from jobs.literals import literal_frame
from jobs.settings import OperatingPoint
from jobs.temporal_filter import POINTS, detect
from udfs.schemas import REVIEWS, SCANS, SEGMENTS, TRACKS

ROWS = {
    "text, null, list": ("name string, track int, tags array<string>", [("a", 1, ["x", ""]), ("ö\n", None, None)]),
    "numbers": ("a tinyint, b bigint, c float, d double, e boolean", [(1, 2**62, 0.5, 1e300, True), (None,) * 5]),
    "time": ("at timestamp", [(datetime(2026, 3, 29, 1, 30, tzinfo=UTC),), (datetime.fromtimestamp(1.000001, UTC),)]),
    "map and struct": (
        "m map<string, double>, s struct<a: string, b: int>, l array<struct<a: string>>",
        [({"x": 1.5}, ("y", 2), [("z",)]), ({}, None, [])],
    ),
    "half a surrogate pair": ("note string, tags array<string>", [("n\ud800", ["\udc80x", "ö"])]),
    "none": ("title_id string, track int", []),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_those_of_spark(spark, name):
    schema, rows = ROWS[name]
    expected = spark.createDataFrame(rows, schema)
    found = literal_frame(spark, rows, schema)
    assert found.schema == expected.schema
    assert found.collect() == expected.collect()


@pytest.mark.parametrize("schema", [TRACKS, SCANS, REVIEWS, POINTS], ids=["tracks", "scans", "reviews", "points"])
def test_columns_keep_their_comments(spark, schema):
    row = tuple(None if field.nullable else "x" for field in schema)
    found = literal_frame(spark, [row], schema)
    assert found.schema == schema
    assert tuple(found.collect()[0]) == row


def test_a_value_that_does_not_fit_is_refused(spark):
    with pytest.raises(pa.ArrowInvalid, match="int"):
        literal_frame(spark, [("one",)], "track int")


def test_the_temporal_filter_shuffles_no_scores(spark, capsys):
    """What moves between executors are the hits, not every segment of the catalogue."""
    points = {("m", "1", "hum"): OperatingPoint(0.9, 20.0, 80.0)}
    detect(spark, spark.createDataFrame([], SEGMENTS), points).explain()
    plan = capsys.readouterr().out
    assert "BroadcastHashJoin" in plan
    assert "SortMergeJoin" not in plan
