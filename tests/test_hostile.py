"""Files that nobody vetted: each ends as the right row, and its neighbours are scanned."""

import http.server
import os
import threading
from collections import defaultdict

import numpy as np
import pytest
import toy_models
from hostile import make
from hostile_case import SUFFIXES, Maker
from hostile_names import playlists
from mutations import mutations
from signals import music_like, write

from jobs import planner, scan
from jobs.catalogue_folder import readable

pytestmark = [pytest.mark.chaos, pytest.mark.slow]


@pytest.fixture(scope="module")
def place(module_folder):
    """A home with a foreign model."""
    folder = module_folder
    toy_models.register_level(folder / "code")
    (folder / "settings.yaml").write_text("max_rejected_share: 1.0\ndecode_timeout_s: 60.0\n")
    return folder


def run(folder, catalogue, warehouse):
    return scan.main(
        [
            "--catalogue", str(catalogue), "--warehouse", str(warehouse), "--model", "models:/level@champion",
            "--settings", str(folder / "settings.yaml"),
        ]
    )  # fmt: skip


def rows_by_title(spark, warehouse):
    rows = defaultdict(list)
    for row in spark.read.format("delta").load(str(warehouse / "tracks")).collect():
        rows[row.title_id].append(row)
    return rows


@pytest.fixture(scope="module")
def scanned(place, spark):
    """The cases, and the rows that one scan of all of them left."""
    cases = make(place / "catalogue")
    assert run(place, place / "catalogue", place / "warehouse") == 0
    return cases, rows_by_title(spark, place / "warehouse")


def test_every_hostile_file_ends_as_the_right_row(scanned):
    cases, rows = scanned[0], dict(scanned[1])
    assert len(cases) >= 200
    wrong = []
    for case in cases:
        found = rows.pop(readable(case.name), [])
        said = sorted((row.status, row.error_code, round(row.decoded_s, 2)) for row in found)
        is_right = len(found) == case.tracks and all(
            row.status in case.status
            and (not case.codes or row.error_code in case.codes)
            and (row.status == "rejected" or case.heard_s[0] <= row.decoded_s <= case.heard_s[1])
            and (row.status == "ok") == (row.error_code is None) == (row.error is None)
            for row in found
        )
        if not is_right:
            wrong.append((case.group, case.name, said, sorted(case.status), sorted(map(str, case.codes))))
    print(f"figure: {len(cases)} hostile files, {len(cases) - len(wrong)} with the right row")
    assert not wrong
    assert not rows, "rows of files that are not there"


def test_no_hostile_file_crashed_or_hung_the_decoder(scanned):
    _, rows = scanned
    codes = {row.error_code for found in rows.values() for row in found}
    assert not codes & {"crashed", "timeout", "out_of_memory"}


def test_segments_are_of_what_was_decoded(scanned, place, spark):
    segments = spark.read.format("delta").load(str(place / "warehouse" / "segments")).where("model = 'level'")
    places = segments.select("title_id", "track", "channel", "start_s").collect()
    assert len(places) == len(set(places))
    heard = defaultdict(set)
    for row in places:
        heard[row.title_id, row.track].add(row.start_s)
    for found in scanned[1].values():
        for row in found:
            starts = heard.get((row.title_id, row.track), set())
            if row.status == "rejected":
                assert not starts, row.title_id
            elif row.status == "ok":
                # A whole segment a second, and one more that ends with the track where a tenth of a second is left.
                whole = int(row.decoded_s + 0.01)
                assert len(starts) - whole in {row.decoded_s - whole > 0.1 + slack for slack in (-0.01, 0.01)}, (
                    row.title_id
                )


def test_what_a_header_announces_is_said_of_its_own_file(scanned, place, spark):
    """Files with the packets of one whose header lies take its scores, and not what was said of the header."""
    found = spark.read.format("delta").load(str(place / "warehouse" / "detections"))
    said = {(row.title_id, row.track) for row in found.where("defect = 'missing_audio'").collect()}
    rows = [row for rows in scanned[1].values() for row in rows]
    # An Ogg file that is cut off does not say by how much.
    lying = {
        (row.title_id, row.track) for row in rows if row.error_code == "truncated" and "nothing says" not in row.error
    }
    assert len(lying) >= 3
    assert lying <= said
    assert not said & {(row.title_id, row.track) for row in rows if row.status == "ok"}


