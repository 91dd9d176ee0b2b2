"""What a scan survives: titles that kill their workers, decoders that die or hang, full disks, other writers, leases."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import toy_models
from signals import music_like, spans_of, write

from jobs import commits, detect, maintain, scan, scan_report, tables, track_rows
from jobs import lease as leases
from jobs.launch import AuscultError
from jobs.lease import LEASE, Lease
from jobs.storage import Storage
from udfs import contract, decoder, predict
from udfs.batches import ScanOptions

pytestmark = pytest.mark.chaos

POISON = 0.4375  # a constant level that no recording has
KILLED_CODE = """
import ctypes, os, signal
import mlflow, numpy as np
class Level(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: np.ndarray, params=None) -> np.ndarray:
        if (np.abs(model_input - 0.4375).max(axis=1) < 1e-3).any():
            os.kill(os.getpid(), signal.SIGKILL)
        if (np.abs(model_input + 0.4375).max(axis=1) < 1e-3).any():
            ctypes.string_at(0)
        loud = np.sqrt((model_input.astype(np.float64) ** 2).mean(axis=1)).clip(0, 1)
        return np.stack([1 - loud, loud], axis=1).astype(np.float32)
mlflow.models.set_model(Level())
"""


@pytest.fixture(scope="module")
def place(module_folder):
    """A home with a model that dies of some waveforms, and a catalogue of short titles."""
    folder = module_folder
    metadata = toy_models.LEVEL.to_metadata()
    toy_models.register(folder / "code", "level", KILLED_CODE, metadata, toy_models.LEVEL.segment_samples)
    for number in range(10):
        write(folder / "catalogue" / f"{number}.wav", music_like(3.0, 48_000, np.random.default_rng(number)) * 0.5)
    return folder


def run(catalogue, warehouse, settings=None):
    more = [] if settings is None else ["--settings", str(settings)]
    return scan.main(
        ["--catalogue", str(catalogue), "--warehouse", str(warehouse), "--model", "models:/level@champion", *more]
    )


def rows(spark, warehouse, name, *dropped):
    frame = spark.read.format("delta").load(str(warehouse / name)).drop("scan_id", *dropped)
    return sorted(map(str, frame.collect()))


@pytest.fixture(scope="module")
def undisturbed(place, spark):
    assert run(place / "catalogue", place / "warehouse") == 0
    return {name: rows(spark, place / "warehouse", name) for name in ("tracks", "segments", "detections")}


@pytest.mark.slow
def test_titles_that_kill_their_worker_are_set_aside(place, spark, tmp_path, undisturbed):
    """Two of twelve titles kill the Python worker, by a signal and by a segmentation fault."""
    shutil.copytree(place / "catalogue", tmp_path / "catalogue")
    for name, level in (("killed.wav", POISON), ("crashed.wav", -POISON)):
        write(tmp_path / "catalogue" / name, np.full((2, 96_000), level, dtype=np.float32))
    assert run(tmp_path / "catalogue", tmp_path / "warehouse") == 0
    tracks = spark.read.format("delta").load(str(tmp_path / "warehouse" / "tracks"))
    aside = {row.title_id: row for row in tracks.where("status <> 'ok'").collect()}
    assert set(aside) == {"killed.wav", "crashed.wav"}
    for row in aside.values():
        assert (row.status, row.error_code, row.scored_with) == ("rejected", "crashed", [])
    assert "killed" in aside["killed.wav"].error
    assert "Segmentation fault" in aside["crashed.wav"].error
    found = spark.read.format("delta").load(str(tmp_path / "warehouse" / "segments")).drop("scan_id")
    assert sorted(map(str, found.collect())) == undisturbed["segments"]
    # The next scan tries them again, and nothing else.
    for name in aside:
        (tmp_path / "catalogue" / name).unlink()
        write(tmp_path / "catalogue" / name, music_like(2.0, 48_000, np.random.default_rng(99)))
    assert run(tmp_path / "catalogue", tmp_path / "warehouse") == 0
    assert tracks.where("status = 'ok'").count() == 12
    assert spark.read.format("delta").load(str(tmp_path / "warehouse" / "segments")).count() == 10 * 6 + 2 * 4


@pytest.mark.slow
def test_a_model_that_kills_every_worker_ends_the_scan(place, spark, tmp_path):
    for number in range(4):
        write(tmp_path / "catalogue" / f"{number}.wav", np.full((1, 48_000), POISON, dtype=np.float32))
    (tmp_path / "settings.yaml").write_text("max_crashed_titles: 2\n")
    with pytest.raises(AuscultError, match="more than 2 titles killed the worker"):
        run(tmp_path / "catalogue", tmp_path / "warehouse", tmp_path / "settings.yaml")
    [row] = spark.read.format("delta").load(str(tmp_path / "warehouse" / "scans")).collect()
    assert row.state == "failed"
    assert not (tmp_path / "warehouse" / LEASE).exists()


DYING_DECODER = """
import ctypes, os, time
from pathlib import Path
from udfs import decoding
whole = decoding.decode
def decode(path, *args, **kwargs):
    for number, block in enumerate(whole(path, *args, **kwargs)):
        if number == 1:
            marker = Path(path + ".seen")
            if "segfault" in path or ("once" in path and not marker.exists()):
                marker.touch()
                ctypes.string_at(0)
            if "hangs" in path:
                time.sleep(1000)
            if "killed" in path:
                os.kill(os.getpid(), 9)
        yield block
