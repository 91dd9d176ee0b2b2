"""The simulation UDF: clean titles go in, files with planted defects come out beside their labels."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql.pandas.types import to_arrow_schema

from models.defects import SEVERITY
from models.intervals import PlantedInterval, draw_intervals, plant_stream
from udfs.decode_report import DecodeReport
from udfs.decoder import Decoder
from udfs.encode import write_stream
from udfs.loudness import gain_to, measure
from udfs.media import MediaError
from udfs.schemas import SIMULATED, SIMULATION

CLEAN = "clean"
FADE_S = 0.02  # where a title is cut short: an end at full level is a click that nobody planted
RATE_HZ = 48_000  # the paper's, and one that every encoder takes
LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
MOST_CHANNELS = {".mp3": 2}
_ARROW_SIMULATION = to_arrow_schema(SIMULATION, timezone="UTC")


def simulate_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Make the file of each row (`udfs.schemas.SIMULATION_ORDERS`) and return it with its labels.

    A title that cannot be decoded or encoded gives a row with an error and no file.
    """
    decoder = Decoder()
    try:
        for batch in batches:
            for order in batch.to_pylist():
                yield pa.RecordBatch.from_pylist([_simulated(decoder, order)], schema=_ARROW_SIMULATION)
    finally:
        decoder.close()


def _simulated(decoder: Decoder, order: dict[str, Any]) -> dict[str, Any]:
    row = {name: order.get(name) for name in SIMULATED.names}
    row |= {"uri": Path(order["target"]).as_uri(), "labels": []}
    try:
        samples, planted = simulate(
            decoder,
            order["path"],
            Path(order["target"]),
            order["version"],
            rng_of(order["seed"], order["clean_title_id"], order["version"]),
            order["seconds"],
            order["mean_interval_s"],
            order["loudness_lufs"],
            order["one_channel_share"],
        )
    except MediaError as error:
        return {**row, "error": f"{error.code}: {error.message}"}
    except (OSError, ValueError) as error:
        return {**row, "error": f"{order['target']}: {error}"}
    row["duration_s"] = samples / RATE_HZ
    row["labels"] = [
        {
            "defect": interval.label,
            "simulator": interval.defect,
            "start_s": interval.start_s,
            "end_s": interval.end_s,
            "channels": list(interval.channels),
            "events": [{"start_s": start_s, "end_s": end_s} for start_s, end_s in interval.events],
            "severity": interval.severity,
            "severity_unit": SEVERITY[interval.defect],
            "parameters": json.dumps(interval.parameters),
        }
        for interval in planted
    ]
    return row


def rng_of(seed: int, title_id: str, version: str) -> np.random.Generator:
    """The generator of one file: the same whatever else is simulated, and wherever."""
    key = hashlib.sha256(f"{title_id}\0{version}".encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(key[:8], "big")])


def simulate(
    decoder: Decoder,
    path: str,
    target: Path,
    version: str,
    rng: np.random.Generator,
    seconds: float,
    mean_interval_s: float,
    loudness_lufs: float | None = None,
    one_channel_share: float = 0.0,
) -> tuple[int, list[PlantedInterval]]:
    """Write a title's first audio track at 48 kHz with one kind of defect in Algorithm 1's intervals.

    Args:
        decoder: decodes the clean title.
        path: clean file, as `udfs.decoder.encode_path` writes it.
        target: file to write; its suffix chooses codec and container.
        version: a key of `models.defects.SIMULATORS`, or `CLEAN` for an untouched copy in the same codec.
        rng: draws intervals and parameters.
        seconds: longest piece to take.
        mean_interval_s: mean length of intervals beyond the least.
        loudness_lufs: integrated loudness to bring the clean title to before a defect is planted, as far as its peak
            allows (`udfs.loudness.gain_to`); None leaves its level as it is.
        one_channel_share: of the intervals, how many have the defect on one channel only.

    Returns:
        Samples written, and the planted intervals.

    Raises:
        MediaError: the title cannot be opened.
        ValueError: its channels do not fit the format.
    """
    info = decoder.probe(path)[0]
    if info.channels not in LAYOUTS or info.channels > MOST_CHANNELS.get(target.suffix, 8):
        raise ValueError(f"{info.channels} channels do not fit into {target.suffix}")

    def blocks() -> Iterator[np.ndarray]:
        left = seconds * RATE_HZ  # may be infinite
        is_cut = seconds < info.duration_s
        decoded = decoder.decode(
            path, info.track, 0.0, seconds, [RATE_HZ], can_seek=False, is_timed=info.is_timed, report=DecodeReport()
        )
        for _, block in decoded:
            if left <= 0 or block.samples.shape[0] != info.channels:
                break
            samples = block.samples[:, : round(min(left, block.samples.shape[1]))]
            if is_cut and left - samples.shape[1] < FADE_S * RATE_HZ:
                to_go = left - np.arange(1, samples.shape[1] + 1, dtype=np.float32)
                samples = samples * np.clip(to_go / np.float32(FADE_S * RATE_HZ), 0.0, 1.0)
            yield samples
            left -= samples.shape[1]

    gain = 1.0
    if loudness_lufs is not None:
        gain = gain_to(loudness_lufs, *measure(blocks(), RATE_HZ, LAYOUTS[info.channels]))
    source = (block if gain == 1.0 else block * np.float32(gain) for block in blocks())
    planted: list[PlantedInterval] = []
    if version == CLEAN:
        pieces: Iterator[np.ndarray] = source
    else:
        intervals = (
            (start_s, end_s)
            for start_s, end_s, is_defective in draw_intervals(float("inf"), rng, mean_interval_s)
            if is_defective
        )
        pieces = plant_stream(source, RATE_HZ, version, intervals, rng, planted, one_channel_share=one_channel_share)
    samples = write_stream(target, pieces, RATE_HZ, LAYOUTS[info.channels])
    return samples, planted
