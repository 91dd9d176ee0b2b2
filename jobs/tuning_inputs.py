"""What jobs/tune.py seeks with: what to try, titles of which it is known what is broken, and what was scored of them."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pyspark.sql import DataFrame, SparkSession

from jobs import sql, tables
from jobs.labelled import Vocabulary, groups_of, label_rows
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
        undecided: by defect the titles of which nobody knows whether they have it.
    """

    titles: list[str]
    groups: np.ndarray
    defects: list[frozenset[str]]
    undecided: dict[str, frozenset[str]] = dataclasses.field(default_factory=dict)


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


def read_labels(spark: SparkSession, storage: Storage, location: str, known: Vocabulary) -> Labelled:
    """Read labelled titles, from wherever `--labels` says.

    Args:
        spark: the session.
        storage: the warehouse.
        location: what `--labels` says.
        known: what a defect may be called; what jobs/simulate.py wrote is taken as it is.

    Raises:
        AuscultError: there are none, the columns are not there, or a label is not known.
    """
    rows: list[tuple[str, str | None, str | None]]
    undecided: dict[str, frozenset[str]] = {}
    if location == REVIEWS:
        rows, undecided = _reviewed(spark, storage, known)
    elif (folder := Storage(spark, absolute(location))).has_table("titles"):
        planted = {
            (row.title_id, row.defect)
            for row in tables.read(spark, folder, "labels").select("title_id", "defect").distinct().collect()
        }
        titles = {row.title_id: row.clean_title_id for row in tables.read(spark, folder, "titles").collect()}
        rows = [(title, None, titles[title]) for title in titles]
        rows += [(title, defect, titles.get(title)) for title, defect in planted]
    else:
        rows = [(row.title_id, row.defect, row.group) for row in label_rows(spark, location, known)]
    if not rows:
        rest = len(frozenset().union(*undecided.values()))
        beside = f"; {rest} have detections that nobody has decided (jobs/review.py queue lists them)" if rest else ""
        raise AuscultError(f"labels {location}: there are no labelled titles{beside}")
    return _labelled(rows, undecided)


def _reviewed(
    spark: SparkSession, storage: Storage, known: Vocabulary
) -> tuple[list[tuple[str, str | None, str | None]], dict[str, frozenset[str]]]:
    """Titles of which a verdict has decided something (jobs/sql/reviewed_titles.sql), and by defect those left undecided.

    A title without any detection of a defect counts as free of it, as far as anybody knows: the detector said nothing
    there, and without such titles a point that detects them all would cost nothing. Recall is therefore the share of what
    was ever detected, and points that detect more than was judged look less precise than they are.
    """
    if not storage.has_table("reviews"):
        raise AuscultError(f"warehouse {storage.root}: there is no table reviews; jobs/review.py import fills it")
    named: dict[str, Any] = {name: tables.read(spark, storage, name) for name in ("detections", "reviews", "tracks")}
    found = spark.sql(sql.text("reviewed_titles"), **named).collect()
    # Verdicts are never changed, so that a misspelt one must not stop the search for good.
    if strange := sorted({row.defect for row in found} - known.defects):
        log.warning("reviews: verdicts on %s are left out: no detector knows it", ", ".join(strange))
        found = [row for row in found if row.defect in known.defects]
    decided = [row for row in found if row.is_defective is not None]
    rows = [(row.title_id, row.defect if row.is_defective else None, row.content_hash) for row in decided]
    undecided: dict[str, set[str]] = {}
    for row in found:
        if row.is_defective is None:
            undecided.setdefault(row.defect, set()).add(row.title_id)
    return rows, {defect: frozenset(titles) for defect, titles in undecided.items()}


def _labelled(rows: list[tuple[str, str | None, str | None]], undecided: dict[str, frozenset[str]]) -> Labelled:
    defects: dict[str, set[str]] = {}
    for title, defect, _ in rows:
        defects.setdefault(title, set()).update(() if defect is None else (defect,))
    titles, group = sorted(defects), groups_of((title, its_group) for title, _, its_group in rows)
    _, groups = np.unique([group[title] for title in titles], return_inverse=True)
    return Labelled(titles, groups, [frozenset(defects[title]) for title in titles], undecided)


def gathered(
    spark: SparkSession,
    storage: Storage,
    model: ShippedModel,
    labelled: Labelled,
    untuned: dict[str, OperatingPoint],
    grid: Grid,
) -> dict[str, Evidence]:
    """Evidence by defect over the labelled titles that the model has scored, but for those undecided of that defect.

    Raises:
        AuscultError: it has scored none of them.
    """
    wanted = literal_frame(spark, [(title,) for title in labelled.titles], "title_id string")
    tracks = tables.read(spark, storage, "tracks").where(f"array_contains(scored_with, '{model.key}')")
    tracks = tracks.join(wanted, "title_id", "left_semi").select("title_id", "track", "content_hash", "decoded_s")
    hours: dict[str, float] = {}
    for row in tracks.collect():
        hours[row.title_id] = hours.get(row.title_id, 0.0) + row.decoded_s / 3600
    scored = sum(title in hours for title in labelled.titles)
    if not scored:
        raise AuscultError(
            f"warehouse {storage.root}: {model.key} has scored none of the {len(labelled.titles)} labelled titles (such as "
            f"{labelled.titles[0]!r}); scan them first, into this warehouse"
        )
    if scored < len(labelled.titles):
        log.warning(
            "%d of %d labelled titles are not scored and left out", len(labelled.titles) - scored, len(labelled.titles)
        )
    segments = tables.read(spark, storage, "segments").join(tracks, ["title_id", "track", "content_hash"], "left_semi")
    thresholds = np.unique([*grid.thresholds, *(point.threshold for point in untuned.values())])
    if model.contract.frames > 1:
        thresholds = thresholds[thresholds >= model.contract.event_score]  # below it no event is stored
    windows_s = np.unique([*grid.windows_s, *(point.window_s for point in untuned.values())])
    found: Any = rises_of(spark, segments, model, untuned, thresholds, windows_s).toPandas()
    evidence = {}
    for defect in untuned:
        undecided = labelled.undecided.get(defect, frozenset())
        if undecided:
            log.warning(
                "%s: %d titles are left out, with detections of it that nobody has decided (jobs/review.py queue lists them)",
                defect,
                len(undecided),
            )
        taken = np.array([title in hours and title not in undecided for title in labelled.titles])
        titles = [title for title, is_taken in zip(labelled.titles, taken, strict=True) if is_taken]
        is_defective = np.array([defect in defects for defects in labelled.defects])[taken]
        part = found[(found["defect"] == defect) & found["title_id"].isin(titles)]
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
