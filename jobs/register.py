"""Registers weights as a new version of a model, and makes it the champion if it is not worse than the present one.

Reads: a safetensors file (`--weights`, default the shipped detector of artifacts), a training run (`--run-id`), all that
    is shipped (`--shipped`), or a version that MLflow has already, of whatever code (`--model`).
Writes: a run and a model version in MLflow; for `--model` only who is champion.
Launch: spark-submit jobs/register.py [--weights FILE | --run-id ID | --shipped | --model URI] [--name NAME]
    [--compare-on CATALOGUE]
Takes: seconds (the first time about 15 more, in which MLflow prepares its database); with --compare-on the time of
    a scan of that catalogue.
"""

import argparse
import hashlib
import warnings
from collections.abc import Iterator
from pathlib import Path

from jobs import registry
from jobs.launch import SHIPPED_MODEL, AuscultError, log, run
from models import checkpoint
from models.hooknet import HookNetConfig
from udfs.contract import ModelContract

CHAMPION = "champion"
CHALLENGER = "challenger"
EVENT_SCORE = 0.25  # of networks with frames: what is stored, so that evaluation and tuning may look below one half
WEIGHTS_ARTIFACT = "weights.safetensors"


def contract_of(weights: Path) -> ModelContract:
    """The contract of a weights file.

    Raises:
        AuscultError: the file is missing or is not one.
    """
    try:
        config = checkpoint.load(weights).config
    except FileNotFoundError as error:
        raise AuscultError(f"weights {weights}: there is no such file") from error
    except (OSError, ValueError) as error:
        raise AuscultError(f"weights {error}") from error
    if isinstance(config, HookNetConfig):
        margin_s = config.margin / config.sample_rate_hz
        return ModelContract(
            sample_rate_hz=config.sample_rate_hz,
            segment_s=config.segment_s,
            hop_s=config.segment_s - 2 * margin_s,
            labels=config.labels,
            frames=config.frames,
            margin_s=margin_s,
            event_score=EVENT_SCORE,
        )
    return ModelContract(
        sample_rate_hz=config.sample_rate_hz,
        segment_s=config.segment_s,
        hop_s=config.segment_s,
        labels=config.labels,
        clean_labels=config.labels[:1],
    )


def register(weights: Path, name: str, run_id: str | None = None) -> str:
    """Log weights as a model and register it as the next version; aliases stay where they are.

    Weights that a version has already are not registered twice.

    Returns:
        The version's number.
    """
    contract = contract_of(weights)
    experiment = registry.prepare_store()
    client = registry.client()
    import mlflow
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.tags.get("weights_sha256") == digest:
            log.info("%s/%s already has these weights", name, version.version)
            return str(version.version)
    frames = (contract.frames,) if contract.frames > 1 else ()
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("float32"), (-1, contract.segment_samples))]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, *frames, len(contract.labels)))]),
    )
    started = mlflow.start_run(run_id=run_id, experiment_id=None if run_id else experiment, run_name=f"register {name}")
    with started, warnings.catch_warnings():
        # The contract check below does what MLflow would do with an example.
        warnings.filterwarnings("ignore", message=".*input example", category=UserWarning)
        logged = mlflow.pyfunc.log_model(
            name=name,
            python_model=str(Path(__file__).with_name("served_network.py")),
            artifacts={"weights": str(weights)},
            signature=signature,
            metadata=contract.to_metadata(),
            model_config={"device": "cpu", "runtime": "torch"},  # the scan overrides both
            # The network's code is this package; what else it needs follows from its pins.
            pip_requirements=["auscult"],
        )
    version = mlflow.register_model(logged.model_uri, name, tags={"weights_sha256": digest})
    registry.check(registry.resolve([f"models:/{name}/{version.version}"]))
    return str(version.version)


def promote(
    name: str, version: str, catalogue: str | None, force: str | None, labels: str | None = None
) -> tuple[bool, str]:
    """Make a version the champion if it is not worse than the present one beyond noise.

    Both are measured on the same labelled catalogue; worse beyond noise means that the 95 % interval of the paired
    difference of their balanced accuracies (`models.metrics.paired_difference`) lies below zero. A version that is
    not promoted becomes the challenger, and its description says why.

    Args:
        name: registered model.
        version: its version that would be champion.
        catalogue: folder that jobs/simulate.py wrote, or any with `labels`; None where there is nothing to compare on.
        force: reason to promote without a comparison, kept as the tag `forced_because`.
        labels: file of labels (`jobs.labelled`).

    Returns:
        Whether it is the champion now, and why.
    """
    client = registry.client()
    aliases = {alias: str(number) for alias, number in client.get_registered_model(name).aliases.items()}
    champion = aliases.get(CHAMPION)
    if champion == version:
        return True, "it was the champion before"
    if force is not None:
        client.set_model_version_tag(name, version, "forced_because", force)
        is_better, reason = True, f"forced: {force}"
    elif champion is None:
        is_better, reason = True, "there was no champion"
    elif (failure := _failure(f"models:/{name}/{champion}")) is not None:
        # Weights of an architecture that the code no longer knows, say: there is nothing to compare with.
        is_better, reason = True, f"the champion before cannot be used: {failure}"
    elif catalogue is None:
        is_better, reason = False, f"not compared with the champion, version {champion}: give --compare-on"
    else:
        is_better, reason = _compare(name, version, champion, catalogue, labels)
    client.update_model_version(name, version, description=reason)
    client.set_registered_model_alias(name, CHAMPION if is_better else CHALLENGER, version)
    if is_better and aliases.get(CHALLENGER) == version:
        client.delete_registered_model_alias(name, CHALLENGER)
    return is_better, reason


