"""One run of a scan: plans titles in portions, scores them in chunks, commits each chunk."""

import json
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, replace
from typing import Any

from pyspark.sql import SparkSession

from jobs import commits
from jobs.balancing import Span, assign_tasks, chunks
from jobs.catalogue import Title
from jobs.catalogue_columns import OwnColumns
from jobs.launch import AuscultError, log
from jobs.lease import Lease
from jobs.operating_points import Points
from jobs.plan import EqualTracks, PlannedTrack, TitlePlan
from jobs.planner import Planner
from jobs.progress import Progress
from jobs.registry import ResolvedModel
from jobs.scan_report import Tally, print_plan
from jobs.settings import ScanSettings
from jobs.storage import Storage
from jobs.workers import died
from udfs.batches import ScanOptions
from udfs.decoder_findings import DECODER
from udfs.predict import scan_udf
from udfs.schemas import SCORED, SPANS
from udfs.stages import StageClock


class ScanRun:
    """Plans titles in portions, scores them in chunks, commits each chunk.

    Args:
        spark: the session.
        storage: the warehouse.
        settings: of the scan.
        models: to score with.
        points: operating points of the models and the decoder.
        scan_id: of the scan's row in `scans`.
        retry: error codes, or "all"; what has one of them in `tracks` is scored again.

    Attributes:
        models: as Spark ships them.
        tally: what is done so far.
        lease: to be set before titles are scored; checked ahead of each commit.
    """

    def __init__(
        self,
        spark: SparkSession,
        storage: Storage,
        settings: ScanSettings,
        models: list[ResolvedModel],
        points: Points,
        scan_id: str,
        retry: Collection[str] = (),
    ) -> None:
        self.spark = spark
        self.storage = storage
        self.settings = settings
        self.models = [model.shipped for model in models]
        self.keys = tuple(model.key for model in self.models)
        self.beside = (DECODER.key,)
        self.points = points
        self.scan_id = scan_id
        self.lease: Lease | None = None
        self.cores = spark.sparkContext.defaultParallelism
        self.options = ScanOptions(
            settings.batch_segments,
            settings.decode_timeout_s,
            _threads(spark),
            settings.equal_channels_once,
            settings.silence_once,
            settings.cpu_runtime,
        )
        self.tally = Tally()
        self.clock = StageClock()
        self.equal = EqualTracks()
        self.planner = Planner(
            spark,
            storage,
            settings,
            self.keys,
            self.beside,
            points,
            self.tally,
            self.equal,
            self._describe,
            frozenset(retry),
        )
        self.chunk = 0
        self.quarantined = 0
        self.started = time.monotonic()

    def count(self, titles: list[Title]) -> None:
        """Plan titles and print what a scan would do; nothing is scored (a dry run)."""
        known = self.planner.known_tracks()
        self.planner.refuse_namesakes(titles, known)
        for portion in self._portions(titles):
            self._count(self.planner.plan(portion, known))
        print_plan(self.tally, len(titles), self.keys, self.chunk, self.cores)

    def score(self, titles: list[Title]) -> None:
        """Plan, score and commit titles."""
        with self.clock.stage("plan"):
            known = self.planner.known_tracks()
            self.planner.refuse_namesakes(titles, known)
            OwnColumns(self.spark, self.storage, titles).bring()
        progress = Progress(self.spark, len(titles))
        for portion in self._portions(titles):
            with self.clock.stage("plan"):
                plans = self.planner.plan(portion, known)
            for chunk in chunks(plans, self._chunk_channel_s()):
                self._score_chunk(chunk, progress)
        progress.end()

    def figures(self) -> dict[str, Any]:
        """What the scan's row in `scans` says if it ends now."""
        return self.tally.figures(time.monotonic() - self.started, self.clock.seconds)

    def _portions(self, titles: list[Title]) -> Iterator[list[Title]]:
        for begin in range(0, len(titles), self.settings.probe_titles):
            yield titles[begin : begin + self.settings.probe_titles]

    def _count(self, plans: list[TitlePlan]) -> None:
        for chunk in chunks(plans, self._chunk_channel_s()):
            if self.settings.equal_titles_once:
                self.equal.find(chunk)
                for plan in chunk:
                    for track in plan.tracks:
                        if track.spans:
                            self.equal.add(track.row)  # as if it had been scored
            spans, weights = self._spans(chunk)
            self.tally.spans += len(spans)
            self.tally.tasks += len(weights) if spans else 0
            self.chunk += 1
        for plan in plans:
            to_score = [track.info for track in plan.tracks if track.info is not None and track.equal is None]
            if plan.done and not any(track.info is not None for track in plan.tracks):
                self.tally.skipped.add(plan.title.title_id)
            self.tally.tracks += len(to_score)
            self.tally.planned_h += sum(info.duration_s for info in to_score) / 3600
            self.tally.channel_h += sum(track.channel_s for track in plan.tracks) / 3600
            if plan.tracks and all(track.row["status"] == "rejected" for track in plan.tracks) and not plan.done:
                self.tally.rejected[plan.tracks[0].row["error_code"]] += 1

    def _chunk_channel_s(self) -> float:
        return self.settings.chunk_channel_h_per_core * 3600 * self.cores

    def _score_chunk(self, plans: list[TitlePlan], progress: Progress) -> None:
        """Score and commit titles; where a title kills the process that scores it, all others are still scored.

        Spark gives up a job whose task killed its worker time and again, and does not know of titles. So the titles of
        that task are halved until the one is found that dies alone; it is recorded as rejected and left for a person.
        """
        try:
            self._score_and_commit(plans, progress)
        except Exception as error:
            death = died(error)
            if death is None:
                raise
            self.storage.delete(commits.staged(self.scan_id, self.chunk))
        else:
            return
        spans = self._spans(plans)[0]
        suspected = {span.title_id for span in spans if death.task is None or span.task == death.task}
        suspects = [plan for plan in plans if plan.title.title_id in suspected]
        others = [plan for plan in plans if plan.title.title_id not in suspected]
        log.warning(
            "a worker died (%s); %d titles are scored again, apart from %d others",
            death.cause,
            len(suspects),
            len(others),
        )
        if others:
            self._score_chunk(others, progress)
        if len(suspects) > 1:
            for part in (suspects[: len(suspects) // 2], suspects[len(suspects) // 2 :]):
                self._score_chunk(part, progress)
        elif others:
            self._score_chunk(suspects, progress)  # it may have died of a neighbour's memory
        else:
            self._quarantine(suspects, death.cause, progress)

    def _quarantine(self, plans: list[TitlePlan], cause: str, progress: Progress) -> None:
        """Record titles that kill whatever scores them."""
        self.quarantined += len(plans)
        if self.quarantined > self.settings.max_crashed_titles:
            raise AuscultError(
                f"more than {self.settings.max_crashed_titles} titles killed the worker that scored them ({cause}): the model "
                f"or the machine's memory is to blame rather than the titles; mend it and run the scan again, or raise "
                f"max_crashed_titles"
            )
        for plan in plans:
            log.warning("title %r is set aside: the worker that scores it dies (%s)", plan.title.title_id, cause)
            for track in plan.tracks:
                if track.spans:
                    message = f"the process that scored this title died ({cause}), also with the title alone; check the file by hand"
                    track.row |= {"status": "rejected", "error_code": "crashed", "error": message, "scored_with": []}
                    track.spans = []
        self._score_and_commit(plans, progress)

    def _spans(self, plans: list[TitlePlan]) -> tuple[list[Span], list[float]]:
        return assign_tasks(plans, self.cores * self.settings.tasks_per_core)

    def _score_and_commit(self, plans: list[TitlePlan], progress: Progress) -> None:
        self.chunk += 1
        if self.settings.equal_titles_once:
            self.equal.find(plans)
            if copies := sum(track.equal is not None for plan in plans for track in plan.tracks):
                log.info("%d tracks take the scores of titles whose file is the same", copies)
        spans, weights = self._spans(plans)
        folder = commits.staged(self.scan_id, self.chunk)
        self.storage.write_text(f"{folder}/manifest.json", json.dumps(self._manifest(plans, has_spans=bool(spans))))
        if spans:
            hours = sum(track.channel_s for plan in plans for track in plan.tracks) / 3600
            self._describe(
                f"chunk {self.chunk}: score {len(plans)} titles, {hours:.2f} channel hours, {len(weights)} tasks"
            )
            rows = [tuple(asdict(span)[name] for name in SPANS.names) for span in spans]
            frame = self.spark.createDataFrame(rows, SPANS)
            scored = frame.repartitionById(len(weights), "task").mapInArrow(scan_udf(self.models, self.options), SCORED)
            with progress.chunk(hours, len(weights), len(plans)), self.clock.stage("score"):
                scored.write.parquet(self.storage.locate(f"{folder}/rows"))
        self._describe(f"chunk {self.chunk}: commit {len(plans)} titles")
        if self.lease is not None:
            self.lease.check()
        with self.clock.stage("commit"):
            committed = commits.commit_chunk(self.spark, self.storage, folder)
        self.clock.add(committed.stages_s)
        for row in committed.tracks:
            if row["status"] == "ok":
                self.equal.add(row)
            if row.get("is_renewed"):
                continue
            self.tally.audio_done_h += row["decoded_s"] / 3600
            if row["status"] != "rejected":
                self.tally.done.add(row["title_id"])
        again = []
        for plan in plans:
            tracks = [track for track in plan.tracks if (track.row["title_id"], track.row["track"]) in committed.alone]
            if tracks:
                again.append(replace(plan, tracks=[self._anew(track) for track in tracks], gone=[]))
            elif plan.title.title_id not in self.tally.done:
                if plan.done or not plan.tracks:
                    self.tally.skipped.add(plan.title.title_id)
                else:
                    self.tally.rejected[plan.tracks[0].row["error_code"] or "undecodable"] += 1
        progress.committed(len(self.tally.done | self.tally.skipped) + self.tally.rejected_titles)
        if again:  # fewer each time: one of those that share a file is always scored itself
            self._score_chunk(again, progress)

    def _anew(self, track: PlannedTrack) -> PlannedTrack:
        """The track, to be scored with all models, in place of what there may be of it."""
        models = (*self.keys, *self.beside)
        row = {**track.row, "scored_with": sorted(models)}
        return replace(track, row=row, models=models, is_again=True, equal=None)

    def _manifest(self, plans: list[TitlePlan], *, has_spans: bool) -> dict[str, Any]:
        """All that the commit needs, so that another driver can do it if this one dies."""
        return {
            "scan_id": self.scan_id,
            "chunk": self.chunk,
            "has_spans": has_spans,
            "tracks": [track.row for plan in plans for track in plan.tracks],
            "gone": [entry for plan in plans for entry in plan.gone],
            "again": [
                [track.row["title_id"], track.row["track"], track.row["content_hash"]]
                for plan in plans
                for track in plan.tracks
                if track.is_again
            ],
            "copies": [
                {
                    "from_title_id": track.equal.title_id,
                    "from_track": track.equal.track,
                    "is_stored": track.equal.is_stored,
                    "title_id": track.row["title_id"],
                    "track": track.row["track"],
                    "content_hash": track.row["content_hash"],
                    "models": list(track.models),
                }
                for plan in plans
                for track in plan.tracks
                if track.equal is not None
            ],
            "seen_before": [plan.title.title_id for plan in plans if plan.seen_before],
            "operating_points": [
                {"model": model, "model_version": version, "defect": defect, "point": asdict(point)}
                for (model, version, defect), point in self.points.items()
            ],
        }

    def _describe(self, text: str) -> None:
        self.spark.sparkContext.setJobDescription(f"scan {self.scan_id}: {text}")


def _threads(spark: SparkSession) -> int:
    return max(1, int(spark.conf.get("spark.task.cpus", "1") or 1))