def test_playlists_ask_no_server(place, spark, tmp_path):
    """Lists that name a URL: a server on the loopback must never hear of it."""
    asked = []

    class Listening(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listening)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    maker = Maker(tmp_path / "lists")
    maker.cases.clear()
    playlists(maker)
    for path in (tmp_path / "lists").iterdir():
        path.write_bytes(path.read_bytes().replace(b"127.0.0.1:9", b"127.0.0.1:%d" % server.server_port))
    assert run(place, tmp_path / "lists", tmp_path / "warehouse") == 0
    server.shutdown()
    assert asked == []
    rows = rows_by_title(spark, tmp_path / "warehouse")
    assert len(rows) == len(maker.cases)
    heard = {title for title, found in rows.items() if any(row.decoded_s > 0 for row in found)}
    assert heard <= {"external samples.mp4"}  # its own samples, not those of the file that it names


def test_a_file_that_grows_and_one_that_vanishes(place, spark, tmp_path, monkeypatch):
    """Between the probe and the decoding one file is deleted, one has grown, one is replaced by a FIFO."""
    music = music_like(3.0, 48_000, np.random.default_rng(0))
    # The WAV files are equal, so that one is scored for the others: which must not suffer where that one is gone.
    for name in ("stays.wav", "grows.aac", "a vanishes.wav", "replaced.wav", "too.wav"):
        write(tmp_path / "catalogue" / name, music)
    probe = planner.Planner.probe

    def then(self, titles):
        found = probe(self, titles)
        folder = tmp_path / "catalogue"
        with (folder / "grows.aac").open("ab") as file:
            file.write((folder / "grows.aac").read_bytes())
        (folder / "a vanishes.wav").unlink()
        (folder / "replaced.wav").unlink()
        os.mkfifo(folder / "replaced.wav")
        return found

    monkeypatch.setattr(planner.Planner, "probe", then)
    assert run(place, tmp_path / "catalogue", tmp_path / "warehouse") == 0
    found = {title: rows[0] for title, rows in rows_by_title(spark, tmp_path / "warehouse").items()}
    assert {title: row.error_code for title, row in found.items()} == {
        "stays.wav": None, "grows.aac": None, "a vanishes.wav": "not_found", "replaced.wav": "not_a_file", "too.wav": None,
    }  # fmt: skip
    monkeypatch.setattr(planner.Planner, "probe", probe)
    assert run(place, tmp_path / "catalogue", tmp_path / "warehouse") == 0
    found = {title: rows[0] for title, rows in rows_by_title(spark, tmp_path / "warehouse").items()}
    assert found["grows.aac"].decoded_s == pytest.approx(6.0, abs=0.3)  # its new size was noticed
    assert set(found) == {"stays.wav", "grows.aac", "a vanishes.wav", "replaced.wav", "too.wav"}
    segments = spark.read.format("delta").load(str(tmp_path / "warehouse" / "segments"))
    counts = {row.title_id: row["count"] for row in segments.groupBy("title_id").count().collect()}
    assert counts["stays.wav"] == counts["too.wav"] == 3 * 2


NASTY = [
    "'; DROP TABLE detections; --",
    '" OR 1=1 --',
    "../../../../etc/passwd",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "new\nline\r\nand\ttab",
    "right \u202e to left \u200f",
    '=HYPERLINK("http://127.0.0.1")',
    "$(touch pwned)`id`;ls|cat",
    "${spark.sql.warehouse.dir} :param {brace} %s %(x)s",
    "back\\slash\\' \\u0041",
    "`tick` [bracket] #hash",
    "nul\\0 \u2028 separator",
    "\U0001f3b5 emoji",
]


