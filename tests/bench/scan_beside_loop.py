"""`make bench`: the scan beside a bare loop of the same decode and the same model, on the same files in one run.

The good titles of the demo catalogue, several times (BENCH_COPIES multiplies it); each shipped model in turn (or those
that BENCH_MODELS names). Both ways are measured BENCH_REPEATS times, in turn, and the least counts: what else runs on the
machine only ever adds.

Start-up (the session, the registry, loading the model in each worker, creating the tables) is measured by a
scan of one second of audio a core, stated, and taken off the scan. CPU seconds are those of every process involved.
"""

import json
import os
import platform
import shutil
import sys
import wave
from pathlib import Path

import numpy as np
from deltalake import DeltaTable

from models import checkpoint
from tests.bench.process_tree import Measured, measure

PROJECT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.prefix) / "bin"
# Weights, and how many copies of the demo's titles outweigh the start-up's noise.
MODELS = {"audio-artifacts": (checkpoint.SHIPPED, 8), "audio-artifacts-cnn6": (checkpoint.SHIPPED_CNN6, 2)}
COPIES = int(os.environ.get("BENCH_COPIES", "1"))
REPEATS = int(os.environ.get("BENCH_REPEATS", "2"))


def main() -> None:
    """Print the table; write var/bench/result.json."""
    home = PROJECT / "var" / "bench"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    environment = {**os.environ, "AUSCULT_HOME": str(home)}
    demo = PROJECT / "var" / "demo"
    good = [path for path in sorted(demo.rglob("*.*")) if path.parent.name in ("album", "radio", "film")]
    if not good:
        raise SystemExit("build the demo catalogue first: make scan")
    tiny = home / "tiny"
    tiny.mkdir()
    for number in range(os.cpu_count() or 1):  # a title for each worker: loading the model there is start-up too
        with wave.open(str(tiny / f"{number}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(48_000)
            file.writeframes(bytes(96_000))
    print(f"machine: {os.cpu_count()} cores, {_processor()}, Python {platform.python_version()}")
    print("| model | | CPU seconds per audio hour | audio hours per hour | ratio of CPU |")
    print("|---|---|---|---|---|")
    results = []
    for name in os.environ.get("BENCH_MODELS", ",".join(MODELS)).split(","):
        weights, copies = MODELS[name]
        subject = home / f"{name}-catalogue"
        subject.mkdir()
        for copy in range(copies * COPIES):
            for path in good:
                shutil.copy(path, subject / f"{copy} {path.name}")
        results.append(_beside(name, weights, subject, tiny, home, environment))
        (home / "result.json").write_text(json.dumps(results, indent=2))


def _beside(
    name: str, weights: Path, subject: Path, tiny: Path, home: Path, environment: dict[str, str]
) -> dict[str, object]:
    """Measure one model both ways; print its lines."""
    register = [str(BIN / "python"), str(PROJECT / "jobs" / "register.py"), "--name", name, "--weights", str(weights)]
    measure(register, environment)
    bare_loop = [str(BIN / "python"), "-m", "tests.bench.bare_loop", str(subject), str(home / "bare.npz"), str(weights)]
    starts, bares, scans = [], [], []
    for repeat in range(REPEATS):
        starts.append(_scan(name, tiny, home / f"{name}-tiny{repeat}", environment))
        bares.append(measure(bare_loop, environment))
        scans.append(_scan(name, subject, home / f"{name}-{repeat}", environment))
    start_up, scan = (min(runs, key=lambda run: run.total_cpu_s) for runs in (starts, scans))
    loops = [json.loads(bare.output.splitlines()[-1]) for bare in bares]
    loop = min(loops, key=lambda found: found["cpu_s"])
    audio_h = loop["audio_h"]
    scan_cpu_s = scan.total_cpu_s - start_up.total_cpu_s
    scan_wall_s = scan.wall_s - start_up.wall_s
    difference, compared = _compare(home / "bare.npz", home / f"{name}-0")
    ratio = scan_cpu_s / loop["cpu_s"]
    print(f"| {name} | bare loop | {loop['cpu_s'] / audio_h:.0f} | {audio_h / loop['wall_s'] * 3600:.1f} | 1.00 |")
    print(f"| {name} | scan | {scan_cpu_s / audio_h:.0f} | {audio_h / scan_wall_s * 3600:.1f} | {ratio:.2f} |")
    print(
        f"({audio_h:.2f} audio hours; start-up, apart: {start_up.total_cpu_s:.0f} CPU seconds, {start_up.wall_s:.0f} s; "
        f"scores of {compared} segments agree within {difference:.1e})"
    )
    return {
        "model": name,
        "audio_h": audio_h,
        "segments": loop["segments"],
        "bare_loop": {"cpu_s": loop["cpu_s"], "wall_s": loop["wall_s"], "peak_mib": max(bares[0].peak_mib.values())},
        "scan": {"cpu_s": scan_cpu_s, "wall_s": scan_wall_s, "cpu_s_by_process": scan.cpu_s, "peak_mib": scan.peak_mib},
        "start_up": {"cpu_s": start_up.total_cpu_s, "wall_s": start_up.wall_s, "cpu_s_by_process": start_up.cpu_s},
        "ratio_cpu": ratio,
        "all_cpu_s": {
            "bare_loop": [found["cpu_s"] for found in loops],
            "scan": [run.total_cpu_s for run in scans],
            "start_up": [run.total_cpu_s for run in starts],
        },
        "largest_score_difference": difference,
    }


def _scan(name: str, catalogue: Path, warehouse: Path, environment: dict[str, str]) -> Measured:
    command = [
        BIN / "spark-submit", PROJECT / "jobs" / "scan.py", "--catalogue", catalogue, "--warehouse", warehouse,
        "--model", f"models:/{name}@champion",
    ]  # fmt: skip
    return measure([str(word) for word in command], environment)


def _compare(bare_scores: Path, warehouse: Path) -> tuple[float, int]:
    bare = np.load(bare_scores)
    ours = dict(zip(bare["names"].tolist(), bare["scores"], strict=True))
    rows = DeltaTable(str(warehouse / "segments")).to_pyarrow_dataset().to_table().to_pylist()
    assert len(rows) == len(ours), (len(rows), len(ours))
    worst = 0.0
    for row in rows:
        key = f"{row['title_id']}/{row['track']}/{row['channel']}/{round(row['start_s'])}"
        worst = max(worst, float(np.abs(np.array([score for _, score in row["scores"]]) - ours[key]).max()))
    return worst, len(rows)


def _processor() -> str:
    text = Path("/proc/cpuinfo").read_text()
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return "x86-64 with AVX512-BF16" if "avx512_bf16" in flags else platform.machine()


if __name__ == "__main__":
    main()
