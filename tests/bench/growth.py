"""`make bench-growth`: does an hour of audio cost the same in short titles and long ones, in few and in many?

The same BENCH_HOURS (4) of mono FLAC as titles of a minute, ten minutes, an hour, and in one piece; then 1, 2, 4 ... titles of
an hour, up to BENCH_MOST (8; 24 are a day of audio). What is heard are the demo catalogue's recordings, each title beginning
somewhere else, so that no two are alike. Start-up, measured on a second of audio a core, is taken off.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.bench.bare_loop import RATE_HZ, segments_of
from tests.bench.process_tree import Measured, measure
from tests.bench.throughput import BIN, PROJECT, machine
from udfs.encode import write_stream

HOURS = float(os.environ.get("BENCH_HOURS", "4"))
MOST = int(os.environ.get("BENCH_MOST", "8"))


def recordings() -> np.ndarray:
    """First channels of the demo catalogue's album, one after the other, float32 (samples,)."""
    files = sorted((PROJECT / "var" / "demo" / "album").iterdir())
    if not files:
        raise SystemExit("build the demo catalogue first: make scan")
    pieces = [
        waveform.copy() for path in files for name, waveform in segments_of(str(path)) if name.split("/")[2] == "0"
    ]
    return np.concatenate(pieces)


def write_titles(folder: Path, sound: np.ndarray, count: int, seconds: int) -> None:
    """Titles of the same length, each with the sound from another place on, over and over."""
    folder.mkdir(parents=True)
    for number in range(count):
        start = number * len(sound) // count + number

        def blocks(start: int = start) -> Iterator[np.ndarray]:
            for second in range(seconds):
                at = np.arange(start + second * RATE_HZ, start + (second + 1) * RATE_HZ) % len(sound)
                yield sound[None, at]

        write_stream(folder / f"{number:05d}.flac", blocks(), RATE_HZ, "mono")


def main() -> None:
    """Print the tables; write var/bench-growth/result.json."""
    home = PROJECT / "var" / "bench-growth"
    shutil.rmtree(home, ignore_errors=True)
    environment = {**os.environ, "AUSCULT_HOME": str(home)}
    sound = recordings()
    write_titles(home / "start-up", sound, os.cpu_count() or 1, 1)
    measure([BIN / "python", PROJECT / "jobs" / "register.py"], environment)

    def scan(folder: Path) -> Measured:
        command = [
            BIN / "spark-submit",
            PROJECT / "jobs/scan.py",
            "--catalogue",
            folder,
            "--warehouse",
            f"{folder}.out",
        ]
        return measure(command, environment)

    start_up = scan(home / "start-up")
    print(f"machine: {machine()}; start-up {start_up.wall_s:.0f} s, {start_up.total_cpu_s:.0f} CPU s\n")
    result = {"machine": machine(), "start_up_s": start_up.wall_s, "start_up_cpu_s": start_up.total_cpu_s, "runs": []}
    lengths = [(round(HOURS * 3600 / seconds), seconds) for seconds in (60, 600, 3600)] + [(1, round(HOURS * 3600))]
    counts = [(1 << power, 3600) for power in range(MOST.bit_length()) if 1 << power <= MOST]
    for name, plans in (("length", lengths), ("number", [*counts, *([(MOST, 3600)] if MOST & (MOST - 1) else [])])):
        print(
            f"by {name} of titles:\n\n| titles | of | seconds an audio hour | CPU seconds an audio hour | to the first |"
        )
        print("|---|---|---|---|---|")
        first = 0.0
        for count, seconds in plans:
            folder = home / f"{name}-{count}x{seconds}"
            write_titles(folder, sound, count, seconds)
            run, hours = scan(folder), count * seconds / 3600
            wall_s, cpu_s = run.wall_s - start_up.wall_s, run.total_cpu_s - start_up.total_cpu_s
            first = first or cpu_s / hours
            print(
                f"| {count} | {seconds // 60} min | {wall_s / hours:.1f} | {cpu_s / hours:.1f} | {cpu_s / hours / first:.2f} |",
                flush=True,
            )
            result["runs"].append(
                {"by": name, "titles": count, "seconds": seconds, "wall_s": wall_s, "cpu_s": cpu_s, "hours": hours}
            )
            shutil.rmtree(folder)
            (home / "result.json").write_text(json.dumps(result, indent=2))
        print(file=sys.stdout)


if __name__ == "__main__":
    main()
