"""Writes a scan's report: what was found, with a picture and a clip of each detection to judge it by.

Reads: the tables scans, tracks, segments, detections and reviews; the media files of the detections shown.
Writes: an HTML file that needs nothing else, or a folder of a page and its media (--folder).
One row per: detection, in the order of `jobs/review.py queue`: undecided ones first.
Launch: spark-submit jobs/report.py --out report.html [--scan SCAN_ID|all] [--model NAME/VERSION] [--limit N] [--max-mib MIB]
    [--folder]
Takes: half a minute, a CPU second a detection, and reading each of the titles shown once.
"""

import argparse
import hashlib
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from jobs.launch import PROJECT, AuscultError, check_file, default_warehouse, log, run, session

if TYPE_CHECKING:
    from jobs.report_content import Entry, Report
    from jobs.report_media import MediaPlan
    from jobs.report_source import Medium, Source

SLACK_BYTES = 600  # of an entry's text that comes with its picture and clip


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line; needs no Spark, so that --help and mistakes answer at once."""
    parser = argparse.ArgumentParser(prog="report.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--warehouse", default=default_warehouse(), help="where the tables are (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="HTML file to write; with --folder the folder")
    parser.add_argument(
        "--scan", metavar="SCAN_ID", help="scan to report on, or all (default: the latest that scored titles)"
    )
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME/VERSION",
        help="detections of this model version only; repeatable (default: of all)",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, default=200, metavar="N", help="detections to show (default: %(default)s)")
    parser.add_argument(
        "--max-mib", type=float, default=60.0, metavar="MIB", help="largest HTML file, MiB (default: %(default)s)"
    )
    parser.add_argument("--folder", action="store_true", help="page and media as files of a folder; of any size")
    parser.add_argument(
        "--decode-timeout-s", type=float, default=120.0, metavar="S",
        help="longest silence of the decoder before a file is given up (default: %(default)s)",
    )  # fmt: skip
    options = parser.parse_args(argv)
    for name in ("limit", "max_mib", "decode_timeout_s"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name.replace('_', '-')}: expected more than 0, found {getattr(options, name)}")
    return options


def entries_of(source: "Source", rows: list[dict[str, Any]]) -> list["Entry"]:
    """What there is to say of each detection without its media."""
    from jobs.report_content import Entry
    from jobs.report_media import PICTURE_S, Window, window

    if not rows:
        return []
    tracks, scores, events = source.tracks_of(rows), source.scores(rows), source.strongest_events(rows)
    entries = []
    for number, row in enumerate(rows):
        track = tracks.get((row["title_id"], row["track"]), {})
        mine = scores.get(number, [])
        title = Window(0.0, track["duration_s"] if track.get("duration_s") is not None else math.inf)
        stretch = Window(row["start_s"], row["end_s"])
        shown = window(stretch, title, mine, PICTURE_S)
        entries.append(Entry(number + 1, row, track, mine, shown, clip=shown, event=events.get(number, stretch)))
    return entries


def choose_clips(entries: list["Entry"], room_bytes: float | None) -> "MediaPlan":
    """Plan the media and set each entry's clip."""
    from jobs.report_media import Window, media_plan, window
    from udfs.stretches import STEREO

    stereo = [set(entry.detection["channels"] or []) == set(STEREO) for entry in entries]
    plan = media_plan([entry.shown.length_s for entry in entries], stereo, room_bytes)
    for entry in entries:
        row = entry.detection
        entry.clip = window(Window(row["start_s"], row["end_s"]), entry.shown, entry.scores, plan.clip_s)
    return plan


def report_of(source: "Source", precision: list[dict[str, Any]], shown: int, count: int) -> "Report":
    """All of the page but its detections."""
    from pyspark.sql import functions as F

    from jobs.report_content import MOST_ROWS, Report
    from jobs.report_source import ALL

    scan = source.scan
    name = hashlib.sha256(f"{source.root} {scan['scan_id'] if scan else ALL}".encode()).hexdigest()[:16]
    models = (scan["models"] or []) if scan else []
    troubles = source.tracks.where("status <> 'ok'").orderBy(F.desc("status"), "title_id", "track").limit(MOST_ROWS + 1)
    told = troubles.select("title_id", "track", "status", "error_code", "error").collect()
    report = Report(
        name=name,
        heading=f"Auscult: scan {scan['scan_id']}" if scan else "Auscult: all detections",
        facts=_facts(source, scan),
        models=[(f"{model['name']}/{model['version']}", model["digest"], model["device"]) for model in models],
        rates=source.rates(),
        troubles=[row.asDict() for row in told],
        line_up=source.line_up(MOST_ROWS + 1),
        precision=precision,
        remarks=[],
        warnings=[],
        causes=_causes(),
    )
    if shown < count:
        report.warnings.append(f"{shown} of {count:,} detections are shown; --limit shows more.")
    return report


