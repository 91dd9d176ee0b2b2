"""Catalogues of which it is known where what is broken: by jobs/simulate.py, or by a file of labels that people made.

A file of labels (CSV, JSON, Parquet, Delta) has a row per stretch:

    title_id   as the catalogue has it
    defect     its label; empty where the title is fine
    start_s    begin of the stretch, seconds from the title's zero; with end_s, empty where it is the whole title
    end_s      its end
    track      number among the title's audio tracks, from 0; empty or no such column: all
    channels   indices from 0, separated by blanks; empty or no such column: all, or it is not known which
    group      titles of one group count as one where intervals are drawn; empty or no such column: each by itself

Titles that it does not name count neither as broken nor as fine. jobs/tune.py reads the first two columns and the last.

A label that no detector knows is a misspelt one, and an error (`Vocabulary`). One that another detector knows is none: what
it stands for is left to that other one. Of models with a class a segment, a segment that holds nothing else counts for
nothing, as no class of theirs is right there. Models that look for events find them or not whatever else is there, and
jobs/tune.py asks of whole titles whether they have a defect: to these, what is labelled with another defect has not theirs.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from jobs import csv_table
from jobs.launch import AuscultError, log
from jobs.literals import literal_frame
from jobs.settings import DEFAULTS, ScanSettings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from jobs.storage import Storage
    from udfs.contract import ModelContract

_TITLES = "title_id string, clean_title_id string, format string, kind string"
_LABELS = (
    "title_id string, track int, defect string, simulator string, channels array<int>, "
    "events array<struct<start_s: double, end_s: double>>, severity double, severity_unit string"
)


@dataclass(frozen=True)
class LabelledCatalogue:
    """A catalogue and what is known of it.

    Args:
        source: what jobs/scan.py takes as its catalogue.
        titles: columns title_id, clean_title_id (the group that it counts with), format, kind.
        labels: columns title_id, track, defect, simulator, channels, events (of start_s and end_s), severity,
            severity_unit; NULL of track or channels stands for all.
    """

    source: str
    titles: "DataFrame"
    labels: "DataFrame"


@dataclass(frozen=True)
class Vocabulary:
    """What a file of labels may call a stretch.

    Args:
        defects: labels of defects that some detector knows.
        clean: labels of sound without a defect; they say what an empty cell says.
    """

    defects: frozenset[str]
    clean: frozenset[str] = frozenset()


def vocabulary(
    contracts: Iterable["ModelContract"], settings: ScanSettings, elsewhere: Iterable[str] = ()
) -> Vocabulary:
    """The labels of some models, and those that other detectors have.

    Args:
        contracts: of the models at hand.
        settings: every defect that they have an operating point of is known.
        elsewhere: further ones, see `sought_in`.

    >>> sorted(vocabulary([], DEFAULTS).defects)[:3]
    ['click', 'distortion', 'hiss']
    """
    contracts = list(contracts)
    points = {key.rpartition("/")[2] for key in settings.operating_points if key != "default"}
    defects = points.union(elsewhere, *(contract.defects for contract in contracts))
    clean = {label for contract in contracts for label in contract.clean_labels}
    return Vocabulary(frozenset(defects), frozenset(clean - defects))


def sought_in(spark: "SparkSession", storage: "Storage") -> set[str]:
    """The defects that the scans of a warehouse had operating points of, whichever model's; none without a scan."""
    from jobs import tables
    from jobs.analyses import sought

    if not storage.has_table("scans"):
        return set()
    return {row.defect for row in sought(tables.read(spark, storage, "scans")).select("defect").distinct().collect()}


class LabelRow(NamedTuple):
    """A row of a file of labels.

    Args:
        number: of the row, from 1.
        title_id: as the catalogue has it.
        defect: None where the title is fine.
        group: None where the title stands for itself.
        values: the whole row by column.
    """

    number: int
    title_id: str
    defect: str | None
    group: str | None
    values: dict[str, Any]


def label_rows(spark: "SparkSession", location: str, known: Vocabulary) -> list[LabelRow]:
    """The rows of a file of labels.

    Raises:
        AuscultError: it cannot be read, or a row names no title or a defect that is not known, or there is no column of
            defects.
    """
    from jobs.catalogue_rows import read_rows

    rows = []
    for number, row in enumerate(read_rows(spark, location, "labels"), start=1):
        if _is_empty(row.get("title_id")) or "defect" not in row:
            raise AuscultError(
                f"labels {location}: row {number}: expected title_id and defect (empty where the title is fine), "
                f"found the columns {', '.join(map(str, row))}"
            )
        defect, group = _text(row["defect"]), _text(row.get("group"))
        if defect in known.clean:
            defect = None
        if defect is not None and defect not in known.defects:
            raise AuscultError(
                f"labels {location}: row {number}: defect: expected one of {', '.join(sorted(known.defects))}, or nothing "
                f"where the title is fine, found {defect!r}; a defect of another detector is known where --settings has "
                "an operating point of it, or where the warehouse was scanned for it"
            )
        rows.append(LabelRow(number, str(row["title_id"]), defect, group, row))
    return rows


