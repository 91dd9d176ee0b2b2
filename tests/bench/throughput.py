"""`make bench`: the scan beside what else does the same, on the same files with the same model in one run.

The yardstick is a bare single-process loop; then one such loop on each core, which shows what sharing caches and memory
costs; the scan, as it is, with all that saves work off, and with OpenVINO and int8; decoding alone; and,
where `make bench-peers` has installed them, Ray Data, Daft and a Spark job of pandas UDFs (tests/bench/peers.py). All decode
with the same functions, and their scores are compared.

The good titles of the demo catalogue, several times (BENCH_COPIES multiplies it); each shipped model in turn (or those
that BENCH_MODELS names, as BENCH_WAYS names the ways, with a semicolon between them). Every way is measured BENCH_REPEATS times, in turn, and the least
counts: what else runs on the machine only ever adds.

All ways get the allocator's settings that conf/spark-defaults.conf gives the scan's workers: with glibc's own a bare loop
takes a third more, for it returns every batch's memory and asks for it again.

Start-up (sessions, registry, loading the model in each worker, creating tables) is measured by the same on a second of audio
a core, stated, and taken off. CPU seconds are those of every process involved.
"""

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
import wave
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from deltalake import DeltaTable

from models import checkpoint
from models.runtimes import is_installed
from tests.bench.bare_loop import RATE_HZ
from tests.bench.process_tree import Measured, measure

PROJECT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.prefix) / "bin"
# Weights, and how many copies of the demo's titles outweigh the start-up's noise.
MODELS = {"audio-artifacts": (checkpoint.SHIPPED, 4), "audio-artifacts-cnn6": (checkpoint.SHIPPED_CNN6, 1)}
COPIES = float(os.environ.get("BENCH_COPIES", "1"))
REPEATS = int(os.environ.get("BENCH_REPEATS", "2"))
BARE, EACH, DECODE = "bare loop", "bare loop, one a core", "decode only"
# Settings of each. The copies of the demo's titles are one file each time; what sharing that saves is no figure for a
# catalogue, so both leave it out.
APART = "equal_titles_once: false\n"
SCANS = {
    "scan": APART,
    "scan, nothing saved": f"{APART}equal_channels_once: false\nsilence_once: false\n",
    "scan, OpenVINO": f"{APART}cpu_runtime: openvino\n",
    "scan, OpenVINO, bf16": f"{APART}cpu_runtime: openvino-bf16\n",
    "scan, int8": f"{APART}cpu_runtime: openvino-int8\n",
}
PEERS = {"Ray Data": ("ray", "ray"), "Daft": ("daft", "daft"), "Spark, pandas UDFs": ("pandas-udf", "pyspark")}
ONE_PROCESS = (BARE, DECODE)
CORES = os.cpu_count() or 1


