import json
import os
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import catalogue_folder, catalogue_rows
from jobs.catalogue import read_catalogue
from jobs.launch import AuscultError
from jobs.settings import ScanSettings

ROWS = [
    {"title_id": "1", "uri": "a.wav", "genre": "news", "year": 1999},
    {"title_id": "2", "uri": "/abs/b #1?.wav", "genre": None, "year": None},
    {"title_id": "3", "uri": "file:///abs/c%20d.wav", "genre": "x", "year": 2001},
]


def read(location, spark=None):
    return read_catalogue(spark, str(location))


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "parquet", "delta"])
def test_tables_in_every_form_say_the_same(tmp_path, suffix, request):
    path = tmp_path / f"list.{suffix}"
    base, spark = tmp_path, None
    if suffix in ("csv", "tsv"):
        mark = {"csv": ",", "tsv": "\t"}[suffix]
        lines = [mark.join("" if value is None else str(value) for value in row.values()) for row in ROWS]
        path.write_text("\n".join([mark.join(ROWS[0]), *lines]))
    elif suffix == "json":
        path.write_text(json.dumps(ROWS))
    elif suffix == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS))
    elif suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        spark = request.getfixturevalue("spark")
        spark.createDataFrame(ROWS).coalesce(1).write.format("delta").save(str(path))
        base = path
    titles = {title.title_id: title for title in read(path, spark).titles}
    assert titles["1"].path == f"{base}/a.wav"
    assert titles["2"].path == "/abs/b%20%231%3F.wav"
    assert titles["3"].path == "/abs/c%20d.wav"
    assert titles["1"].columns["genre"] == "news"
    assert str(titles["1"].columns["year"]).startswith("1999")
    assert titles["2"].columns["genre"] is None


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_csv_as_a_spreadsheet_saves_it(tmp_path, separator, end):
    rows = [["uri", "title_id", '"a; b, c"'], [f'"Hits{separator} the.wav"', "1", "é"], ["b.wav", "2", '"two\nlines"']]
    text = "\ufeff" + end.join(separator.join(row) for row in rows) + 2 * separator + end
    (tmp_path / "x.csv").write_text(text, encoding="utf-8", newline="")
    first, second = read(tmp_path / "x.csv").titles
    assert (
        first.uri == f"file://{tmp_path}/" + {",": "Hits%2C", ";": "Hits%3B", "\t": "Hits%09"}[separator] + "%20the.wav"
    )
    assert first.columns == {"a; b, c": "é"}
    assert second.columns == {"a; b, c": "two\nlines"}


def test_the_only_column_of_a_tsv_may_hold_commas(tmp_path):
    (tmp_path / "x.tsv").write_text("uri\nHits, the.wav\n")
    [title] = read(tmp_path / "x.tsv").titles
    assert title.uri == f"file://{tmp_path}/Hits%2C%20the.wav"


