"""The commands as a user types them: from any directory, with no flags beyond the needed ones."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toy_models
from deltalake import DeltaTable
from signals import music_like, write

PROJECT = Path(__file__).resolve().parent.parent
BIN = Path(sys.prefix) / "bin"


def environment(home):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SPARK", "PYSPARK", "AUSCULT", "MLFLOW", "HIVE"))}
    return {**kept, "AUSCULT_HOME": str(home)}


def submit(home, where, *arguments):
    return subprocess.run(
        [BIN / "spark-submit", PROJECT / "jobs" / "scan.py", *map(str, arguments)],
        cwd=where, env=environment(home), capture_output=True, text=True, timeout=500,
    )  # fmt: skip


@pytest.fixture
def elsewhere(tmp_path):
    folder = tmp_path / "another directory"
    folder.mkdir()
    return folder


def titles(folder, count, seconds=4.0):
    for number in range(count):
        write(
            folder / f"title {number:02d}.wav", music_like(seconds, 48_000, np.random.default_rng(number), channels=1)
        )
    return folder


@pytest.mark.slow
def test_scan_and_sql_from_another_directory(home, elsewhere, tmp_path):
    toy_models.register(tmp_path, "audio-artifacts", toy_models.LEVEL_CODE, toy_models.LEVEL.to_metadata(), 48_000)
    titles(elsewhere / "my films", 3)
    result = submit(home, elsewhere, "--catalogue", "my films")
    assert result.returncode == 0, result.stderr
    assert "3 titles scored" in result.stdout
    assert DeltaTable(str(home / "warehouse" / "segments")).to_pyarrow_dataset().count_rows() == 12
    assert {path.name for path in elsewhere.iterdir()} == {"my films"}  # nothing is left lying about
    query = "SELECT count(*), max(scores['loud']) < 1 FROM segments; SELECT status, count(*) FROM tracks GROUP BY 1"
    sql = subprocess.run(
        [BIN / "spark-sql", "-e", query],
        cwd=elsewhere, env=environment(home), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert "12\ttrue" in sql.stdout, sql.stderr
    assert "ok\t3" in sql.stdout


def test_mistakes_end_with_one_line(home, elsewhere, tmp_path):
    for arguments, message in [
        (["--catalogue", "nowhere"], "no model registry at"),
        (["--catalogue", ".", "--settings", "no.yaml"], "settings no.yaml: cannot be read"),
        (["--catalogue", ".", "--model", "champion"], "expected models:/NAME@ALIAS"),
    ]:
        if "registry" in message:
            (home / "mlflow" / "mlflow.db").unlink()
        result = submit(home, elsewhere, *arguments)
        assert result.returncode == 2, result.stderr
        printed = result.stdout + result.stderr  # spark-submit sends both of Python's streams to standard output
        lines = [line for line in printed.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        assert message in lines[0]
        assert "Traceback" not in printed


def test_the_command_line_answers_without_spark():
    for arguments, status in [(["--help"], 0), (["--catalogue"], 2), (["--catalogue", "x", "--limit", "0"], 2)]:
        result = subprocess.run(
            [sys.executable, PROJECT / "jobs" / "scan.py", *arguments], capture_output=True, text=True, timeout=60
        )
        assert result.returncode == status
        assert "usage:" in result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1500)
def test_a_cluster_of_separate_executors_finds_the_same(home, tmp_path):
    """Executors in processes of their own, which get the model from the driver and nothing from its memory."""
    toy_models.register(tmp_path, "audio-artifacts", toy_models.LEVEL_CODE, toy_models.LEVEL.to_metadata(), 48_000)
    catalogue = titles(tmp_path / "catalogue", 4)
    spread = ["--master", "local-cluster[2,1,1024]", "--conf", "spark.executor.memory=1g"]
    for warehouse, options in [("alone", []), ("spread", spread)]:
        result = subprocess.run(
            [
                BIN / "spark-submit", *options, PROJECT / "jobs" / "scan.py", "--catalogue", catalogue,
                "--warehouse", tmp_path / warehouse,
            ],
            cwd=tmp_path, env=environment(home), capture_output=True, text=True, timeout=500,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout + result.stderr
    assert rows_of(tmp_path / "spread") == rows_of(tmp_path / "alone")


def rows_of(warehouse):
    def comparable(name, columns):
        found = DeltaTable(str(warehouse / name)).to_pyarrow_dataset().to_table(columns=columns).to_pylist()
        return sorted(str(sorted(row.items(), key=str)) for row in found)

    return {
        "segments": comparable("segments", ["title_id", "track", "channel", "start_s", "scores", "model_version"]),
        "tracks": comparable("tracks", ["title_id", "track", "content_hash", "status", "decoded_s", "scored_with"]),
        "detections": comparable("detections", ["title_id", "track", "defect", "start_s", "end_s", "channels"]),
    }


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(6000)
def test_killed_at_any_moment_a_rerun_leaves_the_same_rows(home, tmp_path):
    """Kill -9 of the driver's process group at a random moment, then a rerun."""
    toy_models.register(tmp_path, "audio-artifacts", toy_models.LEVEL_CODE, toy_models.LEVEL.to_metadata(), 48_000)
    catalogue = titles(tmp_path / "catalogue", 4, seconds=30.0)
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        "chunk_channel_h_per_core: 0.004\nspan_s: 10\n"
        "operating_points: {loud: {threshold: 0.05, min_detected_s: 2, window_s: 4}}\n"
    )
    started = time.monotonic()
    plain = submit(home, tmp_path, "--catalogue", catalogue, "--settings", settings, "--warehouse", tmp_path / "plain")
    assert plain.returncode == 0, plain.stderr
    full_s = time.monotonic() - started
    expected = rows_of(tmp_path / "plain")
    assert len(expected["segments"]) == 4 * 30
    assert expected["detections"]
    seed = random.SystemRandom().randrange(1 << 30)
    print(f"seed {seed}, an undisturbed scan takes {full_s:.1f} s")
    moments = random.Random(seed)
    wanted = int(os.environ.get("AUSCULT_KILLS", "10"))
    kills = attempt = 0
    while kills < wanted:
        attempt += 1
        assert attempt <= 3 * wanted, "the scans end before they can be killed"
        warehouse = tmp_path / f"killed-{attempt}"
        process = subprocess.Popen(
            [
                BIN / "spark-submit", PROJECT / "jobs" / "scan.py", "--catalogue", catalogue,
                "--settings", settings, "--warehouse", warehouse,
            ],
            env=environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        # Start-up writes nothing: spend the moments where there is something to lose.
        after_s = moments.uniform(0.35, 0.95) * full_s
        try:
            process.wait(timeout=after_s)
            full_s = min(full_s, after_s)  # the machine has less to do than it had
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        rerun = submit(home, tmp_path, "--catalogue", catalogue, "--settings", settings, "--warehouse", warehouse)
        assert rerun.returncode == 0, rerun.stderr
        assert rows_of(warehouse) == expected, f"attempt {attempt}, killed after {after_s:.1f} s, seed {seed}"
        print(f"killed after {after_s:.1f} s: the rerun left the same rows")
    print(f"figure: {kills} kills at random moments, as many identical results")
