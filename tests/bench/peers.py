"""What a user might take instead of the scan: Ray Data, Daft, a Spark job of pandas UDFs; the same decode and model.

Each is written as its own documentation advises for a model over media: decoding is one stage, the model another that is
loaded once per worker and gets batches of 64. None of them survives a bad file or a kill, or knows what was done before.

    python -m tests.bench.peers WAY FOLDER OUT.npz WEIGHTS
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.bench.bare_loop import BATCH, SEGMENT, classifier, segments_of

CORES = os.cpu_count() or 1
DECODED_ROWS = 64  # segments that the decoding stage gives at once


def _decoded(path: str) -> Iterator[tuple[list[str], np.ndarray]]:
    """A file's segments in portions: names, and waveforms (count, samples)."""
    names: list[str] = []
    waveforms: list[np.ndarray] = []
    for name, waveform in segments_of(path):
        names.append(name)
        waveforms.append(waveform)
        if len(names) == DECODED_ROWS:
            yield names, np.stack(waveforms)
            names, waveforms = [], []
    if names:
        yield names, np.stack(waveforms)


class RayScorer:
    """The model in an actor."""

    def __init__(self, weights: str) -> None:
        self.score = classifier(weights)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Names and scores of a batch."""
        import torch

        waveforms = torch.from_numpy(np.ascontiguousarray(batch["waveform"]))
        return {"name": batch["name"], "scores": self.score(waveforms).numpy()}


def ray_decode(batch: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """Portions of one file's segments."""
    for path in batch["path"]:
        for names, waveforms in _decoded(str(path)):
            yield {"name": np.array(names), "waveform": waveforms}


def by_ray(paths: list[str], weights: str) -> tuple[list[str], np.ndarray]:
    """Ray Data: decoding in tasks, the model in a pool of actors, segments between them through the object store."""
    import ray

    ray.init(num_cpus=CORES, include_dashboard=False, logging_level="error", log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    # A quarter of a core for decoding, which costs about a fifth of the model: an actor per core stays busy.
    table = (
        ray.data.from_items([{"path": path} for path in paths], override_num_blocks=len(paths))
        .map_batches(ray_decode, batch_size=1, num_cpus=0.25)
        .map_batches(
            RayScorer,
            fn_constructor_args=(weights,),
            batch_size=BATCH,
            num_cpus=0.75,
            compute=ray.data.ActorPoolStrategy(size=CORES),
        )
    )
    names: list[str] = []
    scores: list[np.ndarray] = []
    for batch in table.iter_batches(batch_size=4096, batch_format="numpy"):
        names.extend(batch["name"].tolist())
        scores.append(np.stack(list(batch["scores"])))
    ray.shutdown()
    return names, np.concatenate(scores)


def by_daft(paths: list[str], weights: str) -> tuple[list[str], np.ndarray]:
    """Daft: a generator function decodes, a class with a batch method scores in processes of its own."""
    import daft
    from daft import DataType

    waveform = DataType.embedding(DataType.float32(), SEGMENT)
    labels = len(classifier(weights).network.config.labels)

    @daft.func(return_dtype=DataType.struct({"name": DataType.string(), "waveform": waveform}))
    def decoded(path: str) -> Iterator[dict[str, object]]:
        for name, samples in segments_of(path):
            yield {"name": name, "waveform": samples}

    @daft.cls(max_concurrency=CORES, use_process=True)
    class Scorer:
        def __init__(self, weights: str) -> None:
            self.score = classifier(weights)

        @daft.method.batch(return_dtype=DataType.embedding(DataType.float32(), labels), batch_size=BATCH)
        def scores(self, waveforms: daft.Series) -> np.ndarray:
            import torch

            flat = waveforms.to_arrow()
            flat = flat.storage if hasattr(flat, "storage") else flat
            samples = flat.flatten().to_numpy(zero_copy_only=False).reshape(len(waveforms), SEGMENT)
            return np.asarray(self.score(torch.from_numpy(np.array(samples))).numpy())

    table = daft.from_pydict({"path": paths}).into_partitions(len(paths)).select(decoded(daft.col("path")).alias("s"))
    table = table.select(daft.col("s").get("name").alias("name"), daft.col("s").get("waveform").alias("waveform"))
    found = table.select("name", Scorer(weights).scores(daft.col("waveform")).alias("scores")).to_pydict()
    return found["name"], np.stack(found["scores"])


def by_pandas_udf(paths: list[str], weights: str) -> tuple[list[str], np.ndarray]:
    """Spark as comparisons have it: one pandas UDF decodes into rows of samples, another scores them."""
    import pandas as pd
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import pandas_udf

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    spark = (
        SparkSession.builder.master(f"local[{CORES}]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", str(BATCH))
        .getOrCreate()
    )

    def decode(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for frame in frames:
            for path in frame["path"]:
                for names, waveforms in _decoded(path):
                    yield pd.DataFrame({"name": names, "waveform": list(waveforms)})

    @pandas_udf("array<float>")
    def score(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        import torch

        model = classifier(weights)
        for waveforms in batches:
            yield pd.Series(list(model(torch.from_numpy(np.stack(waveforms.to_list()))).numpy()))

    frame = spark.createDataFrame([(path,) for path in paths], "path string").repartition(len(paths))
    decoded = frame.mapInPandas(decode, "name string, waveform array<float>")
    rows = decoded.select("name", score("waveform").alias("scores")).collect()
    spark.stop()
    return [row.name for row in rows], np.array([row.scores for row in rows], dtype=np.float32)


WAYS = {"ray": by_ray, "daft": by_daft, "pandas-udf": by_pandas_udf}


def main(way: str, folder: Path, out: Path, weights: str) -> None:
    """Score every file of a folder one way; write the scores as .npz."""
    paths = [str(path.absolute()) for path in sorted(folder.iterdir())]
    names, scores = WAYS[way](paths, str(Path(weights).absolute()))
    np.savez(out, names=np.array(names), scores=scores)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