def test_spark_reads_a_csv_of_elsewhere_as_it_is_read_here(tmp_path, spark):
    for separator in (",", ";", "\t"):
        path = tmp_path / "x.csv"
        path.write_text(f'uri{separator}title_id\n"Hits{separator} ""the"".wav"{separator}1\n')
        assert catalogue_rows._read_with_spark(spark, str(path), ".csv") == catalogue_rows._read_file(str(path))


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_spark_reads_json_of_elsewhere_as_it_is_read_here(tmp_path, spark, suffix):
    """An array over several lines too, and a line separator that JSON allows inside a text."""
    rows = [{"uri": "a\u2028b.wav", "title_id": "1"}, {"uri": "c.wav", "title_id": "2", "year": 1999}]
    path = tmp_path / f"x.{suffix}"
    path.write_text(
        json.dumps(rows, ensure_ascii=False, indent=1)
        if suffix == "json"
        else "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    )
    assert (
        catalogue_rows._read_with_spark(spark, str(path), f".{suffix}") == catalogue_rows._read_file(str(path)) == rows
    )


@pytest.mark.parametrize("form", ["parquet", "csv", "json"])
def test_a_table_that_spark_wrote_as_a_folder(tmp_path, spark, form):
    for name in (f"list.{form}", "list", f"list [1]{{a}}.{form}"):
        path = tmp_path / name
        frame = spark.createDataFrame([(1, "a.wav"), (2, "b.wav")], "title_id int, uri string")
        frame.write.option("header", True).format(form).save(str(path))
        titles = {title.title_id: title.path for title in read(path, spark).titles}
        base = tmp_path if "." in name else path
        assert titles == {"1": f"{base}/a.wav", "2": f"{base}/b.wav"}


def test_a_table_as_people_type_it(tmp_path):
    (tmp_path / "x.csv").write_text("URI,Title_ID,Genre\n,,\nFILE:///a/b%20c.wav,1,news\n,,\nd.wav,,\n")
    first, second = read(tmp_path / "x.csv").titles
    assert (first.uri, first.title_id, first.columns) == ("file:///a/b%20c.wav", "1", {"Genre": "news"})
    assert (second.title_id, second.path) == ("d.wav", f"{tmp_path}/d.wav")
    (tmp_path / "x.json").write_text('[{"uri": "a\\u0000.wav"}]')
    with pytest.raises(AuscultError, match=r"row 1 has uri 'a\\x00.wav', which holds a NUL"):
        read(tmp_path / "x.json")


def test_tables_inside_a_catalogue_folder_are_no_titles(tmp_path):
    for folder in ("warehouse/scans/_delta_log", "warehouse/segments/_delta_log", "warehouse/_staging/1/1/rows",
                   "other/_delta_log", "films"):  # fmt: skip
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "part-0.parquet").write_text("x")
    (tmp_path / "warehouse" / "_staging" / "1" / "lease").write_text("x")
    (tmp_path / "films" / "ASSETMAP").write_text("x")
    (tmp_path / "films" / "a.wav").write_text("x")
    found = read(tmp_path)
    assert [title.title_id for title in found.titles] == ["films/a.wav", "films/part-0.parquet"]
    assert found.ignored == {catalogue_folder.DELTA_TABLES: 5, "assetmap": 1}
    keys = [os.path.relpath(os.path.join(top, name), tmp_path) for top, _, names in os.walk(tmp_path) for name in names]
    ignored: Counter = Counter()
    assert sorted(catalogue_folder.sorted_out(keys, ScanSettings(), ignored)) == ["films/a.wav", "films/part-0.parquet"]
    assert ignored == found.ignored
    keys = [
        "radio_scans/_delta_log/0.json",
        "radio_scans/0.flac",
        "radio_1.wav",
        "my_delta_log/b.wav",
        "scans/_delta_log/0.json",
        "s.wav",
    ]
    assert list(catalogue_folder.sorted_out(keys, ScanSettings(), Counter())) == [
        "radio_1.wav",
        "my_delta_log/b.wav",
        "s.wav",
    ]


def test_names_that_look_like_an_encoded_one_stay_apart(tmp_path):
    for name in (b"\xff.wav", b"%FF.wav", b"100%.wav"):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb"):
            pass
    assert {title.title_id: title.path for title in read(tmp_path).titles} == {
        "%FF.wav": f"{tmp_path}/%FF.wav", "%25FF.wav": f"{tmp_path}/%25FF.wav", "100%.wav": f"{tmp_path}/100%25.wav",
    }  # fmt: skip


