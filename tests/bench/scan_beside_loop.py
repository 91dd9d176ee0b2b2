"""`make bench`: the scan beside a bare loop of the same decode and the same model, on the same files in one run.

Start-up (the session, the registry, loading the model in each worker, creating the tables) is measured by a
scan of one second of audio, stated, and taken off the scan. CPU seconds are those of every process involved.
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

from tests.bench.process_tree import Measured, measure

PROJECT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.prefix) / "bin"
COPIES = int(os.environ.get("BENCH_COPIES", "1"))


def main() -> None:
    """Print the table; write var/bench/result.json."""
    home = PROJECT / "var" / "bench"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    environment = {**os.environ, "AUSCULT_HOME": str(home)}
    demo = PROJECT / "var" / "demo"
    subject = home / "catalogue"
    subject.mkdir()
    good = [path for path in sorted(demo.rglob("*.*")) if path.parent.name in ("album", "radio", "film")]
    if not good:
        raise SystemExit("build the demo catalogue first: make scan")
    for copy in range(COPIES):
        for path in good:
            shutil.copy(path, subject / f"{copy} {path.name}")
    tiny = home / "tiny"
    tiny.mkdir()
    with wave.open(str(tiny / "second.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(bytes(96_000))
    measure([str(BIN / "python"), str(PROJECT / "jobs" / "register.py")], environment)
    start_up = _scan(tiny, home / "warehouse-tiny", environment)
    bare = measure(
        [str(BIN / "python"), "-m", "tests.bench.bare_loop", str(subject), str(home / "bare.npz")], environment
    )
    loop = json.loads(bare.output.splitlines()[-1])
    scan = _scan(subject, home / "warehouse", environment)
    audio_h = loop["audio_h"]
    scan_cpu_s = scan.total_cpu_s - start_up.total_cpu_s
    scan_wall_s = scan.wall_s - start_up.wall_s
    difference, compared = _compare(home)
    result = {
        "machine": f"{os.cpu_count()} cores, {_processor()}, Python {platform.python_version()}",
        "audio_h": audio_h,
        "segments": loop["segments"],
        "bare_loop": {
            "cpu_s_per_audio_h": loop["cpu_s"] / audio_h,
            "audio_h_per_h": audio_h / loop["wall_s"] * 3600,
            "peak_mib": max(bare.peak_mib.values()),
        },
        "scan": {
            "cpu_s_per_audio_h": scan_cpu_s / audio_h,
            "audio_h_per_h": audio_h / scan_wall_s * 3600,
            "cpu_s": scan.cpu_s,
            "worker_peak_mib": scan.peak_mib.get("worker"),
        },
        "start_up": {"cpu_s": start_up.total_cpu_s, "wall_s": start_up.wall_s, "cpu_s_by_process": start_up.cpu_s},
        "ratio_cpu": scan_cpu_s / loop["cpu_s"],
        "largest_score_difference": difference,
        "segments_compared": compared,
    }
    (home / "result.json").write_text(json.dumps(result, indent=2))
    print(
        f"machine: {result['machine']}; {audio_h:.2f} audio hours, {loop['segments']} segments of one second and channel"
    )
    print("| | CPU seconds per audio hour | audio hours per hour | ratio of CPU |")
    print("|---|---|---|---|")
    for name, ratio in (("bare_loop", 1.0), ("scan", result["ratio_cpu"])):
        row = result[name]
        print(
            f"| {name.replace('_', ' ')} | {row['cpu_s_per_audio_h']:.0f} | {row['audio_h_per_h']:.1f} | {ratio:.2f} |"
        )
    print(f"start-up, apart: {start_up.total_cpu_s:.0f} CPU seconds, {start_up.wall_s:.0f} s")
    print(f"scores of {compared} segments agree within {difference:.1e}")


def _scan(catalogue: Path, warehouse: Path, environment: dict[str, str]) -> Measured:
    command = [BIN / "spark-submit", PROJECT / "jobs" / "scan.py", "--catalogue", catalogue, "--warehouse", warehouse]
    return measure([str(word) for word in command], environment)


def _compare(home: Path) -> tuple[float, int]:
    bare = np.load(home / "bare.npz")
    ours = dict(zip(bare["names"].tolist(), bare["scores"], strict=True))
    rows = DeltaTable(str(home / "warehouse" / "segments")).to_pyarrow_dataset().to_table().to_pylist()
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
