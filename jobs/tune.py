"""Seeks operating points: which threshold, X and Y tell defective titles from the others best.

Reads: the tables segments and tracks; labelled titles (see --labels); conf/tune.yaml.
Writes: the tables operating_points (a new version; old ones stay) and operating_curves.
One row per: defect; curve point. A title counts as detected where one of its tracks has a detection.
Launch: spark-submit jobs/tune.py --labels LABELLED [--maximise f1 | precision --at-recall R | recall --budget N]
Takes: one pass over the stored scores; no audio is decoded.
"""

import argparse
import dataclasses
import getpass
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from jobs import sql
from jobs.launch import DEFAULT_MODEL_URI, PROJECT, AuscultError, default_warehouse, log, run, session
from jobs.literals import literal_frame

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

    from jobs.settings import OperatingPoint
    from jobs.storage import Storage
    from jobs.tuning import Evidence, Figure, Objective
    from udfs.contract import ShippedModel

REVIEWS = "reviews"  # as --labels: the verdicts in the warehouse
WAYS = ("settings", "threshold alone", "tuned")


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
    groups: "np.ndarray"
    defects: list[frozenset[str]]


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="tune.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--labels",
        required=True,
        help="folder that jobs/simulate.py wrote; or CSV, JSON, Parquet or Delta table with title_id and defect (one row "
        "per title and defect, defect empty for titles that are fine), optionally group; or the word reviews: titles "
        "with verdicts in the warehouse",
    )
    parser.add_argument("--warehouse", default=default_warehouse(), help="where the tables are (default: %(default)s)")
    parser.add_argument("--model", default=DEFAULT_MODEL_URI, metavar="URI", help="default: %(default)s")
    parser.add_argument("--maximise", choices=["f1", "precision", "recall"], default="f1", help="default: %(default)s")
    parser.add_argument("--at-recall", type=float, metavar="R", help="with --maximise precision: least recall, 0..1")
    parser.add_argument("--budget", type=float, metavar="N", help="with --maximise recall: detections per 100 hours")
    parser.add_argument(
        "--settings", type=Path, metavar="YAML", help="untuned points and ignored channels, as a scan's"
    )
    parser.add_argument("--grid", type=Path, metavar="YAML", default=PROJECT / "conf" / "tune.yaml", help="what to try")
    parser.add_argument("--curve", type=Path, metavar="CSV", help="write the curves there too")
    parser.add_argument("--note", help="kept with the points")
    parser.add_argument("--dry-run", action="store_true", help="print what would be chosen and stop")
    options = parser.parse_args(argv)
    if (options.at_recall is not None) != (options.maximise == "precision"):
        parser.error("--at-recall R belongs to --maximise precision, and is needed there")
    if (options.budget is not None) != (options.maximise == "recall"):
        parser.error("--budget N belongs to --maximise recall, and is needed there")
    if options.at_recall is not None and not 0 < options.at_recall <= 1:
        parser.error(f"--at-recall: expected more than 0 and at most 1, found {options.at_recall:g}")
    if options.budget is not None and options.budget <= 0:
        parser.error(f"--budget: expected more than 0, found {options.budget:g}")
    return options


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


def read_labels(spark: "SparkSession", storage: "Storage", location: str) -> Labelled:
    """Read labelled titles, from wherever `--labels` says.

    Raises:
        AuscultError: there are none, or the columns are not there.
    """
    from jobs import tables
    from jobs.catalogue import read_rows
    from jobs.storage import Storage, absolute

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
        given = read_rows(spark, location, "labels")
        for number, row in enumerate(given, start=1):
            if not row.get("title_id") or "defect" not in row:
                raise AuscultError(
                    f"labels {location}: row {number}: expected title_id and defect (empty where the title is fine), "
                    f"found the columns {', '.join(map(str, row))}"
                )
        rows = [(str(row["title_id"]), row["defect"] or None, row.get("group") or None) for row in given]
    if not rows:
        raise AuscultError(f"labels {location}: there are no labelled titles")
    return _labelled(rows)


def _labelled(rows: list[tuple[str, str | None, str | None]]) -> Labelled:
    import numpy as np

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


