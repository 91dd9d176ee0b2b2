"""Hands detections over to other tools: spreadsheets, Audacity, editing systems, broadcasters' quality control.

Reads: the tables detections, tracks, reviews and scans.
Writes: files in a folder: detections.csv, detections.json, and audacity/, edl/ (a file per title and track) and ebu-qc/
    (one per title). Each is replaced as a whole; files of an earlier hand-over that this one has no part in stay.
One row per: detection with the latest verdict on it; titles without one have no file and no entry.
Launch: spark-submit jobs/export.py --out FOLDER --format csv|json|ebu-qc|audacity|edl|all [--title TITLE_ID]
    [--scan SCAN_ID] [--defect LABEL] [--verdict VERDICT | --without-false-positives]
    [--frame-rate 25|23.976|30000/1001|29.97df] [--start-timecode 10:00:00:00] [--ebu-release 2026-01|2026-04]
Takes: seconds; the chosen detections are held in the driver's memory.

An edit decision list needs the frame rate of the picture: with a wrong one, every marker would lie in a wrong place and
none would look so. There is no default, and `--format all` asks for one too. 29.97 means non-drop, 29.97df drop-frame.
"""

import argparse
import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.handover import (
    COLOURS,
    TRACK_COLUMNS,
    UNREVIEWED,
    Handover,
    Row,
    audacity_text,
    by_track,
    csv_text,
    edl_text,
    file_stem,
    json_text,
)
from jobs.handover_ebu_qc import RELEASES, report_xml
from jobs.launch import AuscultError, default_warehouse, run, session
from jobs.timecode import Timeline, timeline

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from jobs.storage import Storage

FORMATS = ("csv", "json", "ebu-qc", "audacity", "edl")
START_OF_DAY = "00:00:00:00"


def occurrences(
    spark: "SparkSession",
    sources: dict[str, "DataFrame"],
    *,
    titles: Sequence[str] = (),
    scan_id: str | None = None,
    defects: Sequence[str] = (),
    verdicts: Sequence[str] = (),
) -> "DataFrame":
    """Detections with their latest verdict and the facts of their track.

    Args:
        spark: the session.
        sources: the tables detections, tracks and reviews.
        titles: title ids to keep; empty for all, as for the next.
        scan_id: scan that wrote them.
        defects: labels to keep.
        verdicts: verdicts to keep; `UNREVIEWED` for those that nobody has looked at.
    """
    from pyspark.sql import functions as F

    from jobs import tables
    from jobs.analyses import analysis

    detections = sources["detections"]
    for column, kept in [("title_id", titles), ("defect", defects), ("scan_id", [scan_id] if scan_id else ())]:
        if kept:
            detections = detections.where(F.col(column).isin(list(kept)))
    found = analysis(spark, {**sources, "detections": detections}, "verdicts")
    if verdicts:
        found = found.where(F.coalesce("verdict", F.lit(UNREVIEWED)).isin(list(verdicts)))
    found = tables.times_as_text(found)
    tracks = sources["tracks"].select("title_id", "track", *TRACK_COLUMNS)
    return found.join(tracks, ["title_id", "track"], "left")


def collected(frame: "DataFrame") -> list[Row]:
    """The rows of `occurrences`, with scores as they were computed (six digits of a 32-bit float)."""
    rows = [row.asDict() for row in frame.collect()]
    for row in rows:
        row["peak_score"] = round(row["peak_score"], 6)
        for name, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                row[name] = None  # JSON and XML have no such number
    return rows


def hand_over(
    rows: list[Row],
    formats: Sequence[str],
    handover: Handover,
    columns: dict[str, str],
    release: str = RELEASES[0],
) -> Iterator[tuple[str, str]]:
    """Name below the folder and text of each file.

    Args:
        rows: detections.
        formats: of `FORMATS`; edl needs a timeline.
        handover: what the files say of themselves.
        columns: what each column means.
        release: of the EBU QC data model.
    """
    if "csv" in formats:
        yield "detections.csv", csv_text(rows, handover.timeline)
    if "json" in formats:
        yield "detections.json", json_text(rows, handover, columns)
    titles: dict[str, list[Row]] = {}
    for (title_id, track), its in by_track(rows).items():
        titles.setdefault(title_id, []).extend(its)
        stem = f"{file_stem(title_id)}.track{track}"
        if "audacity" in formats:
            yield f"audacity/{stem}.txt", audacity_text(its)
        if "edl" in formats and handover.timeline is not None:
            yield f"edl/{stem}.edl", edl_text(f"{title_id} track {track}", its, handover.timeline)
    if "ebu-qc" in formats:
        for title_id, its in titles.items():
            yield f"ebu-qc/{file_stem(title_id)}.xml", report_xml(title_id, its, handover, release)


