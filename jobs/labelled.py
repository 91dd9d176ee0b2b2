"""Catalogues of which it is known where what is broken: by jobs/simulate.py, or by a file of labels that people made.

A file of labels (CSV, JSON, Parquet, Delta) has a row per stretch:

    title_id   as the catalogue has it
    defect     a label of the model; empty where the title is fine
    start_s    begin of the stretch, seconds from the title's zero; with end_s, empty where it is the whole title
    end_s      its end
    track      number among the title's audio tracks, from 0; empty or no such column: all
    channels   indices from 0, separated by blanks; empty or no such column: all, or it is not known which
    group      titles of one group count as one where intervals are drawn; empty or no such column: each by itself

Titles that it does not name count neither as broken nor as fine. jobs/tune.py reads the first two columns and the last.
"""

import math
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from jobs import csv_table
from jobs.launch import AuscultError, log
from jobs.literals import literal_frame
from jobs.settings import DEFAULTS, ScanSettings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

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


def label_rows(spark: "SparkSession", location: str) -> list[LabelRow]:
    """The rows of a file of labels.

    Raises:
        AuscultError: it cannot be read, or a row names no title, or there is no column of defects.
    """
    from jobs.catalogue_rows import read_rows

    rows = []
    for number, row in enumerate(read_rows(spark, location, "labels"), start=1):
        if not row.get("title_id") or "defect" not in row:
            raise AuscultError(
                f"labels {location}: row {number}: expected title_id and defect (empty where the title is fine), "
                f"found the columns {', '.join(map(str, row))}"
            )
        defect, group = row["defect"] or None, row.get("group") or None
        rows.append(LabelRow(number, str(row["title_id"]), defect, group, row))
    return rows


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
    spark: "SparkSession", catalogue: str, location: str, settings: ScanSettings = DEFAULTS
) -> LabelledCatalogue:
    """A catalogue with a file of labels, as the head of this module has it.

    Args:
        spark: the session.
        catalogue: as jobs/scan.py takes it.
        location: file of labels.
        settings: which files of a folder are titles.

    Raises:
        AuscultError: one of the two cannot be read, a row of the labels is wrong, or none is of a title of the catalogue.
    """
    from jobs.catalogue import read_catalogue

    rows = label_rows(spark, location)
    titles = {title.title_id: title for title in read_catalogue(spark, catalogue, settings).titles}
    labels, groups = [], {}
    for row in rows:
        groups[row.title_id] = str(row.group or row.title_id)
        if row.defect is None:
            continue
        try:
            labels.append((row.title_id, *_stretch(row.defect, row.values)))
        except ValueError as error:
            raise AuscultError(f"labels {location}: row {row.number}: {error}") from error
    known = [title_id for title_id in groups if title_id in titles]
    if not known:
        named = f"the first: {next(iter(groups))!r}" if groups else "the file has no rows"
        raise AuscultError(f"labels {location}: none of their titles is in the catalogue {catalogue} ({named})")
    if len(known) < len(groups):
        lost = next(title_id for title_id in groups if title_id not in titles)
        log.warning(
            "%d labelled titles are not in the catalogue and left out, the first: %s", len(groups) - len(known), lost
        )
    described = [
        (title_id, groups[title_id], PurePosixPath(titles[title_id].uri).suffix.lower().removeprefix(".") or None,
         _text(titles[title_id].columns.get("kind")))
        for title_id in known
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
    try:
        indices = [int(channel) for channel in channels] if channels else None
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"channels: expected indices from 0, separated by blanks, found {row['channels']!r}"
        ) from error
    stretch = {"start_s": start_s, "end_s": end_s}
    return None if track is None else int(track), str(defect), None, indices, [stretch], None, None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(row: dict[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value in (None, ""):
        return None
    try:
        return csv_table.number(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected a number, found {value!r}") from error
