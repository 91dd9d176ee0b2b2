"""Makes the SQL function defect_scores, by which a query scores stretches of titles with a registered model version.

In a notebook or the pyspark shell:

    from jobs.spot_check import register_defect_scores
    register_defect_scores(spark, "models:/audio-artifacts/2")
    spark.sql("SELECT defect, defect_scores(uri, track, start_s, end_s).scores FROM detections JOIN tracks USING (...)")
"""

from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql.functions import pandas_udf

from jobs import registry
from jobs.launch import DEFAULT_MODEL_URI
from jobs.settings import ScanSettings
from udfs.batches import ScanOptions
from udfs.spot_check import DEFECT_SCORES, defect_scores_udf


def register_defect_scores(
    spark: SparkSession,
    model: str = DEFAULT_MODEL_URI,
    name: str = "defect_scores",
    settings: ScanSettings | None = None,
) -> str:
    """Register `name(uri, track, start_s, end_s)` in a session's SQL; register two names to compare two versions.

    Args:
        spark: the session.
        model: models:/NAME@ALIAS or models:/NAME/VERSION; an alias is resolved now.
        name: of the function.
        settings: batch size and time limit of the decoder; None for the scan's defaults.

    Returns:
        The version that scores, as name/version. The function returns `udfs.spot_check.DEFECT_SCORES`: `scores` (largest
        score of each label in the stretch), `segments` (what the scan's table would hold) and `error`.

    Raises:
        AuscultError: the model is not to be had, or does not keep the contract.
    """
    settings = ScanSettings() if settings is None else settings
    models = registry.resolve([model])
    registry.check(models, settings.cpu_runtime)
    registry.ship(spark, models)
    options = ScanOptions(settings.batch_segments, settings.decode_timeout_s, runtime=settings.cpu_runtime)
    as_udf: Any = pandas_udf  # its overloads do not know iterators of several columns
    spark.udf.register(name, as_udf(defect_scores_udf(models[0].shipped, options), DEFECT_SCORES))
    return models[0].shipped.key
