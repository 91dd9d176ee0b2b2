"""Takes people's verdicts on detections in, and says what they make of the detectors' precision.

Reads: the tables detections, tracks and reviews; a CSV of verdicts; conf/verdicts.yaml; for import and suggest the media.
Writes: the tables reviews (append-only; anything that appends to Delta may write it too) and fingerprints, CSV files.
One row per: reviews, detection and verdict; fingerprints, content and stretch.
Launch: spark-submit jobs/review.py queue --out todo.csv | import verdicts.csv --reviewer NAME | suggest --out todo.csv |
    precision | agreement | rates | compare --model NAME --old VERSION --new VERSION
Takes: seconds; suggest, the decoding of each detection once.
"""

import argparse
import csv
import sys
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from jobs import csv_table
from jobs.launch import PROJECT, AuscultError, default_warehouse, log, run, session
from jobs.literals import literal_frame

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from jobs.storage import Storage

NEEDED = ("defect", "start_s", "end_s", "verdict")
# What is the same sound: measured on music through MP3 at 64 kbit/s and cut elsewhere, 0.025 to 0.046 of the bits differ and
# 30 to 60 items of 18 s are the same; of unrelated recordings, 0.35 and none.
LEAST_ITEMS, MOST_BIT_ERROR = 5, 0.12
NO_CHROMAPRINT = (
    "Chromaprint is not installed (pip install pyacoustid, and the system's library: libchromaprint1 on Debian)"
)
QUEUE = ("title_id", "content_hash", "track", "defect", "start_s", "end_s", "peak_score", "model", "model_version")
SUGGESTED = (
    "suggested_verdict", "suggested_cause", "judged_by", "judged_at", "judged_title_id", "judged_note", "shift_s", "same_s",
    "bit_error",
)  # fmt: skip


def vocabulary(path: Path) -> dict[str, tuple[str, ...]]:
    """Causes by verdict.

    Raises:
        AuscultError: the file is not readable, or its verdicts are others than the precision analysis counts.
    """
    try:
        found = yaml.safe_load(path.read_text())
        causes = {str(verdict): tuple(map(str, its_causes)) for verdict, its_causes in found.items()}
    except (OSError, AttributeError, TypeError, yaml.YAMLError) as error:
        raise AuscultError(f"vocabulary {path}: expected a list of causes for each verdict: {error}") from error
    expected = {"genuine", "creative_intent", "false_positive", "unsure"}
    if set(causes) != expected:
        raise AuscultError(f"vocabulary {path}: expected the verdicts {sorted(expected)}, found {sorted(causes)}")
    return causes


def read_verdicts(path: Path, causes: dict[str, tuple[str, ...]], reviewer: str | None) -> list[dict[str, Any]]:
    """Rows of a CSV of verdicts, checked; lines without a verdict are left out.

    Args:
        path: a file as `jobs.csv_table` reads it, with the columns defect, start_s, end_s, verdict and content_hash or
            title_id and track; optionally cause, note, reviewer, reviewed_at (ISO 8601; else the file's own time, so
            that reading it twice adds nothing). Others are ignored: a filled-in queue can be read back.
        causes: see `vocabulary`.
        reviewer: for lines that name none.

    Raises:
        AuscultError: what is wrong, with the line; nothing is taken in then.
    """
    try:
        columns, lines = csv_table.read(path)
    except (OSError, ValueError) as error:
        raise AuscultError(f"verdicts {path}: {error}") from error
    if missing := [name for name in NEEDED if name not in columns]:
        raise AuscultError(f"verdicts {path}: expected the columns {', '.join(NEEDED)}; {', '.join(missing)} not there")
    if "content_hash" not in columns and not {"title_id", "track"} <= set(columns):
        raise AuscultError(f"verdicts {path}: expected a column content_hash, or title_id and track")
    rows = []
    written_at = datetime.fromtimestamp(int(path.stat().st_mtime), UTC)
    for number, line in lines:
        if not (line["verdict"] or "").strip():
            continue
        try:
            rows.append(_verdict(line, causes, reviewer, written_at))
        except ValueError as error:
            raise AuscultError(f"verdicts {path}, line {number}: {error}; nothing was imported") from error
    return rows


def _verdict(
    line: dict[str, str | None], causes: dict[str, tuple[str, ...]], reviewer: str | None, written_at: datetime
) -> dict[str, Any]:
    def text(name: str) -> str | None:
        return (line.get(name) or "").strip() or None

    verdict, cause, who = text("verdict"), text("cause"), text("reviewer") or reviewer
    if verdict not in causes:
        raise ValueError(f"verdict: expected one of {', '.join(causes)}, found {verdict!r}")
    if cause is not None and cause not in causes[verdict]:
        raise ValueError(f"cause of {verdict}: expected one of {', '.join(causes[verdict])}, found {cause!r}")
    if who is None:
        raise ValueError("reviewer: expected a name, in the column reviewer or by --reviewer")
    start_s, end_s = (csv_table.number(text(name) or "nan") for name in ("start_s", "end_s"))
    if not 0 <= start_s < end_s:
        raise ValueError(f"expected 0 <= start_s < end_s, found {start_s:g} and {end_s:g}")
    if text("defect") is None:
        raise ValueError("defect: expected a label, found nothing")
    track = text("track")
    when = text("reviewed_at")
    at = written_at if when is None else datetime.fromisoformat(when)
    return {
        "content_hash": text("content_hash"),
        "defect": text("defect"),
        "start_s": start_s,
        "end_s": end_s,
        "verdict": verdict,
        "cause": cause,
        "reviewer": who,
        "note": text("note"),
        "reviewed_at": at if at.tzinfo is not None else at.replace(tzinfo=UTC),
        "title_id": text("title_id"),
        "track": None if track is None else int(track),
    }


