"""A worker's memory does not grow with the title."""

import subprocess
import sys
import wave

import numpy as np
import pytest

SCORE = """
import re, sys
from pathlib import Path
import numpy as np
from udfs import predict
from udfs.contract import ModelContract
from udfs.decoder import encode_path

class Level:
    metadata = None
    def predict(self, waveforms):
        loud = np.abs(waveforms).max(axis=1)
        return np.stack([1 - loud, loud], axis=1)

model = predict.ShippedModel("level", "1", "digest", "", ModelContract(48_000, 1.0, 1.0, ("quiet", "loud")))
predict._predictors["digest", "cpu"] = Level()
span = {"title_id": "t", "content_hash": "h", "track": 0, "path": encode_path(sys.argv[1]), "start_s": 0.0,
        "end_s": float("inf"), "can_seek": True, "is_timed": True, "models": ["level/1"]}
rows = sum(batch.num_rows for batch in predict.score_spans([span], [model], predict.ScanOptions(), "cpu", lambda m: None))
[child] = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split()

def peak(pid):  # of its own address space: getrusage's maximum is inherited from the parent
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) / 1024

print(rows, peak("self"), peak(child))
predict._decoder.close()
"""


def peaks(tmp_path, seconds):
    path = tmp_path / f"{seconds}.wav"
    second = (np.random.default_rng(0).uniform(-0.1, 0.1, 8_000) * 32767).astype("<i2").tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8_000)
        for _ in range(seconds):
            file.writeframesraw(second)
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