def main(argv: list[str]) -> int:
    """Seek, measure, print, keep."""
    options = arguments(argv)
    from jobs.settings import read_settings

    settings, grid = read_settings(options.settings), read_grid(options.grid)
    from jobs import operating_points, registry, tables
    from jobs.storage import Storage, absolute
    from jobs.tuning import Objective

    spark = session("auscult tune")
    storage = Storage(spark, absolute(options.warehouse))
    tables.require(storage, "segments")
    [model] = registry.shipped([options.model])
    untuned = {key[2]: point for key, point in operating_points.from_settings([model], settings).items()}
    labelled = read_labels(spark, storage, options.labels)
    if strange := sorted({defect for defects in labelled.defects for defect in defects} - set(untuned)):
        log.warning("labels %s: %s has no label %s; left out", options.labels, model.key, ", ".join(strange))
    objective = Objective(options.maximise, options.at_recall or options.budget or 0.0)
    evidence = gathered(spark, storage, model, labelled, untuned, grid)
    found = {defect: _seek(mine, untuned[defect], objective, grid) for defect, mine in evidence.items()}
    _print(found, evidence, untuned, objective, grid)
    chosen = {defect: outcome for defect, outcome in found.items() if outcome.point is not None}
    if not chosen:
        raise AuscultError(
            f"labels {options.labels}: no defect has a point that keeps to {objective}; nothing was written"
        )
    common = {"model": model.name, "model_version": model.version}
    curves = [
        {**common, "defect": defect, **row}
        for defect, outcome in chosen.items()
        for row in outcome.front.drop(columns="margin").to_dict("records")
    ]
    if options.curve is not None:
        import pandas as pd

        pd.DataFrame(curves).to_csv(options.curve, index=False)
        log.info("%d curve points in %s", len(curves), options.curve)
    if options.dry_run:
        print("nothing was written (--dry-run)")
        return 0
    now = datetime.now(UTC)
    rows = [
        {
            **common,
            "defect": defect,
            "ignored_channels": list(untuned[defect].ignored_channels),
            "objective": str(objective),
            "labels": options.labels if options.labels == REVIEWS else absolute(options.labels),
            "titles": len(evidence[defect].is_defective),
            "defective_titles": int(evidence[defect].is_defective.sum()),
            "created_by": f"{getpass.getuser()}@{socket.gethostname()}",
            "created_at": now,
            "note": options.note,
            **outcome.row(),
        }
        for defect, outcome in chosen.items()
    ]
    version = operating_points.add(spark, storage, rows, curves)
    print(f"written: {storage.root}/operating_points, version {version}; to use it:")
    print(f"  spark-submit jobs/detect.py --operating-points {version}    (stored scores)")
    print(f"  spark-submit jobs/scan.py --operating-points {version} ...  (what is scanned from now on)")
    return 0


