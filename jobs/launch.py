"""What every job does first: find its home, start Spark with Delta, turn expected errors into one line."""

import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PROJECT = Path(__file__).resolve().parent.parent
DELTA_PACKAGE = "io.delta:delta-spark_4.2_2.13:4.4.0"
EXIT_USAGE = 2
SMALL_TABLES = {
    "spark.sql.files.minPartitionNum": "1",
    "spark.sql.files.openCostInBytes": "64k",
    "spark.sql.leafNodeDefaultParallelism": "1",
    "spark.sql.shuffle.partitions": "1",
    "spark.databricks.delta.snapshotPartitions": "1",
}
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
SHIPPED_MODEL = "audio-artifacts"
DEFAULT_MODEL_URI = f"models:/{SHIPPED_MODEL}@champion"

log = logging.getLogger("auscult")


class AuscultError(Exception):
    """Something the user can mend: printed as one line, without a traceback."""


def home() -> Path:
    """Where tables, the embedded MLflow store and downloads live unless told otherwise.

    `AUSCULT_HOME`, else `var/` in a source checkout, else `~/.auscult`.
    """
    if chosen := os.environ.get("AUSCULT_HOME"):
        return Path(chosen).absolute()
    if (PROJECT / "pyproject.toml").exists():
        return PROJECT / "var"
    return Path.home() / ".auscult"


def default_warehouse() -> str:
    """`AUSCULT_WAREHOUSE`, else `warehouse/` in the home folder."""
    return os.environ.get("AUSCULT_WAREHOUSE") or str(home() / "warehouse")


def check_file(option: str, path: Path) -> None:
    """Refuse a file that cannot be written, before there is work to lose.

    Raises:
        AuscultError: why.
    """
    folder = path.absolute().parent
    if path.is_dir():
        raise AuscultError(f"{option} {path}: expected a file to write, found a folder")
    if not folder.is_dir():
        raise AuscultError(f"{option} {path}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise AuscultError(f"{option} {path}: the folder {folder} cannot be written")


def keep_freed_memory() -> None:
    """Set glibc's allocator in this process as conf/spark-defaults.conf sets it in executors, for what runs a network here.

    Processes that it starts by fork have it too; where the C library is another, nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 256 << 20)


def run(main: Callable[[list[str]], int]) -> None:
    """Call a job's `main` with the command line and exit with what it returns."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    log.setLevel(logging.INFO)
    try:
        status = main(sys.argv[1:])
    except AuscultError as error:
        print(f"error: {error}", file=sys.stderr)
        status = EXIT_USAGE
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        status = 130
    sys.stdout.flush()
    try:
        _stop_session()
    except Exception:
        if status != 130:  # Ctrl-C goes to Spark's JVM as well, which may be gone by now
            raise
    sys.exit(status)


def _interrupted(number: int, frame: FrameType | None) -> None:
    # Every call to the JVM, which ends too, would tell of its loss, by the root logger; ours has a level of its own.
    for name in ("", "py4j"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    raise KeyboardInterrupt


def _stop_session() -> None:
    """End the application in order, so that a cluster's master does not take it for failed."""
    if "pyspark.sql" not in sys.modules:
        return
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        active.stop()


def plan_for_small_tables(spark: "SparkSession") -> None:
    """Let a step of Spark's on a few files or rows be one task.

    What a scan does beside scoring is a hundred small queries, in which each task costs more (generating and compiling its
    code) than its rows do: one a core was a fifth of a commit's time, and as many small files in the tables. Larger
    inputs are still cut, at `spark.sql.files.maxPartitionBytes`; how scoring is spread over the cores is not Spark's choice.
    """
    for name, value in SMALL_TABLES.items():
        spark.conf.set(name, value)


def session(name: str) -> "SparkSession":
    """The Spark session, with the settings that the jobs' correctness rests on.

    Raises:
        AuscultError: Delta Lake is not on Spark's class path.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    from pyspark.sql import SparkSession

    spark = (
        SparkSession.builder.appName(name)
        .config("spark.sql.session.timeZone", "UTC")
        # Columns of Arrow batches are matched by position; without this a reordered one is silently swapped.
        .config("spark.sql.execution.arrow.pyspark.validateSchema.enabled", "true")
        # A scan's tasks are balanced by audio seconds; Spark would merge them by their few bytes.
        .config("spark.sql.adaptive.coalescePartitions.enabled", "false")
        .config("spark.sql.execution.pyspark.udf.faulthandler.enabled", "true")
        .getOrCreate()
    )
    # conf/spark-defaults.conf has what suits small tables on one machine; partitions are never merged (see above).
    partitions = max(
        int(spark.conf.get("spark.sql.shuffle.partitions") or 0), 2 * spark.sparkContext.defaultParallelism
    )
    spark.conf.set("spark.sql.shuffle.partitions", partitions)
    # Under spark-submit Ctrl-C ends the JVM as well, which pyspark's own handler would first call.
    if "PYSPARK_GATEWAY_PORT" in os.environ and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _interrupted)
    if "DeltaSparkSessionExtension" not in str(spark.conf.get("spark.sql.extensions", "")):
        spark.stop()
        raise AuscultError(
            "Delta Lake is not on Spark's class path. Run `make setup` once, or pass to spark-submit: "
            f"--packages {DELTA_PACKAGE} --conf spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension "
            "--conf spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog"
        )
    return spark