def _failure(uri: str) -> str | None:
    try:
        registry.check(registry.resolve([uri]))
    except AuscultError as error:
        return str(error)
    return None


def _compare(name: str, version: str, champion: str, catalogue: str, labels: str | None) -> tuple[bool, str]:
    import numpy as np

    from jobs import evaluate
    from jobs.evaluation_rows import SEED

    catalogue, warehouse = evaluate.located(catalogue, labels=labels)
    uris = [f"models:/{name}/{version}", f"models:/{name}/{champion}"]
    new, old = evaluations = evaluate.evaluate(catalogue, warehouse, uris, labels=labels)
    evaluate.keep(evaluations, catalogue, warehouse)
    if set(new.classes) != set(old.classes):
        return False, f"not comparable with version {champion}: classes {list(new.classes)}, there {list(old.classes)}"
    difference = new.difference_from(old, np.random.default_rng(SEED))  # type: ignore[arg-type]
    interval = f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
    verdict = "worse than" if difference.high < 0 else "not worse than"
    return difference.high >= 0, f"{verdict} version {champion} on {catalogue}: {new.figure} {interval}"


def main(argv: list[str]) -> int:
    """Register weights, print the version."""
    parser = argparse.ArgumentParser(prog="register.py", description=(__doc__ or "").split("\n\n")[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--weights", type=Path, default=checkpoint.SHIPPED, help="safetensors file (default: shipped)")
    source.add_argument("--run-id", help="MLflow run of jobs/train.py whose best weights to register")
    source.add_argument(
        "--shipped", action="store_true", help="register every shipped network, each under its own name"
    )
    source.add_argument(
        "--model",
        metavar="URI",
        help="a version that is registered already, models:/NAME/VERSION, as mlflow.pytorch.log_model leaves it",
    )
    parser.add_argument("--name", help=f"registered model name (default: {SHIPPED_MODEL})")
    parser.add_argument(
        "--compare-on",
        metavar="CATALOGUE",
        help="labelled catalogue of jobs/simulate.py, or any with --labels, on which a new version must not be worse than "
        "the champion",
    )
    parser.add_argument("--labels", help="file of labels of that catalogue, as for jobs/evaluate.py")
    parser.add_argument(
        "--force", metavar="REASON", help="make it the champion without a comparison; the reason is kept"
    )
    options = parser.parse_args(argv)
    if options.labels is not None and options.compare_on is None:
        parser.error("--labels: expected with --compare-on")
    if options.force is not None and not options.force.strip():
        parser.error("--force: expected a reason")
    if options.name is not None and (options.shipped or options.model):
        parser.error("--name: expected with --weights or --run-id; --shipped and --model have names of their own")
    for name, version in _versions(options):
        is_champion, reason = promote(name, version, options.compare_on, options.force, options.labels)
        alias = CHAMPION if is_champion else CHALLENGER
        print(f"models:/{name}/{version} at {registry.tracking_uri()} is the {alias}: {reason}")
    return 0


def _versions(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Name and version of what is to be champion, registered where it is not yet."""
    if options.model:
        [model] = registry.resolve([options.model])
        registry.check([model])
        yield model.shipped.name, model.shipped.version
    elif options.shipped:
        for weights in sorted(checkpoint.WEIGHTS.glob("*.safetensors")):
            yield weights.stem, register(weights, weights.stem)
    else:
        name = options.name or SHIPPED_MODEL
        weights = _weights_of_run(options.run_id) if options.run_id else options.weights
        yield name, register(weights, name, options.run_id)


def _weights_of_run(run_id: str) -> Path:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        artifacts = [entry.path for entry in registry.client().list_artifacts(run_id)]
        # Runs of earlier versions have them under another name.
        named = [path for path in artifacts if path.endswith(".safetensors")]
        if len(named) != 1:
            raise AuscultError(
                f"run {run_id}: expected {WEIGHTS_ARTIFACT} among its artifacts, found {artifacts or 'none'}"
            )
        return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=named[0]))
    except (MlflowException, OSError) as error:
        raise AuscultError(f"run {run_id}: its weights cannot be had: {error}") from error


if __name__ == "__main__":
    run(main)