decoding.decode = decode
"""


def test_a_decoder_that_dies_or_hangs_costs_its_title_alone(tmp_path, monkeypatch):
    """Real processes die: the child imports a decoder that crashes, hangs or is killed on files of some names."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(DYING_DECODER)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    music = music_like(4.0, 48_000, np.random.default_rng(3))
    names = ["a good", "segfault", "b good", "hangs", "killed", "dies once", "c good"]
    spans = []
    for name in names:
        path = write(tmp_path / f"{name}.wav", music)
        spans += spans_of(path, 0.0, float("inf"), title_id=name)

    class Level:
        metadata = None

        def predict(self, waveforms):
            loud = np.abs(waveforms).max(axis=1)
            return np.stack([1 - loud, loud], axis=1)

    monkeypatch.setitem(predict._predictors, ("dying", "cpu", "torch"), Level())
    monkeypatch.setattr(decoder, "_kept", None)
    model = contract.ShippedModel("level", "1", "dying", "", toy_models.LEVEL)
    options = ScanOptions(decode_timeout_s=5.0)
    scored = [
        row
        for batch in predict.score_spans(spans, [model], options, "cpu", lambda model: Path())
        for row in batch.to_pylist()
    ]
    decoder._kept.close()
    reports = {row["title_id"]: row for row in scored if row["is_report"]}
    assert {name: reports[name]["error_code"] for name in names} == {
        "a good": None, "segfault": "crashed", "b good": None, "hangs": "timeout", "killed": "crashed",
        "dies once": None, "c good": None,
    }  # fmt: skip
    assert "SIGSEGV" in reports["segfault"]["error"]
    segments = {
        name: [(row["channel"], row["start_s"], row["scores"]) for row in scored if row["title_id"] == name and not row["is_report"]]
        for name in names
    }  # fmt: skip
    assert len(segments["a good"]) == 8
    for name in ("b good", "dies once", "c good"):
        assert sorted(map(str, segments[name])) == sorted(map(str, segments["a good"])), name


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small file system")
def test_a_full_disk_loses_nothing(place, spark, tmp_path, undisturbed):
    """The warehouse's disk fills up while a chunk is staged or committed; with more room the next scan finishes."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        filler = small / "filler"
        failed = 0
        for free_kib in (130, 180, 240, 300, 360):  # fails at a later step each time
            shutil.rmtree(small / "warehouse", ignore_errors=True)
            filler.write_bytes(bytes((700 - free_kib) * 1024 // 4096 * 4096))
            said = ""
            try:
                run(place / "catalogue", small / "warehouse")
            except Exception as error:  # of Spark, of Delta, of py4j
                failed += 1
                said = f"{error} {getattr(error, 'java_exception', '')}"
            assert not said or "No space left" in said
            filler.unlink()
            subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
            assert run(place / "catalogue", small / "warehouse") == 0
            for name in ("segments", "detections"):
                assert rows(spark, small / "warehouse", name) == undisturbed[name], free_kib
            assert rows(spark, small / "warehouse", "tracks") == undisturbed["tracks"]
            shutil.rmtree(small / "warehouse")
            subprocess.run(["mount", "-o", "remount,size=700k", str(small)], check=True)
        assert failed >= 3
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


@pytest.mark.slow
def test_others_write_while_a_scan_commits(place, spark, tmp_path, undisturbed):
    """OPTIMIZE runs, an analyst updates a column of `tracks`, and reviews arrive from outside Spark."""
    import pyarrow as pa
    from delta.tables import DeltaTable
    from deltalake import write_deltalake

    storage = Storage(spark, str(tmp_path / "warehouse"))
    tables.prepare(spark, storage)
    (tmp_path / "settings.yaml").write_text("chunk_channel_h_per_core: 0.0008\n")  # a chunk for every two titles or so
    done = threading.Event()
    did = Counter()

    def meddle():
        while not done.is_set():
            for what in ("optimize", "update", "review"):
                try:
                    if what == "optimize":
                        for name in ("segments", "tracks", "detections"):
                            DeltaTable.forPath(spark, storage.locate(name)).optimize().executeCompaction()
                    elif what == "update":
                        DeltaTable.forPath(spark, storage.locate("tracks")).update("true", {"language": "'deu'"})
                    else:
                        schema = pa.schema(
                            spark.table(f"delta.`{storage.locate('reviews')}`").limit(0).toArrow().schema
                        )
                        empty = {field.name: [None] for field in schema}
                        write_deltalake(storage.locate("reviews"), pa.table(empty, schema=schema), mode="append")
                    did[what] += 1
                except Exception as error:  # the other writer may lose; the scan must not
                    did["conflicts" if "oncurrent" in str(error) else f"failed: {error}"[:200]] += 1
                done.wait(1.0)

    thread = threading.Thread(target=meddle)
    thread.start()
    try:
        assert run(place / "catalogue", tmp_path / "warehouse", tmp_path / "settings.yaml") == 0
    finally:
        done.set()
        thread.join()
    print(dict(did))
    assert set(did) <= {"optimize", "update", "review", "conflicts"}
    assert did["optimize"] >= 1
    assert did["update"] >= 1
    assert did["review"] >= 1
    for name in ("segments", "detections"):
        assert rows(spark, tmp_path / "warehouse", name) == undisturbed[name]
    found = spark.read.format("delta").load(str(tmp_path / "warehouse" / "tracks"))
    assert found.count() == found.select("title_id", "track").distinct().count() == 10


@pytest.mark.slow
def test_detect_and_a_scan_keep_each_other_out(place, spark, tmp_path, undisturbed, monkeypatch):
    """`detect` is refused while a scan writes, a scan while `detect` does; then both leave what either would alone."""
    (tmp_path / "settings.yaml").write_text(
        "chunk_channel_h_per_core: 0.0016\noperating_points: {loud: {threshold: 0.01, min_detected_s: 1, window_s: 2}}\n"
    )
    filter_anew = ["--warehouse", str(tmp_path / "warehouse"), "--settings", str(tmp_path / "settings.yaml")]
    refusals = []

    def beside(step, other):
        def both(*arguments):
            with pytest.raises(AuscultError, match="is writing to it"):
                other()
            refusals.append(step.__name__)
            return step(*arguments)

        return both

    with monkeypatch.context() as during:
        during.setattr(commits, "commit_chunk", beside(commits.commit_chunk, lambda: detect.main(filter_anew)))
        assert run(place / "catalogue", tmp_path / "warehouse", tmp_path / "settings.yaml") == 0
    assert refusals.count("commit_chunk") >= 2
    assert rows(spark, tmp_path / "warehouse", "segments") == undisturbed["segments"]
    scanned = rows(spark, tmp_path / "warehouse", "detections")
    assert scanned
    with monkeypatch.context() as during:
        scan_again = ["--catalogue", str(place / "catalogue"), *filter_anew, "--model", "models:/level@champion"]
        during.setattr(detect, "detections", beside(detect.detections, lambda: scan.main(scan_again)))
        assert detect.main(filter_anew) == 0
    assert refusals[-1] == "detections"
    assert rows(spark, tmp_path / "warehouse", "detections") == scanned


class Clock:
    """Python's clock on the driver, a day ahead until it is set right."""

    ahead = timedelta(days=1)
    fromtimestamp = staticmethod(datetime.fromtimestamp)

    def now(self, zone=None):
        return datetime.now(zone) + self.ahead


