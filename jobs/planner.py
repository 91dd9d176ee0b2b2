"""Plans portions of a catalogue: what is known of its titles, which are to be opened, and what the files say."""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pyspark.sql import SparkSession

from jobs import tables
from jobs.catalogue import STATUS_THREADS, Title, present
from jobs.launch import AuscultError, log
from jobs.operating_points import Points
from jobs.plan import INCOMPLETE, OUTAGES, EqualTracks, KnownTrack, TitlePlan, is_unchanged, plan_title
from jobs.scan_report import Tally
from jobs.settings import ScanSettings
from jobs.storage import Storage
from udfs.media import TrackInfo
from udfs.probing import probe_udf
from udfs.schemas import PROBED

NAMESAKES_TRIED = 1000  # each costs a question to the storage; of two folders with the same names most are such
TOLD_TITLES = 100
ROWS_AT_ONCE = 10_000


@dataclass
class Planner:
    """Plans for one scan, portion by portion.

    Args:
        spark: the session, on whose executors titles are opened.
        storage: the warehouse.
        settings: of the scan.
        keys: the models, NAME/VERSION.
        beside: what is scored wherever a track is decoded, and is no reason to decode it.
        points: the operating points.
        tally: receives what needs no work, and what is too short for a point.
        equal: receives the tracks whose scores others may take.
        describe: says what the next jobs of the session are.
        retry: error codes, or "all"; tracks that have one of them are planned as if they waited for this scan.
    """

    spark: SparkSession
    storage: Storage
    settings: ScanSettings
    keys: tuple[str, ...]
    beside: tuple[str, ...]
    points: Points
    tally: Tally
    equal: EqualTracks
    describe: Callable[[str], None]
    retry: frozenset[str] = frozenset()

    def known_tracks(self) -> dict[str, list[KnownTrack]]:
        """What the table `tracks` holds, by title."""
        known: dict[str, list[KnownTrack]] = defaultdict(list)
        if not self.storage.has_table("tracks"):
            return known
        rows = tables.read(self.spark, self.storage, "tracks").selectExpr(
            "title_id", "track", "uri", "content_hash", "status", "error_code", "size_bytes",
            "unix_micros(modified_at) AS modified_us", "coalesce(duration_s, 0D) AS duration_s", "decoded_s", "error", "scored_with",
        )  # fmt: skip
        names = [entry.name for entry in dataclasses.fields(KnownTrack)]
        shared: dict[Any, Any] = {}  # values that many rows have are held once
        unknown = set(self.retry) - {"all"}
        for batch in rows.toArrow().to_batches(max_chunksize=ROWS_AT_ONCE):
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                values = dict(zip(names, row, strict=True))
                if values["error_code"] is not None and self.retry & {values["error_code"], "all"}:
                    unknown.discard(values["error_code"])
                    values["error_code"] = INCOMPLETE
                values["scored_with"] = frozenset(values["scored_with"] or ())
                for name in ("status", "error_code", "scored_with"):
                    values[name] = shared.setdefault(values[name], values[name])
                if mine := known[values["title_id"]]:
                    values["title_id"] = mine[0].title_id
                    values["uri"] = mine[0].uri if values["uri"] == mine[0].uri else values["uri"]
                mine.append(KnownTrack(**values))
                if values["status"] == "ok" and values["track"] is not None:
                    self.equal.add(values)
        for code in sorted(unknown):
            log.warning("--retry %s: no track has that error_code", code)
        return known

    def refuse_namesakes(self, titles: list[Title], known: dict[str, list[KnownTrack]]) -> None:
        """See that no title of a folder bears the name of another folder's, whose rows its own would replace.

        A folder that has moved is no such case, nor is a copy of it: there the old file is gone, or of the same size. What is of
        the same size is opened first: `plan` compares the content.

        Raises:
            AuscultError: there are such titles.
        """
        moved = [
            (title, row)
            for title in titles
            if title.is_named_by_path
            and (row := next(iter(known.get(title.title_id, ())), None)) is not None
            and row.uri != title.uri
            and row.size_bytes not in (None, title.size_bytes)
        ]
        with ThreadPoolExecutor(STATUS_THREADS) as threads:
            now = list(threads.map(lambda pair: present(pair[1].uri), moved[:NAMESAKES_TRIED]))
        others = [
            pair for pair, its in zip(moved, now, strict=False) if its is not None and its[0] != pair[0].size_bytes
        ]
        if others:
            raise self._namesake(*others[0], f" (so with {len(others)} of the first {len(now)} that differ)")

    def _namesake(self, title: Title, row: KnownTrack, extent: str = "") -> AuscultError:
        return AuscultError(
            f"warehouse {self.storage.root}: it knows title {title.title_id!r} as {row.uri}, which is still there, and "
            f"{title.uri} is another file of this name{extent}; the rows of one would replace those of the other. Scan the "
            "folder above both, or take another --warehouse, or list the titles in a CSV with a title_id of their own"
        )

    def plan(self, titles: list[Title], known: dict[str, list[KnownTrack]]) -> list[TitlePlan]:
        """Plan a portion of the catalogue: open what is new or changed, leave the rest."""
        changed = []
        for title in titles:
            rows = known.get(title.title_id, [])
            if not is_unchanged(title, rows, self.keys):
                changed.append(title)
                continue
            self.tally.audio_skipped_h += sum(row.duration_s for row in rows) / 3600
            if all(row.status == "rejected" for row in rows):
                self.tally.rejected[rows[0].error_code] += 1
            else:
                self.tally.skipped.add(title.title_id)
        plans = []
        found = self.probe(changed)
        unreachable = []
        for title in changed:
            answer = found[title.title_id]
            rows = known.get(title.title_id, [])
            if title.is_named_by_path and rows and rows[0].uri != title.uri and isinstance(answer, list):
                is_other = {row.content_hash for row in rows}.isdisjoint(info.content_hash for info in answer)
                # The same file by another mount has the same time, too.
                if is_other and present(rows[0].uri) not in (None, (title.size_bytes, title.modified_ns)):
                    raise self._namesake(title, rows[0])
            if isinstance(answer, tuple) and answer[0] in OUTAGES and title.title_id in known:
                unreachable.append((title.title_id, *answer))
                self.tally.rejected[answer[0]] += 1
                continue
            plan = plan_title(
                title,
                answer,
                rows,
                self.keys,
                self.settings.span_s,
                self.settings.from_start_span_s,
                self.beside,
            )
            self.tally.audio_skipped_h += sum(track.duration_s for track in plan.done) / 3600
            if plan.tracks or plan.gone:
                plans.append(plan)
            else:
                self.tally.skipped.add(title.title_id)
        if unreachable:
            log.warning(
                "%d titles could not be had, what is known of them stays, and the next scan asks again; the first is %r: %s: %s",
                len(unreachable),
                *unreachable[0],
            )
        self._note_short(plans)
        return plans

    def probe(self, titles: list[Title]) -> dict[str, Any]:
        """Open titles on the executors: their audio tracks, or (error code, message)."""
        found: dict[str, Any] = {title.title_id: title.refused for title in titles if title.path is None}
        local = [title for title in titles if title.path is not None]
        if not local:
            return found
        self.describe(f"open {len(local)} titles")
        if len(local) >= TOLD_TITLES:
            log.info("opening %d titles that are new or changed", len(local))
        local.sort(key=lambda title: -(title.size_bytes or 0))
        cores = self.spark.sparkContext.defaultParallelism
        tasks = min(len(local), cores * self.settings.tasks_per_core)
        rows = [(title.title_id, title.path, number % tasks) for number, title in enumerate(local)]
        frame = self.spark.createDataFrame(rows, "title_id string, path string, task int")
        probed = (
            frame.repartitionById(tasks, "task")
            .drop("task")
            .mapInArrow(probe_udf(self.settings.decode_timeout_s), PROBED)
        )
        for row in probed.collect():
            answer = json.loads(row.found)
            if "tracks" in answer:
                found[row.title_id] = [TrackInfo(**track) for track in answer["tracks"]]
            else:
                found[row.title_id] = (answer["code"], answer["message"])
        return found

    def _note_short(self, plans: list[TitlePlan]) -> None:
        """Count the tracks in which a defect cannot be detected, for they are shorter than its operating point asks for."""
        least_s: dict[str, float] = {}
        for (_, _, defect), point in self.points.items():
            least_s[defect] = min(point.min_detected_s, least_s.get(defect, point.min_detected_s))
        for plan in plans:
            for track in plan.tracks:
                if track.info is not None and track.spans:
                    length_s = track.info.duration_s
                    self.tally.too_short.update(name for name, asked_s in least_s.items() if length_s < asked_s)
