"""Catalogues and warehouses on object storage, against a local S3 server."""

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import toy_models
from signals import music_like, write

from jobs import planner, scan
from jobs.catalogue import read_catalogue
from jobs.launch import PROJECT, AuscultError
from jobs.storage import Storage, absolute
from udfs import remote
from udfs.decoder import Decoder, decode_path
from udfs.media import MediaError

NAMES = ["a b.flac", "x=1/100%25 + é 😀.mp3", "_odd/.hidden:1.opus", "q?z#1.flac"]
SECRETS = ("hunter2", "wJalrX/UtnFEMI")


@pytest.fixture(scope="module")
def s3():
    """A server with the bucket `media`, which this process takes for AWS meanwhile; a client of it."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": SECRETS[1],
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():
        patch.setenv(name, value)
    remote._file_system.cache_clear()
    client = boto3.client("s3")
    client.create_bucket(Bucket="media")
    yield client
    remote.drop_copy()
    remote._file_system.cache_clear()
    patch.undo()
    server.stop()


@pytest.fixture
def workers(s3, spark, monkeypatch):
    """Spark's Python workers, which take their environment from the session, know the server too."""
    for name, value in os.environ.items():
        if name.startswith("AWS_"):
            monkeypatch.setitem(spark.sparkContext.environment, name, value)


@pytest.fixture(scope="module")
def place(s3, module_folder):
    """A home with a model, and the same titles in a folder and in the bucket below `titles/`."""
    folder = module_folder
    toy_models.register_level(folder / "code")
    for number, name in enumerate(NAMES):
        music = music_like(5.5, 48_000, np.random.default_rng(number)) * 0.5
        s3.upload_file(write(folder / "titles" / name, music), "media", f"titles/{name}")
    for name in ("cover.JPG", "._a b.flac", ".Trash-1000/files/a b.flac"):
        s3.put_object(Bucket="media", Key=f"titles/{name}", Body=b"x")
    (folder / "settings.yaml").write_text(
        "operating_points: {loud: {threshold: 0.01, min_detected_s: 1, window_s: 2}}\nspan_s: 2\n"
    )
    return folder


def options(place, catalogue, warehouse):
    return [
        "--catalogue", str(catalogue), "--warehouse", str(warehouse), "--settings", str(place / "settings.yaml"),
        "--model", "models:/level@champion",
    ]  # fmt: skip


def comparable(row):
    """A row as text, but for what differs between two scans of the same titles."""
    kept = {name: value for name, value in row.items() if name not in ("scan_id", "uri", "modified_at")}
    return json.dumps(kept, sort_keys=True, default=list)


def table(spark, warehouse, name):
    return spark.read.format("delta").load(f"{warehouse}/{name}")


def copies():
    return sorted(Path(remote._scratch_folder()).glob(f"{remote._PREFIX}*"))


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    remote.drop_copy()
    yield tmp_path
    remote.drop_copy()


def test_a_copy_is_equal_kept_once_replaced_and_deleted(s3, place, scratch):
    for name in NAMES:
        uri = f"s3a://media/titles/{name}"
        with remote.local_copy(uri) as first:
            assert Path(os.fsdecode(decode_path(first))).read_bytes() == (place / "titles" / name).read_bytes()
        with remote.local_copy(uri) as second:
            assert second == first  # not fetched again
        assert len(copies()) == 1
    s3.put_object(Bucket="media", Key="changing", Body=b"one")
    with remote.local_copy("s3://media/changing") as first:
        s3.put_object(Bucket="media", Key="changing", Body=b"three")
        with remote.local_copy("s3://media/changing") as second:
            assert Path(first).read_bytes() == b"one"  # still in use
            assert Path(second).read_bytes() == b"three"
    assert copies() == [Path(second)]
    remote.drop_copy()
    assert copies() == []
    with remote.local_copy("/some/where%20else") as same:
        assert same == "/some/where%20else"


def test_copies_of_workers_that_were_killed_go(s3, place, scratch):
    orphan = scratch / f"{remote._PREFIX}orphan"
    orphan.write_bytes(b"x")
    os.utime(orphan, (1, 1))
    with remote.local_copy(f"s3://media/titles/{NAMES[0]}") as kept:
        os.utime(decode_path(kept), (1, 1))
        remote._sweep(str(scratch))
    assert copies() == [Path(kept)]


