"""Verdicts and what they say of precision: the paper's arithmetic, inheritance by content, reviewers, queue."""

import csv
import json
import os
import shutil
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql.types import DecimalType
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from jobs import export, operating_points, review, sql, tables
from jobs.analyses import analysis, sought
from jobs.launch import PROJECT, AuscultError
from jobs.storage import Storage
from udfs.schemas import DETECTIONS, REVIEWS, SCANS, TRACKS

# PADAM's review of 135 detections in 17 thousand titles (spec 004): verdict, cause, count.
PADAM = [
    *[("genuine", cause, count) for cause, count in zip(["distortion", "clipping", "noise", "other"], [15, 9, 7, 4], strict=True)],
    *[
        ("creative_intent", cause, count)
        for cause, count in zip(["environmental", "rain", "tone_buzz", "channel", "other"], [37, 27, 9, 7, 12], strict=True)
    ],
    ("false_positive", "other", 8),
]  # fmt: skip
AT = datetime(2026, 3, 1, tzinfo=UTC)


def detection(title, defect="hiss", start_s=0.0, end_s=30.0, version="1", content=None, score=0.95):
    values = {
        "title_id": title, "content_hash": content or f"content of {title}", "track": 0, "defect": defect,
        "start_s": start_s, "end_s": end_s, "detected_s": end_s - start_s, "peak_score": score, "channels": ["FL"],
        "model": "m", "model_version": version, "threshold": 0.9, "min_detected_s": 20.0, "window_s": 80.0, "scan_id": "s",
    }  # fmt: skip
    return tuple(values[name] for name in DETECTIONS.names)


def track(title, content=None, codec="flac", scored_with=("m/1",), **own):
    values = {
        "title_id": title, "uri": f"file:///{title}", "content_hash": content or f"content of {title}", "track": 0,
        "codec": codec, "container": "flac", "language": "en", "duration_s": 3600.0, "decoded_s": 3600.0, "status": "ok",
        "scored_with": list(scored_with), "scan_id": "s",
    }  # fmt: skip
    return tuple(values.get(name) for name in TRACKS.names)


@pytest.fixture(scope="module")
def empty(spark, tmp_path_factory):
    """Empty tables: making them takes seconds, copying them none."""
    folder = tmp_path_factory.mktemp("empty")
    tables.prepare(spark, Storage(spark, str(folder)))
    return folder


@pytest.fixture
def warehouse(spark, tmp_path, empty):
    shutil.copytree(empty, tmp_path / "w")
    storage = Storage(spark, str(tmp_path / "w"))

    def fill(detections, tracks=()):
        for name, rows, schema in [("detections", detections, DETECTIONS), ("tracks", tracks, TRACKS)]:
            if rows:
                spark.createDataFrame(list(rows), schema).write.format("delta").mode("append").save(
                    storage.locate(name)
                )
        return storage

    return fill


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def verdict(title, verdict="genuine", **more):
    return {
        "title_id": title, "track": 0, "defect": "hiss", "start_s": 0.0, "end_s": 30.0, "verdict": verdict, "cause": "",
        "reviewer": "ana", "note": "", "reviewed_at": AT.isoformat(), **more,
    }  # fmt: skip


def take(storage, path, *options):
    return review.main(["import", str(path), "--warehouse", storage.root, *options])


def rows_of(spark, storage, name):
    sources = {table: tables.read(spark, storage, table) for table in ("detections", "reviews", "tracks")}
    return [row.asDict() for row in analysis(spark, sources, name).collect()]


@pytest.fixture
def analyse(spark, tmp_path):
    """The analyses over rows that lie in memory."""

    def rows(name, detections, tracks, verdicts=(), scans=None, **given):
        reviews = []
        if verdicts:
            causes = review.vocabulary(PROJECT / "conf" / "verdicts.yaml")
            reviews = review.read_verdicts(write_csv(tmp_path / "v.csv", list(verdicts)), causes, None)
            for review_ in reviews:
                review_["content_hash"] = f"content of {review_['title_id']}"
        sources = {
            "detections": spark.createDataFrame(detections, DETECTIONS),
            "tracks": spark.createDataFrame(tracks, TRACKS),
            "reviews": spark.createDataFrame([tuple(row[n] for n in REVIEWS.names) for row in reviews], REVIEWS),
        }
        if scans is not None:
            sources["sought"] = sought(spark.createDataFrame(scans, SCANS))
        found = analysis(spark, sources, name, **given)
        # Figures are read by other tools too, for which a decimal is no number to reckon with.
        assert not [field.name for field in found.schema if isinstance(field.dataType, DecimalType)]
        return [row.asDict() for row in found.collect()]

    return rows