def groups_of(rows: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """By title the group that it counts with: the first that it is given, else the title itself.

    >>> groups_of([("a", None), ("b", "0"), ("b", None)])
    {'a': 'a', 'b': '0'}
    """
    groups: dict[str, str | None] = {}
    for title_id, group in rows:
        groups[title_id] = group if groups.get(title_id) is None else groups[title_id]
    return {title_id: title_id if group is None else group for title_id, group in groups.items()}


def simulated(spark: "SparkSession", folder: str) -> LabelledCatalogue:
    """A folder that jobs/simulate.py wrote.

    Raises:
        AuscultError: it is none.
    """
    from pyspark.sql import functions as F

    from jobs import tables
    from jobs.storage import Storage

    storage = Storage(spark, folder)
    for name in ("titles", "labels"):
        if not storage.has_table(name):
            raise AuscultError(
                f"catalogue {folder}: expected the Delta tables titles and labels that jobs/simulate.py writes, found no "
                f"{name}; for a catalogue of your own give --labels"
            )
    labels = tables.read(spark, storage, "labels").withColumn("track", F.lit(0))
    return LabelledCatalogue(storage.locate("titles"), tables.read(spark, storage, "titles"), labels)


def by_people(
    spark: "SparkSession", catalogue: str, location: str, known: Vocabulary, settings: ScanSettings = DEFAULTS
) -> LabelledCatalogue:
    """A catalogue with a file of labels, as the head of this module has it.

    Args:
        spark: the session.
        catalogue: as jobs/scan.py takes it.
        location: file of labels.
        known: what it may call a stretch.
        settings: which files of a folder are titles.

    Raises:
        AuscultError: one of the two cannot be read, a row of the labels is wrong, or none is of a title of the catalogue.
    """
    from jobs.catalogue import read_catalogue

    rows = label_rows(spark, location, known)
    titles = {title.title_id: title for title in read_catalogue(spark, catalogue, settings).titles}
    labels, groups = [], groups_of((row.title_id, row.group) for row in rows)
    for row in rows:
        if row.defect is None:
            continue
        try:
            labels.append((row.title_id, *_stretch(row.defect, row.values)))
        except ValueError as error:
            raise AuscultError(f"labels {location}: row {row.number}: {error}") from error
    present = [title_id for title_id in groups if title_id in titles]
    if not present:
        named = f"the first: {next(iter(groups))!r}" if groups else "the file has no rows"
        raise AuscultError(f"labels {location}: none of their titles is in the catalogue {catalogue} ({named})")
    if len(present) < len(groups):
        lost = next(title_id for title_id in groups if title_id not in titles)
        log.warning(
            "%d labelled titles are not in the catalogue and left out, the first: %s", len(groups) - len(present), lost
        )
    described = [
        (title_id, groups[title_id], PurePosixPath(titles[title_id].uri).suffix.lower().removeprefix(".") or None,
         _text(titles[title_id].columns.get("kind")))
        for title_id in present
    ]  # fmt: skip
    return LabelledCatalogue(catalogue, literal_frame(spark, described, _TITLES), literal_frame(spark, labels, _LABELS))


def _stretch(defect: str, row: dict[str, Any]) -> tuple[Any, ...]:
    """The values of a defective row in the order of `_LABELS`, from the second on."""
    start_s, end_s = (_number(row, name) for name in ("start_s", "end_s"))
    if start_s is None and end_s is None:
        start_s, end_s = 0.0, math.inf
    if start_s is None or end_s is None or not 0 <= start_s < end_s:
        raise ValueError(f"expected 0 <= start_s < end_s, found {row.get('start_s')} and {row.get('end_s')}")
    track = _number(row, "track")
    channels = row.get("channels")
    if isinstance(channels, str):
        channels = channels.split()
    elif _is_empty(channels):
        channels = []
    elif not isinstance(channels, list | tuple):
        channels = [channels]
    try:
        indices = [int(channel) for channel in channels] or None
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"channels: expected indices from 0, separated by blanks, found {row['channels']!r}"
        ) from error
    stretch = {"start_s": start_s, "end_s": end_s}
    return None if track is None else int(track), defect, None, indices, [stretch], None, None


def _is_empty(value: Any) -> bool:
    """Whether nothing is said: no value, NaN (as pandas has it) or blanks; 0 and False are values."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def _text(value: Any) -> str | None:
    return None if _is_empty(value) else str(value).strip()


def _number(row: dict[str, Any], name: str) -> float | None:
    value = row.get(name)
    if _is_empty(value):
        return None
    try:
        return csv_table.number(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected a number, found {value!r}") from error