@pytest.mark.slow
def test_a_clock_that_jumps_back(place, spark, tmp_path, undisturbed, monkeypatch):
    """A scan begins with a clock that is a day ahead, also on the warehouse's disk; it is set right between two chunks."""
    shutil.copytree(place / "catalogue", tmp_path / "catalogue")
    (tmp_path / "settings.yaml").write_text("chunk_channel_h_per_core: 0.0008\n")
    warehouse, clock = tmp_path / "warehouse", Clock()
    for module in (scan_report, tables, track_rows):
        monkeypatch.setattr(module, "datetime", clock)
    commit, done_commits = commits.commit_chunk, []

    def commit_and_jump(*arguments):
        done = commit(*arguments)
        done_commits.append(done)
        if len(done_commits) == 2:
            tomorrow = time.time() + 24 * 3600
            for path in [*warehouse.rglob("*"), tmp_path / "catalogue" / "0.wav"]:
                os.utime(path, (tomorrow, tomorrow))
            clock.ahead = timedelta()
        return done

    monkeypatch.setattr(commits, "commit_chunk", commit_and_jump)
    assert run(tmp_path / "catalogue", warehouse, tmp_path / "settings.yaml") == 0
    assert len(done_commits) >= 4
    for name in ("segments", "detections"):
        assert rows(spark, warehouse, name) == undisturbed[name]
    # What the next scan is called sorts before it; it still sees what was done, and the two files that are new to it.
    write(tmp_path / "catalogue" / "new.wav", music_like(2.0, 48_000, np.random.default_rng(99)))
    os.utime(tmp_path / "catalogue" / "1.wav", (0, 0))
    assert run(tmp_path / "catalogue", warehouse) == 0
    assert run(tmp_path / "catalogue", warehouse) == 0
    found = spark.read.format("delta").load(str(warehouse / "segments"))
    assert found.where("title_id <> 'new.wav'").count() == len(undisturbed["segments"])
    assert found.where("title_id = 'new.wav'").count() == 4
    scans = spark.read.format("delta").load(str(warehouse / "scans")).orderBy("titles_done").collect()
    assert [(row.state, row.titles_done) for row in scans] == [("finished", 0), ("finished", 1), ("finished", 10)]
    assert all(row.wall_s > 0 for row in scans)
    assert maintain.main(["--warehouse", str(warehouse)]) == 0


