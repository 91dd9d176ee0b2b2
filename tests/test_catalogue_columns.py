"""The catalogue's own columns: whatever they hold, and what they say later of files that did not change."""

import json
import os
import shutil
from datetime import UTC, datetime

import pytest
from level_catalogue import prepare, run, segment_rows, table
from pyspark.sql.types import BooleanType, DoubleType, LongType, StringType, StructField, StructType

from jobs import plan, tables
from jobs.catalogue import read_catalogue
from jobs.catalogue_columns import fitted, own_fields
from jobs.literals import literal_frame
from jobs.storage import Storage
from jobs.track_rows import merge_tracks

ODD = [
    None,
    True,
    False,
    0,
    -3,
    1 << 63,
    10**400,
    12.0,
    12.7,
    float("inf"),
    float("nan"),
    "",
    "12",
    "1e400",
    "unknown",
    "true",
]


@pytest.mark.parametrize("kind", [BooleanType(), LongType(), DoubleType(), StringType()])
def test_any_value_fits_any_column_or_is_null(spark, kind):
    schema = StructType([StructField("x", kind)])
    rows = [tuple(fitted({"X": value}, schema).values()) for value in ODD]
    stored = [row.x for row in literal_frame(spark, rows, schema).collect()]
    assert stored == [row[0] for row in rows]
    expected = {
        BooleanType(): [None, True, False, *[None] * 12, True],
        LongType(): [None, None, None, 0, -3, None, None, 12, None, None, None, None, 12, None, None, None],
        DoubleType(): [
            None, None, None, 0.0, -3.0, 2.0**63, None, 12.0, 12.7, float("inf"), None, None, 12.0, float("inf"), None, None,
        ],
    }.get(kind, [None if value is None or value != value else str(value) for value in ODD])  # fmt: skip
    assert stored == expected


def test_a_new_column_has_the_type_of_its_values():
    rows = [
        {"Year": 1999, "hd": True, "gain": 1, "big": 1 << 70, "mixed": 1},
        {"year": 2000, "gain": 0.5, "mixed": "a"},
    ]
    assert {field.name: field.dataType for field in own_fields(StructType(), rows)} == {
        "Year": LongType(), "hd": BooleanType(), "gain": DoubleType(), "big": StringType(), "mixed": StringType(),
    }  # fmt: skip


def track(title_id, **columns):
    title = plan.Title(title_id, f"file:///{title_id}", f"/{title_id}", 1, 0, columns)
    return plan._row(title, None) | {"scan_id": "s"}


def test_what_a_catalogue_says_differently_later_is_no_obstacle(spark, tmp_path):
    storage = Storage(spark, str(tmp_path / "w"))
    tables.prepare(spark, storage)
    merge_tracks(spark, storage, [track("a", hd=True, Genre="news", year=1999, score=1.5)], [])
    empty = spark.createDataFrame([], "seen_by array<string>")
    empty.write.format("delta").mode("append").option("mergeSchema", "true").save(storage.locate("tracks"))
    merge_tracks(spark, storage, [track("a", hd="unknown", genre="film", year=1 << 70, score="x", seen_by="me")], [])
    merge_tracks(spark, storage, [track("b", hd=False, GENRE="talk", year=True), track("c", genre="jazz", new=1)], [])
    rows = {row.title_id: row for row in table(spark, tmp_path, "tracks", "w").orderBy("title_id").collect()}
    assert [(row.hd, row.Genre, row.year, row.score) for row in rows.values()] == [
        (None, "film", None, None), (False, "talk", None, None), (None, "jazz", None, None),
    ]  # fmt: skip
    assert [row.new for row in rows.values()] == [None, None, 1]
    assert rows["a"].seen_by is None


def test_times_that_no_calendar_has_are_brought_into_it(tmp_path):
    for name, at in (("a", -(10**11)), ("b", 0), ("c", 10**11), ("d", 10**12)):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (at, at))
    years = [
        datetime.fromtimestamp(title.modified_ns / 1e9, UTC).year
        for title in read_catalogue(None, str(tmp_path)).titles
    ]
    assert years[1] == 1970
    assert all(1900 <= year <= 9900 for year in years)


@pytest.mark.slow
def test_columns_are_renewed_where_the_file_is_the_same(module_folder, spark, tmp_path, caplog):
    prepare(module_folder)
    shutil.copytree(module_folder / "catalogue" / "music", tmp_path / "cat")
    shutil.copy(module_folder / "settings.yaml", tmp_path / "settings.yaml")
    listed = tmp_path / "list.json"

    def scanned(*titles):
        rows = [{"title_id": name, "uri": f"cat/{uri}", **own} for (name, uri), own in zip(NAMES, titles, strict=True)]
        listed.write_text("\n".join(map(json.dumps, rows)))
        assert run(tmp_path, catalogue="list.json") == 0
        return {row.title_id: row.asDict() for row in table(spark, tmp_path, "tracks").orderBy("title_id").collect()}

    scanned({"genre": "news", "year": 1999, "gain": -1}, {"genre": "film", "year": None, "edition": 2})
    rows = scanned({"genre": "news", "year": 1999, "gain": -2}, {"genre": "film", "year": None, "edition": 2})
    assert [row["gain"] for row in rows.values()] == [-2, None]
    scanned({"genre": "news", "year": 1999}, {"genre": "film", "year": None})
    before, version = segment_rows(spark, tmp_path), table_version(spark, tmp_path)
    scanned({"genre": "news", "year": 1999}, {"genre": "film", "year": None})
    assert table_version(spark, tmp_path) == version  # nothing to write
    rows = scanned({"Genre": "talk", "year": 1999, "Original title": "É"}, {"Genre": "film", "year": 2001})
    assert [(row["genre"], row["year"], row["Original_title"]) for row in rows.values()] == [
        ("talk", 1999, "É"), ("film", 2001, None),
    ]  # fmt: skip
    assert {row["status"] for row in rows.values()} == {"ok"}
    [last] = table(spark, tmp_path, "scans").orderBy("started_at", ascending=False).limit(1).collect()
    assert (last.titles_done, last.titles_skipped) == (0, 2)
    assert "do not fit" not in caplog.text
    rows = scanned({"year": "unknown"}, {"year": "2001"})
    assert [row["year"] for row in rows.values()] == [None, 2001]
    assert (
        "catalogue column year: 1 values do not fit the column of the table tracks (bigint) and are NULL there, such as "
        "'unknown' of title 'one'" in caplog.text
    )
    scanned({"year": 1999}, {"year": 2001})
    rows = scanned({}, {})  # a catalogue that says nothing of them takes nothing away
    assert [(row["genre"], row["year"]) for row in rows.values()] == [("talk", 1999), ("film", 2001)]
    assert segment_rows(spark, tmp_path) == before


NAMES = (("one", "a b.flac"), ("two", "x=1/b.mp3"))


def table_version(spark, place):
    history = spark.sql(f"DESCRIBE HISTORY delta.`{place}/warehouse/tracks` LIMIT 1").collect()
    return history[0].version
