"""Trains a detector on defects simulated over a folder of clean audio.

Reads: clean recordings (any format the scan reads), decoded once into a cache.
Writes: a run in MLflow with its settings, curves and best weights; a checkpoint, from which a rerun goes on.
Launch: spark-submit jobs/train.py --clean FOLDER [--settings conf/train.yaml] [--steps N] [--workers N]
Takes: with conf/train.yaml about an hour and a half on two CPU cores; register the result with jobs/register.py --run-id.
"""

import argparse
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from jobs import registry
from jobs.launch import PROJECT, AuscultError, home, keep_freed_memory, log, run, session
from jobs.register import WEIGHTS_ARTIFACT
from models import checkpoint
from models.distributed import rank
from models.segments import NoRoomForDefects
from models.tasks import TASKS
from models.training import Phase, TrainingSettings, begun, settings_from, train


def decode_to_cache(clean: str, cache: Path, settings: TrainingSettings) -> list[Path]:
    """Decode the first track of every recording into .npy files of int16 (channels, time), on Spark.

    Files that are there already are kept; recordings that cannot be decoded are left out and counted.
    """
    from jobs.catalogue import read_catalogue

    spark = session("auscult train")
    titles = read_catalogue(spark, clean).titles
    wanted = {}
    for title in titles:
        name = hashlib.sha256(
            f"{title.uri}/{title.size_bytes}/{title.modified_ns}/{asdict(settings)['sample_rate_hz']}".encode()
        )
        name.update(str(settings.seconds_per_file).encode())
        wanted[cache / f"{name.hexdigest()[:32]}.npy"] = title.path
    missing = [(path, str(target)) for target, path in wanted.items() if path is not None and not target.exists()]
    if missing:
        cache.mkdir(parents=True, exist_ok=True)
        tasks = min(len(missing), spark.sparkContext.defaultParallelism * 3)
        frame = spark.createDataFrame(missing, "path string, target string").repartition(tasks)
        rate_hz, seconds = settings.sample_rate_hz, settings.seconds_per_file

        def decode_all(batches: Iterator[Any]) -> Iterator[Any]:
            import pandas as pd

            from udfs.decoder import Decoder
            from udfs.recordings import write_recording

            decoder = Decoder()
            for batch in batches:
                outcomes = [
                    write_recording(decoder, path, Path(target), rate_hz, seconds)
                    for path, target in zip(batch["path"], batch["target"], strict=True)
                ]
                yield pd.DataFrame({"error": outcomes})
            decoder.close()

        errors = frame.mapInPandas(decode_all, "error string").where("error IS NOT NULL").collect()
        if errors:
            log.info("%d of %d recordings left out, the first: %s", len(errors), len(titles), errors[0].error)
    spark.stop()
    return sorted(target for target in wanted if target.exists())


def split(recordings: list[Path], validation_share: float) -> tuple[list[Path], list[Path]]:
    """Training and validation recordings, by a hash of their names: whole recordings, never parts of one."""
    ranked = sorted(recordings, key=lambda path: hashlib.sha256(path.name.encode()).hexdigest())
    count = max(1, round(len(ranked) * validation_share))
    return ranked[count:], ranked[:count]


