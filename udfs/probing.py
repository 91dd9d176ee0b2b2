"""The probe UDF: file paths go in, descriptions of their audio tracks come out."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict

import pyarrow as pa
from pyspark.sql.pandas.types import to_arrow_schema

from udfs.decoder import worker_decoder
from udfs.media import MediaError
from udfs.schemas import PROBED

_ARROW_PROBED = to_arrow_schema(PROBED, timezone="UTC")


def probe_udf(timeout_s: float) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function for `DataFrame.mapInArrow(f, PROBED)` over rows of (title_id, path).

    A file that cannot be opened gives an error instead of tracks.

    Args:
        timeout_s: longest wait for a file before it is given up.
    """

    def probe(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        decoder = worker_decoder(timeout_s)
        for batch in batches:
            rows = []
            for title in batch.to_pylist():
                try:
                    found: dict[str, object] = {"tracks": [asdict(track) for track in decoder.probe(title["path"])]}
                except MediaError as error:
                    found = {"code": error.code, "message": error.message}
                rows.append({"title_id": title["title_id"], "found": json.dumps(found)})
            yield pa.RecordBatch.from_pylist(rows, schema=_ARROW_PROBED)

    return probe
