"""`make bench-size`: what planning and committing cost, and a second scan of an unchanged catalogue.

BENCH_TITLES (10,000) tiny files of two seconds, each of its own sound, and a stand-in model that costs nothing: what is left
is opening, hashing, planning, tasks, commits. Then the same command again, which finds nothing to do. Then files of the
tables, and the compaction of them. BENCH_CHUNKS makes the scan commit so often, as one of a large catalogue does.
"""

import json
import os
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
from deltalake import DeltaTable

from tests.bench.process_tree import Measured, measure

PROJECT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.prefix) / "bin"
TITLES = int(os.environ.get("BENCH_TITLES", "10000"))
CHUNKS = int(os.environ.get("BENCH_CHUNKS", "0"))  # 0: as large as the settings' own
TITLE_S = 2
REGISTER = """
import sys
sys.path.insert(0, sys.argv[1])
import toy_models
from pathlib import Path
toy_models.register_level(Path(sys.argv[2]))
"""


def main() -> None:
    """Print the table; write var/bench-size/result.json."""
    home = PROJECT / "var" / "bench-size"
    shutil.rmtree(home, ignore_errors=True)
    (home / "catalogue").mkdir(parents=True)
    for number in range(TITLES):
        folder = home / "catalogue" / f"{number // 1000:03d}"
        folder.mkdir(exist_ok=True)
        with wave.open(str(folder / f"{number:06d}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8_000)
            file.writeframes(np.random.default_rng(number).integers(-99, 99, TITLE_S * 8_000, dtype="<i2").tobytes())
    environment = {**os.environ, "AUSCULT_HOME": str(home)}
    subprocess.run(
        [sys.executable, "-c", REGISTER, str(PROJECT / "tests"), str(home / "code")], env=environment, check=True
    )
    settings = home / "settings.yaml"
    cores = os.cpu_count() or 1
    settings.write_text(
        f"chunk_channel_h_per_core: {TITLES * TITLE_S / 3600 / CHUNKS / cores}\n" if CHUNKS else "# as shipped\n"
    )
    scan = [
        BIN / "spark-submit", PROJECT / "jobs" / "scan.py", "--catalogue", home / "catalogue",
        "--warehouse", home / "warehouse", "--model", "models:/level@champion", "--settings", settings,
    ]  # fmt: skip
    first, second = measure(scan, environment), measure(scan, environment)
    rows = DeltaTable(str(home / "warehouse" / "scans")).to_pyarrow_dataset().to_table().to_pylist()
    stages = dict(max(rows, key=lambda row: row["titles_done"])["stages_s"])
    before = _files(home / "warehouse")
    commits = {name: DeltaTable(str(home / "warehouse" / name)).version() for name in before}
    maintain = [BIN / "spark-submit", PROJECT / "jobs/maintain.py", "--warehouse", home / "warehouse", "--compact"]
    compaction = measure(maintain, environment)
    print(f"{TITLES} titles of {TITLE_S} s:\n\n| | seconds | CPU seconds |\n|---|---|---|")
    for name, run in (("first scan", first), ("second scan", second), ("compaction", compaction)):
        print(f"| {name} | {run.wall_s:.0f} | {run.total_cpu_s:.0f} |")
    print(
        f"\nof the first: planned for {stages['plan']:.0f} s, scored {stages['score']:.0f} s, committed {stages['commit']:.0f} s"
    )
    print(f"files of the tables: {before} after {commits} commits, after compaction {_files(home / 'warehouse')}")
    result = {
        "titles": TITLES, "first": _plain(first), "second": _plain(second), "compaction": _plain(compaction),
        "stages_s": stages, "commits": commits, "files": before, "files_compacted": _files(home / "warehouse"),
    }  # fmt: skip
    (home / "result.json").write_text(json.dumps(result, indent=2))


def _plain(run: Measured) -> dict[str, float]:
    return {"wall_s": run.wall_s, "cpu_s": run.total_cpu_s}


def _files(warehouse: Path) -> dict[str, int]:
    return {name: len(DeltaTable(str(warehouse / name)).file_uris()) for name in ("tracks", "segments", "detections")}


if __name__ == "__main__":
    main()
