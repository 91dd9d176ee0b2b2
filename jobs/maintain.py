"""Keeps a warehouse's tables in order: counts rows and finds duplicates and gaps, mends them, compacts, vacuums.

Reads: every Delta table of the warehouse, what scans have staged.
Writes: nothing (--check, --dry-run); --mend the tables tracks, segments, detections and scans; --compact and --vacuum the
    files of all tables, never a row.
One row per: prints one line per kind of problem, table compacted and table vacuumed.
Launch: spark-submit jobs/maintain.py [--check] [--mend] [--compact] [--vacuum] [--dry-run]
Takes: one pass over the table segments without its scores; compaction rewrites what lies in small files.
"""

import argparse
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.launch import AuscultError, default_warehouse, run, session
from jobs.literals import literal_frame

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, Row, SparkSession

    from jobs.lease import Lease
    from jobs.storage import Storage

EXIT_PROBLEMS = 4
SAFE_RETAIN_H = 168.0
# What a model version's segments are taken to last at most where none of them is left to ask, seconds.
LONGEST_SEGMENT_S = 30.0
MARK_WORDS = "segments were missing (jobs/maintain.py --mend); the next scan scores the track again"

KEYS = {
    "tracks": ["title_id", "track"],
    "segments": ["title_id", "content_hash", "track", "channel", "model", "model_version", "start_s"],
    "detections": ["title_id", "content_hash", "track", "defect", "model", "model_version", "start_s"],
}
NOTHING, CHANNELS, BETWEEN, ENDS = "nothing stored", "missing channels", "gaps between segments", "gaps at the ends"
UNKNOWN_DETECTIONS, UNKNOWN_SEGMENTS = "orphans in detections", "orphans in segments"
_AGAIN = "--mend marks the tracks; then scan again with these models"
ADVICE = {
    **{f"duplicates in {name}": "--mend keeps one row of each, the newest" for name in KEYS},
    NOTHING: f"scored_with names models of which no segment is there: {_AGAIN}",
    CHANNELS: f"fewer channels than the track has: {_AGAIN}",
    BETWEEN: f"segments are missing between others: {_AGAIN}",
    ENDS: f"segments cover less than was decoded: {_AGAIN}",
    UNKNOWN_DETECTIONS: "of content that tracks does not hold now: --mend deletes them",
    UNKNOWN_SEGMENTS: "of titles that tracks does not know, so that a scan would store them twice: --mend deletes them",
}


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line; needs no Spark.

    Raises:
        AuscultError: a retention that would take files from under readers, without --force-retention.
    """
    parser = argparse.ArgumentParser(prog="maintain.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--warehouse", default=default_warehouse(), help="where the tables are (default: %(default)s)")
    parser.add_argument(
        "--check", action="store_true", help="count rows, find duplicates and gaps (the default); only reads"
    )
    parser.add_argument("--mend", action="store_true", help="mend what --check finds")
    parser.add_argument("--compact", action="store_true", help="merge the tables' small files")
    parser.add_argument("--vacuum", action="store_true", help="delete files that no table needs any more")
    parser.add_argument(
        "--retain-h",
        type=float,
        default=SAFE_RETAIN_H,
        metavar="HOURS",
        help="vacuum keeps files that were needed this many hours ago (default: %(default)s); Delta forgets what was "
        "removed longer ago than a table's delta.deletedFileRetentionDuration (168 h), so raise that too to keep more",
    )
    parser.add_argument("--force-retention", action="store_true", help=f"allow --retain-h below {SAFE_RETAIN_H:.0f}")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done and stop")
    options = parser.parse_args(argv)
    if not math.isfinite(options.retain_h) or options.retain_h < 0:
        parser.error(f"--retain-h: expected hours from 0, found {options.retain_h}")
    if options.vacuum and options.retain_h < SAFE_RETAIN_H and not options.force_retention:
        raise AuscultError(
            f"--retain-h {options.retain_h:g}: below {SAFE_RETAIN_H:.0f} h long queries, time travel and writers at work "
            "lose files that they still need; once nobody reads or writes this warehouse, add --force-retention"
        )
    options.check = options.check or options.mend or not (options.compact or options.vacuum)
    return options


def table_names(spark: "SparkSession", storage: "Storage") -> list[str]:
    """The warehouse's Delta tables that have columns, those that other jobs added among them.

    Raises:
        AuscultError: there is none.
    """
    from jobs import tables

    found = [name for name in storage.folders("") if storage.exists(f"{name}/_delta_log")]
    # A table that was only named in a SQL shell has no columns yet.
    found = [name for name in found if tables.read(spark, storage, name).columns]
    if not found:
        raise AuscultError(f"warehouse {storage.root}: there are no tables; scan first or give another --warehouse")
    return found


@dataclass
class Findings:
    """What a check found.

    Args:
        frames: the tables tracks, segments and detections as of the versions that were checked, unfinished titles left out.
        problems: one row per problem: kind, title_id, track, key (the model as name/version), rows.
        summary: one row per kind: kind, rows, titles, examples, keys.
        staged: chunks that no running scan will commit, count.
        lines: what was counted and what else there is to say, for people.
    """

    frames: dict[str, "DataFrame"]
    problems: "DataFrame"
    summary: list["Row"]
    staged: int
    lines: list[str]

    @property
    def is_clean(self) -> bool:
        """Whether there is nothing to mend."""
        return not self.summary and not self.staged

    def has(self, *kinds: str) -> bool:
        """Whether there are problems of these kinds."""
        return any(row.kind in kinds for row in self.summary)

    def print(self) -> None:
        """Print a table of the problems, then the summary."""
        if not self.is_clean:
            print(f"{'problem':24} {'rows':>9} {'titles':>7}  such as")
        for row in self.summary:
            names = ", ".join("".join(c if c.isprintable() else "?" for c in title) for title in row.examples)
            print(f"{row.kind:24} {row['rows']:9d} {row.titles:7d}  {names}")
            print(f"    {ADVICE[row.kind]}" + (f" ({', '.join(row['keys'])})" if row["keys"] else ""))
        if self.staged:
            print(f"{'unfinished chunks':24} {self.staged:9d} {'':7}  scored by a scan that died, not committed")
            print("    the next scan or --mend finishes them; until then their titles are not checked")
        for line in self.lines:
            print(line)


def _look(spark: "SparkSession", storage: "Storage") -> tuple[dict[str, int], dict[str, list[str]]]:
    """Versions of the tables, and titles of every staged chunk by its folder."""
    from delta.tables import DeltaTable

    from jobs import tables

    staged = {}
    for scan_id in storage.folders(tables.STAGING):
        for chunk in storage.folders(f"{tables.STAGING}/{scan_id}"):
            try:
                planned = json.loads(storage.read_text(f"{tables.STAGING}/{scan_id}/{chunk}/manifest.json"))
            except Exception:  # not written yet, or committed and deleted meanwhile
                continue
            titles = [track["title_id"] for track in planned["tracks"]] + [gone[0] for gone in planned["gone"]]
            staged[f"{scan_id}/{chunk}"] = sorted(set(titles))
    history = {name: DeltaTable.forPath(spark, storage.locate(name)).history(1) for name in KEYS}
    return {name: frame.collect()[0].version for name, frame in history.items()}, staged


def check(spark: "SparkSession", storage: "Storage") -> Findings:
    """Count rows, find duplicates, gaps and orphans; only reads, and may do so beside a scan.

    Not a problem: segments of content that a track no longer has or of tracks that a title no longer has (kept under
    their content hash), gaps in tracks that are partial (damaged audio is not scored), tracks that the next scan
    scores again anyway. Titles whose commit is under way, or was cut off and lies in the staging folder, are left
    out: the scan, or the next one, finishes them.

    Raises:
        AuscultError: the tables of a scan are not all there.
    """
    from pyspark.sql import functions as F

    from jobs import sql
    from jobs.lease import Lease
    from jobs.plan import TRANSIENT
    from udfs.decoder_findings import DECODER
    from udfs.media import SHORTFALL_S

    if missing := sorted(set(KEYS) - set(table_names(spark, storage))):
        raise AuscultError(f"warehouse {storage.root}: there is no table {', '.join(missing)}; scan first")
    # A chunk is staged for as long as its commit takes. Two looks that agree have seen one state of all tables, and
    # every title in it that is between two of them.
    look = _look(spark, storage)
    while (again := _look(spark, storage)) != look:
        look = again
    versions, staged = look
    scan_id = Lease(storage, "").holder() if staged else None
    pending = literal_frame(spark, [(title,) for titles in staged.values() for title in titles], "title_id string")
    frames = {}
    for name, version in versions.items():
        frame = spark.read.format("delta").option("versionAsOf", version).load(storage.locate(name))
        frames[name] = frame.join(pending.distinct(), "title_id", "left_anti") if staged else frame
    waiting = F.coalesce(F.col("error_code").isin(*sorted(TRANSIENT)), F.lit(False))
    tracks = frames["tracks"].withColumn("is_waiting", waiting)
    channels = _channels(frames["segments"]).persist()
    problems = spark.sql(
        sql.text("problems"), tracks=tracks, channels=channels, detections=frames["detections"],
        longest_segment_s=LONGEST_SEGMENT_S, shortfall_s=SHORTFALL_S, decoder=DECODER.key,
    ).persist()  # fmt: skip
    titles = problems.groupBy("kind", "title_id").agg(F.sum("rows").alias("rows"), F.collect_set("key").alias("keys"))
    summary = titles.groupBy("kind").agg(
        F.sum("rows").alias("rows"),
        F.count("*").alias("titles"),
        F.slice(F.array_sort(F.collect_list("title_id")), 1, 3).alias("examples"),
        F.array_sort(F.array_distinct(F.flatten(F.collect_list("keys")))).alias("keys"),
    )
    counted = channels.agg(
        F.count_distinct("title_id", "content_hash", "track", "key").alias("groups"), F.sum("rows").alias("rows")
    ).collect()[0]
    seen = tracks.agg(F.count("*").alias("tracks"), F.count_if("is_waiting").alias("waiting")).collect()[0]
    lines = []
    if seen.waiting:
        lines.append(f"{seen.waiting} tracks wait for the next scan, which scores them again")
    if staged and scan_id is not None:
        lines.append(f"scan {scan_id} is at work; the titles that it has staged were not checked")
    lines.append(
        f"checked {counted['groups']} groups (content, track, model version) with {counted['rows'] or 0} segments, "
        f"{seen.tracks} tracks, {frames['detections'].count()} detections; "
        + ", ".join(f"{name} at version {version}" for name, version in versions.items())
    )
    found = sorted(summary.collect(), key=lambda row: list(ADVICE).index(row.kind))
    channels.unpersist()
    return Findings(frames, problems, found, 0 if scan_id is not None else len(staged), lines)


def _channels(segments: "DataFrame") -> "DataFrame":
    """One row per title x content x track x channel x model version, as jobs/sql/problems.sql reads it."""
    from pyspark.sql import functions as F

    key = F.concat_ws("/", "model", "model_version").alias("key")
    grouped = segments.groupBy("title_id", "content_hash", "track", "channel", key).agg(
        F.count("*").alias("rows"),
        F.array_sort(F.collect_set("start_s")).alias("starts"),
        F.max(F.expr("end_s - start_s")).alias("length_s"),
    )
    count = F.size("starts")
    most = F.greatest(count - 2, F.lit(0))  # the last step is the one to where the last segment begins, beside the grid
    steps = F.zip_with(F.slice("starts", 2, most), F.slice("starts", 1, most), lambda after, before: after - before)
    figures = {
        "segments": count, "first_s": F.get("starts", F.lit(0)), "second_s": F.get("starts", F.lit(1)),
        "last_s": F.array_max("starts"), "step_s": F.array_min(steps),
    }  # fmt: skip
    return grouped.withColumns(figures).drop("starts")


def mend(spark: "SparkSession", storage: "Storage", found: Findings) -> None:
    """Keep one row of duplicates, delete orphans, mark tracks with gaps; call only while holding the lease."""
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    from jobs import tables
    from jobs.plan import INCOMPLETE

    for name in KEYS:
        if found.has(f"duplicates in {name}"):
            _keep_one(spark, storage, name, found)
    for name, kind, keys in (
        ("detections", UNKNOWN_DETECTIONS, ["title_id", "track", "content_hash"]),
        ("segments", UNKNOWN_SEGMENTS, ["title_id"]),
    ):
        if found.has(kind):
            orphans = found.frames[name].join(found.frames["tracks"], keys, "left_anti").select(keys).distinct()
            same = " AND ".join(f"old.{key} <=> gone.{key}" for key in keys)
            table = DeltaTable.forPath(spark, storage.locate(name)).alias("old")
            tables.persist(table.merge(orphans.alias("gone"), same).whenMatchedDelete().execute, f"mending {name}")
    gaps = (NOTHING, CHANNELS, BETWEEN, ENDS)
    if found.has(*gaps):
        # Marked, not deleted: what is there stays readable, detections too, until a scan has something better. Taking
        # the model out of scored_with instead would make the scan add a second copy of the rows that are there.
        marked = found.problems.where(F.col("kind").isin(*gaps)).select("title_id", "track").distinct()
        values: dict[str, str | Column] = {
            "status": F.lit("partial"),
            "error_code": F.lit(INCOMPLETE),  # the next scan scores the track again and replaces its rows
            "error": F.lit(MARK_WORDS),
        }
        table = DeltaTable.forPath(spark, storage.locate("tracks")).alias("old")
        same = "old.title_id = gap.title_id AND old.track <=> gap.track"
        tables.persist(table.merge(marked.alias("gap"), same).whenMatchedUpdate(set=values).execute, "mending tracks")


def _keep_one(spark: "SparkSession", storage: "Storage", name: str, found: Findings) -> None:
    """Replace each group of rows of one key by the newest of them, in one commit.

    Delta cannot delete one of two identical rows, and deleting all before adding one again would lose rows to a kill
    in between. So one MERGE does both: a row that matches every copy, and is deleted with them, and a row that
    matches nothing, and is therefore inserted.
    """
    from delta.tables import DeltaTable
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    from jobs.tables import persist, quoted

    frame = found.frames[name]
    columns = frame.columns
    concerned = found.problems.where(F.col("kind") == f"duplicates in {name}").select("title_id").distinct()
    same_key = Window.partitionBy(*KEYS[name])
    # Ids of scans sort by time; the last resort is an order of the rows' whole content.
    newest_first = same_key.orderBy(F.desc_nulls_last("scan_id"), F.to_json(F.struct(*quoted(columns))))
    kept = (
        frame.join(concerned, "title_id", "left_semi").select(quoted(columns))
        .withColumn("copies", F.count("*").over(same_key)).withColumn("place", F.row_number().over(newest_first))
        .where("copies > 1 AND place = 1").drop("copies", "place")
    )  # fmt: skip
    source = kept.withColumn("is_gone", F.lit(True)).unionByName(kept.withColumn("is_gone", F.lit(False)))
    same = " AND ".join(f"old.{key} <=> new.{key}" for key in KEYS[name])
    merge = (
        DeltaTable.forPath(spark, storage.locate(name))
        .alias("old")
        .merge(source.alias("new"), f"new.is_gone AND {same}")
        .whenMatchedDelete()
        .whenNotMatchedInsert("NOT new.is_gone", values={column: f"new.{column}" for column in quoted(columns)})
    )
    persist(merge.execute, f"mending {name}")


def compact(spark: "SparkSession", storage: "Storage", *, is_dry: bool) -> None:
    """Merge small files of every table; rows stay, files that others may still read stay until a vacuum.

    Delta lets appends (verdicts, operating points) pass beside a compaction. It does not let MERGE: a scan merges into
    `tracks` with every chunk and into `scans` at its end, and has to do so again where a compaction commits meanwhile.
    Hence the lease; object storage needs it anyway, where two writers lose commits.
    """
    from delta.tables import DeltaTable

    from jobs import tables

    print(f"{'table':20} {'files':>7} {'MB':>10}" + ("" if is_dry else f"  compacted: {'files':>7} {'MB':>10}"))
    for name in table_names(spark, storage):
        table = DeltaTable.forPath(spark, storage.locate(name))
        before = _size(table)
        if is_dry:
            print(f"{name:20} {before}")
            continue
        tables.persist(table.optimize().executeCompaction, f"compaction of {name}")
        print(f"{name:20} {before}             {_size(table)}")


def _size(table: Any) -> str:
    row = table.detail().select("numFiles", "sizeInBytes").collect()[0]
    return f"{row.numFiles:7d} {row.sizeInBytes / 1e6:10.3f}"


def vacuum(spark: "SparkSession", storage: "Storage", retain_h: float, *, is_dry: bool) -> None:
    """Delete files that no version of the last `retain_h` hours needs.

    Raises:
        AuscultError: a scan that counts as running began before that.
    """
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    from jobs import tables

    names = table_names(spark, storage)
    if "scans" in names:
        age_h = (F.unix_timestamp(F.current_timestamp()) - F.unix_timestamp("started_at")) / 3600
        running = (
            tables.read(spark, storage, "scans").where("state = 'running'").select("scan_id", age_h.alias("age_h"))
        )
        for row in running.orderBy(F.desc("age_h")).limit(1).collect():
            if row.age_h > retain_h:
                raise AuscultError(
                    f"vacuum: scan {row.scan_id} has been running for {row.age_h:.1f} h, longer than --retain-h "
                    f"{retain_h:g}; if it is dead, --mend or the next scan says so in the table scans"
                )
    settings = {
        # Delta's own listing makes as many tasks as this, 10,000 of them by default, for tables of one folder each.
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "8",
        # Else Delta 4 ignores the hours it is given, unless they are 0, and takes the table's property.
        "spark.databricks.delta.vacuum.retentionWindowIgnore.enabled": "false",
    }
    if retain_h < SAFE_RETAIN_H:
        settings["spark.databricks.delta.retentionDurationCheck.enabled"] = "false"
    print(f"{'table':20} files " + ("to delete" if is_dry else "deleted"))
    with _settings(spark, settings):
        for name in names:
            location = storage.locate(name)
            # Only SQL has the dry run.
            unused = spark.sql(
                f"VACUUM delta.{tables.quoted([location])[0]} RETAIN {retain_h:.6f} HOURS DRY RUN"
            ).count()
            if unused and not is_dry:
                DeltaTable.forPath(spark, location).vacuum(retain_h)
            print(f"{name:20} {unused:d}")


@contextmanager
def _settings(spark: "SparkSession", values: dict[str, str]) -> Iterator[None]:
    """Settings of the session for a while."""
    before = {name: spark.conf.get(name, None) for name in values}
    try:
        for name, value in values.items():
            spark.conf.set(name, value)
        yield
    finally:
        for name, old in before.items():
            if old is None:
                spark.conf.unset(name)
            else:
                spark.conf.set(name, old)


def main(argv: list[str]) -> int:
    """Check, mend, compact, vacuum: what was asked for, in this order."""
    options = arguments(argv)
    spark = session("auscult maintain")
    from jobs import tables
    from jobs.lease import Lease
    from jobs.storage import Storage, absolute

    warehouse = absolute(options.warehouse)
    try:
        storage = Storage(spark, warehouse)
        table_names(spark, storage)
    except AuscultError:
        raise
    except Exception as error:
        raise AuscultError(f"warehouse {warehouse}: {tables.first_line(error)}") from error
    found = None
    if options.check:
        found = check(spark, storage)
        found.print()
    if options.dry_run:
        if options.compact:
            compact(spark, storage, is_dry=True)
        if options.vacuum:
            vacuum(spark, storage, options.retain_h, is_dry=True)
        print("nothing was written (--dry-run)")
    elif options.mend or options.compact or options.vacuum:
        with Lease(storage, f"maintain-{tables.new_scan_id()}") as lease:
            if options.mend:
                found = _mend_all(spark, storage, lease)
            if options.compact:
                compact(spark, storage, is_dry=False)
            if options.vacuum:
                vacuum(spark, storage, options.retain_h, is_dry=False)
    return 0 if found is None or found.is_clean else EXIT_PROBLEMS


def _mend_all(spark: "SparkSession", storage: "Storage", lease: "Lease") -> Findings:
    """Finish what a dead scan left, mend what a new check finds, and check once more."""
    from jobs import commits, tables

    # Nobody else holds the lease: whoever is still "running" is dead. What it staged is committed first, since
    # orphans can only be told once no commit is half done.
    is_dead = "scans" in table_names(spark, storage) and bool(
        tables.read(spark, storage, "scans").where("state = 'running'").limit(1).collect()
    )
    if storage.folders(tables.STAGING) or is_dead:
        print(f"finished {commits.recover(spark, storage)} chunks that a dead scan had scored")
    found = check(spark, storage)
    if found.is_clean:
        print("nothing else to mend")
        return found
    lease.check()
    mend(spark, storage, found)
    found = check(spark, storage)
    print("after mending:")
    found.print()
    return found


if __name__ == "__main__":
    run(main)
