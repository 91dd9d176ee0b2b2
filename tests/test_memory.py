"""A worker's memory does not grow with the title, and a worker that wants too much of it costs one title."""

import contextlib
import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import toy_models
from deltalake import DeltaTable
from signals import music_like, write
from test_cli import BIN, PROJECT, environment

MIB = 1 << 20
LIMIT_MIB = 2048

SCORE = """
import re, sys
from pathlib import Path
import numpy as np
from udfs import contract, decoder, predict
from udfs.batches import ScanOptions
from udfs.contract import ModelContract
from udfs.decoder import encode_path

class Level:
    metadata = None
    def predict(self, waveforms):
        loud = np.abs(waveforms).max(axis=1)
        return np.stack([1 - loud, loud], axis=1)

model = contract.ShippedModel("level", "1", "digest", "", ModelContract(48_000, 1.0, 1.0, ("quiet", "loud")))
predict._predictors["digest", "cpu", "torch"] = Level()
span = {"title_id": "t", "content_hash": "h", "track": 0, "path": encode_path(sys.argv[1]), "start_s": 0.0,
        "end_s": float("inf"), "can_seek": True, "is_timed": True, "models": ["level/1"]}
rows = sum(batch.num_rows for batch in predict.score_spans([span], [model], ScanOptions(), "cpu", lambda m: None))
[child] = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split()

def peak(pid):  # of its own address space: getrusage's maximum is inherited from the parent
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) / 1024

print(rows, peak("self"), peak(child))
decoder._kept.close()
"""


def write_noise(path, seconds, channels=1):
    """A WAV of any length, for its size in memory does not matter here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (8_000, channels)
    second = (np.random.default_rng(0).uniform(-0.1, 0.1, shape) * 32767).astype("<i2").tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(8_000)
        for _ in range(seconds):
            file.writeframesraw(second)
    return path


def peaks(tmp_path, seconds):
    path = write_noise(tmp_path / f"{seconds}.wav", seconds)
    done = subprocess.run(
        [sys.executable, "-c", SCORE, str(path)], capture_output=True, text=True, check=True, timeout=600
    )
    rows, worker_mib, decoder_mib = map(float, done.stdout.split())
    assert rows == seconds + 1  # a segment a second, and the report
    return worker_mib, decoder_mib


@pytest.mark.chaos
@pytest.mark.slow
def test_three_hours_need_no_more_memory_than_ten_minutes(tmp_path):
    short, long = peaks(tmp_path, 600), peaks(tmp_path, 3 * 3600)
    print(f"figure: worker {short[0]:.0f} -> {long[0]:.0f} MiB, decoder {short[1]:.0f} -> {long[1]:.0f} MiB")
    print(f"figure: 3 hours of audio in one task need {sum(long):.0f} MiB, of 2048 a worker may have")
    assert sum(long) < 2048
    assert long[0] < 1.2 * short[0]
    assert long[1] < 1.2 * short[1]


class MemoryLimit:
    """A control group: the kernel kills a process in it when all of them together want more than the limit."""

    def __init__(self, name, mib):
        root = Path("/sys/fs/cgroup")
        self.is_old = (root / "memory").is_dir()
        self.folder = (root / "memory" if self.is_old else root) / name
        try:
            self.folder.mkdir()
            for limit in ("memory.limit_in_bytes",) if self.is_old else ("memory.max", "memory.swap.max"):
                value = 0 if "swap" in limit else mib * MIB
                with contextlib.suppress(FileNotFoundError):  # without swap there is nothing to limit
                    (self.folder / limit).write_text(str(value))
            assert (
                self.folder / ("memory.limit_in_bytes" if self.is_old else "memory.max")
            ).read_text().strip() == str(mib * MIB)
        except OSError as error:
            pytest.skip(f"control groups of memory cannot be made here: {error}")

    def python(self, folder):
        """An interpreter for Spark's Python workers whose processes are all in the group."""
        script = folder / "limited-python"
        script.write_text(f'#!/bin/sh\necho $$ > {self.folder}/cgroup.procs || exit 1\nexec {sys.executable} "$@"\n')
        script.chmod(0o755)
        return script

    @property
    def peak_mib(self):
        name = "memory.max_usage_in_bytes" if self.is_old else "memory.peak"
        return int((self.folder / name).read_text()) / MIB

    @property
    def kills(self):
        lines = (self.folder / ("memory.oom_control" if self.is_old else "memory.events")).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def remove(self):
        for pid in (self.folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), 9)
        with contextlib.suppress(OSError):
            self.folder.rmdir()