def _facts(source: "Source", scan: dict[str, Any] | None) -> list[tuple[str, str]]:
    from jobs.tables import STORED_SCORES

    shown = [("models shown", ", ".join(source.models))] if source.models else []
    if scan is None:
        return [("warehouse", source.root), *shown]
    facts = [
        ("warehouse", source.root),
        *shown,
        ("catalogue", str(scan["catalogue"])),
        ("started", f"{scan['started_at'][:19].replace('T', ' ')} UTC by {scan['started_by']}"),
        ("state", str(scan["state"])),
    ]
    if scan["went_on_with"]:
        facts.append(("went on with", f"{', '.join(scan['went_on_with'])} (interrupted; what they did counts here)"))
    if scan["catalogue"] == STORED_SCORES:
        return [*facts, ("titles", "none opened: other operating points over stored scores")]
    if scan["titles_done"] is not None:
        done, rejected, before = (scan[f"titles_{name}"] or 0 for name in ("done", "rejected", "skipped"))
        facts.append(("titles", f"{done:,} scored, {rejected:,} rejected, {before:,} done before"))
    if scan["audio_done_h"] is not None:
        before_h = scan["audio_skipped_h"] or 0.0
        facts.append(("audio scored", f"{scan['audio_done_h']:,.2f} h ({before_h:,.2f} h were scored before)"))
    if scan["audio_h_per_h"] is not None:
        facts.append(
            ("speed", f"{scan['audio_h_per_h']:,.1f} h of audio per hour ({scan['wall_s'] or 0:,.0f} s in all)")
        )
    return facts


def _causes() -> dict[str, tuple[str, ...]]:
    """Causes by verdict, which the page offers; a verdict needs none."""
    path = PROJECT / "conf" / "verdicts.yaml"
    try:
        return {str(verdict): tuple(map(str, causes)) for verdict, causes in yaml.safe_load(path.read_text()).items()}
    except (OSError, AttributeError, TypeError, yaml.YAMLError) as error:
        log.warning("vocabulary %s: %s; the page offers no causes", path, error)
        return {}


def write_file(
    out: Path, max_bytes: float, report: "Report", entries: list["Entry"], source: "Source", timeout_s: float
) -> None:
    """Write the report as one file that holds its media, as far as they fit."""
    from jobs.report_page import data_uri, page

    bare = len(page(report, entries, is_folder=False).encode()) + SLACK_BYTES * (len(entries) + 2)
    if bare > max_bytes:
        raise AuscultError(
            f"--max-mib {max_bytes / 2**20:g}: the text of {len(entries)} detections alone takes {bare / 2**20:.1f} MiB; "
            "raise it, lower --limit, or take --folder"
        )
    plan = choose_clips(entries, max_bytes - bare)
    for entry, medium in source.cut(entries, plan, timeout_s):
        _say(entry, medium)
        if medium.picture is not None:
            entry.picture = data_uri("image/webp", medium.picture)
        if medium.audio is not None:
            entry.audio = data_uri("audio/webm", medium.audio)
    report.remarks.append(_quality(plan))
    _leave_out(max_bytes - bare, max_bytes, plan, report, entries)
    _write(out, page(report, entries, is_folder=False).encode())


def _leave_out(room: float, max_bytes: float, plan: "MediaPlan", report: "Report", entries: list["Entry"]) -> None:
    """Take the last clips, and if need be the last pictures, out again where they do not fit; say so."""
    from jobs.report_media import fitting
    from jobs.report_source import NO_CLIP

    room -= sum(len(text.encode()) for entry in entries for text in (*entry.warnings, *entry.notes, entry.close_up))
    pictures = min(fitting([len(entry.picture or "") for entry in entries], room), plan.pictures)
    room -= sum(len(entry.picture or "") for entry in entries[:pictures])
    clips = min(fitting([len(entry.audio or "") for entry in entries], room), plan.clips)
    for entry in entries[pictures:]:
        entry.picture = None
    for entry in entries[clips:]:
        entry.audio = None
        if not any(warning.startswith(NO_CLIP) for warning in entry.warnings):  # else there would be none anyway
            entry.notes, entry.warnings = [], [f"{NO_CLIP}: the file would be larger than --max-mib."]
    for kind, count in (("clip", clips), ("picture", pictures)):
        if count < len(entries):
            report.warnings.append(
                f"The last {len(entries) - count} detections have no {kind}: the file would be larger than "
                f"{max_bytes / 2**20:g} MiB. Raise --max-mib, lower --limit, or take --folder."
            )