def test_verdicts_from_a_spreadsheet_with_decimal_commas(tmp_path):
    path = tmp_path / "v.csv"
    text = (
        '\ufefftitle_id;track;defect;start_s;end_s;verdict;note\r\nfilm;1;hum;12,5;40;genuine;"low, steady\r\nhum"\r\n'
    )
    path.write_text(text, encoding="utf-8", newline="")
    causes = review.vocabulary(PROJECT / "conf" / "verdicts.yaml")
    [row] = review.read_verdicts(path, causes, "ana")
    assert (row["start_s"], row["end_s"], row["note"]) == (12.5, 40.0, "low, steady\r\nhum")
    path.write_text(text.replace("40", "9").replace("film", "film\r\n;;;;;;\r\nfilm"), encoding="utf-8", newline="")
    with pytest.raises(AuscultError, match="line 5: expected 0 <= start_s"):
        review.read_verdicts(path, causes, "ana")


def test_the_papers_arithmetic(spark, warehouse, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(spark, "stop", lambda: None)
    said = [(verdict, cause) for verdict, cause, count in PADAM for _ in range(count)]
    titles = [f"t{number:03d}" for number in range(len(said))]
    assert len(titles) == 135
    storage = warehouse([detection(title) for title in titles], [track(title, codec="aac") for title in titles])
    path = write_csv(tmp_path / "v.csv", [verdict(t, v, cause=c) for t, (v, c) in zip(titles, said, strict=True)])
    assert take(storage, path) == 0
    assert take(storage, path) == 0  # again: nothing is added
    assert "0 verdicts taken in, 135 were there before" in capsys.readouterr().out
    shares = rows_of(spark, storage, "precision")
    [found] = [row for row in shares if row["facet"] == "all" and row["defect"] == "hiss"]
    assert (found["genuine"], found["creative_intent"], found["false_positive"]) == (35, 92, 8)
    assert f"{found['genuine_precision']:.1%}" == "25.9%"
    assert f"{found['valid_precision']:.1%}" == "94.1%"
    expected = binomtest(35, 135).proportion_ci(method="wilson")
    assert (found["genuine_low"], found["genuine_high"]) == pytest.approx((expected.low, expected.high))
    by_codec = [row for row in shares if row["facet"] == "codec" and row["defect"] is None]
    assert [(row["facet_value"], row["decided"]) for row in by_codec] == [("aac", 135)]

    # The same query in DuckDB, over the same tables.
    duck = duckdb.connect()
    for name in ("detections", "reviews"):
        duck.register(name, DeltaTable(storage.locate(name)).to_pyarrow_dataset())
    duck.sql(f"CREATE VIEW matched AS {sql.text('matched').format(detections='detections', reviews='reviews')}")
    duck.sql(f"CREATE VIEW verdicts AS {sql.text('verdicts').format(matched='matched')}")
    duck.sql("CREATE VIEW faceted AS SELECT *, 'all' AS facet, 'all' AS facet_value FROM verdicts")
    duck.sql(f"CREATE VIEW shares_by_defect AS {sql.text('precision').format(faceted='faceted')}")
    [theirs] = duck.sql("SELECT * FROM shares_by_defect WHERE defect = 'hiss'").to_arrow_table().to_pylist()
    assert theirs == pytest.approx(found)
    assert not duck.sql(sql.text("review_queue").format(verdicts="verdicts", precision="shares_by_defect")).fetchall()


def test_a_verdict_belongs_to_content_and_time(analyse):
    given = (
        [
            detection("film.mkv"),
            detection("renamed.mkv", content="content of film.mkv"),
            detection("film.mkv", version="2", start_s=10.0, end_s=45.0),  # a newer model, other borders
            detection("film.mkv", start_s=100.0, end_s=130.0),  # another place
            detection("film.mkv", defect="hum"),  # another defect
            detection("recut.mkv"),  # other content
        ],
        [track("film.mkv"), track("renamed.mkv", content="content of film.mkv"), track("recut.mkv")],
        [verdict("film.mkv", "creative_intent", cause="rain")],
    )
    found = analyse("verdicts", *given)
    inherited = {
        (row["title_id"], row["model_version"], row["defect"], row["start_s"])
        for row in found
        if row["verdict"] == "creative_intent"
    }
    assert inherited == {
        ("film.mkv", "1", "hiss", 0.0),
        ("renamed.mkv", "1", "hiss", 0.0),
        ("film.mkv", "2", "hiss", 10.0),
    }
    queue = analyse("review_queue", *given)
    assert {(row["title_id"], row["defect"], row["start_s"]) for row in queue} == {
        ("film.mkv", "hiss", 100.0),
        ("film.mkv", "hum", 0.0),
        ("recut.mkv", "hiss", 0.0),
    }
    assert queue[0]["defect"] == "hum"  # of which nothing is known yet


def test_the_latest_verdict_counts_and_history_stays(spark, warehouse, tmp_path, monkeypatch):
    monkeypatch.setattr(spark, "stop", lambda: None)
    storage = warehouse([detection("a")], [track("a")])
    later = verdict("a", "false_positive", reviewer="ben", reviewed_at="2026-03-02T10:00:00+00:00")
    assert take(storage, write_csv(tmp_path / "v.csv", [later, verdict("a", "genuine")])) == 0
    [row] = rows_of(spark, storage, "verdicts")
    assert (row["verdict"], row["reviewer"]) == ("false_positive", "ben")
    # Appended from outside Spark, as any tool may.
    one = dict.fromkeys(REVIEWS.names) | {
        "content_hash": "content of a", "defect": "hiss", "start_s": 1.0, "end_s": 2.0, "verdict": "unsure", "reviewer": "cy",
        "reviewed_at": datetime(2026, 3, 3, tzinfo=UTC), "track": 0,
    }  # fmt: skip
    schema = pa.schema(DeltaTable(storage.locate("reviews")).schema().to_arrow())
    write_deltalake(storage.locate("reviews"), pa.Table.from_pylist([one], schema=schema), mode="append")
    spark.catalog.clearCache()
    [row] = rows_of(spark, storage, "verdicts")
    assert (row["verdict"], row["reviewer"]) == ("unsure", "cy")
    assert len(rows_of(spark, storage, "review_queue")) == 1
    assert len(DeltaTable(storage.locate("reviews")).to_pyarrow_table()) == 3


def test_agreement_is_cohens_kappa(analyse):
    rng = np.random.default_rng(3)
    said = rng.choice(["genuine", "creative_intent", "false_positive"], (40, 2), p=[0.3, 0.5, 0.2])
    said[:25, 1] = said[:25, 0]
    titles = [f"t{number}" for number in range(40)]
    rows = [
        verdict(title, word, reviewer=who)
        for title, pair in zip(titles, said, strict=True)
        for who, word in zip(["ana", "ben"], pair, strict=True)
    ]
    [found] = analyse("agreement", [detection(title) for title in titles], [track(title) for title in titles], rows)
    assert (found["reviewer"], found["other_reviewer"], found["detections"]) == ("ana", "ben", 40)
    assert found["kappa"] == pytest.approx(cohen_kappa_score(said[:, 0], said[:, 1]))


def test_versions_and_rates(analyse):
    both = ("m/1", "m/2")
    given = (
        [
            detection("a"),
            detection("a", version="2", start_s=20.0, end_s=50.0),
            detection("b"),
            detection("b", version="2", start_s=200.0, end_s=230.0),
            detection("c"),  # not scored by version 2
        ],
        [track("a", scored_with=both), track("b", scored_with=both), track("c")],
    )
    found = analyse("versions", *given, model="m", old_version="1", new_version="2")
    assert [(row["difference"], row["title_id"]) for row in found] == [("gained", "b"), ("kept", "a"), ("lost", "b")]
    rates = {row["model_version"]: row for row in analyse("rates", *given)}
    assert (rates["1"]["detections_per_100_h"], rates["2"]["detections_per_100_h"]) == (100.0, 100.0)
    assert (rates["1"]["audio_h"], rates["2"]["audio_h"]) == (3.0, 2.0)


def test_tables_that_were_only_named_in_a_sql_shell_are_not_there(spark, tmp_path, monkeypatch):
    """`spark-sql` names a warehouse's tables before the first scan, which makes them without columns."""
    monkeypatch.setattr(spark, "stop", lambda: None)
    for name in ("detections", "tracks", "reviews", "operating_points"):
        spark.sql(f"CREATE TABLE named_{name} USING delta LOCATION '{tmp_path}/{name}'")
        spark.sql(f"DROP TABLE named_{name}")
    for job, options in ((review, ["queue"]), (export, ["--out", str(tmp_path / "out"), "--format", "csv"])):
        with pytest.raises(AuscultError, match="there is no table detections; scan first"):
            job.main([*options, "--warehouse", str(tmp_path)])
    storage = Storage(spark, str(tmp_path))
    assert not storage.has_table("reviews")
    with pytest.raises(AuscultError, match="it has no operating points yet"):
        operating_points.from_table(spark, storage, "latest", {})
    tables.prepare(spark, storage)
    assert tables.read_reviews(spark, storage).columns == REVIEWS.names
    assert storage.has_table("detections")


def test_numbers_keep_their_digits(spark, warehouse, tmp_path, monkeypatch):
    monkeypatch.setattr(spark, "stop", lambda: None)
    storage = warehouse([detection("a", start_s=12_345.678, end_s=12_400.0, score=0.99999)], [track("a")])
    out = tmp_path / "todo.csv"
    assert review.main(["queue", "--warehouse", storage.root, "--out", str(out)]) == 0
    with out.open(newline="") as file:
        [line] = csv.DictReader(file)
    assert (line["start_s"], line["peak_score"]) == ("12345.678", "0.99999")


def test_a_filled_in_queue_comes_back(spark, warehouse, tmp_path, monkeypatch):
    monkeypatch.setattr(spark, "stop", lambda: None)
    title = '=HYPERLINK("a "quoted", title\nof two lines")'
    storage = warehouse([detection(title), detection("b")], [track(title), track("b")])
    out = tmp_path / "todo.csv"
    assert review.main(["queue", "--warehouse", storage.root, "--out", str(out)]) == 0
    with out.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["title_id"] for line in lines} == {f"'{title}", "b"}  # text, for a spreadsheet
    version = f"{lines[0]['model']}/{lines[0]['model_version']}"
    assert (
        review.main(["queue", "--warehouse", storage.root, "--out", str(tmp_path / "same.csv"), "--model", version])
        == 0
    )
    assert (tmp_path / "same.csv").read_text() == out.read_text()
    with pytest.raises(AuscultError, match=f"--model m/none: nothing was scored with it; known there are .*{version}"):
        review.main(["queue", "--warehouse", storage.root, "--model", "m/none"])
    assert {line["uri"] for line in lines} == {f"file:///{title}", "file:///b"}  # what to open
    for line in lines:
        line["verdict"] = "" if line["title_id"] == "b" else "genuine"
    assert take(storage, write_csv(out, lines), "--reviewer", "dee") == 0
    decided = {row["title_id"]: (row["verdict"], row["reviewer"]) for row in rows_of(spark, storage, "verdicts")}
    assert decided == {title: ("genuine", "dee"), "b": (None, None)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "bad"}, "line 2: verdict: expected one of genuine"),
        ({"cause": "rain"}, "line 2: cause of genuine: expected one of distortion"),
        ({"start_s": 40.0}, "line 2: expected 0 <= start_s < end_s, found 40 and 30"),
        ({"reviewer": ""}, "line 2: reviewer: expected a name"),
        ({"start_s": "soon"}, "line 2: could not convert"),
        ({"start_s": -1.0}, "line 2: expected 0 <= start_s < end_s, found -1 and 30"),
        ({"end_s": ""}, "line 2: expected 0 <= start_s < end_s, found 0 and nan"),
        ({"end_s": "inf"}, "line 2: end_s: expected seconds from the title's zero, found inf"),
        ({"track": -1}, "line 2: track: expected a number of an audio track, from 0, found '-1'"),
        ({"track": 0.5}, "line 2: track: expected a number"),
        ({"title_id": ""}, "line 2: expected a content_hash, or title_id and track"),
        ({"reviewed_at": "01.03.2026"}, "line 2: reviewed_at: expected a time such as"),
        ({"reviewed_at": "0001-01-01T00:00+14:00"}, "line 2: reviewed_at: expected a time such as"),
        (
            {"reviewed_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()},
            "line 2: reviewed_at: expected a time that has passed",
        ),
    ],
)
def test_what_is_wrong_with_a_verdict_is_told_with_its_line(tmp_path, change, message):
    causes = review.vocabulary(PROJECT / "conf" / "verdicts.yaml")
    path = write_csv(tmp_path / "v.csv", [{**verdict("a"), **change}])
    with pytest.raises(AuscultError, match=message):
        review.read_verdicts(path, causes, None)


