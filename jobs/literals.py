"""Small tables that the driver holds: operating points, titles asked for, rows to be merged."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType


def literal_frame(spark: "SparkSession", rows: Iterable[tuple[Any, ...]], schema: "StructType | str") -> "DataFrame":
    """Rows as part of the query plan.

    `createDataFrame` of Python rows is an RDD, of whose size the planner knows nothing: what is joined with it gets
    shuffled. An Arrow table becomes a local relation: broadcast, and read by no Python worker.

    Args:
        spark: the session.
        rows: values in the schema's order, times with their zone; few enough for the driver (some 100,000).
        schema: of the columns; DDL as well.

    Raises:
        pyarrow.ArrowInvalid: a value does not fit its column.
    """
    import pyarrow as pa
    from pyspark.sql.pandas.types import to_arrow_schema
    from pyspark.sql.types import StructType

    fields = schema if isinstance(schema, StructType) else cast(StructType, StructType.fromDDL(schema))
    arrow = to_arrow_schema(fields, timezone="UTC")
    columns = list(zip(*rows, strict=True)) or [()] * len(arrow)
    arrays = [pa.array(map(_encodable, values), type=field.type) for values, field in zip(columns, arrow, strict=True)]
    return spark.createDataFrame(pa.Table.from_arrays(arrays, schema=arrow), fields)


def _encodable(value: Any) -> Any:
    """A value as Spark stores it: half a surrogate pair (a catalogue's JSON may hold one), which UTF-8 has not, is replaced."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list | tuple):
        parts = map(_encodable, value)
        return list(parts) if isinstance(value, list) else tuple(parts)
    return value