def write_file(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one.

    Raises:
        AuscultError: it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Half a surrogate pair, which no encoding holds, becomes \udc80: in JSON the very character again.
        unfinished.write_bytes(text.encode("utf-8", "backslashreplace"))
        os.replace(unfinished, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise AuscultError(f"export: {path} cannot be written: {error.strerror or error}") from error


def main(argv: list[str]) -> int:
    """Choose, write, say what was written."""
    parser = argparse.ArgumentParser(prog="export.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--warehouse", default=default_warehouse(), help="where the tables are (default: %(default)s)")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="local folder to write to; made if missing")
    parser.add_argument("--format", action="append", required=True, choices=[*FORMATS, "all"], help="repeatable")
    parser.add_argument("--title", action="append", default=[], metavar="TITLE_ID", help="repeatable; default: all")
    parser.add_argument("--scan", metavar="SCAN_ID", help="only what this scan wrote (scans.scan_id)")
    parser.add_argument("--defect", action="append", default=[], metavar="LABEL", help="repeatable; default: all")
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME/VERSION", help="repeatable; default: every version's"
    )
    judged = parser.add_mutually_exclusive_group()
    judged.add_argument("--verdict", action="append", choices=list(COLOURS), help="repeatable; default: all")
    judged.add_argument(
        "--without-false-positives",
        action="store_const",
        dest="verdict",
        const=[verdict for verdict in COLOURS if verdict != "false_positive"],
        help="leave out what a reviewer called one",
    )
    parser.add_argument("--frame-rate", metavar="RATE", help="of the picture: 25, 23.976, 30000/1001, 29.97df ...")
    parser.add_argument(
        "--start-timecode",
        metavar="HH:MM:SS:FF",
        help=f"of the first frame (default: {START_OF_DAY}); with --frame-rate",
    )
    parser.add_argument(
        "--ebu-release", choices=RELEASES, default=RELEASES[0], help="of the EBU QC data model (default: %(default)s)"
    )
    options = parser.parse_args(argv)
    formats = FORMATS if "all" in options.format else options.format
    place = _timeline(formats, options.frame_rate, options.start_timecode)
    if "://" in options.out:
        raise AuscultError(f"export: --out {options.out}: expected a local folder; copy the files from there")

    from pyspark.sql import functions as F

    from jobs import tables
    from jobs.analyses import of_models
    from jobs.storage import Storage, absolute
    from udfs.schemas import DETECTIONS, REVIEWS, TRACKS

    spark = session("auscult export")
    storage = Storage(spark, absolute(options.warehouse))
    tables.require(storage, "detections")
    _check_names(spark, storage, options.title, options.scan)
    sources = {name: tables.read(spark, storage, name) for name in ("detections", "tracks")}
    _check_defects(spark, storage, sources["detections"], options.defect)
    sources["detections"] = of_models(sources["detections"], sources["tracks"], options.model)
    sources["reviews"] = tables.read_reviews(spark, storage)
    chosen = occurrences(
        spark,
        sources,
        titles=options.title,
        scan_id=options.scan,
        defects=options.defect,
        verdicts=options.verdict or (),
    )
    rows = collected(chosen)
    handover = Handover(datetime.now(UTC).isoformat(timespec="seconds"), version("auscult"), place)
    columns = {field.name: field.metadata["comment"] for schema in (TRACKS, REVIEWS, DETECTIONS) for field in schema}
    count = 0
    for name, text in hand_over(rows, formats, handover, columns, options.ebu_release):
        write_file(Path(options.out) / name, text)
        count += 1
    titles = len({row["title_id"] for row in rows})
    print(f"{len(rows)} detections in {titles} titles written: {count} files in {options.out}")
    tracks = sources["tracks"].where(F.col("title_id").isin(options.title)) if options.title else sources["tracks"]
    if unheard := tracks.where("status <> 'ok'").select("title_id").distinct().count():
        print(
            f"of {unheard} titles some or all could not be scored (tracks.status partial or rejected): without a detection "
            "they have no file here, and are not known to be fine"
        )
    return 0


def _timeline(formats: Sequence[str], frame_rate: str | None, start: str | None) -> Timeline | None:
    """The timeline that the options name.

    Raises:
        AuscultError: an edit decision list or a start timecode without a frame rate, or either cannot be read.
    """
    if frame_rate is not None:
        return timeline(frame_rate, START_OF_DAY if start is None else start)
    if start is not None:
        raise AuscultError("export: --start-timecode says nothing without --frame-rate; give both")
    if "edl" in formats:
        raise AuscultError(
            "export: an edit decision list needs the picture's --frame-rate (25, 23.976, 29.97df ...); "
            "name it, or leave the format edl out"
        )
    return None


def _check_names(spark: "SparkSession", storage: "Storage", titles: Sequence[str], scan_id: str | None) -> None:
    """Refuse titles and scans that the warehouse does not know: a typing error should not look like a clean title.

    Raises:
        AuscultError: naming the first of them.
    """
    from pyspark.sql import functions as F

    from jobs import tables

    def known(table: str, column: str, names: Sequence[str]) -> set[Any]:
        frame = tables.read(spark, storage, table).where(F.col(column).isin(list(names)))
        return {row[0] for row in frame.select(column).distinct().collect()}

    asked = [("tracks", "title_id", "title", titles), ("scans", "scan_id", "scan", [scan_id] if scan_id else [])]
    for table, column, what, names in asked:
        if not names:
            continue
        there = known(table, column, names)
        if missing := next((name for name in names if name not in there), None):
            raise AuscultError(
                f"{what} {missing!r}: not in the table {table} of {storage.root}; look there for its name"
            )


def _check_defects(spark: "SparkSession", storage: "Storage", detections: "DataFrame", defects: Sequence[str]) -> None:
    """Refuse labels that no scan looked for, for the same reason; one that was found nowhere is no error.

    Raises:
        AuscultError: naming the first of them, and those that are known.
    """
    from jobs import tables
    from jobs.analyses import sought

    if not defects:
        return
    labels = detections.select("defect")
    if storage.has_table("scans"):
        labels = labels.union(sought(tables.read(spark, storage, "scans")).select("defect"))
    known = {row.defect for row in labels.distinct().collect()}
    if missing := next((defect for defect in defects if defect not in known), None):
        raise AuscultError(
            f"--defect {missing}: no scan of {storage.root} looked for it; known there are "
            f"{', '.join(sorted(known)) or 'none'}"
        )


if __name__ == "__main__":
    run(main)
