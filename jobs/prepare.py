"""Prepares the virtual environment after installation, so that its Spark commands work without flags.

Run by `make setup` as `python -m jobs.prepare`. Writes into the environment's pyspark package:
conf/spark-defaults.conf (from the project's conf/, with this Python), conf/spark-env.sh,
conf/log4j2.properties and conf/.hiverc (names the tables in spark-sql).
"""

import shlex
import sys
from pathlib import Path

import pyspark

from jobs.launch import PROJECT
from udfs.schemas import TABLES

# A table that is not there yet is registered without columns; the first scan creates it.
_HIVERC = "".join(
    f"CREATE TABLE IF NOT EXISTS {name} USING delta LOCATION '${{env:AUSCULT_WAREHOUSE}}/{name}';\n"
    for name in (*TABLES, "evaluations")
)


def main() -> int:
    """Write the files; safe to run again."""
    spark_home = Path(pyspark.__file__).parent
    conf = spark_home / "conf"
    conf.mkdir(exist_ok=True)
    defaults = (PROJECT / "conf" / "spark-defaults.conf").read_text()
    (conf / "spark-defaults.conf").write_text(
        f"{defaults}\n# This environment's Python, for driver and workers.\nspark.pyspark.python {sys.executable}\n"
    )
    (conf / "log4j2.properties").write_text((PROJECT / "conf" / "log4j2.properties").read_text())
    home = shlex.quote(str(PROJECT / "var"))
    (conf / "spark-env.sh").write_text(
        "# Written by jobs/prepare.py. spark-sql runs .hiverc from HIVE_CONF_DIR, which names the warehouse's tables.\n"
        'export HIVE_CONF_DIR="${HIVE_CONF_DIR:-${SPARK_CONF_DIR}}"\n'
        f'export AUSCULT_HOME="${{AUSCULT_HOME:-{home}}}"\n'
        'AUSCULT_WAREHOUSE="${AUSCULT_WAREHOUSE:-${AUSCULT_HOME}/warehouse}"\n'
        "# A relative path is the user's, as the jobs take it, and not Spark's.\n"
        'case "$AUSCULT_WAREHOUSE" in /* | *://*) ;; *) AUSCULT_WAREHOUSE="$PWD/$AUSCULT_WAREHOUSE" ;; esac\n'
        "export AUSCULT_WAREHOUSE\n"
    )
    (conf / ".hiverc").write_text(_HIVERC)
    # pyspark's scripts look for Spark beside themselves under this name, before they ask whatever
    # `python3` comes first on the PATH.
    link = Path(sys.prefix) / "bin" / "spark-distribution"
    link.unlink(missing_ok=True)
    link.symlink_to(spark_home)
    return 0


if __name__ == "__main__":
    sys.exit(main())
