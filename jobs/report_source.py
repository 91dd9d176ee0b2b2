"""What a report is made from: the rows of a warehouse, and a picture and a clip of each detection, cut on the executors."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import sql, tables
from jobs.analyses import analysis, model_key, of_models, sought
from jobs.interrupted import run_of
from jobs.launch import AuscultError, log
from jobs.literals import literal_frame
from jobs.report_content import Entry
from jobs.report_media import BRIEF_S, HANDLE_S, STEREO_SHARE, CloseUp, MediaPlan, Score, Window
from jobs.storage import Storage
from udfs.clips import CLIP_ORDERS, CLIPS, clip_udf
from udfs.remote import path_of
from udfs.stretches import STEREO

PORTION = 100  # detections cut in one Spark job: bounds what the driver holds
TASKS_PER_CORE = 3
PRECISION = ("model", "model_version", "facet", "defect", "valid_low", "valid_high")  # what ranks go by
NO_CLIP = "No clip"
ALL = "all"  # for a scan's id: every scan of the warehouse


@dataclass
class Medium:
    """What came of cutting one detection."""

    picture: bytes | None = None
    audio: bytes | None = None
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    clip_end_s: float | None = None
    close_up: CloseUp | None = None


class Source:
    """The tables of a warehouse, and the part of them that the report is of."""

    def __init__(self, spark: SparkSession, storage: Storage, scan: str | None, models: Sequence[str] = ()) -> None:
        """Read a warehouse.

        Args:
            spark: the session.
            storage: of the warehouse.
            scan: its id; `ALL` for all of them, None for the latest that scored titles.
            models: NAME/VERSION of those whose detections to show; all where none is named.

        Raises:
            AuscultError: there is no such scan, or nothing of it was scored with one of the models.
        """
        tables.require(storage, "detections")
        self.spark = spark
        self.root = storage.root
        self.tables = {
            name: tables.read(spark, storage, name) for name in ("detections", "tracks", "segments", "scans")
        }
        self.tables["reviews"] = tables.read_reviews(spark, storage)
        self.scan = None if scan == ALL else self._scan(scan)
        self.detections, self.tracks = self.tables["detections"], self.tables["tracks"]
        if self.scan is not None:
            self.run = [*self.scan["went_on_with"], self.scan["scan_id"]]
            self._keep_scan(self.scan["catalogue"])
        self.models = models
        self.detections = of_models(self.detections, self.tracks, models)

    def _keep_scan(self, catalogue: str) -> None:
        mine = F.col("scan_id").isin(self.run)
        if catalogue == tables.STORED_SCORES:
            self.detections = self.detections.where(mine)
            return
        # Where other operating points were applied since (jobs/detect.py), theirs are this scan's detections now.
        self.tracks = self.tracks.where(mine)
        later = self.tables["scans"].where(F.col("catalogue") == tables.STORED_SCORES).select("scan_id")
        replaced = self.detections.join(later, "scan_id", "left_semi").join(
            self.tracks, ["title_id", "track"], "left_semi"
        )
        self.detections = self.detections.where(mine).unionByName(replaced)

    def _of_models(self, frame: DataFrame) -> DataFrame:
        """Rows that are about the models shown."""
        return frame.where(model_key().isin(list(self.models))) if self.models else frame

    def _scan(self, wanted: str | None) -> dict[str, Any]:
        """The row of a scan with what the interrupted ones before it did; `went_on_with` has their ids."""
        scans = sorted(
            (row.asDict(recursive=True) for row in tables.times_as_text(self.tables["scans"]).collect()),
            key=lambda row: row["started_at"],
        )
        if wanted is None:
            finished = (self._with_interrupted(scans, row) for row in reversed(scans) if row["state"] == "finished")
            found = next((row for row in finished if row["titles_done"]), None)
            if found is None:
                raise AuscultError(
                    f"warehouse {self.root}: no finished scan has scored titles; name one with --scan, or --scan {ALL}"
                )
            return found
        found = next((row for row in scans if row["scan_id"] == wanted), None)
        if found is None:
            known = ", ".join(row["scan_id"] for row in scans[-5:]) or "none"
            raise AuscultError(f"--scan {wanted}: not in the table scans of {self.root}; the latest there: {known}")
        return self._with_interrupted(scans, found)

    @staticmethod
    def _with_interrupted(scans: list[dict[str, Any]], scan: dict[str, Any]) -> dict[str, Any]:
        if scan["catalogue"] == tables.STORED_SCORES:
            return {**scan, "went_on_with": []}
        *before, last = run_of(scans, scan["scan_id"])
        whole = {**last, "went_on_with": [row["scan_id"] for row in before]}
        for row in before:
            for name in ("titles_done", "audio_done_h"):
                whole[name] = (whole[name] or 0) + (row[name] or 0)
            # The last one found done what these had scored; what they had rejected it has counted again.
            whole["titles_skipped"] = max(0, (whole["titles_skipped"] or 0) - (row["titles_done"] or 0))
            whole["audio_skipped_h"] = max(0.0, (whole["audio_skipped_h"] or 0.0) - (row["audio_done_h"] or 0.0))
        return whole

    def precision(self) -> list[dict[str, Any]]:
        """Precision over the whole warehouse: a verdict holds for its content in every scan."""
        if self.tables["reviews"].isEmpty():
            return []
        # Columns of the catalogue may tell every title apart: only values that somebody has judged.
        frame = analysis(self.spark, self.tables, "precision").where("decided > 0")
        return [row.asDict() for row in self._of_models(frame).collect()]

    def rates(self) -> list[dict[str, Any]]:
        """Detections per 100 hours, with 0 for what was sought and not found."""
        scans = self.tables["scans"]
        if self.scan is not None:  # others may have applied versions whose detections are not in this report
            scans = scans.where(F.col("scan_id").isin(self.run))
        sources = {"detections": self.detections, "tracks": self.tracks, "sought": self._of_models(sought(scans))}
        return [row.asDict() for row in analysis(self.spark, {**self.tables, **sources}, "rates").collect()]

    def line_up(self, limit: int) -> list[dict[str, Any]]:
        """Stretches of line-up tones in the tracks of the report, at most `limit`."""
        mine = self.tracks.select("title_id", "track", "content_hash")
        segments = self.tables["segments"].join(mine, ["title_id", "track", "content_hash"], "left_semi")
        found = self.spark.sql(sql.text("line_up"), segments=segments).limit(limit)
        return [row.asDict() for row in found.collect()]

    def ranked(self, precision: list[dict[str, Any]], limit: int) -> tuple[list[dict[str, Any]], int]:
        """Detections with their verdicts, ranked as `review.py queue` ranks, the decided ones last.

        Args:
            precision: what `precision` returned.
            limit: rows wanted.

        Returns:
            The rows, and how many there are without the limit.
        """
        verdicts = analysis(self.spark, {**self.tables, "detections": self.detections}, "verdicts").persist()
        known = literal_frame(
            self.spark,
            [tuple(row[name] for name in PRECISION) for row in precision],
            "model string, model_version string, facet string, defect string, valid_low double, valid_high double",
        )
        queue = self.spark.sql(sql.text("review_queue"), verdicts=verdicts, precision=known)
        places = ["title_id", "content_hash", "track", "defect", "start_s", "end_s", "model", "model_version"]
        ordered = verdicts.join(queue.select(*places, "worth").dropDuplicates(places), places, "left").orderBy(
            F.desc_nulls_last("worth"), F.desc("peak_score"), "title_id", "track", "start_s", "defect"
        )
        rows = [row.asDict(recursive=True) for row in tables.times_as_text(ordered.limit(limit)).collect()]
        count = len(rows) if len(rows) < limit else verdicts.count()
        verdicts.unpersist()
        return rows, count

    def tracks_of(self, detections: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
        """Rows of `tracks` for detections, by title and track."""
        keys = {(row["title_id"], row["track"]) for row in detections}
        if not keys:
            return {}
        wanted = literal_frame(self.spark, sorted(keys), "title_id string, track int")
        rows = self.tables["tracks"].join(F.broadcast(wanted), ["title_id", "track"], "left_semi").collect()
        return {(row.title_id, row.track): row.asDict(recursive=True) for row in rows}

    def scores(self, detections: list[dict[str, Any]]) -> dict[int, list[Score]]:
        """Scores of the segments around each detection, the largest over its channels, by its index."""
        found = (
            self._segments_of(enumerate(detections), HANDLE_S)
            .withColumn("score", F.expr("try_element_at(scores, defect)"))
            .where("score IS NOT NULL AND NOT isnan(score)")
            .groupBy("number", "start_s")
            .agg(F.max("end_s").alias("end_s"), F.max("score").alias("score"))
            .groupBy("number")
            .agg(F.sort_array(F.collect_list(F.struct("start_s", "end_s", "score"))).alias("scores"))
        )
        return {row.number: [(float(a), float(b), float(c)) for a, b, c in row.scores] for row in found.collect()}

    def strongest_events(self, detections: list[dict[str, Any]]) -> dict[int, Window]:
        """The event with the largest score in each brief detection, of equals the first, by its index in all of them."""
        brief = [(number, row) for number, row in enumerate(detections) if row["detected_s"] <= BRIEF_S]
        if not brief:  # nothing else needs them
            return {}
        found = (
            self._segments_of(brief, 0.0)
            .select("number", "defect", "from_s", "to_s", F.inline("events"))
            .where("label = defect AND start_s < to_s AND end_s > from_s")
            .groupBy("number")
            .agg(F.min_by(F.struct("start_s", "end_s"), F.struct(-F.array_max("scores"), "start_s")).alias("event"))
        )
        return {row.number: Window(row.event.start_s, row.event.end_s) for row in found.collect()}

    def _segments_of(self, detections: Iterable[tuple[int, dict[str, Any]]], around_s: float) -> DataFrame:
        """Segments of the channels of numbered detections, with the `number`, defect and bounds looked in of each."""
        columns = ("title_id", "track", "content_hash", "model", "model_version")
        rows = [
            (number, *(row[name] for name in columns), row["defect"], list(row["channels"] or []),
             row["start_s"] - around_s, row["end_s"] + around_s)
            for number, row in detections
        ]  # fmt: skip
        wanted = literal_frame(
            self.spark,
            rows,
            "number int, title_id string, track int, content_hash string, model string, model_version string, "
            "defect string, channels array<string>, from_s double, to_s double",
        )
        return (
            self.tables["segments"]
            .join(F.broadcast(wanted), list(columns), "inner")
            .where("start_s < to_s AND end_s > from_s AND array_contains(channels, channel_name)")
        )

    def cut(self, entries: list[Entry], plan: MediaPlan, timeout_s: float) -> Iterator[tuple[Entry, Medium]]:
        """Decode, draw and encode on the executors, a portion at a time."""
        cores = self.spark.sparkContext.defaultParallelism
        for first in range(0, len(entries), PORTION):
            portion = entries[first : first + PORTION]
            answers: dict[int, Any] = {}
            orders = [order for entry in portion if (order := _order(entry, plan)) is not None]
            if orders:
                _assign_tasks(orders, cores * TASKS_PER_CORE)
                tasks = 1 + max(order["task"] for order in orders)
                self.spark.sparkContext.setJobDescription(f"report: clips of detections from {first + 1}")
                rows = [tuple(order[name] for name in CLIP_ORDERS.names) for order in orders]
                frame = self.spark.createDataFrame(rows, CLIP_ORDERS).repartitionById(tasks, "task")
                answers = {row.number: row for row in frame.mapInArrow(clip_udf(timeout_s), CLIPS).collect()}
                log.info("%d of %d detections cut", first + len(portion), len(entries))
            for entry in portion:
                yield entry, _medium(entry, answers.get(entry.number))


def _order(entry: Entry, plan: MediaPlan) -> dict[str, Any] | None:
    row = entry.detection
    path = path_of(str(entry.track.get("uri") or ""))
    has_picture, has_clip = entry.number <= plan.pictures, entry.number <= plan.clips
    if path is None or not (has_picture or has_clip):
        return None
    share = STEREO_SHARE if set(row["channels"] or []) == set(STEREO) else 1.0
    return {
        "number": entry.number, "path": path, "track": row["track"],
        "content_hash": row["content_hash"], "start_s": row["start_s"], "end_s": row["end_s"], "channels": row["channels"],
        "from_s": entry.shown.start_s, "to_s": entry.shown.end_s,
        "clip_start_s": entry.clip.start_s, "clip_end_s": entry.clip.end_s,
        "bit_rate": round(plan.bit_rate * share) if has_clip else None, "has_picture": has_picture,
        "close_up_s": entry.event.start_s if has_picture and row["detected_s"] <= BRIEF_S else None,
    }  # fmt: skip


def _assign_tasks(orders: list[dict[str, Any]], most: int) -> None:
    """Give each title to one task, so that it is opened once, and each task about as many detections."""
    titles = Counter(order["path"] for order in orders)
    loads = [0] * min(most, len(titles))
    task_of = {}
    for path, count in titles.most_common():
        task_of[path] = loads.index(min(loads))
        loads[task_of[path]] += count
    for order in orders:
        order["task"] = task_of[order["path"]]


def _medium(entry: Entry, answer: Any) -> Medium:
    """The answer to an order in words and bytes."""
    row, uri = entry.detection, entry.track.get("uri")
    if not entry.track:
        return Medium(warnings=[f"{NO_CLIP}: the title is not in the table tracks any more."])
    if path_of(str(uri)) is None:
        return Medium(warnings=[f"{NO_CLIP}: expected a file, found {uri}; mount the storage on every node."])
    if answer is None:
        return Medium()
    if answer.error_code is not None:
        return Medium(warnings=[f"{NO_CLIP}: {answer.error} ({answer.error_code}; {uri})."])
    notes = []
    if answer.audio is not None:
        names = ", ".join(answer.heard)
        if answer.is_stereo:
            notes.append(f"Heard: {names}, left and right.")
        else:
            notes.append(f"Heard: {names}." if len(answer.heard) == 1 else f"Heard: the mean of {names}.")
    if row["end_s"] - row["start_s"] > entry.clip.length_s:
        notes.append(
            f"The stretch lasts {row['end_s'] - row['start_s']:.0f} s; the picture shows {entry.shown.length_s:.0f} s, "
            f"the clip plays {entry.clip.length_s:.0f} s, where it scores highest."
        )
    warnings = []
    if answer.missing_s > 0.05:
        warnings.append(f"{answer.missing_s:.1f} s could not be decoded; the clip is silent there.")
    return Medium(
        None if answer.picture is None else bytes(answer.picture),
        None if answer.audio is None else bytes(answer.audio),
        warnings,
        notes,
        answer.clip_end_s,
        CloseUp(answer.close_up_start_s, answer.close_up) if answer.close_up and answer.close_up[0] else None,
    )
