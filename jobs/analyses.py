"""The analyses of stored detections that jobs/sql holds, and what each is made from."""

from typing import Any

from pyspark.sql import DataFrame, SparkSession

from jobs import sql


def analysis(spark: SparkSession, sources: dict[str, DataFrame], name: str, **given: Any) -> DataFrame:
    """One of the analyses in jobs/sql over stored detections.

    Args:
        spark: the session.
        sources: the tables detections, reviews and tracks.
        name: of its file: verdicts, precision, review_queue, agreement, versions or rates.
        given: what else its head names.
    """
    known = dict(sources)
    for step, result in [
        ("matched", "matched"),
        ("verdicts", "verdicts"),
        ("facets", "faceted"),
        ("precision", "precision"),
        (name, name),
    ]:
        query = sql.text(step)
        named: dict[str, Any] = {source: frame for source, frame in known.items() if "{" + source + "}" in query}
        known[result] = spark.sql(query, **named, **(given if step == name else {}))
    return known[name]
