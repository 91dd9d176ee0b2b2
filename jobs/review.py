"""Takes people's verdicts on detections in, and says what they make of the detectors' precision.

Reads: the tables detections, tracks, reviews and scans; a CSV of verdicts; conf/verdicts.yaml; for import and suggest the
    media.
Writes: the tables reviews (append-only; anything that appends to Delta may write it too) and fingerprints, CSV files.
One row per: reviews, detection and verdict; fingerprints, content and stretch.
Launch: spark-submit jobs/review.py queue --out todo.csv | import verdicts.csv --reviewer NAME | suggest --out todo.csv |
    precision | agreement | rates [--by FACET] | compare --model NAME --old VERSION --new VERSION
Takes: seconds; suggest, the decoding of each detection once.
"""

import argparse
import csv
import sys
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jobs import csv_table
from jobs.launch import PROJECT, AuscultError, check_file, default_warehouse, log, run, session
from jobs.literals import literal_frame
from jobs.verdict_file import NOTHING_IMPORTED, Verdict, check_agreement, read_verdicts, sift, vocabulary

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from jobs.storage import Storage

EPOCH = datetime.fromtimestamp(0, UTC)
MOST_TOLD = 10  # lines of a file, in a message
DIGITS = 6  # behind the point, of numbers written
# What is the same sound: measured on music through MP3 at 64 kbit/s and cut elsewhere, 0.025 to 0.046 of the bits differ and
# 30 to 60 items of 18 s are the same; of unrelated recordings, 0.35 and none.
LEAST_ITEMS, MOST_BIT_ERROR = 5, 0.12
NO_CHROMAPRINT = (
    "Chromaprint is not installed (pip install pyacoustid, and the system's library: libchromaprint1 on Debian)"
)
ANALYSES = {"queue": "review_queue", "compare": "versions"}  # where a command's name is not its query's
QUEUE = (
    "title_id",
    "uri",
    "content_hash",
    "track",
    "defect",
    "start_s",
    "end_s",
    "peak_score",
    "model",
    "model_version",
)
SUGGESTED = (
    "suggested_verdict", "suggested_cause", "judged_by", "judged_at", "judged_title_id", "judged_note", "shift_s", "same_s",
    "bit_error",
)  # fmt: skip


class TakenIn(NamedTuple):
    """What came of an import.

    Args:
        added: rows that `reviews` has more.
        overtaken: undated lines that bring up what their reviewer has taken back since, each with the verdict that holds.
        unmatched: verdicts of the file that are about no detection.
    """

    added: int
    overtaken: list[tuple[Verdict, str]]
    unmatched: list[Verdict]


def take_in(spark: "SparkSession", storage: "Storage", path: Path, rows: list[Verdict]) -> TakenIn:
    """Append verdicts to `reviews`; what is there already is left out, so that an import can be repeated.

    Args:
        spark: the session.
        storage: the warehouse.
        path: of the file, for messages.
        rows: see `jobs.verdict_file.read_verdicts`.

    Raises:
        AuscultError: a row names a title or track that `tracks` does not have, or contradicts another one of the same
            time; nothing is taken in then.
    """
    from udfs.schemas import REVIEWS

    _name_contents(spark, storage, path, rows)
    check_agreement(path, rows)
    fresh, overtaken = sift(path, rows, _stored(spark, storage, {row["content_hash"] for row in rows}))
    if fresh:
        given = literal_frame(spark, [tuple(row[name] for name in REVIEWS.names) for row in fresh], REVIEWS)
        given.write.format("delta").mode("append").save(storage.locate("reviews"))
    return TakenIn(len(fresh), overtaken, _unmatched(spark, storage, rows))


def _name_contents(spark: "SparkSession", storage: "Storage", path: Path, rows: list[Verdict]) -> None:
    """Fill in the content_hash of rows that name title and track only."""
    from jobs import tables

    unknown = [row for row in rows if row["content_hash"] is None]
    if not unknown:
        return
    tracks = tables.read(spark, storage, "tracks").select("title_id", "track", "content_hash").collect()
    known = {(row.title_id, row.track): row.content_hash for row in tracks}
    for row in unknown:
        row["content_hash"] = known.get((row["title_id"], row["track"]))
        if row["content_hash"] is None:
            raise AuscultError(
                f"verdicts {path}, line {row['line']}: title {row['title_id']!r}, track {row['track']}: not in the table "
                f"tracks of {storage.root}; {NOTHING_IMPORTED}"
            )


