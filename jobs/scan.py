"""Scans a catalogue of titles for defects.

Reads: the catalogue's media files, model versions from the MLflow registry.
Writes: the Delta tables tracks, segments, detections and scans of the warehouse.
One row per: see udfs/schemas.py.
Launch: spark-submit jobs/scan.py --catalogue FOLDER_OR_TABLE
Takes: on two CPU cores half a minute to start and 10 to 30 seconds per hour of stereo with the default model; run it again to
    go on after an interruption.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.launch import (
    DEFAULT_MODEL_URI,
    AuscultError,
    default_warehouse,
    log,
    plan_for_small_tables,
    run,
    session,
)
from jobs.scan_report import Tally, print_plan, print_result

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.catalogue import Title
    from jobs.lease import Lease
    from jobs.operating_points import Points
    from jobs.plan import PlannedTrack, Span, TitlePlan
    from jobs.progress import Progress
    from jobs.registry import ResolvedModel
    from jobs.settings import ScanSettings
    from jobs.storage import Storage

EXIT_TOO_MANY_REJECTED = 3


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line; needs no Spark, so that --help and mistakes answer at once."""
    parser = argparse.ArgumentParser(prog="scan.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--catalogue",
        required=True,
        help="folder (searched recursively), or a CSV, JSON, Parquet file or Delta table with a column uri",
    )
    parser.add_argument(
        "--warehouse",
        default=default_warehouse(),
        help="where the Delta tables live: path or Hadoop URI (default: %(default)s)",
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="URI",
        help=f"models:/NAME@ALIAS or models:/NAME/VERSION; repeatable (default: {DEFAULT_MODEL_URI})",
    )
    parser.add_argument("--settings", type=Path, metavar="YAML", help="settings that differ from conf/scan.yaml")
    parser.add_argument(
        "--operating-points",
        metavar="VERSION",
        help="a set that jobs/tune.py wrote into the warehouse, or latest; over those of the settings",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="scan the first N titles only")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    options = parser.parse_args(argv)
    if options.limit is not None and options.limit < 1:
        parser.error(f"--limit: expected at least 1, found {options.limit}")
    return options


class Scan:
    """One run: plans the titles in portions, scores them in chunks, commits each chunk."""

    def __init__(
        self,
        spark: "SparkSession",
        storage: "Storage",
        settings: "ScanSettings",
        models: list["ResolvedModel"],
        points: "Points",
        scan_id: str,
    ) -> None:
        from jobs.plan import EqualTracks
        from jobs.planner import Planner
        from udfs.batches import ScanOptions
        from udfs.decoder_findings import DECODER
        from udfs.stages import StageClock

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
            spark, storage, settings, self.keys, self.beside, points, self.tally, self.equal, self._describe
        )
        self.chunk = 0
        self.quarantined = 0
        self.started = time.monotonic()

    def count(self, plans: list["TitlePlan"]) -> None:
        """Add plans to the tally without scoring them (a dry run)."""
        from jobs.plan import assign_tasks, chunks

        for chunk in chunks(plans, self._chunk_channel_s()):
            if self.settings.equal_titles_once:
                self.equal.find(chunk)
                for plan in chunk:
                    for track in plan.tracks:
                        if track.spans:
                            self.equal.add(track.row)  # as if it had been scored
            spans, weights = assign_tasks(chunk, self.cores * self.settings.tasks_per_core)
            self.tally.spans += len(spans)
            self.tally.tasks += len(weights) if spans else 0
            self.chunk += 1
        for plan in plans:
            to_score = [track.info for track in plan.tracks if track.info is not None and track.equal is None]
            self.tally.tracks += len(to_score)
            self.tally.planned_h += sum(info.duration_s for info in to_score) / 3600
            self.tally.channel_h += sum(track.channel_s for track in plan.tracks) / 3600
            if plan.tracks and all(track.row["status"] == "rejected" for track in plan.tracks) and not plan.done:
                self.tally.rejected[plan.tracks[0].row["error_code"]] += 1

    def score(self, plans: list["TitlePlan"], progress: "Progress") -> None:
        """Score and commit plans, chunk by chunk."""
        from jobs.plan import chunks

        for chunk in chunks(plans, self._chunk_channel_s()):
            self._score_chunk(chunk, progress)

    def figures(self) -> dict[str, Any]:
        """What the scan's row in `scans` says if it ends now."""
        return self.tally.figures(time.monotonic() - self.started, self.clock.seconds)

    def _chunk_channel_s(self) -> float:
        return self.settings.chunk_channel_h_per_core * 3600 * self.cores

    def _score_chunk(self, plans: list["TitlePlan"], progress: "Progress") -> None:
        """Score and commit titles; where a title kills the process that scores it, all others are still scored.

        Spark gives up a job whose task killed its worker time and again, and does not know of titles. So the titles of
        that task are halved until the one is found that dies alone; it is recorded as rejected and left for a person.
        """
        from jobs.commits import staged
        from jobs.workers import died

        try:
            self._score_and_commit(plans, progress)
        except Exception as error:
            death = died(error)
            if death is None:
                raise
            self.storage.delete(staged(self.scan_id, self.chunk))
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

    def _quarantine(self, plans: list["TitlePlan"], cause: str, progress: "Progress") -> None:
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

    def _spans(self, plans: list["TitlePlan"]) -> tuple[list["Span"], list[float]]:
        from jobs.plan import assign_tasks

        return assign_tasks(plans, self.cores * self.settings.tasks_per_core)

    def _score_and_commit(self, plans: list["TitlePlan"], progress: "Progress") -> None:
        from jobs import commits
        from udfs.predict import scan_udf
        from udfs.schemas import SCORED, SPANS

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

    def _anew(self, track: "PlannedTrack") -> "PlannedTrack":
        """The track, to be scored with all models, in place of what there may be of it."""
        models = (*self.keys, *self.beside)
        row = {**track.row, "scored_with": sorted(models)}
        return replace(track, row=row, models=models, is_again=True, equal=None)

    def _manifest(self, plans: list["TitlePlan"], *, has_spans: bool) -> dict[str, Any]:
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