def take_in(spark: "SparkSession", storage: "Storage", rows: list[dict[str, Any]]) -> int:
    """Append verdicts to `reviews`; a row that is there already is left out, so that an import can be repeated.

    Raises:
        AuscultError: a row names a title or track that `tracks` does not have; nothing is taken in then.
    """
    from jobs import tables
    from udfs.schemas import REVIEWS

    if unknown := [row for row in rows if row["content_hash"] is None]:
        known = {
            (row.title_id, row.track): row.content_hash
            for row in tables.read(spark, storage, "tracks").select("title_id", "track", "content_hash").collect()
        }
        for row in unknown:
            row["content_hash"] = known.get((row["title_id"], row["track"]))
            if row["content_hash"] is None:
                raise AuscultError(
                    f"title {row['title_id']!r}, track {row['track']}: not in the table tracks of {storage.root}; "
                    "nothing was imported"
                )
    given = literal_frame(spark, [tuple(row[name] for name in REVIEWS.names) for row in rows], REVIEWS)
    same = ["content_hash", "defect", "start_s", "end_s", "verdict", "reviewer", "reviewed_at"]
    fresh = given.dropDuplicates(same).join(tables.read(spark, storage, "reviews"), same, "left_anti")
    fresh = fresh.select(REVIEWS.names).persist()
    added = fresh.count()
    if added:
        fresh.write.format("delta").mode("append").save(storage.locate("reviews"))
    fresh.unpersist()
    return added


def take_fingerprints(spark: "SparkSession", storage: "Storage", stretches: "DataFrame") -> None:
    """Append to `fingerprints` what is not there yet, as far as the media can be read; what cannot is told and left.

    Args:
        spark: the session.
        storage: the warehouse.
        stretches: columns content_hash, start_s, end_s.
    """
    from pyspark.sql import functions as F

    from jobs import tables
    from jobs.settings import ScanSettings
    from udfs.fingerprint import FINGERPRINT_ORDERS, FINGERPRINTED, fingerprints_udf
    from udfs.remote import SCHEMES
    from udfs.schemas import FINGERPRINTS

    tables.create(spark, storage.locate("fingerprints"), FINGERPRINTS)
    key = ["content_hash", "start_s", "end_s"]
    uri = F.col("uri")  # as udfs.remote.path_of: what is stored has no credentials
    is_remote = uri.rlike(f"(?i)^({'|'.join(SCHEMES)})://")
    path = F.when(uri.startswith("file://"), F.expr("substring(uri, 8)")).when(is_remote, uri).alias("path")
    where = (
        tables.read(spark, storage, "tracks")
        .where("track IS NOT NULL")
        .dropDuplicates(["content_hash"])
        .select("content_hash", "track", path)
        .where("path IS NOT NULL")
    )
    orders = (
        stretches.select(key)
        .dropDuplicates()
        .join(tables.read(spark, storage, "fingerprints"), key, "left_anti")
        .join(where, "content_hash")
        .select(FINGERPRINT_ORDERS.names)
        .repartition(spark.sparkContext.defaultParallelism * 3, "path")  # each file is opened once
    )
    taken = orders.mapInArrow(fingerprints_udf(ScanSettings().decode_timeout_s), FINGERPRINTED).persist()
    failed = taken.where("error IS NOT NULL").orderBy(key).collect()
    for row in failed[:5]:
        log.warning(
            "content %s, %g to %g s: no fingerprint: %s", row.content_hash[:12], row.start_s, row.end_s, row.error
        )
    if len(failed) > 5:
        log.warning("and %d more without a fingerprint", len(failed) - 5)
    fresh = taken.where("error IS NULL").select(FINGERPRINTS.names)
    if not fresh.isEmpty():
        fresh.write.format("delta").mode("append").save(storage.locate("fingerprints"))
    taken.unpersist()


