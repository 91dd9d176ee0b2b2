"""`make bench-filter`: the temporal filter and the tuning over 10 and 100 million segment rows.

Made-up scores with the shape of real ones: two-hour stereo titles scored every second for four labels; about one score in
150 is from 0.5 on, most of them in minutes that are loud throughout, and one in five from 0.1 on, as the shipped detector
scores clean music; every hundredth title is broken. BENCH_ROWS names other sizes (millions, comma separated). Memory is the
sum of what the largest process of each kind had resident (the JVM, the driver's Python, and a Python worker of each core
for the tuning).
"""

import json
import os
import shutil
import sys
from pathlib import Path

from tests.bench.process_tree import measure

PROJECT = Path(__file__).resolve().parent.parent.parent
HOME = PROJECT / "var" / "bench-filter"
TITLE_S = 7200
# Heavy SQL, so the JVM compiles fully (conf/spark-defaults.conf leaves that out for scans) and has most of the memory.
ENVIRONMENT = {
    **os.environ,
    "PYSPARK_SUBMIT_ARGS": "--driver-memory 8g --conf spark.driver.extraJavaOptions=-XX:+UseParallelGC pyspark-shell",
}
SIZES = [int(float(size) * 1e6) for size in os.environ.get("BENCH_ROWS", "10,100").split(",")]
LABELS = ("hum", "hiss", "distortion", "click")


def generate(rows: int) -> None:
    """Write a table segments of `rows` rows as Delta, once."""
    from jobs.launch import session
    from jobs.tables import create
    from udfs.schemas import SEGMENTS

    folder = HOME / str(rows) / "segments"
    spark = session("bench filter: generate")
    create(spark, str(folder), SEGMENTS)
    per_title = 2 * TITLE_S
    # Bursts: a label is loud in a title's minute where a hash of both says so; alone in a second one time in 500.
    score = (
        "CAST(CASE WHEN pmod(xxhash64(title, minute, '{0}'), 10000) < IF(title % 100 = 0, 1500, 60) THEN 0.3 + 0.7 * r "
        "WHEN pmod(xxhash64(id, '{0}'), 500) = 0 THEN 0.5 + 0.5 * r ELSE 0.3 * POW(r, 5) END AS FLOAT)"
    )
    scores = ", ".join(f"'{label}', {score.format(label)}" for label in LABELS)
    (
        spark.range(0, rows, 1, 64)
        .selectExpr(
            "id", f"id DIV {per_title} AS title", "CAST(id % 2 AS INT) AS side", f"(id % {per_title}) DIV 2 AS second",
            f"(id % {per_title}) DIV 120 AS minute", "pmod(xxhash64(id), 1000) / 1000D AS r",
        )
        .selectExpr(
            "CONCAT('series/', title DIV 10, '/episode ', title, '.mkv') AS title_id",
            "LPAD(HEX(xxhash64(title)), 64, '0') AS content_hash", "0 AS track", "side AS channel",
            "IF(side = 0, 'FL', 'FR') AS channel_name", "'audio-artifacts' AS model", "'1' AS model_version",
            "CAST(second AS DOUBLE) AS start_s", "second + 1D AS end_s", f"map({scores}) AS scores", "'bench' AS scan_id",
        )
        .write.format("delta").mode("append").save(str(folder))
    )  # fmt: skip
    spark.stop()


def work(what: str, rows: int) -> None:
    """Run the filter or the tuning's pass over a table; print what came out as JSON."""
    import time

    import numpy as np
    import yaml

    from jobs import tuning_inputs
    from jobs.launch import session
    from jobs.settings import OperatingPoint
    from jobs.temporal_filter import detect
    from udfs.contract import ShippedModel

    spark = session(f"bench filter: {what}")
    segments = spark.read.format("delta").load(str(HOME / str(rows) / "segments"))
    begun = time.monotonic()
    if what == "filter":
        points = {("audio-artifacts", "1", label): OperatingPoint(0.9, 20.0, 80.0) for label in LABELS}
        found = detect(spark, segments, points).count()
    else:
        grid = yaml.safe_load((PROJECT / "conf" / "tune.yaml").read_text())
        model = ShippedModel("audio-artifacts", "1", "", "", None)  # type: ignore[arg-type]
        untuned = {label: OperatingPoint() for label in LABELS}
        rises = tuning_inputs.rises_of(
            spark, segments, model, untuned, np.array(grid["thresholds"]), np.array(grid["windows_s"], dtype=float)
        )
        found = rises.selectExpr("aggregate(count, 0L, (a, b) -> a + b) AS n").agg({"n": "sum"}).head()[0]
    print(json.dumps({"found": found, "seconds": time.monotonic() - begun}))
    spark.stop()


def main() -> None:
    """Generate, measure each size in a process of its own, print the table."""
    print("| | rows | detections or steps | seconds | million rows per second | peak memory, GiB |")
    print("|---|---|---|---|---|---|")
    seconds: dict[tuple[str, int], float] = {}
    for rows in SIZES:
        folder = HOME / str(rows)
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            measure([sys.executable, "-m", "tests.bench.temporal_filter", "generate", str(rows)], ENVIRONMENT)
            (folder / "done").touch()
        for what in ("filter", "tune"):
            ran = measure([sys.executable, "-m", "tests.bench.temporal_filter", what, str(rows)], ENVIRONMENT)
            result = json.loads(ran.output.strip().splitlines()[-1])
            seconds[what, rows] = result["seconds"]
            print(
                f"| {what} | {rows / 1e6:g} M | {result['found']} | {result['seconds']:.0f} | "
                f"{rows / 1e6 / result['seconds']:.2f} | {sum(ran.peak_mib.values()) / 1024:.1f} |",
                flush=True,
            )
    for what in ("filter", "tune"):
        if len(SIZES) > 1:
            ratio = seconds[what, SIZES[-1]] / seconds[what, SIZES[0]]
            print(f"{what}: {SIZES[-1] / SIZES[0]:g} times the rows take {ratio:.1f} times as long")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    elif sys.argv[1] == "generate":
        generate(int(sys.argv[2]))
    else:
        work(sys.argv[1], int(sys.argv[2]))
