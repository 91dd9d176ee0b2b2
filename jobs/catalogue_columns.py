"""The catalogue's own columns in the table `tracks`: names, types, and values that changed where the file did not."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    BooleanType,
    DataType,
    DoubleType,
    LongType,
    StringType,
    StructField,
    StructType,
)

from jobs.catalogue import Title
from jobs.launch import log
from jobs.literals import literal_frame
from jobs.plan import own_columns
from jobs.storage import Storage
from jobs.tables import add_columns, persist, quoted, read
from udfs.schemas import TRACKS

LONGS = range(-(1 << 63), 1 << 63)
RENEWED_AT_ONCE = 32_000_000  # characters of titles and values that one commit holds, each of which reads the table


def own_fields(present: StructType, rows: Iterable[Mapping[str, Any]]) -> list[StructField]:
    """Fields for the catalogue's own columns: as the table has them, whatever the case, else by their values.

    A column that somebody else gave the table, of a type that no catalogue's value has, is left to them.

    Args:
        present: of the table.
        rows: columns of titles, as `jobs.plan.own_columns` names them.
    """
    stored = {field.name.lower(): field for field in present}
    kinds: dict[str, set[type]] = defaultdict(set)
    spelled: dict[str, str] = {}
    for row in rows:
        for name, value in row.items():
            kinds[name.lower()].add(str if type(value) is int and value not in LONGS else type(value))
            spelled.setdefault(name.lower(), name)
    comment = {"comment": "Column of the catalogue"}
    fields = [
        stored.get(key) or StructField(name, _type_of(kinds[key]), True, comment) for key, name in spelled.items()
    ]
    return [field for field in fields if isinstance(field.dataType, BooleanType | LongType | DoubleType | StringType)]


def fitted(columns: Mapping[str, Any], fields: Iterable[StructField]) -> dict[str, Any]:
    """A title's own columns by the fields' names, as their types take them; NULL where a value does not fit."""
    lower = {name.lower(): value for name, value in columns.items()}
    return {field.name: _fitted(lower.get(field.name.lower()), field.dataType) for field in fields}


def _type_of(kinds: set[type]) -> DataType:
    """The column type for values of these kinds; integers that no column holds are to be called text."""
    kinds = kinds - {type(None)}
    if kinds == {bool}:
        return BooleanType()
    if not kinds or not kinds <= {int, float}:
        return StringType()
    return LongType() if kinds == {int} else DoubleType()


def _fitted(value: Any, data_type: DataType) -> Any:
    """A catalogue's value as the column's type; NULL where it does not fit, and for what is no number among numbers.

    >>> [_fitted(value, LongType()) for value in (12, "12", 12.0, 12.7, 1 << 63, float("inf"), True, "a")]
    [12, 12, 12, None, None, None, None, None]
    """
    is_number = isinstance(value, int | float | str) and not isinstance(value, bool)
    if value is None or (isinstance(value, float) and math.isnan(value)):  # pandas writes NaN where there is nothing
        return None
    try:
        if isinstance(data_type, StringType):
            return str(value)
        if isinstance(data_type, BooleanType):
            return value if isinstance(value, bool) else {"true": True, "false": False}.get(str(value).lower())
        if is_number and isinstance(data_type, LongType):
            whole = int(value)
            return whole if whole in LONGS and (isinstance(value, str) or whole == value) else None
        if is_number:
            return None if math.isnan(number := float(value)) else number
    except (ValueError, OverflowError):
        pass
    return None


class OwnColumns:
    """Brings a catalogue's own columns into the table `tracks`, also of titles that the scan leaves alone.

    A scan does so before it scores: the file of such a title has not changed; what the catalogue says of it may have.

    Args:
        spark: the session.
        storage: the warehouse, whose table is there.
        titles: of the catalogue.
    """

    def __init__(self, spark: SparkSession, storage: Storage, titles: list[Title]) -> None:
        self.spark, self.storage, self.titles = spark, storage, titles
        present = read(spark, storage, "tracks").schema
        self.fields = own_fields(present, (own_columns(title.columns) for title in titles))
        stored = set(present.names)
        self._new = [field for field in self.fields if field.name not in stored]
        self._unfit: Counter = Counter()  # values by column
        self._examples: dict[str, tuple[str, Any]] = {}

    def bring(self) -> int:
        """Add the columns that the table lacks, renew the values that differ; returns how many titles' did."""
        if not self.fields:
            return 0
        # At once and by all titles' values: each chunk would have types of its own choice.
        add_columns(self.spark, self.storage, "tracks", self._new)
        renewed, rows, size = 0, [], 0
        for title in self.titles:
            own = own_columns(title.columns)
            ours = fitted(own, self.fields)
            self._note_unfit(title.title_id, own, ours)
            rows.append((title.title_id, *ours.values()))
            size += sum(len(str(value)) for value in rows[-1])
            if size >= RENEWED_AT_ONCE:
                renewed += self._renew(rows)
                rows, size = [], 0
        renewed += self._renew(rows)
        if renewed:
            log.info("%d titles have other columns in the catalogue than before: table tracks renewed", renewed)
        for name, count in sorted(self._unfit.items()):
            kind = next(field.dataType.simpleString() for field in self.fields if field.name == name)
            title_id, value = self._examples[name]
            log.warning(
                "catalogue column %s: %d values do not fit the column of the table tracks (%s) and are NULL there, such as "
                "%r of title %r",
                name, count, kind, value, title_id,
            )  # fmt: skip
        return renewed

    def _renew(self, rows: list[tuple[Any, ...]]) -> int:
        schema = StructType([TRACKS["title_id"], *self.fields])
        columns = quoted([field.name for field in self.fields])
        new = literal_frame(self.spark, rows, schema).alias("new")
        differs = " OR ".join(f"NOT (old.{name} <=> new.{name})" for name in columns)
        is_other = f"old.title_id = new.title_id AND ({differs})"

        def merge() -> int:
            table = DeltaTable.forPath(self.spark, self.storage.locate("tracks")).alias("old")
            count = table.toDF().alias("old").join(new, F.expr(is_other)).select("new.title_id").distinct().count()
            if count:  # else not even an empty commit
                update: dict[str, str | Column] = {name: f"new.{name}" for name in columns}
                table.merge(new, is_other).whenMatchedUpdate(set=update).execute()
            return count

        return persist(merge, "own columns")

    def _note_unfit(self, title_id: str, own: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
        given = {name.lower(): value for name, value in own.items()}
        for name, value in ours.items():
            found = given.get(name.lower())
            if value is None and found not in (None, "") and found == found:  # NaN, which pandas writes, is nothing
                self._unfit[name] += 1
                self._examples.setdefault(name, (title_id, found))