def write_folder(out: Path, report: "Report", entries: list["Entry"], source: "Source", timeout_s: float) -> None:
    """Write the report as a page beside its media."""
    from jobs.report_page import page

    media = out / "media"
    media.mkdir(parents=True, exist_ok=True)
    for old in media.iterdir():  # of an earlier report; what else lies there stays
        if re.fullmatch(r"\d{4,}\.web[mp]", old.name):
            old.unlink()
    plan = choose_clips(entries, None)
    for entry, medium in source.cut(entries, plan, timeout_s):
        _say(entry, medium)
        if medium.picture is not None:
            entry.picture = f"media/{entry.number:04d}.webp"
            _write(out / entry.picture, medium.picture)
        if medium.audio is not None:
            entry.audio = f"media/{entry.number:04d}.webm"
            _write(out / entry.audio, medium.audio)
    report.remarks.append(_quality(plan))
    _write(out / "index.html", page(report, entries, is_folder=True).encode())


def _say(entry: "Entry", medium: "Medium") -> None:
    from jobs.report_detection import close_up_plot
    from jobs.report_media import Window

    entry.warnings += medium.warnings
    entry.notes += medium.notes
    if medium.close_up is not None:
        entry.close_up = close_up_plot(medium.close_up, entry.event)
    if medium.clip_end_s is not None:
        entry.clip = Window(entry.clip.start_s, medium.clip_end_s)


def _quality(plan: "MediaPlan") -> str:
    from jobs.report_media import STEREO_SHARE
    from udfs.spectrogram import LOUDEST_DB, QUIETEST_DB

    return (
        f"Clips are Opus at {plan.bit_rate // 1000} kbit/s (stereo {plan.bit_rate * STEREO_SHARE / 1000:.0f}), of at most "
        f"{plan.clip_s:.0f} s: judge what is barely to be heard on the title itself. Colours of the pictures: from "
        f"{QUIETEST_DB:.0f} to {LOUDEST_DB:.0f} dB of a full-scale sine."
    )


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def check_out(out: Path, *, is_folder: bool) -> None:
    """Refuse an output that cannot be written, before anything is decoded.

    Raises:
        AuscultError: why.
    """
    if not is_folder and out.is_dir():
        raise AuscultError(f"--out {out}: expected a file to write, found a folder; --folder writes one")
    if is_folder and out.exists() and not out.is_dir():
        raise AuscultError(f"--out {out}: expected a folder (--folder), found a file")
    check_file("--out", out / "index.html" if is_folder and out.exists() else out)


def main(argv: list[str]) -> int:
    """Find, cut, write."""
    options = arguments(argv)
    check_out(options.out, is_folder=options.folder)
    from jobs import tables
    from jobs.report_source import Source
    from jobs.storage import Storage, absolute

    spark = session("auscult report")
    try:
        storage = Storage(spark, absolute(options.warehouse))
    except Exception as error:
        raise AuscultError(f"warehouse {options.warehouse}: {tables.first_line(error)}") from error
    source = Source(spark, storage, options.scan, options.model)
    precision = source.precision()
    rows, count = source.ranked(precision, options.limit)
    entries = entries_of(source, rows)
    report = report_of(source, precision, len(entries), count)
    written = options.out / "index.html" if options.folder else options.out
    try:
        if options.folder:
            write_folder(options.out, report, entries, source, options.decode_timeout_s)
        else:
            write_file(options.out, options.max_mib * 2**20, report, entries, source, options.decode_timeout_s)
    except OSError as error:
        raise AuscultError(f"--out {options.out}: cannot be written: {error}") from error
    clips = sum(entry.audio is not None for entry in entries)
    mib = written.stat().st_size / 2**20
    print(f"{len(entries)} of {count} detections, {clips} with a clip: {written} ({mib:.1f} MiB)")
    return 0


if __name__ == "__main__":
    run(main)