@dataclass
class Way:
    """What was measured of one way.

    Args:
        start_ups: runs on a second a core.
        runs: runs on the whole.
        difference: largest difference of a score from the bare loop's; NaN where nothing was scored.
    """

    start_ups: list[Measured] = field(default_factory=list)
    runs: list[Measured] = field(default_factory=list)
    difference: float = float("nan")

    @property
    def start_up_cpu_s(self) -> float:
        """CPU seconds before and after the work."""
        return min(run.total_cpu_s for run in self.start_ups)

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the work."""
        return min(run.total_cpu_s for run in self.runs) - self.start_up_cpu_s

    @property
    def wall_s(self) -> float:
        """Seconds of the work."""
        return min(run.wall_s for run in self.runs) - min(run.wall_s for run in self.start_ups)

    @property
    def peak_mib(self) -> float:
        """Largest sum of what the kinds of processes had resident at most, one of each."""
        return max(sum(run.peak_mib.values()) for run in self.runs)


class Bench:
    """The folders of a run, and one model."""

    def __init__(self, home: Path, name: str, weights: Path, subject: Path, tiny: Path) -> None:
        self.home, self.name, self.weights = home, name, weights
        self.folders = {"all": subject, "tiny": tiny}
        self.environment = {**os.environ, **allocator(), "AUSCULT_HOME": str(home), "PYTHONPATH": _python_path()}

    def measure(self, way: str, which: str, number: int) -> tuple[Measured, dict[str, np.ndarray]]:
        """Run one way over one of the folders; also its scores by segment."""
        folder, python = self.folders[which], str(BIN / "python")
        out = self.home / f"{self.name} {way} {which} {number}"
        if way in (BARE, EACH, DECODE):
            weights, processes = "" if way == DECODE else str(self.weights), CORES if way == EACH else 1
            command = [python, "-m", "tests.bench.bare_loop", str(folder), f"{out}.npz", weights, str(processes)]
            return measure(command, self.environment), _from_file(out) if weights else {}
        if way in SCANS:
            settings = self.home / f"{way}.yaml"
            settings.write_text(SCANS[way])
            command = [
                BIN / "spark-submit", PROJECT / "jobs" / "scan.py", "--catalogue", folder, "--warehouse", out,
                "--model", f"models:/{self.name}@champion", "--settings", settings,
            ]  # fmt: skip
            return measure(command, self.environment), _from_table(out)
        peer = [python, "-m", "tests.bench.peers", PEERS[way][0], str(folder), f"{out}.npz", str(self.weights)]
        return measure(peer, self.environment), _from_file(out)


def allocator() -> dict[str, str]:
    """The settings of glibc's malloc that the scan's workers have."""
    lines = (PROJECT / "conf" / "spark-defaults.conf").read_text().splitlines()
    prefix = "spark.executorEnv."
    pairs = (line.split() for line in lines if line.startswith(f"{prefix}MALLOC"))
    return {name.removeprefix(prefix): value for name, value in pairs}


def _python_path() -> str:
    return os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])


def _from_file(out: Path) -> dict[str, np.ndarray]:
    found = np.load(f"{out}.npz")
    return dict(zip(found["names"].tolist(), found["scores"], strict=True))


def _from_table(warehouse: Path) -> dict[str, np.ndarray]:
    rows = DeltaTable(str(warehouse / "segments")).to_pyarrow_dataset().to_table().to_pylist()
    return {
        f"{row['title_id']}/{row['track']}/{row['channel']}/{round(row['start_s'] * RATE_HZ)}": np.array(
            [score for _, score in row["scores"]]
        )
        for row in rows
    }


def good_titles() -> list[Path]:
    """The demo catalogue's titles that are no trap."""
    found = [p for p in sorted((PROJECT / "var" / "demo").rglob("*.*")) if p.parent.name in ("album", "radio", "film")]
    if not found:
        raise SystemExit("build the demo catalogue first: make scan")
    return found