def _stored(spark: "SparkSession", storage: "Storage", contents: set[str]) -> list[Verdict]:
    """The rows of `reviews` about some contents."""
    from pyspark.sql import functions as F

    from jobs import tables

    wanted = literal_frame(spark, [(content,) for content in sorted(contents)], "content_hash string")
    found = tables.read(spark, storage, "reviews").join(F.broadcast(wanted), "content_hash", "left_semi")
    rows = [row.asDict() for row in found.withColumn("reviewed_us", F.unix_micros("reviewed_at")).collect()]
    for row in rows:  # a collected time is of the driver's zone and names none
        row["reviewed_at"] = EPOCH + timedelta(microseconds=row["reviewed_us"] or 0)
    return rows


def _unmatched(spark: "SparkSession", storage: "Storage", rows: list[Verdict]) -> list[Verdict]:
    """Verdicts that no detection has, by the rule of jobs/sql/matched.sql."""
    from pyspark.sql import functions as F

    from jobs import tables

    names = ("content_hash", "defect", "start_s", "end_s")
    given = literal_frame(
        spark,
        [(number, *(row[name] for name in names)) for number, row in enumerate(rows)],
        "number int, content_hash string, defect string, start_s double, end_s double",
    )
    stretches = tables.read(spark, storage, "detections").select(
        "content_hash", "defect", F.col("start_s").alias("from_s"), F.col("end_s").alias("to_s")
    )
    both = given.join(stretches, ["content_hash", "defect"]).where("start_s < to_s AND end_s > from_s")
    matched = {row.number for row in both.select("number").distinct().collect()}
    return [row for number, row in enumerate(rows) if number not in matched]


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


def with_uri(frame: "DataFrame", tracks: "DataFrame") -> "DataFrame":
    """Rows with the place of their title's file, which a reviewer opens; in no order.

    Args:
        frame: columns title_id, track and others.
        tracks: the table tracks.
    """
    places = tracks.select("title_id", "track", "uri").dropDuplicates(["title_id", "track"])
    return frame.join(places, ["title_id", "track"], "left")


