"""What the tables of a warehouse must agree on: finds duplicates, gaps and orphans, and mends them."""

import json
from dataclasses import dataclass

from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, Row, SparkSession, Window
from pyspark.sql import functions as F

from jobs import sql, tables
from jobs.analyses import model_key
from jobs.launch import AuscultError
from jobs.lease import Lease
from jobs.literals import literal_frame
from jobs.plan import INCOMPLETE, TRANSIENT
from jobs.scan_report import printable
from jobs.storage import Storage
from udfs.decoder_findings import DECODER
from udfs.media import SHORTFALL_S

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

    frames: dict[str, DataFrame]
    problems: DataFrame
    summary: list[Row]
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
            names = ", ".join(map(printable, row.examples))
            print(f"{row.kind:24} {row['rows']:9d} {row.titles:7d}  {names}")
            print(f"    {ADVICE[row.kind]}" + (f" ({', '.join(row['keys'])})" if row["keys"] else ""))
        if self.staged:
            print(f"{'unfinished chunks':24} {self.staged:9d} {'':7}  scored by a scan that died, not committed")
            print("    the next scan or --mend finishes them; until then their titles are not checked")
        for line in self.lines:
            print(line)


def _look(spark: SparkSession, storage: Storage) -> tuple[dict[str, int], dict[str, list[str]]]:
    """Versions of the tables, and titles of every staged chunk by its folder."""
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


def check(spark: SparkSession, storage: Storage) -> Findings:
    """Count rows, find duplicates, gaps and orphans; only reads, and may do so beside a scan.

    Not a problem: segments of content that a track no longer has or of tracks that a title no longer has (kept under
    their content hash), gaps in tracks that are partial (damaged audio is not scored), tracks that the next scan
    scores again anyway. Titles whose commit is under way, or was cut off and lies in the staging folder, are left
    out: the scan, or the next one, finishes them.

    Raises:
        AuscultError: the tables of a scan are not all there.
    """
    if missing := sorted(set(KEYS) - set(tables.names(spark, storage))):
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


def _channels(segments: DataFrame) -> DataFrame:
    """One row per title x content x track x channel x model version, as jobs/sql/problems.sql reads it."""
    key = model_key().alias("key")
    grouped = segments.groupBy("title_id", "content_hash", "track", "channel", key).agg(
        F.count("*").alias("rows"),
        F.array_sort(F.collect_set("start_s")).alias("starts"),
        F.max(F.expr("end_s - start_s")).alias("length_s"),
    )
    count = F.size("starts")
    most = F.greatest(count - 2, F.lit(0))  # the last step is the one to where the last segment begins, beside the grid
    steps = F.zip_with(F.slice("starts", 2, most), F.slice("starts", 1, most), lambda after, before: after - before)
    middle = F.get(F.array_sort(steps), F.floor((most - 1) / 2).cast("int"))  # of a track without steps NULL
    figures = {
        "segments": count, "first_s": F.get("starts", F.lit(0)), "second_s": F.get("starts", F.lit(1)),
        "last_s": F.array_max("starts"), "step_s": middle,
    }  # fmt: skip
    return grouped.withColumns(figures).drop("starts")


def mend(spark: SparkSession, storage: Storage, found: Findings) -> None:
    """Keep one row of duplicates, delete orphans, mark tracks with gaps; call only while holding the lease."""
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


def _keep_one(spark: SparkSession, storage: Storage, name: str, found: Findings) -> None:
    """Replace each group of rows of one key by the newest of them, in one commit.

    Delta cannot delete one of two identical rows, and deleting all before adding one again would lose rows to a kill
    in between. So one MERGE does both: a row that matches every copy, and is deleted with them, and a row that
    matches nothing, and is therefore inserted.
    """
    frame = found.frames[name]
    columns = frame.columns
    concerned = found.problems.where(F.col("kind") == f"duplicates in {name}").select("title_id").distinct()
    same_key = Window.partitionBy(*KEYS[name])
    # Ids of scans sort by time; the last resort is an order of the rows' whole content.
    newest_first = same_key.orderBy(F.desc_nulls_last("scan_id"), F.to_json(F.struct(*tables.quoted(columns))))
    kept = (
        frame.join(concerned, "title_id", "left_semi").select(tables.quoted(columns))
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
        .whenNotMatchedInsert("NOT new.is_gone", values={column: f"new.{column}" for column in tables.quoted(columns)})
    )
    tables.persist(merge.execute, f"mending {name}")