def _threads(spark: "SparkSession") -> int:
    return max(1, int(spark.conf.get("spark.task.cpus", "1") or 1))


def main(argv: list[str]) -> int:
    """Check everything, plan, score, report."""
    options = arguments(argv)
    from jobs.settings import read_settings

    settings = read_settings(options.settings)
    from jobs import registry

    models = registry.resolve(options.model or [DEFAULT_MODEL_URI])
    spark = session("auscult scan")
    plan_for_small_tables(spark)
    from jobs import commits, operating_points, tables
    from jobs.catalogue import read_catalogue
    from jobs.lease import Lease
    from jobs.storage import Storage, absolute
    from udfs.decoder_findings import DECODER

    catalogue = read_catalogue(spark, options.catalogue, settings.ignored_suffixes)
    titles = catalogue.titles[: options.limit]
    if catalogue.ignored:
        left_out = ", ".join(f"{count} {suffix}" for suffix, count in catalogue.ignored.most_common(8))
        log.info("left out, by suffix (setting ignored_suffixes): %s", left_out)
    if not titles:
        raise AuscultError(f"catalogue {options.catalogue}: there are no titles in it")
    warehouse = absolute(options.warehouse)
    try:
        storage = Storage(spark, warehouse)
    except Exception as error:
        raise AuscultError(f"warehouse {warehouse}: {tables.first_line(error)}") from error
    scan_id = tables.new_scan_id()
    points = operating_points.from_settings([*(model.shipped for model in models), DECODER], settings)
    if options.operating_points is not None:
        points = operating_points.from_table(spark, storage, options.operating_points, points)
    scan = Scan(spark, storage, settings, models, points, scan_id)
    if options.dry_run:
        _dry_run(scan, titles)
        return 0
    registry.check(models, settings.cpu_runtime)
    tables.prepare(spark, storage)
    registry.ship(spark, models)
    if (risk := storage.exclusion_risk()) is not None:
        log.warning("%s", risk)
    with Lease(storage, scan_id) as lease:
        scan.lease = lease
        row = tables.new_scan(scan_id, options.catalogue, settings, scan.models, points, _device(spark))
        if (lease.was_abandoned or storage.folders(tables.STAGING)) and (recovered := commits.recover(spark, storage)):
            log.info("brought in %d chunks that an interrupted scan had scored", recovered)
        for warning in tables.changed_models(spark, storage, scan.models):
            log.warning("%s", warning)
        tables.begin_scan(spark, storage, row)
        try:
            _scan_all(scan, titles)
        except BaseException:
            tables.end_scan(spark, storage, {**row, **scan.figures(), "state": "failed"})
            raise
        tables.end_scan(spark, storage, {**row, **scan.figures(), "state": "finished"})
        storage.delete(f"{tables.STAGING}/{scan_id}")
    print_result(spark, storage, scan_id, scan.tally, scan.figures(), has_many=len(models) > 1)
    share = scan.tally.rejected_titles / len(titles)
    if share > settings.max_rejected_share:
        print(
            f"error: {share:.0%} of the titles were rejected, more than max_rejected_share {settings.max_rejected_share:.0%}",
            file=sys.stderr,
        )
        return EXIT_TOO_MANY_REJECTED
    return 0


def _dry_run(scan: Scan, titles: list["Title"]) -> None:
    known = scan.planner.known_tracks()
    for begin in range(0, len(titles), scan.settings.probe_titles):
        scan.count(scan.planner.plan(titles[begin : begin + scan.settings.probe_titles], known))
    print_plan(scan.tally, len(titles), scan.keys, scan.chunk, scan.cores)


def _scan_all(scan: Scan, titles: list["Title"]) -> None:
    from jobs.progress import Progress

    with scan.clock.stage("plan"):
        known = scan.planner.known_tracks()
    progress = Progress(scan.spark, len(titles))
    for begin in range(0, len(titles), scan.settings.probe_titles):
        with scan.clock.stage("plan"):
            plans = scan.planner.plan(titles[begin : begin + scan.settings.probe_titles], known)
        scan.score(plans, progress)
    progress.end()


def _device(spark: "SparkSession") -> str:
    return "gpu" if spark.conf.get("spark.task.resource.gpu.amount", None) else "cpu"


if __name__ == "__main__":
    run(main)
