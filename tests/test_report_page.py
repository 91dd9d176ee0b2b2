"""The report's page without a scan: windows, budgets, what stands where there is nothing."""

import json
import shutil
import subprocess
from xml.etree import ElementTree

import pytest
from report_reading import Page

from jobs import report, report_source, review
from jobs.launch import PROJECT, AuscultError
from jobs.report_content import Entry, Report
from jobs.report_detection import CLOSE_UP_ROW, article
from jobs.report_media import CloseUp, Window, fitting, media_plan, window
from jobs.report_page import page
from jobs.timecode import clock


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
    return Entry(number, row, {}, [], Window(0.0, 1.0), Window(0.0, 1.0), Window(0.0, 1.0))


class NoSpark:
    """A source of media that were cut before."""

    def __init__(self, media):
        self.media = media

    def cut(self, entries, plan, timeout_s):
        """As `report_source.Source.cut`."""
        return zip(entries, self.media, strict=True)


@pytest.mark.parametrize(("max_mib", "pictures", "clips_kept"), [(3.0, 10, 10), (1.55, 10, 5), (0.25, 4, 0)])
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


def test_a_brief_detection_is_drawn_sample_by_sample():
    """Two channels of 20 ms; on the left one a sample at full scale, 12 ms after the first."""
    assert an_entry(1).close_up == ""
    assert "close-up" not in article(an_entry(1))
    brief = an_entry(1)
    brief.event = Window(5.01, 5.013)
    left = [0.0] * 960
    left[576] = -1.0
    report._say(brief, report_source.Medium(close_up=CloseUp(5.0, [left, [0.0] * 960])))
    assert brief.close_up in article(brief)
    svg = ElementTree.fromstring(brief.close_up).find("svg")
    points = [
        [tuple(map(float, point.split())) for point in path.get("d")[1:].split("L")]
        for path in svg.iterfind("path[@class='curve']")
    ]
    assert [len(row) for row in points] == [960, 960]
    (lowest_x, lowest), stretch = max(points[0], key=lambda point: point[1]), svg.find("rect[@class='stretch']")
    begin, width = float(stretch.get("x")), float(stretch.get("width"))
    assert lowest == CLOSE_UP_ROW - 3
    assert begin < lowest_x < begin + width
    assert (lowest_x - points[0][0][0]) / (points[0][-1][0] - points[0][0][0]) == pytest.approx(0.6, abs=2e-3)
    assert {y for _, y in points[1]} == {CLOSE_UP_ROW * 1.5}
    assert [text.text for text in svg.iterfind("text")] == [
        "0 dB", "silent", "waveform where the strongest event begins, 20 ms from 0:00:05.000, each channel to its peak",
    ]  # fmt: skip


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's own code")
def test_a_verdict_keeps_the_name_of_who_said_it(tmp_path):
    """Ana judges two detections, Ben another and one of hers; he saves the file. A page of before kept one name for all."""
    program = """
const { toCsv, said, takenBack, upgraded } = require(process.argv[1]);
const detections = ["a", "b", "c", "d"].map((key) => ({ key, content_hash: key, title_id: key, track: 0, defect: "hum", start_s: 0, end_s: 1 }));
const old = { reviewer: "Cy", verdicts: { d: { verdict: "unsure", cause: "", note: "", reviewed_at: "2026-03-01T10:00:00.000Z" } } };
const { verdicts } = upgraded(old);
verdicts.a = said(undefined, "Ana", { verdict: "genuine", cause: "hum" });
verdicts.b = said(undefined, "Ana", { verdict: "unsure", note: "low" });
verdicts.b = said(verdicts.b, "Ana", { verdict: "genuine", note: "low" });
verdicts.b = said(verdicts.b, "Ben", { verdict: "false_positive" });
verdicts.b = said(verdicts.b, "Ben", { verdict: "creative_intent" });
verdicts.c = said(undefined, "", { verdict: "unsure" });
verdicts.c = said(verdicts.c, "Ben", { verdict: "genuine" });
console.log(JSON.stringify({ csv: toCsv(detections, verdicts), left: takenBack(verdicts.b), none: takenBack(verdicts.a) === undefined }));
"""
    done = subprocess.run(
        ["node", "-e", program, str(PROJECT / "jobs" / "report.js")], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    path = tmp_path / "verdicts.csv"
    path.write_text(found["csv"], encoding="utf-8")
    rows = review.read_verdicts(path, review.vocabulary(PROJECT / "conf" / "verdicts.yaml"), None)
    assert [(row["content_hash"], row["reviewer"], row["verdict"], row["cause"], row["note"]) for row in rows] == [
        ("a", "Ana", "genuine", "hum", None),
        ("b", "Ana", "genuine", None, "low"),
        ("b", "Ben", "creative_intent", None, None),
        ("c", "Ben", "genuine", None, None),
        ("d", "Cy", "unsure", None, None),
    ]
    assert (found["left"]["reviewer"], found["left"]["others"], found["none"]) == ("Ana", [], True)
