"""The probe UDF: file paths go in, descriptions of their audio tracks come out."""

import json
from collections.abc import Iterator
from dataclasses import asdict

import pyarrow as pa
from pyspark.sql.pandas.types import to_arrow_schema

from udfs.decoder import Decoder
from udfs.media import MediaError
from udfs.schemas import PROBED

_ARROW_PROBED = to_arrow_schema(PROBED, timezone="UTC")


def probe_batches(batches: Iterator[pa.RecordBatch], decoder: Decoder) -> Iterator[pa.RecordBatch]:
    """Probe each title's file; a file that cannot be opened gives an error instead of tracks."""
    for batch in batches:
        rows = []
        for title in batch.to_pylist():
            try:
                found: dict[str, object] = {"tracks": [asdict(track) for track in decoder.probe(title["path"])]}
            except MediaError as error:
                found = {"code": error.code, "message": error.message}
            rows.append({"title_id": title["title_id"], "found": json.dumps(found)})
        yield pa.RecordBatch.from_pylist(rows, schema=_ARROW_PROBED)