def write_start_up(folder: Path) -> None:
    """A title of a second for each worker: loading the model there is start-up too."""
    folder.mkdir()
    for number in range(CORES):
        with wave.open(str(folder / f"{number}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(48_000)
            file.writeframes((np.random.default_rng(number).uniform(-3e3, 3e3, 48_000)).astype("<i2").tobytes())


def main() -> None:
    """Print the tables; write var/bench/result.json."""
    home = PROJECT / "var" / "bench"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    good = good_titles()
    tiny = home / "tiny"
    write_start_up(tiny)
    there = {way: package for way, (_, package) in PEERS.items() if importlib.util.find_spec(package) is not None}
    if missing := sorted(set(PEERS) - set(there)):
        print(f"not installed, so left out: {', '.join(missing)} (make bench-peers installs them)")
    ways = [DECODE, BARE, EACH, *SCANS, *there]
    if not is_installed("openvino"):
        ways = [way for way in ways if "openvino" not in SCANS.get(way, "")]
    if chosen := os.environ.get("BENCH_WAYS"):
        ways = [way for way in ways if way in (BARE, *chosen.split(";"))]
    versions = {package: importlib.metadata.version(package) for package in ("torch", "av", "pyspark", *there.values())}
    print(f"machine: {machine()}; {', '.join(f'{name} {version}' for name, version in versions.items())}")
    results: dict[str, Any] = {"machine": machine(), "versions": versions, "models": []}
    for name in os.environ.get("BENCH_MODELS", ",".join(MODELS)).split(","):
        weights, copies = MODELS[name]
        subject = home / f"{name}-catalogue"
        subject.mkdir()
        for copy in range(max(1, round(copies * COPIES))):
            for path in good:
                shutil.copy(path, subject / f"{copy} {path.name}")
        register = [BIN / "python", PROJECT / "jobs" / "register.py", "--name", name, "--weights", weights]
        bench = Bench(home, name, weights, subject, tiny)
        measure(register, bench.environment)
        results["models"].append(_beside(bench, ways))
        (home / "result.json").write_text(json.dumps(results, indent=2))


def _beside(bench: Bench, ways: list[str]) -> dict[str, Any]:
    """Measure one model every way; print the table."""
    if not checkpoint.load(bench.weights).ranges:
        ways = [way for way in ways if way != "scan, int8"]  # as with OpenVINO
    found = {way: Way() for way in ways}
    reference: dict[str, np.ndarray] = {}
    audio_h = 0.0
    for number in range(REPEATS):
        for way in [BARE, *(way for way in ways if way != BARE)]:
            found[way].start_ups.append(bench.measure(way, "tiny", number)[0])
            run, scores = bench.measure(way, "all", number)
            found[way].runs.append(run)
            if way == BARE:
                reference = scores
                audio_h = json.loads(run.output.splitlines()[-1])["audio_h"]
            elif scores:
                assert scores.keys() == reference.keys(), (way, len(scores), len(reference))
                found[way].difference = max(float(np.abs(scores[key] - reference[key]).max()) for key in reference)
            print(f"  {way}: {run.total_cpu_s:.0f} CPU s, {run.wall_s:.0f} s", file=sys.stderr)
    bare_s = found[BARE].cpu_s
    print(f"\n{bench.name}, {audio_h:.2f} audio hours, {len(reference)} segments:\n")
    print(
        "| | CPU seconds per audio hour | ratio | audio hours per hour | start-up, CPU seconds | MiB | scores within |\n"
        "|---|---|---|---|---|---|---|"
    )
    for way, measured in found.items():
        difference = "" if np.isnan(measured.difference) else f"{measured.difference:.0e}"
        print(
            f"| {way}{', one process' if way in ONE_PROCESS else ''} | {measured.cpu_s / audio_h:.1f} | {measured.cpu_s / bare_s:.2f} "
            f"| {audio_h / measured.wall_s * 3600:.0f} | {measured.start_up_cpu_s:.0f} | {measured.peak_mib:.0f} | {difference} |"
        )
    return {
        "model": bench.name,
        "audio_h": audio_h,
        "segments": len(reference),
        "ways": {
            way: {
                "cpu_s": measured.cpu_s,
                "wall_s": measured.wall_s,
                "ratio_cpu": measured.cpu_s / bare_s,
                "start_up_cpu_s": measured.start_up_cpu_s,
                "start_up_wall_s": min(run.wall_s for run in measured.start_ups),
                "all_cpu_s": [run.total_cpu_s for run in measured.runs],
                "all_start_up_cpu_s": [run.total_cpu_s for run in measured.start_ups],
                "cpu_s_by_process": min(measured.runs, key=lambda run: run.total_cpu_s).cpu_s,
                "start_up_cpu_s_by_process": min(measured.start_ups, key=lambda run: run.total_cpu_s).cpu_s,
                "peak_mib": measured.runs[0].peak_mib,
                "largest_score_difference": None if np.isnan(measured.difference) else measured.difference,
            }
            for way, measured in found.items()
        },
    }


def machine() -> str:
    """What a figure was measured on."""
    return f"{os.cpu_count()} cores, {_processor()}, Python {platform.python_version()}"


def _processor() -> str:
    text = Path("/proc/cpuinfo").read_text()
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    for flag, name in (("avx512_bf16", "AVX512-BF16"), ("avx2", "AVX2")):
        if flag in flags:
            return f"{platform.machine()} with {name}"
    return platform.machine()


if __name__ == "__main__":
    main()