def test_what_else_is_wrong_is_told(spark, warehouse, tmp_path, monkeypatch):
    monkeypatch.setattr(spark, "stop", lambda: None)
    causes = review.vocabulary(PROJECT / "conf" / "verdicts.yaml")
    short = write_csv(tmp_path / "short.csv", [{"defect": "hum", "start_s": 1}])
    with pytest.raises(AuscultError, match="end_s, verdict not there"):
        review.read_verdicts(short, causes, None)
    (tmp_path / "words.yaml").write_text("genuine: [a]")
    with pytest.raises(AuscultError, match="expected the verdicts"):
        review.vocabulary(tmp_path / "words.yaml")
    storage = warehouse([detection("a")], [track("a")])
    with pytest.raises(AuscultError, match="title 'b', track 0: not in the table tracks"):
        take(storage, write_csv(tmp_path / "v.csv", [verdict("a"), verdict("b")]))
    assert not rows_of(spark, storage, "verdicts")[0]["verdict"]  # all or nothing
    with pytest.raises(AuscultError, match="scan first"):
        review.main(["precision", "--warehouse", str(tmp_path / "none")])
    with pytest.raises(AuscultError, match=r"--out .*there is no folder .*; make it first"):
        review.main(["queue", "--warehouse", storage.root, "--out", str(tmp_path / "nowhere" / "todo.csv")])
    with pytest.raises(SystemExit):
        review.main(["queue", "--warehouse", storage.root, "--limit", "0"])