def test_a_process_leaves_no_copy_behind(s3, place, scratch):
    code = f"from udfs.remote import local_copy\nwith local_copy('s3://media/titles/{NAMES[0]}'): pass\n"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT)
    assert copies() == []


def test_why_there_is_no_copy(s3, place, scratch, tmp_path, monkeypatch):
    def code(uri):
        with pytest.raises(MediaError) as caught, remote.local_copy(uri):
            pass
        assert not any(secret in caught.value.message for secret in SECRETS)
        return caught.value.code

    assert code("s3://media/gone.flac") == "not_found"
    assert code("s3://nowhere/gone.flac") == "not_found"
    assert code("s3://media/titles") == "not_a_file"
    assert code("s3://media/titles//a b.flac") == "unreadable"
    monkeypatch.setattr(remote, "FREE_BYTES", 1 << 60)
    assert code(f"s3://media/titles/{NAMES[0]}") == "no_space"
    assert copies() == []
    monkeypatch.undo()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    remote._file_system.cache_clear()
    try:
        (tmp_path / "list.csv").write_text("uri\ns3://media/a.flac\n")
        with pytest.raises(AuscultError, match=r"storage failed.*run the same command again"):
            read_catalogue(None, str(tmp_path / "list.csv"))
    finally:
        remote._file_system.cache_clear()


@pytest.mark.chaos
def test_nothing_is_opened_but_by_descriptor(s3, scratch):
    """A playlist of URLs in the storage is as dead as one on disk."""
    s3.put_object(
        Bucket="media", Key="list.mp3", Body=b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.mp3\n"
    )
    decoder = Decoder()
    with pytest.raises(MediaError) as caught:
        decoder.probe("s3://media/list.mp3")
    decoder.close()
    assert caught.value.code == "not_media"


