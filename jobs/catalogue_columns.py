"""The catalogue's own columns in the table `tracks`: names, types, and values that changed where the file did not."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import SparkSession
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
from jobs.tables import persist, quoted, read
from udfs.schemas import TRACKS

LONGS = range(-(1 << 63), 1 << 63)
RENEWED_AT_ONCE = 50_000  # titles a commit: each reads the table


def own_fields(present: StructType, rows: Iterable[Mapping[str, Any]]) -> list[StructField]:
    """Fields for the catalogue's own columns: as the table has them, whatever the case, else by their values.

    A column that somebody else gave the table, of a type that no catalogue's value has, is left to them.

    Args:
        present: of the table.
        rows: columns of titles, as `jobs.plan.own_columns` names them.
    """
    stored = {field.name.lower(): field for field in present}
    seen: dict[str, list[Any]] = defaultdict(list)
    spelled: dict[str, str] = {}
    for row in rows:
        for name, value in row.items():
            seen[name.lower()].append(value)
            spelled.setdefault(name.lower(), name)
    comment = {"comment": "Column of the catalogue"}
    fields = [stored.get(key) or StructField(name, _type_of(seen[key]), True, comment) for key, name in spelled.items()]
    return [field for field in fields if isinstance(field.dataType, BooleanType | LongType | DoubleType | StringType)]


def fitted(columns: Mapping[str, Any], fields: Iterable[StructField]) -> dict[str, Any]:
    """A title's own columns by the fields' names, as their types take them; NULL where a value does not fit."""
    lower = {name.lower(): value for name, value in columns.items()}
    return {field.name: _fitted(lower.get(field.name.lower()), field.dataType) for field in fields}


def _type_of(values: list[Any]) -> DataType:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return BooleanType()
    if not kinds or not kinds <= {int, float} or any(type(value) is int and value not in LONGS for value in values):
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
    """Tells titles whose own columns are not what the table `tracks` has, and brings these there.

    A scan leaves a title alone whose file has not changed; what the catalogue says of it may have.

    Args:
        spark: the session.
        storage: the warehouse.
        titles: of the catalogue.
    """

    def __init__(self, spark: SparkSession, storage: Storage, titles: Iterable[Title]) -> None:
        self.spark, self.storage = spark, storage
        names = dict.fromkeys(name for title in titles for name in own_columns(title.columns))
        present = read(spark, storage, "tracks").schema if storage.has_table("tracks") else StructType()
        stored = {field.name.lower() for field in present}
        self._fields = [field for field in own_fields(present, [names]) if field.name.lower() in stored]
        self._new = {name.lower() for name in names} - stored
        self._stored: dict[str, int] = {}
        self._unfit: Counter = Counter()  # values by column
        self._examples: dict[str, tuple[str, Any]] = {}
        self._waiting: list[Title] = []

    @property
    def selected(self) -> list[str]:
        """The columns of `tracks` that `note` is to be given, as SQL takes them."""
        return quoted([field.name for field in self._fields])

    def note(self, title_id: str, values: tuple[Any, ...]) -> None:
        """What a row of `tracks` has in the columns `selected`."""
        kept = hash(values)  # a number for each title, and not the text of a million
        self._stored[title_id] = kept if self._stored.get(title_id, kept) == kept else 0

    def compare(self, titles: Iterable[Title]) -> None:
        """Set aside those of the titles that `tracks` knows with other values."""
        for title in titles:
            if not (self._fields or self._new):
                continue
            own = own_columns(title.columns)
            ours = fitted(own, self._fields)
            self._note_unfit(title.title_id, own, ours)
            if title.title_id not in self._stored:
                continue
            is_same = hash(tuple(ours.values())) == self._stored[title.title_id]
            if not is_same or any(value is not None for name, value in own.items() if name.lower() in self._new):
                self._waiting.append(title)

    @property
    def unfit(self) -> list[str]:
        """Warnings of values that are NULL in `tracks`, since its column is of another type."""
        types = {field.name: field.dataType.simpleString() for field in self._fields}
        return [
            f"catalogue column {name}: {count} values do not fit the column of the table tracks ({types[name]}) and are NULL "
            f"there, such as {self._examples[name][1]!r} of title {self._examples[name][0]!r}"
            for name, count in sorted(self._unfit.items())
        ]

    def _note_unfit(self, title_id: str, own: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
        given = {name.lower(): value for name, value in own.items()}
        for name, value in ours.items():
            found = given.get(name.lower())
            if value is None and found not in (None, "") and found == found:  # NaN, which pandas writes, is nothing
                self._unfit[name] += 1
                self._examples.setdefault(name, (title_id, found))

    def renew(self, least: int = 1) -> None:
        """Bring what was set aside into `tracks`, where it is of that many titles at least; rows of scored titles have it."""
        if len(self._waiting) < least:
            return
        for begin in range(0, len(self._waiting), RENEWED_AT_ONCE):
            part = self._waiting[begin : begin + RENEWED_AT_ONCE]
            persist(partial(self._write, part), "own columns")
        log.info("%d titles have other columns in the catalogue than before: table tracks renewed", len(self._waiting))
        self._waiting.clear()

    def _write(self, titles: list[Title]) -> None:
        named = [(title.title_id, own_columns(title.columns)) for title in titles]
        fields = own_fields(read(self.spark, self.storage, "tracks").schema, [own for _, own in named])
        schema = StructType([TRACKS["title_id"], *fields])
        rows = [(title_id, *fitted(own, fields).values()) for title_id, own in named]
        columns = quoted([field.name for field in fields])
        table = DeltaTable.forPath(self.spark, self.storage.locate("tracks")).alias("old")
        (
            table.merge(literal_frame(self.spark, rows, schema).alias("new"), "old.title_id = new.title_id")
            .withSchemaEvolution()
            .whenMatchedUpdate(set={name: f"new.{name}" for name in columns})
            .execute()
        )
