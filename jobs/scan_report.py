"""What a scan tells its operator: the plan of a dry run, and at the end what was scored, found and rejected."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.storage import Storage

SHOWN = 50  # detections


@dataclass
class Tally:
    """What a scan has seen so far."""

    done: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    rejected: Counter = field(default_factory=Counter)
    too_short: Counter = field(default_factory=Counter)  # tracks by the defect for whose operating point they are
    audio_done_h: float = 0.0
    audio_skipped_h: float = 0.0
    tracks: int = 0
    spans: int = 0
    planned_h: float = 0.0
    channel_h: float = 0.0
    tasks: int = 0

    @property
    def rejected_titles(self) -> int:
        """Titles of which nothing could be scored."""
        return self.rejected.total()

    @property
    def rejected_by_code(self) -> str:
        """As text, with a space before it where there are any."""
        codes = ", ".join(f"{count} {code}" for code, count in self.rejected.most_common())
        return f" ({codes})" if codes else ""

    @property
    def short_tracks(self) -> str | None:
        """What an operator of short titles should know of the operating points; None where there is nothing."""
        if not self.too_short:
            return None
        counts = ", ".join(f"{defect} {count}" for defect, count in sorted(self.too_short.items()))
        return f"{counts} tracks last less than the defect's min_detected_s: nothing can be detected (operating_points)"

    def figures(self, wall_s: float, stages_s: dict[str, float]) -> dict[str, Any]:
        """What the scan's row in `scans` says at its end."""
        return {
            "finished_at": datetime.now(UTC),
            "titles_done": len(self.done),
            "titles_skipped": len(self.skipped - self.done),
            "titles_rejected": self.rejected_titles,
            "audio_done_h": self.audio_done_h,
            "audio_skipped_h": self.audio_skipped_h,
            "wall_s": wall_s,
            "audio_h_per_h": self.audio_done_h / wall_s * 3600,
            "stages_s": stages_s,
        }


def print_plan(tally: Tally, titles: int, models: tuple[str, ...], chunks: int, cores: int) -> None:
    """What a scan would do."""
    print(f"titles       {titles}")
    print(f"done before  {len(tally.skipped)} titles, {tally.audio_skipped_h:.2f} audio hours")
    print(f"rejected     {tally.rejected_titles} titles{tally.rejected_by_code}")
    print(f"to score     {tally.tracks} tracks, {tally.planned_h:.2f} audio hours, {tally.channel_h:.2f} channel hours")
    if tally.short_tracks is not None:
        print(f"too short    {tally.short_tracks}")
    print(f"cut into     {tally.spans} spans, {tally.tasks} tasks, {chunks} chunks, on {cores} cores")
    print(f"models       {', '.join(models)}")


def print_result(
    spark: "SparkSession", storage: "Storage", scan_id: str, tally: Tally, figures: dict[str, Any], *, has_many: bool
) -> None:
    """What a scan did, where its time went, and its first detections (with their models where there are several)."""
    from jobs import tables

    print(
        f"scan {scan_id} finished in {figures['wall_s']:.0f} s: {figures['titles_done']} titles scored "
        f"({tally.audio_done_h:.2f} audio hours, {figures['audio_h_per_h']:.1f} per hour), "
        f"{figures['titles_skipped']} done before, {tally.rejected_titles} rejected{tally.rejected_by_code}"
    )
    if (line := _where_time_went(figures["stages_s"])) is not None:
        print(line)
    if tally.short_tracks is not None:
        print(f"too short: {tally.short_tracks}")
    _print_detections(spark, storage, scan_id, has_many=has_many)
    print(f"\ntables: {storage.root}/{{{','.join(tables.TABLES)}}}")


def _print_detections(spark: "SparkSession", storage: "Storage", scan_id: str, *, has_many: bool) -> None:
    from jobs import interrupted, tables
    from jobs.timecode import clock

    scans = [row.asDict() for row in tables.read(spark, storage, "scans").collect()]
    run = [
        row["scan_id"] for row in interrupted.run_of(scans, scan_id) if row["titles_done"] or row["scan_id"] == scan_id
    ]
    found = tables.read(spark, storage, "detections").where(f"scan_id IN ({', '.join(map(repr, run))})")
    rows = found.orderBy("title_id", "track", "start_s", "defect").limit(SHOWN + 1).collect()
    if not rows:
        print("no new detections")
        return
    before = f" and of the interrupted ones before it, {', '.join(run[:-1])}" if run[:-1] else ""
    print(f"\ndetections of this scan{before}:")
    print(
        f"  {'title':40} {'track':>5} {'defect':13} {'from':>11} {'to':>11} {'seconds':>8} {'peak':>5}  channels"
        + ("  model" if has_many else "")
    )
    for row in rows[:SHOWN]:
        title = row.title_id if len(row.title_id) <= 40 else "..." + row.title_id[-37:]
        print(
            f"  {printable(title):40} {row.track:5d} {row.defect:13} {clock(row.start_s, 3):>11} {clock(row.end_s, 3):>11} "
            f"{row.detected_s:8.3f} {row.peak_score:5.2f}  {','.join(row.channels)}"
            + (f"  {row.model}/{row.model_version}" if has_many else "")
        )
    if len(rows) > SHOWN:
        print("  ... and more: SELECT * FROM detections")


def _where_time_went(stages_s: dict[str, float]) -> str | None:
    """What an operator reads off before buying machines; None where nothing was scored."""
    from udfs.stages import WORK

    work_s = sum(stages_s.get(name, 0.0) for name in WORK)
    if work_s <= 0.0:
        return None
    order = sorted((name for name in WORK if name in stages_s), key=lambda name: -stages_s[name])
    shares = ", ".join(f"{name} {stages_s[name] / work_s:.0%}" for name in order)
    return (
        f"tasks worked {work_s:.0f} s: {shares}; the model waited {stages_s.get('await_audio', 0.0):.0f} s for audio\n"
        f"the scan planned for {stages_s.get('plan', 0.0):.0f} s, scored for {stages_s.get('score', 0.0):.0f} s and "
        f"committed for {stages_s.get('commit', 0.0):.0f} s"
    )


def printable(text: str) -> str:
    """A title's name as a terminal shows it: no control characters."""
    return "".join(character if character.isprintable() else "?" for character in text)