@pytest.mark.chaos
def test_a_word_in_a_name_is_no_credential():
    for uri in ("s3://media/what?design=1.wav", "s3://media/a&assignment=3.wav"):
        assert not remote.has_credentials(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "s3a://AKIA:hunter2@media/a.flac",
        "s3://AKIA:wJalrX/UtnFEMI@media/a.flac",
        "s3://hunter2@media/a.flac",
        "abfss://container:hunter2@account.dfs.core.windows.net/a.flac",
        "https://me:hunter2@host/a.flac",
        "https://host/a.flac?X-Amz-Signature=hunter2",
        "https://account.blob.core.windows.net/media/a.flac?sv=2025&sig=hunter2",
        "s3://media/a.flac?access_key=AKIA&secret_key=hunter2",
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_kept(tmp_path, uri):
    (tmp_path / "list.csv").write_text(f'uri\n"{uri}"\n')
    [title] = read_catalogue(None, str(tmp_path / "list.csv")).titles
    assert title.path is None
    assert title.refused[0] == "credentials_in_uri"
    assert not any(secret in str(title) for secret in SECRETS)
    for refuse in (lambda: read_catalogue(None, uri), lambda: absolute(uri)):
        with pytest.raises(AuscultError, match="take it out") as caught:
            refuse()
        assert not any(secret in str(caught.value) for secret in SECRETS)


def test_a_folder_in_a_bucket_loses_no_name(s3, place):
    found = read_catalogue(None, "s3a://media/titles/")
    assert [title.title_id for title in found.titles] == sorted(NAMES)
    assert found.ignored == {".jpg": 1, "._*": 1, ".Trash-1000/": 1}
    for title in found.titles:
        assert title.uri == title.path == f"s3a://media/titles/{title.title_id}"
        assert title.size_bytes == (place / "titles" / title.title_id).stat().st_size
        assert abs(title.modified_ns / 1e9 - time.time()) < 3600
    with pytest.raises(AuscultError, match="there is no such"):
        read_catalogue(None, "s3a://media/nothing/here")
    with pytest.raises(AuscultError, match="there is no such"):
        read_catalogue(None, "s3a://nowhere")


@pytest.mark.chaos
@pytest.mark.slow
def test_titles_in_a_bucket_scan_as_local_ones_do(place, s3, spark, workers, tmp_path, monkeypatch, capsys):
    """The same rows; a second scan opens what changed and no more, and tells what is wrong without secrets."""
    places = {"here": f"{place}/titles", "there": "s3://media/titles"}
    lines = [{"title_id": f"{at} {name}", "uri": f"{folder}/{name}"} for at, folder in places.items() for name in NAMES]
    s3.upload_file(place / "titles" / NAMES[0], "media", "changing.flac")
    lines.append({"title_id": "changing", "uri": "s3://media/changing.flac"})
    catalogue, warehouse = tmp_path / "list.jsonl", tmp_path / "warehouse"
    catalogue.write_text("\n".join(map(json.dumps, lines)))
    assert scan.main(options(place, catalogue, warehouse)) == 0
    for name in ("segments", "detections", "tracks"):
        found = defaultdict(list)
        for row in table(spark, warehouse, name).collect():
            at, _, title_id = row.title_id.partition(" ")
            found[at].append(comparable({**row.asDict(), "title_id": title_id}))
        assert found["here"]
        assert sorted(found["here"]) == sorted(found["there"])
    assert table(spark, warehouse, "segments").count() == 9 * 2 * 6
    uris = {row.title_id: row.uri for row in table(spark, warehouse, "tracks").collect()}
    assert all(uris[line["title_id"]] == line["uri"] for line in lines if line["uri"].startswith("s3:"))

    write(tmp_path / "new.flac", music_like(3.2, 48_000, np.random.default_rng(9)))
    s3.upload_file(tmp_path / "new.flac", "media", "changing.flac")
    lines += [
        {"title_id": "secret", "uri": "s3a://AKIA:hunter2@media/a.flac"},
        {"title_id": "gone", "uri": "s3a://media/gone.flac"},
        {"title_id": "other", "uri": "ftp://host/a.flac"},
    ]
    catalogue.write_text("\n".join(map(json.dumps, lines)))
    opened = []
    probe = planner.Planner.probe
    monkeypatch.setattr(planner.Planner, "probe", lambda self, titles: opened.extend(titles) or probe(self, titles))
    assert scan.main(options(place, catalogue, warehouse)) == 0
    assert {title.title_id for title in opened} == {"changing", "secret", "gone", "other"}  # the rest is left alone
    rows = {row.title_id: row for row in table(spark, warehouse, "tracks").collect()}
    assert rows["changing"].duration_s == pytest.approx(3.2, abs=0.1)
    codes = {name: rows[name].error_code for name in ("secret", "gone", "other")}
    assert codes == {"secret": "credentials_in_uri", "gone": "not_found", "other": "unsupported_scheme"}
    assert rows["secret"].uri == "s3a://***@media/a.flac"

    # The storage goes away between the plan and the workers: what is known of a title stays until it is back.
    def known():
        return sorted(
            comparable(row.asDict())
            for name in ("segments", "detections", "tracks")
            for row in table(spark, warehouse, name).where("title_id = 'changing'").collect()
        )

    before = known()
    write(tmp_path / "newer.flac", music_like(4.2, 48_000, np.random.default_rng(10)))
    s3.upload_file(tmp_path / "newer.flac", "media", "changing.flac")
    with monkeypatch.context() as outage:
        outage.setitem(spark.sparkContext.environment, "AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        scan.main(options(place, catalogue, warehouse))
    said = capsys.readouterr()
    assert "2 storage_error" in said.out  # and the one that is not there
    assert known() == before
    assert scan.main(options(place, catalogue, warehouse)) == 0
    [row] = table(spark, warehouse, "tracks").where("title_id = 'changing'").collect()
    assert (row.status, row.duration_s) == ("ok", pytest.approx(4.2, abs=0.1))
    assert not any(secret in f"{rows}{said}{capsys.readouterr()}" for secret in SECRETS)


@pytest.mark.chaos
def test_one_of_many_creators_wins_on_disk(spark, tmp_path):
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    storage = Storage(spark, str(tmp_path))
    assert storage.exclusion_risk() is None
    barrier = Barrier(6)

    def creates(name):
        barrier.wait()
        try:
            storage.write_text(name, "x", overwrite=False)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(6) as threads:
        for number in range(20):
            assert sum(threads.map(creates, [f"lease {number}"] * 6)) == 1


def test_a_file_system_that_promises_nothing_is_warned_of(spark, tmp_path, monkeypatch):
    storage = Storage(spark, str(tmp_path))
    monkeypatch.setattr(Storage, "_scheme", lambda self: "s3a")
    assert "two scans that start at the same moment" in storage.exclusion_risk()
    monkeypatch.setattr(Storage, "_is_conditional", lambda self: True)
    monkeypatch.setattr(Storage, "write_text", lambda *args, **more: None)  # a server that heeds no condition
    assert "ignores If-None-Match" in storage.exclusion_risk()


IN_ONE_SESSION = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from jobs import scan
from jobs.launch import AuscultError, session
from jobs.lease import Lease
from jobs.storage import Storage

spark = session("object storage")
warehouse, local, *options = sys.argv[1:]
storage = Storage(spark, warehouse)
print("risk", storage.exclusion_risk())
barrier = Barrier(6)

def creates(name):
    barrier.wait()
    try:
        storage.write_text(name, "x", overwrite=False)
    except Exception:
        return False
    return True

with ThreadPoolExecutor(6) as threads:
    wins = [sum(threads.map(creates, [f"creators/{number}"] * 6)) for number in range(20)]
print("winners", sorted(set(wins)))
storage.delete("creators")
print("rerun", scan.main(options))
print("local", scan.main([*options, "--catalogue", f"{local}/titles", "--warehouse", f"{local}/local"]))
with Lease(storage, "other"):
    try:
        scan.main(options)
    except AuscultError as error:
        print("refused", error)
print("left", storage.exists("_lease.json"), storage.folders("_staging"))
spark.stop()
"""


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1500)  # the connector is a download of 690 MB, once
def test_catalogue_and_warehouse_in_a_bucket(place, s3, tmp_path):
    """The command of conf/object-storage.conf from end to end; the lease holds there; deltalake reads the tables."""
    from deltalake import DeltaTable

    def submit(*arguments):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SPARK", "PYSPARK", "HIVE"))}
        conf = PROJECT / "conf/object-storage.conf"
        done = subprocess.run(
            [Path(sys.prefix) / "bin/spark-submit", "--load-spark-defaults", "--properties-file", conf, *arguments],
            cwd=tmp_path, env=kept, capture_output=True, text=True, timeout=700,
        )  # fmt: skip
        if "unresolved dependency" in done.stderr + done.stdout:
            pytest.skip("hadoop-aws and the AWS bundle are not to be had here")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    warehouse = "s3a://media/wh"
    given = options(place, "s3a://media/titles", warehouse)
    said = submit(PROJECT / "jobs/scan.py", *given)
    assert "4 titles scored" in said
    assert "would not notice" not in said  # the server heeds conditions
    before = [entry["Key"] for entry in s3.list_objects_v2(Bucket="media", Prefix="wh/")["Contents"]]
    assert [key for key in before if key.startswith("wh/_")] == ["wh/_staging/"]
    (tmp_path / "session.py").write_text(IN_ONE_SESSION)
    said = submit(tmp_path / "session.py", warehouse, place, *given)
    lines = dict(
        line.split(" ", 1)
        for line in said.splitlines()
        if line.startswith(("risk", "win", "rerun", "local", "ref", "left"))
    )
    assert (lines["risk"], lines["winners"], lines["left"]) == ("None", "[1]", "False []")
    assert (lines["rerun"], lines["local"]) == ("0", "0")
    assert "scan other on" in lines["refused"]
    after = [entry["Key"] for entry in s3.list_objects_v2(Bucket="media", Prefix="wh/")["Contents"]]
    assert {key for key in set(after) - set(before) if not key.startswith("wh/scans/")} == set()

    for name in ("segments", "detections", "tracks"):
        found = []
        for location in (f"s3://media/wh/{name}", str(place / "local" / name)):
            access = {"AWS_ALLOW_HTTP": "true"} if location.startswith("s3:") else None
            read = DeltaTable(location, storage_options=access).to_pyarrow_dataset().to_table().to_pylist()
            found.append(sorted(map(comparable, read)))
        assert found[0]
        assert found[0] == found[1]