def main(argv: list[str]) -> int:
    """Decode, train, log the run."""
    parser = argparse.ArgumentParser(prog="train.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--clean", required=True, help="folder or table of clean recordings")
    parser.add_argument("--settings", type=Path, default=PROJECT / "conf" / "train.yaml", help="default: %(default)s")
    parser.add_argument(
        "--steps",
        type=int,
        help="train for so many steps of the last phase instead of the settings' phases; 0 with --start-from only judges those "
        "weights and measures what int8 needs to know of them",
    )
    parser.add_argument(
        "--start-from",
        type=Path,
        metavar="WEIGHTS",
        help="begin with these weights instead of random ones: of a network of the settings' shape, whose labels may be others, "
        "or for cnn6 a checkpoint of PANNs' Cnn6",
    )
    parser.add_argument(
        "--cache", type=Path, default=home() / "cache", help="folder for decoded audio; shared, on a cluster"
    )
    parser.add_argument(
        "--work", type=Path, help="folder for the checkpoint (default: one per settings, in the home folder)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="train in N processes through Spark's TorchDistributor: on this machine with a local master, else on the "
        "cluster, a GPU each where tasks get one (default: 1, without it)",
    )
    options = parser.parse_args(argv)
    try:
        settings = settings_from(yaml.safe_load(options.settings.read_text()))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise AuscultError(f"settings {options.settings}: {error}") from error
    if options.steps is not None:
        settings = replace(
            settings,
            phases=(Phase(settings.phases[-1].segment_s, options.steps),),
            validate_every_steps=max(1, options.steps // 4),
        )
    if options.steps is not None and (options.steps < 0 or (options.steps == 0 and options.start_from is None)):
        raise AuscultError(f"--steps: expected at least 1, or 0 with --start-from, found {options.steps}")
    if options.workers < 1:
        raise AuscultError(f"--workers: expected at least 1, found {options.workers}")
    try:
        settings.check_shares(options.workers)
    except ValueError as error:
        raise AuscultError(f"settings {options.settings}: {error}") from error
    if options.start_from is not None:
        try:  # before hours of decoding
            begun(settings, options.start_from)
        except FileNotFoundError as error:
            raise AuscultError(f"weights {options.start_from}: there is no such file") from error
        except (OSError, ValueError) as error:
            raise AuscultError(f"weights {error}") from error
    recordings = decode_to_cache(options.clean, options.cache, settings)
    if len(recordings) < 2:
        raise AuscultError(
            f"clean audio {options.clean}: expected at least 2 recordings of a second or more, found {len(recordings)}"
        )
    training, validation = split(recordings, settings.validation_share)
    identity = json.dumps([asdict(settings), [path.name for path in training], str(options.start_from)], sort_keys=True)
    work = options.work or home() / "training" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    try:
        run_id = _train_and_log(training, validation, settings, work, options.start_from, options.workers)
    except NoRoomForDefects as error:
        raise AuscultError(f"clean audio {options.clean}: {error}") from error
    print(f"run {run_id} at {registry.tracking_uri()}; register it: spark-submit jobs/register.py --run-id {run_id}")
    return 0


def _train_and_log(
    training: list[Path],
    validation: list[Path],
    settings: TrainingSettings,
    work: Path,
    start_from: Path | None,
    workers: int,
) -> str:
    experiment = registry.prepare_store()
    import mlflow

    noted = work / "run_id"
    run_id = noted.read_text() if noted.exists() else None  # a rerun after a kill goes on in the same run
    with mlflow.start_run(
        run_id=run_id, experiment_id=None if run_id else experiment, run_name=f"train {settings.architecture}"
    ) as active:
        work.mkdir(parents=True, exist_ok=True)
        noted.write_text(active.info.run_id)
        if run_id is None:
            mlflow.log_params({key: str(value) for key, value in asdict(settings).items()})
            mlflow.log_params(
                {"recordings": len(training), "validation_recordings": len(validation), "workers": workers}
            )
        given = (training, validation, settings, work, start_from, mlflow.get_tracking_uri(), active.info.run_id)
        result = train_here(*given) if workers == 1 else _distribute(workers, given)
        mlflow.log_artifact(str(work / WEIGHTS_ARTIFACT))
        if "confusion" in result:
            mlflow.log_dict(
                {"labels": TASKS[settings.task].labels, "rows_true_columns_predicted": result["confusion"].tolist()},
                "confusion.json",
            )
        mlflow.set_tag("device", result["device"])
        figures = {name: value for name, value in result.items() if isinstance(value, float)}
        mlflow.log_metrics({f"best_{name}": value for name, value in figures.items()})
        mlflow.log_metrics({name: result[name] for name in ("segments_seen", "segments_simulated")})
        log.info("best in validation: %s", ", ".join(f"{name} {value:.4f}" for name, value in figures.items()))
        return str(active.info.run_id)


def _distribute(workers: int, given: tuple[Any, ...]) -> dict[str, Any]:
    """Train in several processes: on this machine with a local master, else as tasks of the cluster."""
    from pyspark.ml.torch.distributor import TorchDistributor

    spark = session("auscult train")
    is_local = (spark.sparkContext.master or "").startswith("local")
    distributor = TorchDistributor(num_processes=workers, local_mode=is_local, use_gpu=_has_gpus(spark))
    try:
        return distributor.run(train_here, *given)  # type: ignore[return-value]
    except RuntimeError as error:
        raise AuscultError(
            f"training in {workers} processes failed; its last words are above, and a rerun goes on from {given[3]}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    finally:
        spark.stop()


def _has_gpus(spark: Any) -> bool:
    if (spark.sparkContext.master or "").startswith("local"):
        return "gpu" in spark.sparkContext.resources
    amount = float(spark.conf.get("spark.task.resource.gpu.amount", "0"))
    if 0 < amount < 1:
        raise AuscultError(
            f"spark.task.resource.gpu.amount: expected 1 for a training, since each worker takes a whole GPU, found {amount:g}"
        )
    return amount > 0


def train_here(
    training: list[Path],
    validation: list[Path],
    settings: TrainingSettings,
    work: Path,
    start_from: Path | None,
    tracking_uri: str,
    run_id: str,
) -> dict[str, Any]:
    """Train in this process, alone or as one of those that `torchrun` started, and log the curves to an MLflow run.

    Returns:
        The validation result (see `models.training.train`) with "device"; the weights are in `work`.
    """
    import mlflow
    import torch

    keep_freed_memory()
    workers = int(os.environ.get("WORLD_SIZE", "1"))
    device = (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Simulation has processes of its own; threads that wait for a core they hold would only spin.
    cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(max(1, cores - settings.loader_workers))
    if workers > 1:
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    mlflow.set_tracking_uri(tracking_uri)

    figure = TASKS[settings.task].figure

    def report(step: int, metrics: dict[str, float]) -> None:
        mlflow.log_metrics(metrics, step=step, run_id=run_id)
        log.info(
            "step %d/%d: loss %.3g, validation %s %.4f, %.0f segments/s",
            step, settings.steps, metrics["loss"], figure, metrics[f"validation_{figure}"], metrics["segments_per_s"],
        )  # fmt: skip

    try:
        network, result = train(
            settings.source(training, is_varied=True),
            settings.source(validation, is_varied=False),
            settings,
            work,
            report,
            device,
            start_from=start_from,
        )
        if rank() == 0:
            checkpoint.save(network, work / WEIGHTS_ARTIFACT)
    finally:
        if workers > 1:
            torch.distributed.destroy_process_group()
    return {**result, "device": str(device)}


if __name__ == "__main__":
    run(main)
