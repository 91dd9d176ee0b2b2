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
from typing import TYPE_CHECKING, Any

from jobs import csv_table
from jobs.launch import AuscultError, log
from jobs.literals import literal_frame

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


def by_people(spark: "SparkSession", catalogue: str, location: str) -> LabelledCatalogue:
    """A catalogue with a file of labels, as the head of this module has it.

    Raises:
        AuscultError: one of the two cannot be read, a row of the labels is wrong, or none is of a title of the catalogue.
    """
    from jobs.catalogue import read_catalogue, read_rows
    from jobs.settings import ScanSettings

    rows = read_rows(spark, location, "labels")
    titles = {
        title.title_id: title for title in read_catalogue(spark, catalogue, ScanSettings().ignored_suffixes).titles
    }
    labels, groups = [], {}
    for number, row in enumerate(rows, start=1):
        try:
            title_id, label = _stretch(row)
        except ValueError as error:
            raise AuscultError(f"labels {location}: row {number}: {error}") from error
        groups[title_id] = str(row.get("group") or title_id)
        if label is not None:
            labels.append(label)
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


def _stretch(row: dict[str, Any]) -> tuple[str, tuple[Any, ...] | None]:
    """The title of a row, and its values in the order of `_LABELS`; None where the title is fine."""
    if row.get("title_id") in (None, "") or "defect" not in row:
        raise ValueError(
            f"expected title_id and defect (empty where the title is fine), found the columns {', '.join(map(str, row))}"
        )
    title_id = str(row["title_id"])
    if not row["defect"]:
        return title_id, None
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
    return title_id, (
        title_id,
        None if track is None else int(track),
        str(row["defect"]),
        None,
        indices,
        [stretch],
        None,
        None,
    )


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