@pytest.fixture
def storage(spark, tmp_path):
    found = Storage(spark, str(tmp_path / "warehouse"))
    found.make_folder("")
    return found


def elsewhere(storage, beats, scan_id="other"):
    """A lease as a job on another host writes it."""
    content = {"scan_id": scan_id, "host": "elsewhere", "pid": 1, "process_started": "b/1", "beats": beats}
    storage.write_text(LEASE, json.dumps(content))


def test_a_holder_on_another_host_is_judged_by_its_renewals_and_not_by_clocks(storage, monkeypatch):
    elsewhere(storage, 1)
    done = threading.Event()

    def renew():
        beats = 1
        while not done.wait(0.5):
            beats += 1
            elsewhere(storage, beats)

    thread = threading.Thread(target=renew)
    thread.start()
    # A clock that stands a day off, either way, and jumps meanwhile.
    hours = iter([-24, 24] * 500)
    true_time = time.time
    monkeypatch.setattr(leases.time, "time", lambda: true_time() + 3600 * next(hours))
    try:
        with pytest.raises(AuscultError, match="scan other on elsewhere"), Lease(storage, "mine", watch_s=5.0):
            pass
    finally:
        done.set()
        thread.join()
    with Lease(storage, "mine", watch_s=2.0) as held:  # it renews no more
        assert held.was_abandoned
        held.check()
    assert not storage.exists(LEASE)