def test_a_clock_that_is_a_little_ahead_is_no_error(tmp_path):
    causes = review.vocabulary(PROJECT / "conf" / "verdicts.yaml")
    soon = datetime.now(UTC) + timedelta(minutes=2)
    path = write_csv(tmp_path / "v.csv", [verdict("a", reviewed_at=soon.isoformat()), verdict("b", reviewed_at="")])
    os.utime(path, (2e9, 2e9))  # years ahead
    ours, files = review.read_verdicts(path, causes, None)
    assert ours["reviewed_at"] == soon
    assert files["reviewed_at"] <= datetime.now(UTC)


@pytest.mark.parametrize("when", [AT.isoformat(), ""])
def test_two_verdicts_of_one_reviewer_at_one_time_are_refused(tmp_path, when):
    causes = review.vocabulary(PROJECT / "conf" / "verdicts.yaml")
    first = verdict("a", reviewed_at=when)

    def read(*others):
        return review.read_verdicts(write_csv(tmp_path / "v.csv", [first, verdict("b"), *others]), causes, None)

    for change in ({"verdict": "false_positive"}, {"cause": "noise"}):
        with pytest.raises(
            AuscultError, match=r"lines [24] and 5: ana says genuine .* of hiss at 0 to 30 s, both at 20"
        ):
            read({**first, "cause": "hum"}, {**first, **change})
    others = [
        {**first}, {**first, "note": "left"}, {**first, "cause": "hum"}, {**first, "verdict": "unsure", "reviewer": "ben"},
        {**first, "verdict": "unsure", "end_s": 31.0}, {**first, "verdict": "unsure", "reviewed_at": "2026-03-02"},
    ]  # fmt: skip
    assert len(read(*others)) == 8


