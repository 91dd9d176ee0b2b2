"""The report: real files and tables in; a page whose clips, pictures and verdicts are what they claim to be."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from PIL import Image
from pyspark.sql.pandas.types import to_arrow_schema
from signals import music_like, write

from jobs import report, report_source, review, tables
from jobs.launch import PROJECT, AuscultError
from jobs.report_content import Entry, Report
from jobs.report_media import Window, fitting, media_plan, window
from jobs.report_page import page
from jobs.storage import Storage
from jobs.timecode import clock
from udfs import clips, spectrogram, stretches
from udfs.decoder import Decoder, encode_path
from udfs.encode import AudioTrack, write_media
from udfs.media import MediaError, probe
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


class Page(HTMLParser):
    """Articles of a page: their text, and attributes of their elements."""

    def __init__(self, text):
        super().__init__()
        self.articles, self.tags, self.urls, self.text = [], [], [], ""
        self.data = self.policy = None
        self._inside = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.urls += [found[name] for name in ("src", "href", "action", "poster", "srcset") if found.get(name)]
        if tag == "article":
            self.articles.append({"text": "", "img": None, "audio": None})
        if tag in ("img", "audio"):
            self.articles[-1][tag] = found
        if tag == "meta" and "http-equiv" in found:
            self.policy = found["content"]
        self._inside = "data" if found.get("id") == "data" else tag

    def handle_data(self, text):
        if self._inside == "data":
            self.data = json.loads(text)
            self._inside = None
        elif self._inside not in ("script", "style"):
            self.text += text
            if self.articles and "template" not in self.tags:
                self.articles[-1]["text"] += text


def content(uri, kind):
    head, text = uri.split(",", 1)
    assert head == f"data:{kind};base64"
    return base64.b64decode(text, validate=True)


def heard(audio):
    """Samples of a clip, (channels, time)."""
    with av.open(io.BytesIO(audio)) as container:
        [stream] = container.streams.audio
        assert stream.codec_context.name in ("opus", "libopus")
        return np.concatenate([frame.to_ndarray() for frame in container.decode(stream)], axis=1)


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


class NoSpark:
    """A source of media that were cut before."""

    def __init__(self, media):
        self.media = media

    def cut(self, entries, plan, timeout_s):
        """As `report_source.Source.cut`."""
        return zip(entries, self.media, strict=True)


@pytest.mark.parametrize(("max_mib", "pictures", "clips_kept"), [(3.0, 10, 10), (1.5, 10, 5), (0.25, 4, 0)])
def test_the_last_clips_and_then_pictures_give_way(tmp_path, max_mib, pictures, clips_kept):
    out = tmp_path / "r.html"
    entries = [an_entry(number) for number in range(1, 11)]
    media = [report_source.Medium(bytes(40_000), bytes(150_000), [], ["Heard: FL."]) for _ in entries]
    found_report = a_report()
    report.write_file(out, max_mib * 2**20, found_report, entries, NoSpark(media), 1.0)
    assert out.stat().st_size <= max_mib * 2**20
    found = Page(out.read_text(encoding="utf-8"))
    assert [article["img"] is not None for article in found.articles] == [True] * pictures + [False] * (10 - pictures)
    assert [article["audio"] is not None for article in found.articles] == [True] * clips_kept + [False] * (
        10 - clips_kept
    )
    assert len(found_report.warnings) == (clips_kept < 10) + (pictures < 10)
    with pytest.raises(AuscultError, match="the text of 10 detections alone takes"):
        report.write_file(out, 1000, a_report(), entries, NoSpark(media), 1.0)


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
        detections[0]["key"]: {"verdict": "genuine", "cause": "hum", "note": ' a "quoted", note\nof two lines', "reviewed_at": "2026-03-01T10:00:00.000Z"},
        by_title(written)[HOSTILE][0]["key"]: {"verdict": "unsure", "cause": "", "note": "", "reviewed_at": "2026-03-01T10:00:01.000Z"},
    }  # fmt: skip
    program = """
const { toCsv } = require(process.argv[1]);
const { detections, said } = JSON.parse(require("fs").readFileSync(0, "utf8"));
process.stdout.write(toCsv(detections, said, "Ana Ö"));
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


def test_one_pass_and_single_seeks_cut_the_same(place):
    """FLAC can seek; told that it cannot, it is gone through once: overlapping, nested, beyond the end."""
    path = encode_path(place[1]["hum.flac"])
    wanted = [
        stretches.Stretch(start, end, channels)
        for start, end, channels in [
            (30.0, 40.0, ("FL",)), (2.0, 12.5, ("FL", "FR")), (5.0, 7.0, ("FR",)), (55.0, 70.0, ("MIX",)), (80.0, 90.0, ("FL",)),
        ]
    ]  # fmt: skip
    info = probe(os.fsdecode(place[1]["hum.flac"]))[0]
    assert info.can_seek
    decoder = Decoder()
    try:
        seeking = dict(stretches.sounds(decoder, path, info, wanted))
        info.can_seek = False
        passing = dict(stretches.sounds(decoder, path, info, wanted))
    finally:
        decoder.close()
    assert set(seeking) == set(passing) == set(range(5))
    for index in range(5):
        assert np.array_equal(seeking[index].samples, passing[index].samples)
        assert np.array_equal(seeking[index].decoded, passing[index].decoded)
    waveform = place[2]["hum.flac"]
    expected = waveform[0, 30 * RATE_HZ : 40 * RATE_HZ]
    assert np.abs(passing[0].samples[0] - expected).max() < 1e-4  # FLAC of 16 bit
    assert (passing[1].samples.shape[0], passing[1].heard) == (2, ("FL", "FR"))
    end = passing[3].part(55.0, 70.0)
    assert end.samples.shape == (1, 5 * RATE_HZ)
    assert np.abs(end.samples[0] - waveform[:, 55 * RATE_HZ :].mean(axis=0)).max() < 1e-4
    assert not passing[4].decoded.any()


