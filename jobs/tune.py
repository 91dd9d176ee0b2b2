"""Seeks operating points: which threshold, X and Y tell defective titles from the others best.

Reads: the tables segments and tracks; labelled titles (see --labels); conf/tune.yaml.
Writes: the tables operating_points (a new version; old ones stay) and operating_curves.
One row per: defect; curve point. A title counts as detected where one of its tracks has a detection. By verdicts, titles
    with detections of a defect that nobody has decided are left out of that defect.
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

from jobs.launch import DEFAULT_MODEL_URI, PROJECT, AuscultError, check_file, default_warehouse, log, run, session

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from jobs.settings import OperatingPoint
    from jobs.tuning import Evidence, Figure, Objective
    from jobs.tuning_inputs import Grid

WAYS = ("settings", "threshold alone", "tuned")


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="tune.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--labels",
        required=True,
        help="folder that jobs/simulate.py wrote; or CSV, JSON, Parquet or Delta table with title_id and defect (one row "
        "per title and defect, defect empty for titles that are fine; a title without a row of a defect has not that one), "
        "optionally group; or the word reviews: titles with verdicts in the warehouse, of each defect those in which every "
        "detection of it is decided",
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


def main(argv: list[str]) -> int:
    """Seek, measure, print, keep."""
    options = arguments(argv)
    from jobs.settings import read_settings
    from jobs.tuning_inputs import REVIEWS, gathered, read_grid, read_labels

    settings, grid = read_settings(options.settings), read_grid(options.grid)
    from jobs import operating_points, registry, tables
    from jobs.labelled import sought_in, vocabulary
    from jobs.storage import Storage, absolute
    from jobs.tuning import Objective

    if options.curve is not None:
        check_file("--curve", options.curve)
    spark = session("auscult tune")
    storage = Storage(spark, absolute(options.warehouse))
    tables.require(storage, "segments")
    [model] = registry.shipped([options.model])
    untuned = {key[2]: point for key, point in operating_points.from_settings([model], settings).items()}
    known = vocabulary([model.contract], settings, sought_in(spark, storage))
    labelled = read_labels(spark, storage, options.labels, known)
    if strange := sorted({defect for defects in labelled.defects for defect in defects} - set(untuned)):
        log.warning(
            "labels %s: %s knows no %s; titles with nothing else count as free of its defects",
            options.labels,
            model.key,
            ", ".join(strange),
        )
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
    where = "" if options.warehouse == default_warehouse() else f" --warehouse {options.warehouse}"
    print(f"  spark-submit jobs/detect.py{where} --operating-points {version}    (stored scores)")
    print(f"  spark-submit jobs/scan.py{where} --operating-points {version} ...  (what is scanned from now on)")
    return 0


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


def _seek(evidence: "Evidence", untuned: "OperatingPoint", objective: "Objective", grid: "Grid") -> Outcome:
    from jobs.tuning import choose, cross_validate, curve, figures, front

    points = curve(evidence)
    says = [
        evidence.says(untuned.threshold, untuned.min_detected_s, untuned.window_s),
        cross_validate(evidence, objective, grid.folds, grid.seed, with_filter=False),
        cross_validate(evidence, objective, grid.folds, grid.seed),
    ]
    measured = [
        figures(said, evidence.is_defective, evidence.groups, grid.resamples, grid.seed)
        if said is not None and len(said)
        else None
        for said in says
    ]
    return Outcome(choose(points, objective), front(points) if len(points) else points, says, measured)


def _print(
    found: dict[str, Outcome],
    evidence: "dict[str, Evidence]",
    untuned: "dict[str, OperatingPoint]",
    objective: "Objective",
    grid: "Grid",
) -> None:
    import numpy as np

    from jobs.tuning import figures

    hours = {title: its for mine in evidence.values() for title, its in zip(mine.titles, mine.hours, strict=True)}
    print(f"{len(hours)} labelled titles, {sum(hours.values()):.1f} audio hours, sought: {objective}\n")
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
    if whole and (common := set.intersection(*(set(evidence[defect].titles) for defect in whole))):
        is_common = {defect: np.isin(evidence[defect].titles, list(common)) for defect in whole}
        groups = evidence[whole[0]].groups[is_common[whole[0]]]
        truth = np.any([evidence[defect].is_defective[is_common[defect]] for defect in whole], axis=0)
        for number, way in enumerate(WAYS):
            says = np.any([np.asarray(found[defect].says[number])[is_common[defect]] for defect in whole], axis=0)
            _print_figures("any defect", way, figures(says, truth, groups, grid.resamples, grid.seed))
    print()


def _print_figures(defect: str, way: str, measured: "dict[str, Figure] | None") -> None:
    if measured is None:
        print(f"{defect:12} {way:16} too few titles with or without the defect")
        return
    print(f"{defect:12} {way:16} " + " ".join(f"{measured[name]!s:>17}" for name in ("precision", "recall", "f1")))


if __name__ == "__main__":
    run(main)