def test_of_four_that_find_a_dead_holder_one_wins(storage):
    for number in range(10):
        elsewhere(storage, number, "dead")
        outcomes, wins = [], threading.Event()
        others_done = threading.Barrier(4, timeout=60)

        def take(number, outcomes=outcomes, wins=wins, others_done=others_done):
            try:
                with Lease(storage, f"scan{number}", watch_s=0.5) as held:
                    wins.set()
                    others_done.wait()  # held while all others try
                    held.check()
                    outcomes.append("held")
            except AuscultError as error:
                outcomes.append("refused" if "is writing to it" in str(error) else str(error))
                others_done.wait()

        threads = [threading.Thread(target=take, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["held", "refused", "refused", "refused"]
        assert not storage.exists(LEASE)
    assert [path.name for path in Path(storage.root).iterdir() if "lease" in path.name] == []


def test_one_that_died_while_taking_over_is_no_obstacle(storage):
    import hashlib

    elsewhere(storage, 1, "dead")
    text = storage.read_text(LEASE)
    storage.write_text(f"{LEASE}.{hashlib.sha256(text.encode()).hexdigest()[:16]}", "died", overwrite=False)
    with Lease(storage, "mine", watch_s=0.5) as held:
        assert held.was_abandoned
        held.check()


def test_a_job_that_stood_still_writes_nothing_more(storage):
    with Lease(storage, "frozen") as held:
        held.check()
        elsewhere(storage, 1, "next")  # what another host does after it watched in vain
        with pytest.raises(AuscultError, match="another took it over"):
            held.check()
    assert storage.exists(LEASE)  # it is the other's


def test_a_scan_that_was_killed_leaves_a_lease_that_the_next_takes_at_once(storage):
    script = f"import time; print({os.getpid()}); time.sleep(100)"
    process = subprocess.Popen([sys.executable, "-c", script])
    content = {
        "scan_id": "killed", "host": socket.gethostname(), "pid": process.pid,
        "process_started": leases._process_started(process.pid), "beats": 3,
    }  # fmt: skip
    storage.write_text(LEASE, json.dumps(content))
    with pytest.raises(AuscultError, match="scan killed"), Lease(storage, "mine"):
        pass
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and a zombie that nobody has waited for
    started = time.monotonic()
    with Lease(storage, "mine") as held:
        assert held.was_abandoned
    process.wait()
    assert time.monotonic() - started < 5
    storage.write_text(LEASE, '{"scan_id": "dea')  # its writer died while writing it
    with Lease(storage, "mine") as held:
        assert held.was_abandoned


def test_a_model_that_changed_on_its_way_is_refused(place, tmp_path):
    from jobs import registry

    [model] = registry.resolve(["models:/level@champion"])
    folder = tmp_path / "model"
    shutil.copytree(model.folder, folder)
    code = next(folder.rglob("level.py"))
    code.write_text(code.read_text().replace("1 - loud", "0 * loud"))
    with pytest.raises(RuntimeError, match="they changed on the way to this executor"):
        predict._predictor(model.shipped, "cpu", lambda shipped: folder, ScanOptions())
