"""CSV files that people open in spreadsheets, and save there: separated by comma, semicolon or tab, in UTF-8, with a header."""

import csv
import io
import re
from pathlib import Path
from typing import Any, NamedTuple

SEPARATORS = ",;\t"
# Spreadsheets take a cell that begins so for a formula, quoted or not; the wide forms too in some languages.
FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")


class CsvTable(NamedTuple):
    """What such a file holds.

    Args:
        columns: the header's names.
        rows: (number of the line that a row ends in, its values by column; None where there is none).
    """

    columns: list[str]
    rows: list[tuple[int, dict[str, str | None]]]


def read(path: Path) -> CsvTable:
    """Read a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not such a file; the message names the line and what to do.
    """
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line}: expected UTF-8, found the byte 0x{content[error.start]:02x}; save it as CSV in UTF-8"
        ) from error
    separator = separator_of(path.name, text.partition("\n")[0])
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows = []
    try:
        for row in reader:
            surplus = row.pop(None, None) or ()  # type: ignore[call-overload]
            if any(surplus):  # empty cells at the end are nobody's loss
                raise ValueError(
                    f"line {reader.line_num}: expected {len(row)} values as in the header, found {len(row) + len(surplus)}; "
                    f"put a value that holds {separator!r} in double quotes"
                )
            rows.append((reader.line_num, {name: value or None for name, value in row.items()}))
    except csv.Error as error:
        raise ValueError(f"line {reader.reader.line_num}: {error}") from error
    return CsvTable(list(reader.fieldnames or []), rows)


def separator_of(name: str, header: str) -> str:
    """The separator of a file by its name, where that says so, or by its header.

    >>> separator_of("a.csv", "uri;title_id;station"), separator_of("a.csv", "uri")
    (';', ',')
    """
    if name.lower().endswith(".tsv"):
        return "\t"
    return max(SEPARATORS, key=re.sub(r'"[^"]*"', "", header).count)


def number(value: Any) -> float:
    """A number as spreadsheets write it: with a decimal point or, in half of the world, a decimal comma.

    >>> number("12.5"), number("12,5"), number(12)
    (12.5, 12.5, 12.0)

    Raises:
        ValueError: it is none.
    """
    return float(value.replace(",", ".") if isinstance(value, str) else value)


def cell(value: Any) -> Any:
    """A value as a file for spreadsheets has it: lists joined, and an apostrophe ahead of what would be run as a formula.

    >>> cell(["FL", "FR"]), cell("=1+1"), cell(-1.5)
    ('FL FR', "'=1+1", -1.5)
    """
    if isinstance(value, (list, tuple)):
        value = " ".join(value)
    # Python's reader and spreadsheets alike end a file at NUL or refuse it.
    if isinstance(value, str):
        value = value.replace("\0", "\ufffd")
        return f"'{value}" if FORMULA.match(value) else value
    return value


def plain(text: str | None) -> str | None:
    """A text as it was before `cell` put an apostrophe ahead of it.

    >>> plain("'-1 dB"), plain("'twas"), plain(None)
    ('-1 dB', "'twas", None)
    """
    return text[1:] if text is not None and text.startswith("'") and FORMULA.match(text[1:]) else text