def test_contradictions_that_only_the_tables_show(spark, warehouse, tmp_path, monkeypatch):
    """One line names the content, the other the title; or one is in the file and the other stored."""
    monkeypatch.setattr(spark, "stop", lambda: None)
    storage = warehouse([detection("a")], [track("a")])
    path = tmp_path / "v.csv"
    lines = [{**verdict("a"), "content_hash": ""}, {**verdict("", "unsure", track=""), "content_hash": "content of a"}]
    with pytest.raises(AuscultError, match=r"lines 2 and 3: ana says genuine and unsure"):
        take(storage, write_csv(path, lines))
    assert not rows_of(spark, storage, "verdicts")[0]["verdict"]
    assert take(storage, write_csv(path, lines[:1])) == 0
    with pytest.raises(AuscultError, match=r"line 2: ana says unsure .* genuine is stored as said at that very time"):
        take(storage, write_csv(path, lines[1:]))
    assert take(storage, write_csv(path, [{**lines[1], "reviewed_at": "2026-03-01T00:00:01"}])) == 0
    assert rows_of(spark, storage, "verdicts")[0]["verdict"] == "unsure"


def test_a_file_that_is_kept_undoes_no_correction(spark, warehouse, tmp_path, monkeypatch, capsys, caplog):
    """The reviewer's working list, brought in daily: its lines are said once, not at each writing of the file."""
    monkeypatch.setattr(spark, "stop", lambda: None)
    storage = warehouse([detection(title) for title in "abc"], [track(title) for title in "abc"])
    path = tmp_path / "list.csv"

    def bring_in(*lines, day):
        write_csv(path, list(lines))
        at = datetime(2026, 3, day, tzinfo=UTC).timestamp()
        os.utime(path, (at, at))
        assert take(storage, path) == 0
        said = capsys.readouterr().out
        return said, {row["title_id"]: (row["verdict"], row["note"]) for row in rows_of(spark, storage, "verdicts")}

    a, b = (verdict(title, reviewed_at="") for title in "ab")
    said, found = bring_in(a, b, day=2)
    assert "2 verdicts taken in, 0 were there before" in said
    # The page's file, or a colleague's script: she has changed her mind on one of them.
    page = write_csv(tmp_path / "page.csv", [verdict("a", "false_positive", reviewed_at="2026-03-03T10:00:00Z")])
    assert take(storage, page) == 0
    capsys.readouterr()
    noted = {**a, "note": "heard again"}
    for first in (a, noted):
        caplog.clear()
        said, found = bring_in(first, b, verdict("c", "unsure", reviewed_at=""), day=4)
        assert found == {"a": ("false_positive", None), "b": ("genuine", None), "c": ("unsure", None)}
        assert "line 2: ana said genuine before and has said false_positive since, which stays" in caplog.text
    assert "0 verdicts taken in, 3 were there before" in said
    # What the line says anew counts, and so does what it says with a time.
    said, found = bring_in({**a, "verdict": "creative_intent"}, {**b, "note": "low"}, day=5)
    assert "2 verdicts taken in, 0 were there before" in said
    assert (found["a"], found["b"]) == (("creative_intent", None), ("genuine", "low"))
    said, found = bring_in({**a, "reviewed_at": "2026-03-06"}, day=6)
    assert found["a"] == ("genuine", None)


