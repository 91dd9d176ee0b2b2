"""Turns segment scores into detections, with the SQL in jobs/sql/hits.sql and detections.sql."""

from collections import defaultdict
from functools import reduce
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import ArrayType, DoubleType, StringType, StructField, StructType

from jobs import sql
from jobs.literals import literal_frame
from jobs.settings import OperatingPoint

POINTS = StructType(
    [
        StructField("model", StringType()),
        StructField("model_version", StringType()),
        StructField("defect", StringType()),
        StructField("threshold", DoubleType()),
        StructField("min_detected_s", DoubleType()),
        StructField("window_s", DoubleType()),
        StructField("ignored_channels", ArrayType(StringType())),
    ]
)


def detect(spark: SparkSession, segments: DataFrame, points: dict[tuple[str, str, str], OperatingPoint]) -> DataFrame:
    """Detections of all defects in `segments`.

    Args:
        spark: the session.
        segments: rows of `udfs.schemas.SEGMENTS`.
        points: operating point by (model, model_version, defect).

    Returns:
        Rows of `udfs.schemas.DETECTIONS` without `scan_id`.
    """
    # A RANGE frame takes a constant, so there is one query per window length.
    by_window: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for (model, version, defect), point in points.items():
        by_window[round(point.window_s * 1000)].append(
            (
                model,
                version,
                defect,
                point.threshold,
                point.min_detected_s,
                point.window_s,
                list(point.ignored_channels),
            )
        )
    parts = []
    for window_ms, rows in sorted(by_window.items()):
        hits = spark.sql(sql.text("hits"), segments=segments, points=literal_frame(spark, rows, POINTS))
        parts.append(spark.sql(sql.text("detections"), hits=hits, window_ms=window_ms, last_ms_of_window=window_ms - 1))
    return reduce(DataFrame.unionByName, parts)
