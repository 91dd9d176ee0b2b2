"""The report: real files and tables in; a page whose clips, pictures and verdicts are what they claim to be."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from PIL import Image
from pyspark.sql.pandas.types import to_arrow_schema
from report_reading import Page, heard
from signals import music_like, write

from jobs import report, report_source, review, tables
from jobs.launch import PROJECT, AuscultError
from jobs.storage import Storage
from udfs import spectrogram
from udfs.decoder import encode_path
from udfs.encode import AudioTrack, write_media
from udfs.media import probe
from udfs.schemas import TABLES

HOSTILE = "<script>alert(1)</script>\"&'\x1b[31m\u202egpj.flac"
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
RATE_HZ = 48_000
# title: defect, track, start_s, end_s, channels, peak score
FOUND = {
    "hum.flac": ("hum", 0, 20.0, 40.0, ["FL"], 0.99),
    "film.mkv": ("hiss", 1, 15.0, 30.0, ["FL", "FR"], 0.98),
    "long.wav": ("hiss", 0, 5.0, 145.0, ["FC"], 0.97),
    HOSTILE: ("hum", 0, 2.0, 7.0, ["FL", "FR"], 0.96),
    "gone.flac": ("hum", 0, 2.0, 7.0, ["FL"], 0.95),
    "changed.flac": ("hum", 0, 2.0, 7.0, ["FL"], 0.94),
    "garbage.flac": ("click", 0, 2.0, 7.0, ["FL"], 0.93),
    "old.flac": ("hum", 0, 2.0, 7.0, ["MIX"], 0.92),
}
WITH_CLIP = {"hum.flac", "film.mkv", "long.wav", HOSTILE}


def make_files(folder):
    """Path by title; planted sounds stand far above the music."""
    rng = np.random.default_rng(5)
    music = music_like(60.0, RATE_HZ, rng) * 0.3
    time_s = np.arange(music.shape[1]) / RATE_HZ
    hummed, hissed = music.copy(), music.copy()
    inside = (time_s >= 20) & (time_s < 40)
    hummed[0, inside] += (0.3 * np.sin(2 * np.pi * 120 * time_s[inside])).astype(np.float32)
    inside = (time_s >= 15) & (time_s < 30)
    hissed[:, inside] += 0.1 * rng.standard_normal((2, inside.sum()), dtype=np.float32)
    long = 0.05 * rng.standard_normal((1, 150 * RATE_HZ), dtype=np.float32)
    paths = {title: os.fsencode(folder / title) for title in FOUND if title != HOSTILE}
    paths[HOSTILE] = os.fsencode(folder) + b"/caf\xe9 %41.flac"
    write(folder / "hum.flac", hummed)
    write_media(folder / "film.mkv", [AudioTrack(music, RATE_HZ, "stereo", "eng"), AudioTrack(hissed, RATE_HZ, "stereo", "fra")], picture=True)  # fmt: skip
    write(folder / "long.wav", long, 8_000)
    write(folder / "short.flac", hummed[:, 18 * RATE_HZ : 30 * RATE_HZ])
    os.rename(folder / "short.flac", paths[HOSTILE])
    for name in ("gone", "changed", "garbage", "old"):
        write(folder / f"{name}.flac", music[:, : 10 * RATE_HZ] * rng.uniform(0.5, 1.0))
    return paths, {"hum.flac": hummed, "film.mkv": hissed}


def make_tables(warehouse, paths):
    """Rows as a scan of the files leaves them; old.flac is of an earlier scan."""
    rows = {name: [] for name in TABLES}

    def add(name, **values):
        rows[name].append(values)

    for scan_id, hour, done in (("s1", 1, 1), ("s2", 2, 7), ("s3", 3, 0)):
        add(
            "scans", scan_id=scan_id, state="finished", started_by="ana@host", started_at=AT.replace(hour=hour),
            catalogue="/films & <series>", models=[("m", "1", "d" * 64, "cpu")], titles_done=done, titles_skipped=0,
            titles_rejected=1, audio_done_h=0.1, audio_skipped_h=0.0, wall_s=10.0, audio_h_per_h=36.0,
        )  # fmt: skip
    for title, (defect, number, start_s, end_s, channels, peak) in FOUND.items():
        scan_id = "s1" if title == "old.flac" else "s2"
        info = probe(os.fsdecode(paths[title]))[number]
        common = {"title_id": title, "content_hash": info.content_hash, "track": number, "scan_id": scan_id}
        add(
            "tracks", **common, uri="file://" + encode_path(paths[title]), codec=info.codec, container=info.container,
            language=info.language, sample_rate_hz=info.sample_rate_hz, channels=info.channels,
            channel_layout=info.channel_layout, duration_s=info.duration_s, decoded_s=info.duration_s, status="ok",
            scored_with=["m/1"],
        )  # fmt: skip
        add(
            "detections", **common, defect=defect, start_s=start_s, end_s=end_s, detected_s=end_s - start_s, peak_score=peak,
            channels=channels, model="m", model_version="1", threshold=0.9, min_detected_s=5.0, window_s=10.0,
        )  # fmt: skip
        for second in range(int(info.duration_s)):
            for channel, name in enumerate(channels):
                is_hit = start_s <= second < end_s
                best = 1.0 if title != "long.wav" or 100 <= second < 140 else 0.95
                add(
                    "segments", **common, channel=channel, channel_name=name, model="m", model_version="1",
                    start_s=float(second), end_s=second + 1.0,
                    scores={defect: (best if is_hit else 0.1) * (1.0 if channel == 0 else 0.2)},
                )  # fmt: skip
    add(
        "tracks", title_id="broken<i>.mp3", uri="file:///broken.mp3", status="rejected", error_code="not_media",
        error="no allowed format opens it", scan_id="s2",
    )  # fmt: skip
    content_hash = probe(paths["hum.flac"])[0].content_hash
    tone = {"title_id": "hum.flac", "content_hash": content_hash, "track": 0, "scan_id": "s2"}
    for second, channel, pitch_hz in ((0, 0, 1000.3), (0, 1, 999.8), (1, 0, 440.1), (7, 1, 1000.0), (14, 0, 1000.0)):
        add(
            "segments", **tone, channel=channel, channel_name=("FL", "FR")[channel], model="m", model_version="2",
            start_s=float(second), end_s=second + 1.0, scores={"hum": 1.0}, line_up_hz=pitch_hz,
        )  # fmt: skip
    for name, values in rows.items():
        if values:  # there is no table reviews: nobody has judged yet
            put(warehouse, name, values)


def put(warehouse, name, rows, mode="append"):
    """Write rows without Spark, which takes seconds for each table."""
    schema = to_arrow_schema(TABLES[name], timezone="UTC")
    write_deltalake(str(warehouse / name), pa.Table.from_pylist(rows, schema=schema), mode=mode)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Files, and a warehouse that knows them from before three of them went bad."""
    folder = tmp_path_factory.mktemp("report")
    paths, waveforms = make_files(folder)
    make_tables(folder / "w", paths)
    (folder / "gone.flac").unlink()
    write(folder / "changed.flac", music_like(10.0, RATE_HZ, np.random.default_rng(6)))
    (folder / "garbage.flac").write_bytes(np.random.default_rng(0).bytes(5000))
    return folder, paths, waveforms