def _check_versions(storage: "Storage", tracks: "DataFrame", model: str, old: str, new: str) -> None:
    """See that two versions of a model can be compared: a typing error should not look like nothing found.

    Raises:
        AuscultError: one of them has scored nothing here, or nothing that the other has, or they are the same.
    """
    from pyspark.sql import functions as F

    if old == new:
        raise AuscultError(f"compare --old {old} --new {new}: expected two versions")
    known = {row.key for row in tracks.selectExpr("explode(scored_with) AS key").distinct().collect()}
    if missing := [key for key in (f"{model}/{old}", f"{model}/{new}") if key not in known]:
        raise AuscultError(
            f"model {' and '.join(missing)}: nothing in {storage.root} was scored with it; known there as model/version: "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    has_old, has_new = (F.array_contains("scored_with", f"{model}/{version}") for version in (old, new))
    if tracks.where(has_old & has_new).isEmpty():
        raise AuscultError(
            f"model {model}, versions {old} and {new}: there is no track in {storage.root} that both have scored; scan some "
            "titles with both"
        )


def _check_facet(spark: "SparkSession", sources: "dict[str, DataFrame]", facet: str) -> None:
    """See that tracks have a facet.

    Raises:
        AuscultError: none has it.
    """
    from jobs.analyses import ALL, analysis

    if facet == ALL:
        return
    known = {row.facet for row in analysis(spark, sources, "track_facets").select("facet").distinct().collect()}
    if facet not in known:
        raise AuscultError(f"--by {facet}: no track has a value of it; known are {', '.join(sorted(known)) or 'none'}")


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
    queue.add_argument(
        "--model", action="append", default=[], metavar="NAME/VERSION", help="repeatable; default: every version's"
    )
    what.add_parser(
        "suggest",
        parents=[common],
        help="undecided detections whose sound was judged in other content (re-encoded, recut), with that verdict, as a CSV "
        "to confirm and import; takes Chromaprint's fingerprints of all detections",
    )
    what.add_parser("precision", parents=[common], help="precision by verdicts, by defect and by facets of the tracks")
    what.add_parser("agreement", parents=[common], help="how far reviewers agree (Cohen's kappa)")
    rates = what.add_parser("rates", parents=[common], help="detections per 100 hours, with 0 for what was not found")
    rates.add_argument(
        "--by",
        default="all",
        metavar="FACET",
        help="split by codec, container, language, channel_layout ... or one of the catalogue's own columns (default: by none)",
    )
    compare = what.add_parser("compare", parents=[common], help="what a version finds that another does not")
    for name in ("--model", "--old", "--new"):
        compare.add_argument(name, required=True)
    options = parser.parse_args(argv)
    if options.what == "queue" and options.limit < 1:
        parser.error(f"--limit: expected at least 1, found {options.limit}")
    if options.out is not None:
        check_file("--out", options.out)
    rows = []
    if options.what == "import":  # before Spark starts: a typing error should cost a second
        rows = read_verdicts(options.verdicts, vocabulary(options.vocabulary), options.reviewer)
        if not rows:
            raise AuscultError(f"verdicts {options.verdicts}: there is no line with a verdict")

    from pyspark.sql import functions as F

    from jobs import tables
    from jobs.analyses import analysis, of_models, sought
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
        taken = take_in(spark, storage, options.verdicts, rows)
        if is_available():  # while the file that was judged is there: its next delivery may replace it
            take_fingerprints(spark, storage, tables.read(spark, storage, "reviews"))
        else:
            log.info("%s: these verdicts will not be suggested for re-encoded or recut titles", NO_CHROMAPRINT)
        _tell(taken, len(rows), storage)
        return 0
    sources = {name: tables.read(spark, storage, name) for name in ("detections", "reviews", "tracks")}
    given: dict[str, Any] = {}
    if options.what == "compare":
        given = {"model": options.model, "old_version": options.old, "new_version": options.new}
        _check_versions(storage, sources["tracks"], options.model, options.old, options.new)
    elif options.what == "queue":
        sources["detections"] = of_models(sources["detections"], sources["tracks"], options.model)
    elif options.what == "rates":
        given = {"facet": options.by}
        _check_facet(spark, sources, options.by)
        if storage.has_table("scans"):
            sources["sought"] = sought(tables.read(spark, storage, "scans"))
    if options.what == "suggest":
        frame = with_uri(suggestions(spark, storage, sources), sources["tracks"])
        frame = frame.orderBy("title_id", "track", "start_s")
    else:
        frame = analysis(spark, sources, ANALYSES.get(options.what, options.what), **given)
    if options.what == "queue":
        frame = with_uri(frame.limit(options.limit), sources["tracks"])
        frame = frame.orderBy(F.desc("worth"), "title_id", "track", "start_s")
    _write(frame, options.out, for_filling=options.what in ("queue", "suggest"))
    return 0


def _tell(taken: TakenIn, count: int, storage: "Storage") -> None:
    for row, verdict in taken.overtaken[:MOST_TOLD]:
        log.warning(
            "line %d: %s said %s before and has said %s since, which stays: to say it anew, give the line a reviewed_at",
            row["line"], row["reviewer"], row["verdict"], verdict,
        )  # fmt: skip
    if len(taken.overtaken) > MOST_TOLD:
        log.warning(
            "and %d more lines of which their reviewers have said something else since",
            len(taken.overtaken) - MOST_TOLD,
        )
    print(f"{taken.added} verdicts taken in, {count - taken.added} were there before: {storage.root}/reviews")
    if taken.unmatched:
        lines = ", ".join(str(row["line"]) for row in taken.unmatched[:MOST_TOLD])
        more = " ..." if len(taken.unmatched) > MOST_TOLD else ""
        print(
            f"{len(taken.unmatched)} of the {count} match no detection (lines {lines}{more}): expected one of the same "
            "content and defect at a time that overlaps; until there is one they count for nothing"
        )


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
            shown = [
                f"{round(value, DIGITS):.15g}" if isinstance(value, float) else csv_table.cell(value)
                for value in (values[name] for name in names)
            ]
            writer.writerow([*shown, *("" for _ in blank)])
            count += 1
    if out is not None:
        log.info("%d rows in %s", count, out)


if __name__ == "__main__":
    run(main)
