"""What a registered model must say about itself to be scanned with, and how it is asked.

A model takes float32 waveforms (batch, samples) at full scale +-1 and returns probabilities
(batch, labels), or (batch, frames, labels) where its contract says how many frames there are. Everything
else it says in its MLflow metadata, under the key `auscult`; the scanner knows nothing more about it. How its files
are loaded is in `udfs.model_files`.
"""

import logging
import math
import sys
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

log = logging.getLogger("auscult")
METADATA_KEY = "auscult"
CHANNEL_HANDLING = ("each", "downmix")


class ContractError(Exception):
    """A model that cannot be scanned with, and why."""


@dataclass(frozen=True)
class ModelContract:
    """A model's own description.

    Args:
        sample_rate_hz: rate of the waveforms it takes.
        segment_s: length of one waveform, seconds.
        hop_s: seconds between the starts of consecutive segments.
        labels: names of its outputs, in order.
        clean_labels: labels that are no defect (they get scores but no detections).
        channels: "each" to score every channel by itself, "downmix" to score their mean.
        frames: outputs of one segment, each for an equal part of it. With 1 a segment has one score a label; a model that
            returns several all the same has the largest of them taken.
        margin_s: of models with frames, how much at either end of a segment is left to the segments before and after it,
            seconds; a whole number of frames. They see that place with more around it.
        event_score: of models with frames, the probability from which a frame is kept, as part of an event.
    """

    sample_rate_hz: int
    segment_s: float
    hop_s: float
    labels: tuple[str, ...]
    clean_labels: tuple[str, ...] = ()
    channels: str = "each"
    frames: int = 1
    margin_s: float = 0.0
    event_score: float = 0.5

    @property
    def frame_s(self) -> float:
        """Seconds of one frame."""
        return self.segment_s / self.frames

    @property
    def margin_frames(self) -> int:
        """Frames at either end of a segment that its neighbours answer for."""
        return round(self.margin_s / self.frame_s)

    @property
    def defects(self) -> tuple[str, ...]:
        """The labels that are defects, in their order."""
        return tuple(label for label in self.labels if label not in self.clean_labels)

    @property
    def segment_samples(self) -> int:
        """Samples of one segment."""
        return round(self.segment_s * self.sample_rate_hz)

    @property
    def hop_samples(self) -> int:
        """Samples between the starts of consecutive segments."""
        return round(self.hop_s * self.sample_rate_hz)

    def to_metadata(self) -> dict[str, Any]:
        """The MLflow metadata that `from_metadata` reads."""
        return {METADATA_KEY: {**asdict(self), "labels": list(self.labels), "clean_labels": list(self.clean_labels)}}

    @classmethod
    def from_metadata(cls, metadata: dict[str, Any] | None, model: str) -> "ModelContract":
        """Read and check a model's metadata.

        Args:
            metadata: the model's MLflow metadata.
            model: the model's name and version, for messages.

        Raises:
            ContractError: the metadata has no contract, or one that makes no sense.
        """
        values = (metadata or {}).get(METADATA_KEY)
        if not isinstance(values, dict):
            raise ContractError(
                f"{model} carries no contract: expected MLflow metadata {METADATA_KEY!r} with sample_rate_hz, segment_s, "
                f"hop_s and labels (udfs.contract.ModelContract.to_metadata writes it); log the model again with it"
            )
        try:
            contract = cls(
                **{
                    **values,
                    "labels": tuple(map(str, values["labels"])),
                    "clean_labels": tuple(map(str, values.get("clean_labels", ()))),
                }
            )
        except (TypeError, KeyError) as error:
            raise ContractError(f"{model} carries a contract that cannot be read: {error}") from error
        contract.check(model)
        return contract

    def check(self, model: str) -> None:
        """Raise ContractError where a value makes no sense."""
        for name in ("sample_rate_hz", "segment_s", "hop_s"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
                raise ContractError(f"{model}: {name} must be a positive number, found {value!r}")
        if self.hop_samples < 1 or self.segment_samples < 1:
            raise ContractError(f"{model}: segment and hop must each be at least one sample")
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise ContractError(f"{model}: labels must be named and different, found {list(self.labels)}")
        if unknown := set(self.clean_labels) - set(self.labels):
            raise ContractError(f"{model}: clean_labels {sorted(unknown)} are not among its labels {list(self.labels)}")
        if self.channels not in CHANNEL_HANDLING:
            raise ContractError(f"{model}: channels must be one of {CHANNEL_HANDLING}, found {self.channels!r}")
        if isinstance(self.frames, bool) or not isinstance(self.frames, int) or self.frames < 1:
            raise ContractError(f"{model}: frames must be a whole number from 1 on, found {self.frames!r}")
        if not isinstance(self.margin_s, int | float) or not 0 <= self.margin_s < self.segment_s / 2:
            raise ContractError(f"{model}: margin_s must lie from 0 to half a segment, found {self.margin_s!r}")
        if abs(self.margin_s / self.frame_s - self.margin_frames) > 1e-3 or (self.frames == 1 and self.margin_s):
            raise ContractError(f"{model}: margin_s must be a whole number of frames, found {self.margin_s!r}")
        if self.margin_s and self.hop_samples > round((self.segment_s - 2 * self.margin_s) * self.sample_rate_hz):
            raise ContractError(
                f"{model}: with margins of {self.margin_s:g} s the hop must be {self.segment_s - 2 * self.margin_s:g} s at "
                f"most, or moments between segments are heard by none; found {self.hop_s:g}"
            )
        if not isinstance(self.event_score, int | float) or not 0 < self.event_score <= 1:
            raise ContractError(f"{model}: event_score must lie above 0 and up to 1, found {self.event_score!r}")


_most_segments: dict[str, int] = {}  # by model: what a call may have, where more was too much


@dataclass(frozen=True)
class ShippedModel:
    """A model version as it travels to the executors.

    Args:
        name: registered name.
        version: registered version.
        digest: `digest_of` its folder when it was resolved.
        archive: name under which Spark distributes the folder.
        contract: what the model says of itself.
    """

    name: str
    version: str
    digest: str
    archive: str
    contract: ModelContract

    @property
    def key(self) -> str:
        """Name and version as `tracks.scored_with` holds them."""
        return f"{self.name}/{self.version}"


class Predictor(Protocol):
    """What `mlflow.pyfunc.load_model` returns."""

    def predict(self, data: Any) -> Any:
        """Score a batch."""


def front_end_s(predictor: Predictor) -> float:
    """Seconds that a model's front end took so far; 0 where the model's code does not count them.

    The code does so by an attribute `front_end_s` of its `mlflow.pyfunc.PythonModel`.
    """
    unwrap = getattr(predictor, "unwrap_python_model", None)
    try:
        return float(getattr(unwrap(), "front_end_s", 0.0)) if unwrap is not None else 0.0
    except Exception:  # MLflow refuses models of its other flavours; what is foreign code must not cost a scan
        return 0.0


def predict(predictor: Predictor, waveforms: np.ndarray, contract: ModelContract, model: str) -> np.ndarray:
    """Probabilities float32 of waveforms (batch, samples): (batch, labels), or (batch, frames, labels) with frames.

    A batch for which the device has no memory is halved, again and again; this process then keeps to what went through.

    Raises:
        ContractError: the output does not have the shape or the values that the contract promises.
    """
    most = _most_segments.get(model, len(waveforms))
    if len(waveforms) > most:
        parts = np.array_split(waveforms, -(-len(waveforms) // most))
        return np.concatenate([predict(predictor, part, contract, model) for part in parts])
    try:
        answer = predictor.predict(_as_input(predictor, waveforms))
    except Exception as error:
        if len(waveforms) == 1 or not _is_out_of_memory(error):
            raise
        _most_segments[model] = len(waveforms) // 2
        log.warning("%s: no memory for %d segments at once; now %d", model, len(waveforms), _most_segments[model])
        answer = None
    if answer is None:  # outside the handler: the traceback holds what the failed call had allocated
        _free_device_memory()
        return predict(predictor, waveforms, contract, model)
    scores = np.asarray(_only_output(answer, model), dtype=np.float32)
    batch, labels = waveforms.shape[0], len(contract.labels)
    if contract.frames > 1:
        expected, fits = f"({batch}, {contract.frames}, {labels})", scores.shape == (batch, contract.frames, labels)
    else:
        expected = f"({batch}, {labels}) or ({batch}, frames, {labels})"
        fits = scores.ndim in (2, 3) and scores.shape[0] == batch and scores.shape[-1] == labels
    if not fits:
        raise ContractError(
            f"{model}: expected output {expected} for its labels {list(contract.labels)}, found shape {scores.shape}"
        )
    if scores.ndim == 3 and contract.frames == 1:
        scores = scores.max(axis=1)
    if not np.isfinite(scores).all() or scores.min(initial=0.0) < -1e-4 or scores.max(initial=0.0) > 1.0001:
        raise ContractError(
            f"{model}: expected probabilities between 0 and 1, found values from {np.nanmin(scores):.3g} "
            f"to {np.nanmax(scores):.3g}{' and NaN' if np.isnan(scores).any() else ''}"
        )
    return np.clip(scores, 0.0, 1.0)


def _only_output(answer: Any, model: str) -> Any:
    """The one output of a model that names its outputs, as those in ONNX and TensorFlow do."""
    if not isinstance(answer, dict):
        return answer
    if len(answer) != 1:
        raise ContractError(
            f"{model}: expected one output, found {len(answer)}: {', '.join(map(repr, answer))}; log a model that returns "
            f"only the probabilities"
        )
    return next(iter(answer.values()))


def _is_out_of_memory(error: Exception) -> bool:
    """Whether a model failed for want of memory, of the host or of a GPU, by whatever library says so."""
    if isinstance(error, MemoryError) or type(error).__name__ in {"OutOfMemoryError", "ResourceExhaustedError"}:
        return True
    said = str(error).lower()
    return any(reason in said for reason in ("can't allocate memory", "failed to allocate memory", "out of memory"))


def _free_device_memory() -> None:
    """Give back what PyTorch keeps for later, if PyTorch it was."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _as_input(predictor: Predictor, waveforms: np.ndarray) -> Any:
    """The batch as the model's signature wants it: by name where its one input has a name."""
    metadata = getattr(predictor, "metadata", None)
    schema = metadata.get_input_schema() if metadata is not None else None
    if schema is not None and schema.has_input_names() and len(schema.input_names()) == 1:
        return {schema.input_names()[0]: waveforms}
    return waveforms


def try_out(predictor: Predictor, contract: ModelContract, model: str) -> None:
    """Run the model on silence and noise in batches of 1, 2 and 5.

    Raises:
        ContractError: the model fails on a batch, or its output does not fit the contract.
    """
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (5, contract.segment_samples)).astype(np.float32)
    noise[0] = 0.0
    for count in (1, 2, 5):
        try:
            predict(predictor, noise[:count], contract, model)
        except ContractError:
            raise
        except Exception as error:  # a model is foreign code and may raise anything
            raise ContractError(
                f"{model} fails on a batch of {count} waveforms of {contract.segment_samples} samples: {error}"
            ) from error
