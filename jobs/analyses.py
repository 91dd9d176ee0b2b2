"""The analyses of stored detections that jobs/sql holds, and what each is made from."""

from collections.abc import Sequence
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import sql
from jobs.launch import AuscultError
from jobs.literals import literal_frame

ALL = "all"  # the facet that is not split
STEPS = ("matched", "verdicts", "track_facets", "facets", "precision")
_NAMES = {"facets": "faceted"}  # what queries call a step's rows, where not by the file's name
_SOUGHT = "model string, model_version string, defect string"


def analysis(spark: SparkSession, sources: dict[str, DataFrame], name: str, **given: Any) -> DataFrame:
    """One of the analyses in jobs/sql over stored detections.

    Args:
        spark: the session.
        sources: the tables detections, reviews and tracks; for rates also what was `sought`, without which defects that
            were found nowhere have no row.
        name: of its file: verdicts, track_facets, precision, review_queue, agreement, versions or rates.
        given: what else its head names; the facet is "all" unless one is given.
    """
    known = dict(sources)
    if "sought" not in known:
        known["sought"] = literal_frame(spark, [], _SOUGHT)
    for step in (*STEPS, name):
        query = sql.text(step)
        named: dict[str, Any] = {source: frame for source, frame in known.items() if "{" + source + "}" in query}
        if step == name:
            named |= {"facet": ALL, **given}
        known[_NAMES.get(step, step)] = spark.sql(query, **named)
    return known[name]


def model_key() -> Column:
    """NAME/VERSION of a row's model, as `tracks.scored_with` holds them."""
    return F.concat_ws("/", "model", "model_version")


def of_models(detections: DataFrame, tracks: DataFrame, wanted: Sequence[str]) -> DataFrame:
    """Detections of the wanted model versions; of all where none is named.

    Args:
        detections: the table detections.
        tracks: the table tracks.
        wanted: NAME/VERSION.

    Raises:
        AuscultError: nothing was scored with one of them: a typing error should not look like nothing found.
    """
    if not wanted:
        return detections
    named = detections.select(model_key().alias("key"))
    scored = tracks.select(F.explode("scored_with").alias("key")).union(named).distinct()
    known = {row.key for row in scored.collect()}
    if missing := next((name for name in wanted if name not in known), None):
        raise AuscultError(
            f"--model {missing}: nothing was scored with it; known there are {', '.join(sorted(known)) or 'none'}"
        )
    return detections.where(model_key().isin(list(wanted)))


def sought(scans: DataFrame) -> DataFrame:
    """One row per model version and defect that scans looked for, as far as they have recorded it.

    Args:
        scans: the table scans, or some of its rows.
    """
    points = "from_json(get_json_object(settings, '$.applied_points'), 'ARRAY<STRUCT<model: STRING, model_version: STRING, defect: STRING>>')"
    return scans.selectExpr(f"inline({points})").distinct()