@pytest.fixture
def limit():
    found = MemoryLimit(f"auscult-test-{os.getpid()}", LIMIT_MIB)
    yield found
    found.remove()


def scan(home, limit, folder, *arguments):
    """A scan of one task at a time, whose Python worker and decoder share the limit."""
    command = [
        BIN / "spark-submit", "--master", "local[1]", "--conf", "spark.ui.enabled=false",
        "--conf", f"spark.pyspark.python={limit.python(folder)}", "--conf", f"spark.pyspark.driver.python={sys.executable}",
        PROJECT / "jobs" / "scan.py", "--catalogue", folder / "catalogue", "--warehouse", folder / "warehouse", *arguments,
    ]  # fmt: skip
    done = subprocess.run(list(map(str, command)), env=environment(home), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def table(folder, name):
    return DeltaTable(str(folder / "warehouse" / name)).to_pyarrow_dataset().to_table().to_pylist()


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_hours_are_scanned_within_two_gibibytes(home, tmp_path, limit):
    """The shipped model over titles of up to three hours; the kernel would kill a worker that wanted more than 2 GiB."""
    subprocess.run([sys.executable, PROJECT / "jobs" / "register.py"], env=environment(home), check=True)
    write_noise(tmp_path / "catalogue" / "long.wav", 3 * 3600)
    write_noise(tmp_path / "catalogue" / "stereo.wav", 3600, channels=2)
    write_noise(tmp_path / "catalogue" / "short.wav", 60, channels=6)
    scan(home, limit, tmp_path)
    tracks = table(tmp_path, "tracks")
    assert sorted(row["status"] for row in tracks) == ["ok"] * 3
    hours = sum(row["decoded_s"] * row["channels"] for row in tracks) / 3600
    print(f"figure: {hours:.1f} channel hours scanned under a limit of {LIMIT_MIB} MiB, {limit.kills} processes killed, "
          f"peak {limit.peak_mib:.0f} MiB with the files' pages")  # fmt: skip
    assert limit.kills == 0


BLOATED_CODE = toy_models.LEVEL_CODE.replace(
    "        loud =",
    "        keep = [np.ones(1 << 27) for _ in range(8 * int(np.abs(model_input - 0.4375).max() < 1e-3))]\n        loud =",
    1,
)


@pytest.mark.chaos
@pytest.mark.slow
def test_a_title_that_takes_all_memory_is_set_aside(home, tmp_path, limit):
    """One of four titles makes the model want 8 GiB where 2 are allowed: the kernel kills the worker."""
    toy_models.register(
        tmp_path / "code", "level", BLOATED_CODE, toy_models.LEVEL.to_metadata(), toy_models.LEVEL.segment_samples
    )
    for number in range(3):
        write(tmp_path / "catalogue" / f"{number}.wav", music_like(3.0, 48_000, np.random.default_rng(number)) * 0.5)
    write(tmp_path / "catalogue" / "huge.wav", np.full((1, 96_000), 0.4375, dtype=np.float32))
    (tmp_path / "settings.yaml").write_text("batch_segments: 1\n")
    scan(home, limit, tmp_path, "--model", "models:/level@champion", "--settings", tmp_path / "settings.yaml")
    tracks = {row["title_id"]: row for row in table(tmp_path, "tracks")}
    assert limit.kills >= 1
    assert [tracks[f"{number}.wav"]["status"] for number in range(3)] == ["ok"] * 3
    assert (tracks["huge.wav"]["status"], tracks["huge.wav"]["error_code"]) == ("rejected", "crashed")
    assert len(table(tmp_path, "segments")) == 3 * 2 * 3