def run(place, out, *more):
    return report.main(["--warehouse", str(place[0] / "w"), "--out", str(out), *more])


def content(uri, kind):
    head, text = uri.split(",", 1)
    assert head == f"data:{kind};base64"
    return base64.b64decode(text, validate=True)


def level_at(samples, hz, start_s, end_s):
    part = samples[round(start_s * RATE_HZ) : round(end_s * RATE_HZ)]
    spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)))) ** 2
    around = np.abs(np.fft.rfftfreq(len(part), 1 / RATE_HZ) - hz) < 3
    return spectrum[around].sum() / len(part) ** 2


@pytest.fixture(scope="module")
def written(spark, place, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "report.html"
    assert run(place, out) == 0
    return Page(out.read_text(encoding="utf-8"))


def by_title(found):
    return {entry["title_id"]: (entry, article) for entry, article in zip(found.data["detections"], found.articles, strict=True)}  # fmt: skip


@pytest.mark.slow
def test_the_page_shows_the_scan_and_needs_nothing_else(written):
    titles = [entry["title_id"] for entry in written.data["detections"]]
    assert titles == [
        title for title in FOUND if title != "old.flac"
    ]  # of the latest scan that scored titles, by worth
    assert "scan s2" in written.text
    assert "/films & <series>" in written.text
    assert "broken<i>.mp3" in written.text
    assert "no allowed format opens it" in written.text
    assert "no verdicts yet" in written.text
    assert "hum.flac00:00:00.0 to 0:00:08.0440 Hz, 1,000 HzFL, FR" in written.text  # 5 s apart: one stretch
    assert "hum.flac00:00:14.0 to 0:00:15.01,000 HzFL" in written.text
    assert all(url.startswith("data:") for url in written.urls)
    assert "default-src 'none'" in written.policy
    assert "unsafe" not in written.policy
    assert written.tags.count("script") == 2  # the data and the page's own
    text = written.articles[1]["text"]
    assert "0:00:15.0 to 0:00:30.0" in text
    assert "5 s of score ≥ 0.9 within 10 s" in text
    assert "1 (fra, aac, stereo, 48 kHz, in matroska)" in text


@pytest.mark.slow
def test_hostile_names_are_text(written):
    entry, article = by_title(written)[HOSTILE]
    assert "<script>alert(1)</script>\"&'\\x1b[31m\\u202egpj.flac" in article["text"]
    assert entry["title_id"] == HOSTILE  # the verdict names the title as it is
    assert article["audio"] is not None


@pytest.mark.parametrize("title", ["hum.flac", "film.mkv"])
@pytest.mark.slow
def test_clips_hold_the_planted_sound_where_it_is_marked(place, written, title):
    entry, article = by_title(written)[title]
    _, _, start_s, end_s, channels, _ = FOUND[title]
    assert (entry["clip_start_s"], entry["clip_end_s"]) == (start_s - 10, end_s + 10)
    assert set(article["audio"]) >= {"controls", "preload"}
    samples = heard(content(article["audio"]["src"], "audio/webm"))
    assert samples.shape[0] == len(channels)
    assert samples.shape[1] / RATE_HZ == pytest.approx(end_s - start_s + 20, abs=0.05)
    source = place[2][title][: len(channels), round((start_s - 10) * RATE_HZ) : round((end_s + 10) * RATE_HZ)]
    length = min(samples.shape[1], source.shape[1])
    inside = slice(10 * RATE_HZ, round((10 + end_s - start_s) * RATE_HZ))
    for mine, theirs in zip(samples[:, :length], source[:, :length], strict=True):
        lags = range(-200, 201, 5)
        likeness = [np.corrcoef(np.roll(mine, lag)[inside], theirs[inside])[0, 1] for lag in lags]
        assert lags[int(np.argmax(likeness))] == 0
        # FFmpeg's AAC writes noise as a level only, the decoder draws it anew.
        assert max(likeness) > (0.85 if title == "hum.flac" else 0.3)
    if title == "hum.flac":
        assert level_at(samples[0], 120, 11, 29) > 100 * level_at(samples[0], 120, 1, 9)
        assert level_at(samples[0], 120, 11, 29) > 100 * level_at(samples[0], 120, 31, 39)


@pytest.mark.slow
def test_pictures_show_the_planted_sound(written):
    picture = Image.open(io.BytesIO(content(by_title(written)["hum.flac"][1]["img"]["src"], "image/webp")))
    assert picture.size == (spectrogram.PICTURE_WIDTH_PX, spectrogram.PICTURE_HEIGHT_PX)
    brightness = np.asarray(picture.convert("RGB"), dtype=float).sum(axis=2)
    left, right = (round(share * picture.width) for share in (spectrogram.AXIS_LEFT, spectrogram.AXIS_RIGHT))
    row = 8 + round((picture.height - 16) * (1 - np.log(120 / 20) / np.log(24_000 / 20)))  # of 120 Hz
    line = brightness[row - 2 : row + 3, left:right].max(axis=0)
    third = len(line) // 4  # the time axis runs from 10 to 50 s, the hum from 20 to 40
    assert line[third + 10 : 3 * third - 10].min() > 450
    assert np.median(line[: third - 10]) < 400
    assert np.median(line[3 * third + 10 :]) < 400


@pytest.mark.slow
def test_long_stretches_are_cut_to_where_they_score_highest(written):
    entry, article = by_title(written)["long.wav"]
    assert (entry["from_s"], entry["to_s"]) == (60.0, 150.0)
    assert entry["clip_start_s"] >= entry["from_s"]
    assert (entry["clip_start_s"], entry["clip_end_s"]) == (90.0, 150.0)
    assert "The stretch lasts 140 s; the picture shows 90 s, the clip plays 60 s" in article["text"]


@pytest.mark.parametrize(
    ("title", "reason"),
    [("gone.flac", "not_found"), ("changed.flac", "holds other audio than was scanned"), ("garbage.flac", "not_media")],
)
@pytest.mark.slow
def test_a_file_that_went_bad_costs_its_own_entry(written, title, reason):
    _, article = by_title(written)[title]
    assert article["audio"] is None
    assert article["img"] is None
    assert "No clip: " in article["text"]
    assert reason in article["text"]


@pytest.mark.slow
def test_a_budget_is_kept_and_what_is_left_out_is_said(spark, place, tmp_path):
    out = tmp_path / "small.html"
    assert run(place, out, "--max-mib", "0.45", "--scan", "all") == 0
    assert out.stat().st_size <= 0.45 * 2**20
    found = Page(out.read_text(encoding="utf-8"))
    assert len(found.articles) == len(FOUND)
    has_clip = [article["audio"] is not None for article in found.articles]
    assert 0 < sum(has_clip) < len(WITH_CLIP) + 1
    assert has_clip == sorted(has_clip, reverse=True)  # the later ones go without
    assert re.search(r"The last \d detections have no clip: the file would be larger than 0.45 MiB", found.text)


@pytest.mark.slow
def test_a_folder_holds_page_and_media(spark, place, tmp_path):
    """With verdicts: ranks, precision and the entry's own line."""
    shutil.copytree(place[0] / "w", tmp_path / "w")
    judged = [("hum.flac", "genuine", "50 <Hz>"), ("film.mkv", "creative_intent", "rain"), ("old.flac", "unsure", None)]
    reviews = []
    for title, verdict, note in judged:
        defect, track, start_s, end_s, _, _ = FOUND[title]
        content_hash = probe(os.fsdecode(place[1][title]))[track].content_hash
        reviews.append(
            {"content_hash": content_hash, "defect": defect, "start_s": start_s, "end_s": end_s, "verdict": verdict,
             "reviewer": "ana <b>", "note": note, "reviewed_at": AT, "title_id": title, "track": track}
        )  # fmt: skip
    put(tmp_path / "w", "reviews", reviews)
    out = tmp_path / "report"
    (out / "media").mkdir(parents=True)
    (out / "media" / "9999.webm").touch()
    (out / "media" / "notes.txt").touch()
    assert run((tmp_path,), out, "--folder", "--scan", "all", "--limit", "7") == 0
    found = Page((out / "index.html").read_text(encoding="utf-8"))
    assert "7 of 8 detections are shown" in found.text
    titles = [entry["title_id"] for entry in found.data["detections"]]
    assert titles[-1] in ("hum.flac", "film.mkv")  # decided ones come last
    assert titles.index("old.flac") < 6  # an unsure one is undecided
    assert not any(entry["is_decided"] for entry in found.data["detections"][:-1])
    assert "no verdicts yet" not in found.text
    assert found.tags.count("circle") == 2 * 3  # two defects and both together
    assert "genuine by ana <b>, 2026-03-01: 50 <Hz>" in found.text
    media = {path.name for path in (out / "media").iterdir()}
    linked = {Path(url).name for url in found.urls}
    assert linked == media - {"notes.txt"}
    assert len(linked) == 2 * 4  # of four files that can be read among the seven
    for url in found.urls:
        assert (out / url).stat().st_size > 1000


@pytest.mark.slow
def test_reports_follow_other_operating_points(place, spark, tmp_path):
    shutil.copytree(place[0] / "w", tmp_path / "w")
    row = {
        "scan_id": "d1", "state": "finished", "started_at": AT.replace(hour=4), "catalogue": tables.STORED_SCORES, "titles_done": 0,
    }  # fmt: skip
    put(tmp_path / "w", "scans", [row])
    rows = DeltaTable(str(tmp_path / "w" / "detections")).to_pyarrow_table().to_pylist()
    put(tmp_path / "w", "detections", [{**row, "scan_id": "d1"} for row in rows], mode="overwrite")
    storage = Storage(spark, str(tmp_path / "w"))
    found = {
        scan: report_source.Source(spark, storage, scan).detections.count()
        for scan in (None, "d1", report_source.ALL, "s1")
    }
    assert found == {None: 7, "d1": 8, report_source.ALL: 8, "s1": 1}


@pytest.mark.slow
def test_of_several_events_the_strongest_is_drawn_and_of_the_models_named(spark, tmp_path):
    """A click of half of full scale at 3 s, one of full scale on the other channel at 7 s; a newer version finds but the first."""
    waveform = np.zeros((2, 10 * RATE_HZ), dtype=np.float32)
    waveform[0, 3 * RATE_HZ + 100], waveform[1, 7 * RATE_HZ + 100] = 0.5, 1.0
    write(tmp_path / "clicks.wav", waveform)
    [info] = probe(str(tmp_path / "clicks.wav"))
    common = {"title_id": "clicks.wav", "content_hash": info.content_hash, "track": 0, "scan_id": "s1"}
    put(
        tmp_path / "w",
        "scans",
        [{"scan_id": "s1", "state": "finished", "started_at": AT, "titles_done": 1, "catalogue": "c"}],
    )
    known = {"uri": f"file://{tmp_path}/clicks.wav", "status": "ok", "duration_s": 10.0, "scored_with": ["m/1", "m/2"]}
    put(tmp_path / "w", "tracks", [{**common, **known}])

    def event(start_s, *scores, label="click"):
        return {"label": label, "start_s": start_s, "end_s": start_s + 0.003, "scores": list(scores)}

    segments, found = [], []
    for version, end_s in (("1", 7.003), ("2", 3.003)):
        model = {"model": "m", "model_version": version}
        channels = ["FL", "FR"] if version == "1" else ["FL"]
        point = {"threshold": 0.9, "min_detected_s": 0.002, "window_s": 10.0}
        times = {"start_s": 3.0, "end_s": end_s, "detected_s": 0.003 * len(channels), "peak_score": 0.99}
        found.append({**common, **model, **times, **point, "defect": "click", "channels": channels})
        events = [(0, "FL", 0.0, [event(3.0, 0.95, 0.92), event(5.0, 1.0, label="hum")])]
        events += [(1, "FR", 5.0, [event(7.0, 0.9, 0.99)])] if version == "1" else []
        for number, name, start_s, inside in events:
            scores = {"click": 0.99, "hum": 1.0}
            times = {"start_s": start_s, "end_s": start_s + 5.0, "scores": scores, "events": inside}
            segments.append({**common, **model, **times, "channel": number, "channel_name": name})
    put(tmp_path / "w", "segments", segments)
    put(tmp_path / "w", "detections", found)
    drawn = {}
    for version in ("1", "2"):
        out = tmp_path / f"{version}.html"
        assert report.main(["--warehouse", str(tmp_path / "w"), "--out", str(out), "--model", f"m/{version}"]) == 0
        page = Page(out.read_text(encoding="utf-8"))
        assert f"models shownm/{version}" in page.text
        [article] = page.articles
        drawn[version] = article["text"]
    assert "strongest event begins, 20 ms from 0:00:06.990" in drawn["1"]
    assert "0 dB" in drawn["1"]
    assert "strongest event begins, 20 ms from 0:00:02.990" in drawn["2"]
    assert "-6 dB" in drawn["2"]
    with pytest.raises(AuscultError, match="--model m/3: nothing was scored with it; known there are m/1, m/2"):
        report.main(["--warehouse", str(tmp_path / "w"), "--out", str(tmp_path / "3.html"), "--model", "m/3"])


def test_what_is_wrong_is_told(place, spark, tmp_path):
    out = tmp_path / "r.html"
    with pytest.raises(AuscultError, match=r"--scan nope: not in the table scans of .*; the latest there: s1, s2, s3"):
        run(place, out, "--scan", "nope")
    with pytest.raises(AuscultError, match="scan first"):
        report.main(["--warehouse", str(tmp_path / "none"), "--out", str(out)])
    with pytest.raises(AuscultError, match="there is no folder"):
        run(place, tmp_path / "no" / "r.html")
    with pytest.raises(AuscultError, match="found a folder; --folder writes one"):
        run(place, tmp_path)
    out.touch()
    with pytest.raises(AuscultError, match="expected a folder"):
        run(place, out, "--folder")
    with pytest.raises(SystemExit):
        run(place, out, "--limit", "0")


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's own code")
@pytest.mark.slow
def test_the_pages_csv_is_what_review_imports(written, tmp_path):
    detections = written.data["detections"]
    said = {
        detections[0]["key"]: {"verdict": "genuine", "cause": "hum", "note": ' a "quoted", note\nof two lines', "reviewer": "Ana Ö", "reviewed_at": "2026-03-01T10:00:00.000Z"},
        by_title(written)[HOSTILE][0]["key"]: {"verdict": "unsure", "cause": "", "note": "", "reviewer": "Ana Ö", "reviewed_at": "2026-03-01T10:00:01.000Z"},
    }  # fmt: skip
    program = """
const { toCsv } = require(process.argv[1]);
const { detections, said } = JSON.parse(require("fs").readFileSync(0, "utf8"));
process.stdout.write(toCsv(detections, said));
"""
    done = subprocess.run(
        ["node", "-e", program, str(PROJECT / "jobs" / "report.js")],
        input=json.dumps({"detections": [detections[0], *detections], "said": said}), capture_output=True, text=True, check=True, encoding="utf-8",
    )  # fmt: skip
    path = tmp_path / "verdicts.csv"
    path.write_text(done.stdout, encoding="utf-8", newline="")
    rows = review.read_verdicts(path, review.vocabulary(PROJECT / "conf" / "verdicts.yaml"), None)
    assert [(row["title_id"], row["verdict"], row["cause"], row["reviewer"]) for row in rows] == [
        ("hum.flac", "genuine", "hum", "Ana Ö"),
        (HOSTILE, "unsure", None, "Ana Ö"),
    ]
    assert rows[0]["note"] == 'a "quoted", note\nof two lines'
    assert rows[0]["reviewed_at"] == datetime(2026, 3, 1, 10, tzinfo=UTC)
    assert [row["content_hash"] for row in rows] == [detections[0]["content_hash"], by_title(written)[HOSTILE][0]["content_hash"]]  # fmt: skip