def test_a_single_clip(place):
    path = place[1]["hum.flac"]
    samples = heard(clips.clip(path, 0, 19.0, 23.0, ("FL",), 64_000))
    assert samples.shape == (1, pytest.approx(4 * RATE_HZ, abs=1000))
    with pytest.raises(MediaError, match="expected audio track 3, the file has 1 now"):
        clips.clip(path, 3, 0.0, 1.0, (), 64_000)
    with pytest.raises(MediaError, match="no sound could be decoded"):
        clips.clip(path, 0, 100.0, 110.0, (), 64_000)


def test_pictures_show_clicks_and_short_stretches():
    samples = np.zeros((2, 60 * RATE_HZ), dtype=np.float32)
    samples[1, 30 * RATE_HZ] = 1.0  # one sample of a minute, on one channel
    drawn = Image.open(io.BytesIO(spectrogram.spectrogram(samples, 0.0, (0.0, 60.0), (25.0, 35.0), 24_000)))
    brightness = np.asarray(drawn.convert("RGB"), dtype=float).sum(axis=2)[30:200]
    left, right = (round(share * drawn.width) for share in (spectrogram.AXIS_LEFT, spectrogram.AXIS_RIGHT))
    middle = (left + right) // 2
    assert brightness[:, middle - 3 : middle + 4].max(axis=1).min() > 100
    assert brightness[:, left + 50 : left + 200].max() < 60
    short = np.random.default_rng(0).standard_normal((1, 2 * RATE_HZ)).astype(np.float32) * 0.1
    drawn = Image.open(io.BytesIO(spectrogram.spectrogram(short, 7.0, (7.0, 9.0), (7.0, 9.0), 4_000)))
    brightness = np.asarray(drawn.convert("RGB"), dtype=float).sum(axis=2)[30:200, left + 3 : right - 3]
    assert brightness.mean(axis=0).min() > 150  # no column without a level


def test_windows_and_budgets():
    title = Window(0.0, 3600.0)
    assert window(Window(100.0, 130.0), title, [], 60.0) == Window(90.0, 140.0)
    assert window(Window(0.0, 3600.0), title, [], 60.0) == Window(0.0, 60.0)
    assert window(Window(3595.0, 3700.0), title, [], 60.0) == Window(3585.0, 3600.0)
    steady = [(float(second), second + 1.0, 0.95) for second in range(100, 2000)]
    assert window(Window(100.0, 2000.0), title, steady, 60.0) == Window(90.0, 150.0)  # its begin is heard
    steady[1000] = (1100.0, 1101.0, 0.99)
    found = window(Window(100.0, 2000.0), title, steady, 60.0)
    assert found.start_s < 1100 < found.end_s - 1
    shown = window(Window(100.0, 2000.0), title, steady, 90.0)
    within = window(Window(100.0, 2000.0), shown, steady, 45.0)
    assert shown.start_s <= within.start_s < within.end_s <= shown.end_s
    assert within.length_s == pytest.approx(45.0)

    rich, poor = media_plan([40.0] * 10, [True] * 10, 60 * 2**20), media_plan([90.0] * 200, [True] * 200, 60 * 2**20)
    assert (rich.clip_s, rich.bit_rate) == (60.0, 64_000)
    assert (poor.clips, poor.pictures) == (200, 200)  # 200 long stereo stretches have their clips in 60 MiB
    tight = media_plan([90.0] * 200, [True] * 200, 10 * 2**20)
    assert 0 < tight.clips < 200
    assert media_plan([], [], 0.0).clips == 0
    assert fitting([], 0.0) == 0
    assert clock(0.04) == "0:00:00.0"


def a_report():
    return Report("n", "Auscult: all detections", [], [], [], [], [], [], [], [], {})


def an_entry(number):
    row = {
        "title_id": "a", "content_hash": "h", "track": 0, "defect": "hum", "start_s": 0.0, "end_s": 1.0, "detected_s": 1.0,
        "peak_score": 1.0, "channels": None, "model": "m", "model_version": "1", "threshold": 0.9, "min_detected_s": 1.0,
        "window_s": 2.0,
    }  # fmt: skip
    return Entry(number, row, {}, [], Window(0.0, 1.0), Window(0.0, 1.0))


def test_precision_is_drawn_and_tabled():
    found = a_report()
    shares = {f"{kind}_{part}": 0.5 for kind in ("genuine", "valid") for part in ("precision", "low", "high")}
    common = {"model": "m", "model_version": "1", "detections": 9, **shares}
    for facet, value, defect, decided in [
        ("all", "all", None, 4), ("all", "all", "<hum>", 4), ("codec", "aac", None, 4), ("codec", "mp3", None, 0), ("all", "all", "hiss", 0),
    ]:  # fmt: skip
        found.precision.append({**common, "facet": facet, "facet_value": value, "defect": defect, "decided": decided})
    drawn = Page(page(found, [], is_folder=False))
    assert drawn.tags.count("circle") == 2 * 2  # what nobody judged has no share
    assert "<hum>" in drawn.text
    assert "by codec" in drawn.text
    assert "mp3" not in drawn.text
    assert "50% .. 50%" in drawn.text


def test_a_page_of_nothing():
    assert "There is no detection." in Page(page(a_report(), [], is_folder=False)).text
    found = Page(page(a_report(), [an_entry(1)], is_folder=True))
    assert "no score is stored for this stretch" in found.text
    assert found.data["detections"][0]["key"] == "h|hum|0.0|1.0|0|a"
