"""Makes a labelled catalogue out of a clean one: copies with defects planted in known places.

Reads: the clean catalogue's media files (first audio track of each title).
Writes: OUT/audio/VERSION/TITLE.SUFFIX, and the Delta tables OUT/titles (a catalogue to scan) and OUT/labels.
One row per: titles, a file; labels, a planted interval. The versions are clean and one a simulator.
Launch: spark-submit jobs/simulate.py --catalogue CLEAN --out OUT [--format flac --format mp3] [--seed N]
Takes: about a CPU minute per audio hour and version. The same seed gives the same bytes.
"""

import argparse
import hashlib
import os
from pathlib import Path
from typing import Any

from jobs.launch import AuscultError, log, run, session


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    from models.defects import OF_TASK, SIMULATORS
    from udfs.encode import FORMATS
    from udfs.simulation import CLEAN

    parser = argparse.ArgumentParser(prog="simulate.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--catalogue", required=True, help="clean titles: folder or table, as jobs/scan.py takes it")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder that every node mounts; audio and tables go there"
    )
    parser.add_argument(
        "--format",
        action="append",
        choices=sorted(suffix.removeprefix(".") for suffix in FORMATS),
        help="file format; repeatable, titles are dealt out among them (default: flac)",
    )
    parser.add_argument(
        "--defects",
        choices=sorted(OF_TASK),
        default="artifacts",
        help="plant each of those that detectors of this task hear, a version each beside the clean one: "
        + "; ".join(f"{task}: {', '.join(names)}" for task, names in sorted(OF_TASK.items()))
        + " (default: %(default)s)",
    )
    parser.add_argument(
        "--version", action="append", choices=[CLEAN, *SIMULATORS], help="these versions only; repeatable"
    )
    parser.add_argument("--seconds", type=float, default=float("inf"), help="take so much of each title (default: all)")
    parser.add_argument(
        "--mean-interval-s", type=float, default=10.0, help="mean length of clean and defective stretches beyond 0.5 s"
    )
    parser.add_argument(
        "--loudness-lufs",
        type=float,
        metavar="L",
        help="bring each title to this integrated loudness first, as programmes are delivered (EBU R 128: -23), as far "
        "as its peak stays below -1 dBFS; by default titles keep their level. Hum and hiss are drawn from the headroom, so "
        "that material mastered to full scale gets faint ones",
    )
    parser.add_argument(
        "--one-channel-share",
        type=float,
        default=0.0,
        metavar="S",
        help="plant the defect on one channel only in this share of the stretches, as a bad cable or plug-in does "
        "(default: %(default)g; reductive clicks take time away and so are on all channels)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, metavar="N", help="take the first N titles only")
    options = parser.parse_args(argv)
    if options.seconds <= 0 or options.mean_interval_s <= 0:
        parser.error("--seconds and --mean-interval-s: expected more than 0")
    if options.loudness_lufs is not None and not -60 <= options.loudness_lufs <= 0:
        parser.error("--loudness-lufs: expected a level between -60 and 0")
    if not 0 <= options.one_channel_share <= 1:
        parser.error("--one-channel-share: expected a share between 0 and 1")
    if options.limit is not None and options.limit < 1:
        parser.error(f"--limit: expected at least 1, found {options.limit}")
    options.format = options.format or ["flac"]
    options.version = options.version or [CLEAN, *OF_TASK[options.defects]]
    return options


def orders(titles: list[Any], out: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row of `udfs.schemas.SIMULATION_ORDERS` per file to make."""
    rows = []
    for title in titles:
        if title.path is None:
            log.warning("%s: left out, not a local file", title.uri)
            continue
        kind = title.columns.get("kind")
        for version in options.version:
            # All versions of a title in one format: its clean copy is then the counterpart of each.
            draw = hashlib.sha256(f"{options.seed}\0{title.title_id}".encode()).digest()[0]
            suffix = options.format[draw % len(options.format)]
            title_id = f"{version}/{os.path.splitext(title.title_id.lstrip('/'))[0]}.{suffix}"
            target = (out / "audio" / title_id).resolve()
            if out.resolve() not in target.parents:
                raise AuscultError(f"title {title.title_id!r}: its name leads out of {out}")
            rows.append(
                {
                    "title_id": title_id,
                    "clean_title_id": title.title_id,
                    "clean_uri": title.uri,
                    "version": version,
                    "format": suffix,
                    "kind": None if kind is None else str(kind),
                    "path": title.path,
                    "target": str(target),
                    "seed": options.seed,
                    "seconds": options.seconds,
                    "mean_interval_s": options.mean_interval_s,
                    "loudness_lufs": options.loudness_lufs,
                    "one_channel_share": options.one_channel_share,
                }
            )
    if len({row["title_id"] for row in rows}) < len(rows):
        raise AuscultError("two titles differ in their suffix only, and would be written to the same file; rename one")
    return rows


def main(argv: list[str]) -> int:
    """Simulate and write the tables."""
    options = arguments(argv)
    spark = session("auscult simulate")
    from pyspark.sql import functions as F

    from jobs.catalogue import read_catalogue
    from jobs.storage import Storage
    from udfs.schemas import LABELS, SIMULATED, SIMULATION, SIMULATION_ORDERS
    from udfs.simulation import simulate_batches

    titles = read_catalogue(spark, options.catalogue).titles[: options.limit]
    rows = orders(titles, options.out, options)
    if not rows:
        raise AuscultError(f"catalogue {options.catalogue}: there are no titles in it")
    tasks = min(len(rows), spark.sparkContext.defaultParallelism * 8)
    frame = spark.createDataFrame(
        [tuple(row[name] for name in SIMULATION_ORDERS.names) for row in rows], SIMULATION_ORDERS
    )
    spark.sparkContext.setJobDescription(f"simulate {len(rows)} files")
    storage = Storage(spark, str(options.out.resolve()))
    staging = storage.locate("_staging")
    frame.repartition(tasks).mapInArrow(simulate_batches, SIMULATION).write.mode("overwrite").parquet(staging)
    made = spark.read.parquet(staging)
    files = made.select(SIMULATED.names)
    labels = made.select("title_id", "clean_uri", F.inline("labels")).select(LABELS.names)
    for name, table, schema in [("titles", files.where("error IS NULL"), SIMULATED), ("labels", labels, LABELS)]:
        # DataFrame.to puts the schema's comments on the columns, which a query loses.
        table.to(schema).write.format("delta").mode("overwrite").option("overwriteSchema", "true").save(
            storage.locate(name)
        )
    failed = files.where("error IS NOT NULL").orderBy("title_id").collect()
    for row in failed[:5]:
        log.warning("%s: left out: %s", row.clean_title_id, row.error)
    [figures] = files.where("error IS NULL").agg(F.count("*"), F.sum("duration_s") / 3600).collect()
    planted = labels.count()
    storage.delete("_staging")
    print(
        f"{figures[0]} files, {figures[1] or 0:.2f} audio hours, {planted} planted intervals"
        + (f", {len(failed)} files left out" if failed else "")
    )
    print(
        f"measure a model by them: spark-submit jobs/evaluate.py --catalogue {options.out} --model models:/NAME/VERSION"
    )
    print(
        f"or scan them: spark-submit jobs/scan.py --catalogue {options.out}/titles --warehouse {options.out}/warehouse"
    )
    return 0 if len(failed) < len(rows) else 1


if __name__ == "__main__":
    run(main)