def test_verdicts_about_no_detection_are_told(spark, warehouse, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(spark, "stop", lambda: None)
    storage = warehouse([detection("a"), detection("b")], [track("a"), track("b")])
    lines = [
        verdict("a"),
        verdict("b", start_s=30.0, end_s=40.0),  # touches, and shares nothing
        verdict("b", defect="Hiss"),
        {**verdict("b", start_s=29.0, end_s=40.0)},
    ]
    assert take(storage, write_csv(tmp_path / "v.csv", lines)) == 0
    said = capsys.readouterr().out
    assert "4 verdicts taken in" in said
    assert "2 of the 4 match no detection (lines 3, 4)" in said
    assert take(storage, write_csv(tmp_path / "v.csv", lines[:1])) == 0
    assert "match no detection" not in capsys.readouterr().out


def test_copies_of_a_title_count_once(analyse):
    """The same content in three titles, one of them twice: one verdict is one observation."""
    titles = ["film.mkv", "copy.mkv", "other.mkv"]
    found = [detection(title, content="content of film.mkv") for title in titles]
    second = list(found[0])
    second[DETECTIONS.names.index("track")] = 1
    given = (
        [*found, tuple(second), detection("film.mkv", start_s=60.0, end_s=90.0), detection("copy.mkv", start_s=60.0, end_s=90.0, content="content of film.mkv")],
        [track(title, content="content of film.mkv", codec="aac" if title == "other.mkv" else "flac") for title in titles],
    )  # fmt: skip
    said = [verdict("film.mkv"), verdict("film.mkv", "unsure", reviewer="ben", reviewed_at="2026-02-01")]
    shares = analyse("precision", *given, said)
    counted = {(row["facet_value"], row["defect"]): (row["detections"], row["decided"]) for row in shares if row["facet"] in ("all", "codec")}  # fmt: skip
    assert counted == {
        ("all", "hiss"): (2, 1), ("all", None): (2, 1), ("flac", "hiss"): (2, 1), ("flac", None): (2, 1),
        ("aac", "hiss"): (1, 1), ("aac", None): (1, 1),
    }  # fmt: skip
    queue = analyse("review_queue", *given, said)
    assert [(row["title_id"], row["start_s"]) for row in queue] == [("copy.mkv", 60.0)]
    agreed = analyse("agreement", *given, [*said, verdict("film.mkv", reviewer="ben")])
    assert [row["detections"] for row in agreed] == [1]


def test_what_was_looked_for_and_not_found_has_its_rate(analyse):
    applied = [
        {"model": "m", "model_version": version, "defect": defect, "threshold": 0.9}
        for version, defect in (("1", "hiss"), ("1", "hum"), ("2", "hum"), ("9", "hum"))
    ]
    scans = [
        tuple({"scan_id": name, "settings": settings}.get(column) for column in SCANS.names)
        for name, settings in (("s", json.dumps({"applied_points": applied})), ("old", "{}"), ("none", None))
    ]
    given = (
        [detection("a"), detection("a", start_s=60.0, end_s=90.0)],
        [track("a", scored_with=("m/1", "m/2")), track("b", codec="aac"), track("c", codec=None, scored_with=())],
    )

    def rates(**more):
        names = ("model_version", "defect", "facet_value", "detections", "titles_with_detections", "titles", "detections_per_100_h")  # fmt: skip
        return [tuple(row[name] for name in names) for row in analyse("rates", *given, scans=scans, **more)]

    assert rates() == [
        ("1", "hiss", "all", 2, 1, 2, 100.0), ("1", "hum", "all", 0, 0, 2, 0.0), ("2", "hum", "all", 0, 0, 1, 0.0),
    ]  # fmt: skip
    assert rates(facet="codec") == [
        ("1", "hiss", "aac", 0, 0, 1, 0.0), ("1", "hiss", "flac", 2, 1, 1, 200.0), ("1", "hum", "aac", 0, 0, 1, 0.0),
        ("1", "hum", "flac", 0, 0, 1, 0.0), ("2", "hum", "flac", 0, 0, 1, 0.0),
    ]  # fmt: skip


def test_names_that_nothing_has_are_refused(spark, warehouse, tmp_path, monkeypatch, capsys):
    """A typing error should not look like a catalogue without defects."""
    monkeypatch.setattr(spark, "stop", lambda: None)
    storage = warehouse([detection("a")], [track("a", scored_with=("m/1", "m/2")), track("b", scored_with=("m/3",))])

    def ask(*options):
        return review.main([*options, "--warehouse", storage.root])

    with pytest.raises(AuscultError, match=r"model M/1 and M/2: nothing in .*; known there as .*: m/1, m/2, m/3$"):
        ask("compare", "--model", "M", "--old", "1", "--new", "2")
    with pytest.raises(AuscultError, match=r"model m/4: nothing in"):
        ask("compare", "--model", "m", "--old", "1", "--new", "4")
    with pytest.raises(AuscultError, match=r"no track in .* that both have scored"):
        ask("compare", "--model", "m", "--old", "1", "--new", "3")
    with pytest.raises(AuscultError, match="expected two versions"):
        ask("compare", "--model", "m", "--old", "1", "--new", "1")
    with pytest.raises(AuscultError, match="--by Codec: no track has a value of it; known are all, codec, container"):
        ask("rates", "--by", "Codec")
    assert ask("rates", "--by", "codec") == 0
    assert "m,1,hiss,codec,flac,1,1,1,1,100" in capsys.readouterr().out