def gathered(
    spark: "SparkSession",
    storage: "Storage",
    model: "ShippedModel",
    labelled: Labelled,
    untuned: "dict[str, OperatingPoint]",
    grid: Grid,
) -> "dict[str, Evidence]":
    """Evidence by defect over the labelled titles that the model has scored.

    Raises:
        AuscultError: it has scored none of them.
    """
    import numpy as np

    from jobs import tables
    from jobs.tuning import gather

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
    spark: "SparkSession",
    segments: "DataFrame",
    model: "ShippedModel",
    untuned: "dict[str, OperatingPoint]",
    thresholds: "np.ndarray",
    windows_s: "np.ndarray",
) -> "DataFrame":
    """What windows hold, for every threshold and window; rows of `udfs.schemas.RISES`."""
    from udfs.rolling import rises_udf
    from udfs.schemas import RISES

    floor = float(thresholds.min())
    points = literal_frame(
        spark,
        [(model.name, model.version, defect, floor, list(point.ignored_channels)) for defect, point in untuned.items()],
        "model string, model_version string, defect string, threshold double, ignored_channels array<string>",
    )
    moments = spark.sql(sql.text("moments"), hits=spark.sql(sql.text("hits"), segments=segments, points=points))
    windows_ms = [round(window_s * 1000) for window_s in windows_s]
    return moments.mapInArrow(rises_udf(thresholds.tolist(), windows_ms), RISES)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the search found for one defect.

    Args:
        point: the chosen row of the curve; None where none keeps to the objective.
        front: the curve's best points.
        says: what each way of `WAYS` says of each title, bool (titles,), cross-validated where it was fitted; None
            where there were too few titles.
        figures: of each way, by name; None likewise.
    """

    point: "pd.Series | None"
    front: "pd.DataFrame"
    says: "list[np.ndarray | None]"
    figures: "list[dict[str, Figure] | None]"

    def row(self) -> dict[str, Any]:
        """The columns of `operating_points` that the search fills."""
        assert self.point is not None
        row: dict[str, Any] = {
            name: float(self.point[name])
            for name in ("threshold", "min_detected_s", "window_s", "detections_per_100_h")
        }
        measured = self.figures[WAYS.index("tuned")]
        for name in ("precision", "recall", "f1"):
            figure = None if measured is None else measured[name]
            for suffix, value in (("", "value"), ("_low", "low"), ("_high", "high")):
                number = None if figure is None else getattr(figure, value)
                row[name + suffix] = None if number is None or number != number else number
        return row


def _seek(evidence: "Evidence", untuned: "OperatingPoint", objective: "Objective", grid: Grid) -> Outcome:
    from jobs.tuning import choose, cross_validate, curve, figures, front

    points = curve(evidence)
    says = [
        evidence.says(untuned.threshold, untuned.min_detected_s, untuned.window_s),
        cross_validate(evidence, objective, grid.folds, grid.seed, with_filter=False),
        cross_validate(evidence, objective, grid.folds, grid.seed),
    ]
    measured = [
        None if said is None else figures(said, evidence.is_defective, evidence.groups, grid.resamples, grid.seed)
        for said in says
    ]
    return Outcome(choose(points, objective), front(points) if len(points) else points, says, measured)


def _print(
    found: dict[str, Outcome],
    evidence: "dict[str, Evidence]",
    untuned: "dict[str, OperatingPoint]",
    objective: "Objective",
    grid: Grid,
) -> None:
    import numpy as np

    from jobs.tuning import figures

    first = next(iter(evidence.values()))
    print(f"{len(first.is_defective)} labelled titles, {first.hours.sum():.1f} audio hours, sought: {objective}\n")
    print(f"{'defect':12} {'titles':>6}  {'threshold':>9} {'X, s':>7} {'Y, s':>6} {'per 100 h':>9}")
    for defect, outcome in found.items():
        count = int(evidence[defect].is_defective.sum())
        if outcome.point is None:
            why = "no labelled title has it" if count == 0 else "no point keeps to what was asked"
            print(f"{defect:12} {count:6d}  {why}; it keeps its present point")
            continue
        point = outcome.point
        print(
            f"{defect:12} {count:6d}  {point.threshold:9g} {point.min_detected_s:7.1f} {point.window_s:6g} "
            f"{point.detections_per_100_h:9.1f}"
        )
    print(f"\ntitles, {grid.folds}-fold cross-validated but for the settings' points; 95 % intervals")
    print(f"{'defect':12} {'way':16} {'precision':>17} {'recall':>17} {'F1':>17}")
    for defect, outcome in found.items():
        for way, measured in zip(WAYS, outcome.figures, strict=True):
            if evidence[defect].is_defective.any():
                _print_figures(defect, way, measured)
    whole = [defect for defect, outcome in found.items() if all(said is not None for said in outcome.says)]
    if whole:
        for number, way in enumerate(WAYS):
            says = np.stack([np.asarray(found[defect].says[number]) for defect in whole], axis=1)
            truth = np.stack([evidence[defect].is_defective for defect in whole], axis=1)
            _print_figures("any defect", way, figures(np.any(says, axis=1), np.any(truth, axis=1), first.groups, grid.resamples, grid.seed))  # fmt: skip
    print()


def _print_figures(defect: str, way: str, measured: "dict[str, Figure] | None") -> None:
    if measured is None:
        print(f"{defect:12} {way:16} too few titles with or without the defect")
        return
    print(f"{defect:12} {way:16} " + " ".join(f"{measured[name]!s:>17}" for name in ("precision", "recall", "f1")))


if __name__ == "__main__":
    run(main)
