"""What jobs/tune.py seeks with: what to try, titles of which it is known what is broken, and what was scored of them."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pyspark.sql import DataFrame, SparkSession

from jobs import sql, tables
from jobs.labelled import label_rows
from jobs.launch import AuscultError, log
from jobs.literals import literal_frame
from jobs.settings import OperatingPoint
from jobs.storage import Storage, absolute
from jobs.tuning import Evidence, gather
from udfs.contract import ShippedModel
from udfs.rolling import rises_udf
from udfs.schemas import RISES

REVIEWS = "reviews"  # as --labels: the verdicts in the warehouse


@dataclasses.dataclass(frozen=True)
class Grid:
    """See conf/tune.yaml."""

    thresholds: tuple[float, ...]
    windows_s: tuple[float, ...]
    folds: int
    resamples: int
    seed: int


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Titles of which it is known what is broken.

    Args:
        titles: title ids, in order.
        groups: number of the recording that each is made from.
        defects: the defects of each.
    """

    titles: list[str]
    groups: np.ndarray
    defects: list[frozenset[str]]


def read_grid(path: Path) -> Grid:
    """Read what to try.

    Raises:
        AuscultError: the file cannot be read, lacks a key, has another, or a value that makes no sense.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise AuscultError(f"grid {path}: cannot be read: {' '.join(str(error).split())}") from error
    names = [field.name for field in dataclasses.fields(Grid)]
    if not isinstance(values, dict) or set(values) != set(names):
        raise AuscultError(f"grid {path}: expected the keys {', '.join(names)}")
    try:
        grid = Grid(
            tuple(sorted({float(value) for value in values["thresholds"]})),
            tuple(sorted({float(value) for value in values["windows_s"]})),
            int(values["folds"]),
            int(values["resamples"]),
            int(values["seed"]),
        )
    except (TypeError, ValueError) as error:
        raise AuscultError(f"grid {path}: {error}") from error
    if not grid.thresholds or not 0 < grid.thresholds[0] <= grid.thresholds[-1] <= 1:
        raise AuscultError(f"grid {path}: thresholds: expected numbers above 0 and at most 1")
    if not grid.windows_s or grid.windows_s[0] <= 0 or grid.folds < 2 or grid.resamples < 1:
        raise AuscultError(f"grid {path}: expected windows_s above 0, folds of at least 2, resamples of at least 1")
    return grid


def read_labels(spark: SparkSession, storage: Storage, location: str) -> Labelled:
    """Read labelled titles, from wherever `--labels` says.

    Raises:
        AuscultError: there are none, or the columns are not there.
    """
    rows: list[tuple[str, str | None, str | None]]
    if location == REVIEWS:
        if not storage.has_table("reviews"):
            raise AuscultError(f"warehouse {storage.root}: there is no table reviews; jobs/review.py import fills it")
        found = spark.sql(
            sql.text("reviewed_titles"),
            reviews=tables.read(spark, storage, "reviews"),
            tracks=tables.read(spark, storage, "tracks"),
        )
        rows = [(row.title_id, row.defect, row.content_hash) for row in found.collect()]
    elif (folder := Storage(spark, absolute(location))).has_table("titles"):
        planted = {
            (row.title_id, row.defect)
            for row in tables.read(spark, folder, "labels").select("title_id", "defect").distinct().collect()
        }
        titles = {row.title_id: row.clean_title_id for row in tables.read(spark, folder, "titles").collect()}
        rows = [(title, None, titles[title]) for title in titles]
        rows += [(title, defect, titles.get(title)) for title, defect in planted]
    else:
        rows = [(row.title_id, row.defect, row.group) for row in label_rows(spark, location)]
    if not rows:
        raise AuscultError(f"labels {location}: there are no labelled titles")
    return _labelled(rows)


def _labelled(rows: list[tuple[str, str | None, str | None]]) -> Labelled:
    defects: dict[str, set[str]] = {}
    group: dict[str, str] = {}
    for title, defect, its_group in rows:
        defects.setdefault(title, set())
        if defect is not None:
            defects[title].add(defect)
        group[title] = str(its_group if its_group is not None else title)
    titles = sorted(defects)
    _, groups = np.unique([group[title] for title in titles], return_inverse=True)
    return Labelled(titles, groups, [frozenset(defects[title]) for title in titles])


def gathered(
    spark: SparkSession,
    storage: Storage,
    model: ShippedModel,
    labelled: Labelled,
    untuned: dict[str, OperatingPoint],
    grid: Grid,
) -> dict[str, Evidence]:
    """Evidence by defect over the labelled titles that the model has scored.

    Raises:
        AuscultError: it has scored none of them.
    """
    wanted = literal_frame(spark, [(title,) for title in labelled.titles], "title_id string")
    tracks = tables.read(spark, storage, "tracks").where(f"array_contains(scored_with, '{model.key}')")
    tracks = tracks.join(wanted, "title_id", "left_semi").select("title_id", "track", "content_hash", "decoded_s")
    hours: dict[str, float] = {}
    for row in tracks.collect():
        hours[row.title_id] = hours.get(row.title_id, 0.0) + row.decoded_s / 3600
    titles = [title for title in labelled.titles if title in hours]
    if not titles:
        raise AuscultError(
            f"warehouse {storage.root}: {model.key} has scored none of the {len(labelled.titles)} labelled titles (such as "
            f"{labelled.titles[0]!r}); scan them first, into this warehouse"
        )
    if len(titles) < len(labelled.titles):
        log.warning(
            "%d of %d labelled titles are not scored and left out",
            len(labelled.titles) - len(titles),
            len(labelled.titles),
        )
    segments = tables.read(spark, storage, "segments").join(tracks, ["title_id", "track", "content_hash"], "left_semi")
    thresholds = np.unique([*grid.thresholds, *(point.threshold for point in untuned.values())])
    if model.contract.frames > 1:
        thresholds = thresholds[thresholds >= model.contract.event_score]  # below it no event is stored
    windows_s = np.unique([*grid.windows_s, *(point.window_s for point in untuned.values())])
    found: Any = rises_of(spark, segments, model, untuned, thresholds, windows_s).toPandas()
    taken = np.isin(labelled.titles, titles)
    evidence = {}
    for defect in untuned:
        is_defective = np.array([defect in defects for defects in labelled.defects])[taken]
        part = found[found["defect"] == defect]
        evidence[defect] = gather(
            part, titles, thresholds, windows_s, is_defective, labelled.groups[taken], np.array([hours[title] for title in titles])
        )  # fmt: skip
    return evidence


def rises_of(
    spark: SparkSession,
    segments: DataFrame,
    model: ShippedModel,
    untuned: dict[str, OperatingPoint],
    thresholds: np.ndarray,
    windows_s: np.ndarray,
) -> DataFrame:
    """What windows hold, for every threshold and window; rows of `udfs.schemas.RISES`."""
    floor = float(thresholds.min())
    points = literal_frame(
        spark,
        [(model.name, model.version, defect, floor, list(point.ignored_channels)) for defect, point in untuned.items()],
        "model string, model_version string, defect string, threshold double, ignored_channels array<string>",
    )
    moments = spark.sql(sql.text("moments"), hits=spark.sql(sql.text("hits"), segments=segments, points=points))
    windows_ms = [round(window_s * 1000) for window_s in windows_s]
    return moments.mapInArrow(rises_udf(thresholds.tolist(), windows_ms), RISES)