def test_a_folder_that_goes_while_it_is_listed(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.wav").write_text("x")
    scandir = os.scandir

    def goes(folder):
        if folder.endswith(b"/a"):
            os.rename(folder, os.fsencode(tmp_path.parent) + b"/moved")
        return scandir(folder)

    monkeypatch.setattr(catalogue_folder.os, "scandir", goes)
    assert [title.title_id for title in read(tmp_path).titles] == ["b/1.wav"]


def test_a_folder_loses_no_name(tmp_path):
    names = [
        b"plain.wav",
        b".hidden.wav",
        b"_x.wav",
        b"a:b.wav",
        b"caf\xe9.wav",
        b"new\nline.wav",
        "é 😀.wav".encode(),
        b"noext",
    ]
    for folder in (b"k=v", b"_dir", b".dir", b"deep/er"):
        os.makedirs(os.fsencode(tmp_path) + b"/" + folder)
    for folder in (b"", b"k=v/", b"_dir/", b".dir/", b"deep/er/"):
        for name in names:
            with open(os.fsencode(tmp_path) + b"/" + folder + name, "w"):
                pass
    (tmp_path / "cover.JPG").touch()
    (tmp_path / ".DS_Store").touch()
    os.symlink(tmp_path, tmp_path / "circle")
    found = read(tmp_path)
    assert len(found.titles) == 5 * len(names) + 1  # the link is listed, to be rejected with a reason
    assert len({title.title_id for title in found.titles}) == len(found.titles)
    assert sum(found.ignored.values()) == 2
    assert all(title.title_id.encode() for title in found.titles)


def test_what_systems_keep_beside_titles_is_no_title(tmp_path):
    """Waste bins and snapshots are not entered; Apple's files beside others are left out, those by themselves are not."""
    kept = [
        "film.mov",
        "._alone.mov",
        ".hidden.mov",
        "season 1/._x/a.mov",
        "season 1/a.mov",
        "trash/b.mov",
        "recycle/c.mov",
    ]
    left_out = ["._film.mov", "season 1/._a.mov"]
    not_entered = ["lost+found/x", "#Recycle/film.mov", "season 1/@eaDir/a.mov/INDEX", ".Trash-1000/files/film.mov"]
    not_entered += [".snapshot/hourly.0/film.mov", "System Volume Information/x", "$RECYCLE.BIN/S-1-5/film.mov"]
    for name in [*kept, *left_out, *not_entered]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = read(tmp_path)
    assert [title.title_id for title in found.titles] == sorted(kept)
    assert found.ignored["._*"] == 2
    assert found.ignored["@eaDir/"] == found.ignored["lost+found/"] == 1
    assert sum(found.ignored.values()) == len(left_out) + len(not_entered)
    everything = read_catalogue(None, str(tmp_path), ScanSettings(ignored_folders=()))
    assert len(everything.titles) == len(kept) + len(not_entered)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "name\na\n", "row 1 has no uri"),
        ("x.csv", "uri,title_id\na,1\nb,1\n", "listed twice"),
        ("x.csv", "uri,title_id\na.wav,1\nHits, the.wav,2\n", "line 3: expected 2 values as in the header, found 3"),
        ("x.csv", 'uri,title_id\n"a.wav"b,1\n', "line 2: ',' expected after"),
        ("x.csv", "uri\na.wav\nK\udce4fer.wav\n", "line 3: expected UTF-8, found the byte 0xe4; save it as"),
        ("x.json", "[1, 2]", "expected objects"),
        (
            "x.json",
            r'[{"uri": "a.wav"}, {"uri": "b.wav", "title_id": "b\ud83d"}]',
            r"row 2 has title_id .* half a surrogate",
        ),
        ("x.json", r'[{"uri": "caf\udce9.wav"}]', r"row 1 has uri .* as %XX"),
        ("x.json", "{", "cannot be read"),
        ("x.parquet", "nonsense", "cannot be read"),
        ("x.ods", "?", "expected a folder, a Delta table"),
    ],
)
def test_what_is_wrong_with_a_table(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(AuscultError, match=message):
        read(tmp_path / name)


def test_a_catalogue_that_is_not_there():
    with pytest.raises(AuscultError, match="there is no such file or folder"):
        read("/nowhere/at/all")