def suggestions(spark: "SparkSession", storage: "Storage", sources: "dict[str, DataFrame]") -> "DataFrame":
    """Verdicts on the same sound in other content, for detections that nobody has decided (jobs/sql/suggestions.sql).

    Args:
        spark: the session.
        storage: the warehouse; its table `fingerprints` is completed first.
        sources: the tables detections, reviews and tracks.
    """
    from jobs import tables
    from jobs.analyses import analysis

    stretches = sources["detections"].select("content_hash", "start_s", "end_s")
    take_fingerprints(spark, storage, stretches.union(sources["reviews"].select("content_hash", "start_s", "end_s")))
    prints = tables.read(spark, storage, "fingerprints").dropDuplicates(["content_hash", "start_s", "end_s"])
    return analysis(
        spark,
        {**sources, "fingerprints": prints},
        "suggestions",
        least_items=LEAST_ITEMS,
        most_bit_error=MOST_BIT_ERROR,
    )


def main(argv: list[str]) -> int:
    """Do what the first argument says."""
    parser = argparse.ArgumentParser(prog="review.py", description=(__doc__ or "").split("\n\n")[0])
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--warehouse", default=default_warehouse(), help="where the tables are (default: %(default)s)")
    common.add_argument("--out", type=Path, metavar="CSV", help="write there instead of printing")
    what = parser.add_subparsers(dest="what", required=True)
    takes = what.add_parser("import", parents=[common], help="take verdicts in from a CSV")
    takes.add_argument("verdicts", type=Path)
    takes.add_argument("--reviewer", help="who judged, for lines that name nobody")
    takes.add_argument(
        "--vocabulary", type=Path, default=PROJECT / "conf" / "verdicts.yaml", help="default: %(default)s"
    )
    queue = what.add_parser("queue", parents=[common], help="what to listen to next, as a CSV to fill in")
    queue.add_argument("--limit", type=int, default=200, help="lines (default: %(default)s)")
    what.add_parser(
        "suggest",
        parents=[common],
        help="undecided detections whose sound was judged in other content (re-encoded, recut), with that verdict, as a CSV "
        "to confirm and import; takes Chromaprint's fingerprints of all detections",
    )
    what.add_parser("precision", parents=[common], help="precision by verdicts, by defect and by facets of the tracks")
    what.add_parser("agreement", parents=[common], help="how far reviewers agree (Cohen's kappa)")
    what.add_parser("rates", parents=[common], help="detections per 100 hours")
    compare = what.add_parser("compare", parents=[common], help="what a version finds that another does not")
    for name in ("--model", "--old", "--new"):
        compare.add_argument(name, required=True)
    options = parser.parse_args(argv)
    rows = []
    if options.what == "import":  # before Spark starts: a typing error should cost a second
        rows = read_verdicts(options.verdicts, vocabulary(options.vocabulary), options.reviewer)
        if not rows:
            raise AuscultError(f"verdicts {options.verdicts}: there is no line with a verdict")

    from jobs import tables
    from jobs.analyses import analysis
    from jobs.storage import Storage, absolute
    from udfs.fingerprint import is_available
    from udfs.schemas import REVIEWS

    if options.what == "suggest" and not is_available():
        raise AuscultError(f"{NO_CHROMAPRINT}: nothing says which titles sound the same")

    spark = session("auscult review")
    storage = Storage(spark, absolute(options.warehouse))
    tables.require(storage, "detections")
    if not storage.has_table("reviews"):  # a warehouse of an earlier version
        tables.create(spark, storage.locate("reviews"), REVIEWS)
    if options.what == "import":
        added = take_in(spark, storage, rows)
        if is_available():  # while the file that was judged is there: its next delivery may replace it
            take_fingerprints(spark, storage, tables.read(spark, storage, "reviews"))
        else:
            log.info("%s: these verdicts will not be suggested for re-encoded or recut titles", NO_CHROMAPRINT)
        print(f"{added} verdicts taken in, {len(rows) - added} were there before: {storage.root}/reviews")
        return 0
    sources = {name: tables.read(spark, storage, name) for name in ("detections", "reviews", "tracks")}
    if options.what == "queue":
        frame = analysis(spark, sources, "review_queue").limit(options.limit)
    elif options.what == "suggest":
        frame = suggestions(spark, storage, sources)
    elif options.what == "compare":
        given = {"model": options.model, "old_version": options.old, "new_version": options.new}
        frame = analysis(spark, sources, "versions", **given)
    else:
        frame = analysis(spark, sources, options.what)
    _write(frame, options.out, for_filling=options.what in ("queue", "suggest"))
    return 0


def _write(frame: "DataFrame", out: Path | None, *, for_filling: bool) -> None:
    from jobs import tables

    names = (
        [*QUEUE, *(name for name in ("worth", *SUGGESTED) if name in frame.columns)] if for_filling else frame.columns
    )
    blank = ("verdict", "cause", "note") if for_filling else ()
    with nullcontext(sys.stdout) if out is None else out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, *blank])
        count = 0
        for row in tables.times_as_text(frame).collect():
            values = row.asDict()
            shown = [f"{value:.4g}" if isinstance(value, float) and not name.endswith("_s") else csv_table.cell(value)
                     for name, value in ((name, values[name]) for name in names)]  # fmt: skip
            writer.writerow([*shown, *("" for _ in blank)])
            count += 1
    if out is not None:
        log.info("%d rows in %s", count, out)


if __name__ == "__main__":
    run(main)