def test_no_catalogue_value_is_taken_for_code(place, spark, tmp_path):
    """Ids, languages and further columns with quotes, paths, markup and formulas, through every job that prints them."""
    import csv
    import html
    import json
    import re

    from jobs import detect, export, report, review

    loud = np.sign(music_like(3.0, 48_000, np.random.default_rng(0))) * np.float32(0.9)
    # Each of its own: of copies only one is queued.
    files = [write(tmp_path / "media" / f"{n}.flac", loud * (1 - n / 100)) for n in range(len(NASTY))]
    with (tmp_path / "titles.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["title_id", "uri", "language", "no'te\"; --", "<b>"])
        table.writerows([name, str(path), name, name, name] for name, path in zip(NASTY, files, strict=True))
    (tmp_path / "settings.yaml").write_text(
        "operating_points: {loud: {threshold: 0.1, min_detected_s: 1, window_s: 2}}\n"
    )
    warehouse = tmp_path / "warehouse"
    assert run(tmp_path, tmp_path / "titles.csv", warehouse) == 0
    rows = {title: found[0].asDict() for title, found in rows_by_title(spark, warehouse).items()}
    assert set(rows) == set(NASTY)
    assert all(row["language"] == title for title, row in rows.items())
    own = [name for name in next(iter(rows.values())) if "te" in name and "no" in name]
    assert own
    assert all(row[own[0]] == title for title, row in rows.items())
    given = ["--warehouse", str(warehouse)]
    lower = tmp_path / "lower.yaml"
    lower.write_text((tmp_path / "settings.yaml").read_text().replace("0.1", "0.05"))
    assert detect.main([*given, "--settings", str(lower)]) == 0
    detections = spark.read.format("delta").load(str(warehouse / "detections"))
    assert {row.title_id for row in detections.collect()} == set(NASTY)
    # Verdicts by way of a spreadsheet's CSV.
    assert review.main(["queue", *given, "--out", str(tmp_path / "todo.csv")]) == 0
    with (tmp_path / "todo.csv").open(newline="") as file:
        todo = list(csv.DictReader(file))
    assert len(todo) == len(NASTY)
    for line in todo:
        line |= {"verdict": "false_positive", "cause": "other"}
    with (tmp_path / "done.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, todo[0])
        table.writeheader()
        table.writerows(todo)
    assert review.main(["import", str(tmp_path / "done.csv"), *given, "--reviewer", "ana"]) == 0
    assert detections.count() == len(NASTY)
    # Hand-over files: named without leaving their folder, exact in JSON, no formula in CSV.
    out = tmp_path / "handover"
    before = {path for path in tmp_path.rglob("*") if out not in path.parents}
    assert export.main([*given, "--out", str(out), "--format", "all", "--frame-rate", "25"]) == 0
    assert {path for path in tmp_path.rglob("*") if out not in path.parents} - before <= {out}
    told = set()

    def collect(value):
        if isinstance(value, str):
            told.update({value} & set(NASTY))
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            collect(part)

    for path in out.rglob("*.json"):
        collect(json.loads(path.read_text()))
    assert told == set(NASTY)
    for path in out.rglob("*.csv"):
        with path.open(newline="") as file:
            for cells in csv.reader(file):
                assert not any(cell.startswith(("=", "+", "@")) for cell in cells)
    assert export.main([*given, "--out", str(tmp_path / "one"), "--format", "json", "--title", NASTY[0]]) == 0
    # The page: every id is text, and nothing that is not the page's own runs.
    assert report.main([*given, "--out", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "<script>alert(1)" not in page
    assert not re.search(r"<img src=x|<b>\s*=", page)
    assert html.escape("<script>alert(1)</script>") in page or "\\u003cscript" in page


def test_five_hundred_mutations(place, spark, tmp_path):
    """Valid files of every container, mutated: one title each at the end, nothing crashes, nothing is lost."""
    count = int(os.environ.get("AUSCULT_MUTATIONS", "500"))
    maker = Maker(tmp_path / "unused")
    sources = {suffix: path.read_bytes() for suffix, path in maker.sources.items()}
    assert set(sources) == set(SUFFIXES)
    folder = tmp_path / "catalogue"
    folder.mkdir()
    names = set()
    for name, data in mutations(sources, count, seed=6):
        (folder / name).write_bytes(data)
        names.add(name)
    write(folder / "neighbour.wav", maker.music)
    assert run(place, folder, tmp_path / "warehouse") == 0
    rows = rows_by_title(spark, tmp_path / "warehouse")
    assert set(rows) == names | {"neighbour.wav"}
    keys = [(row.title_id, row.track) for found in rows.values() for row in found]
    assert len(keys) == len(set(keys))
    assert rows["neighbour.wav"][0].status == "ok"
    states = defaultdict(int)
    for found in rows.values():
        states[found[0].status] += 1
    accidents = [key for key in keys if any(row.error_code in ("crashed", "timeout") for row in rows[key[0]])]
    print(f"figure: {count} mutations: {dict(states)}, {len(accidents)} decoders died")
    assert not accidents
