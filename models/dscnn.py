"""A depthwise-separable network of three branches: the fast detector of the Audio Artifacts classes.

It hears what CNN6 hears at about a fortieth of its arithmetic. Noise and the general sound are read off a log-mel
spectrogram by depthwise-separable convolutions (Howard et al., "MobileNets", 2017); steady tones among held notes off
sinusoidal analysis in steps of 1 Hz; clicks and clipped peaks, which a spectrogram smears, off statistics of the
waveform itself and off short learned filters over its whitened samples.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from models.cnn6 import LABELS
from models.features import LogMel, ToneSpectrum, WaveformStatistics, whiten


@dataclass(frozen=True)
class DsCnnConfig:
    """Everything that shapes the network; stored beside its weights.

    Args:
        labels: output classes in order; the first is "no defect".
        sample_rate_hz: rate of the waveform the network was trained on.
        segment_s: length of one waveform, seconds.
        stem: channels after the first convolution.
        stages: (channels, blocks) of each stage; a stage halves time and frequency.
        tone_stages: as `stages`, for the branch that hears tones; its first stage keeps the time steps.
        tone_descriptors: channels that the descriptors of steady tones become before they join the spectrogram.
        click_filters: learned filters over the whitened waveform.
        waveform_width: channels of the waveform branch.
        hidden: width of the layer before the output.
        dropout: probability before the hidden layer.
        front_end: further arguments of `models.features.LogMel`.
    """

    labels: tuple[str, ...] = LABELS
    sample_rate_hz: int = 48_000
    segment_s: float = 1.0
    stem: int = 24
    stages: tuple[tuple[int, int], ...] = ((48, 2), (96, 3), (192, 2))
    tone_stages: tuple[tuple[int, int], ...] = ((32, 2), (64, 2))
    tone_descriptors: int = 24
    click_filters: int = 16
    waveform_width: int = 64
    hidden: int = 192
    dropout: float = 0.1
    front_end: dict[str, Any] = field(
        default_factory=lambda: {"n_fft": 2048, "hop_length": 1024, "n_mels": 160, "fmin_hz": 15.0}
    )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DsCnnConfig":
        """Read back what `to_dict` wrote (JSON turns tuples into lists)."""
        lists = {
            name: tuple((channels, blocks) for channels, blocks in values[name]) for name in ("stages", "tone_stages")
        }
        return cls(**{**values, "labels": tuple(values["labels"]), **lists})


TONE_STEM = 16  # channels
CLICK_KERNEL, CLICK_STRIDE = 48, 4  # samples: a millisecond holds the longest simulated click


class ClickFilters(nn.Module):
    """Short learned filters over the whitened waveform, and the most they find: (b, n) -> (b, c, ceil(n / 512)).

    Logarithms come before the second layer, so that it weighs a moment against its neighbours whatever the level:
    a click is over after some samples, an attack goes on.
    """

    POOLS = (2, 4, 4)  # with the strides: 512 samples a frame, as `WaveformStatistics` has them

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.short = nn.Conv1d(1, filters, CLICK_KERNEL, CLICK_STRIDE)
        self.medium = nn.Conv1d(filters, 2 * filters, 8, 4)
        self.long = nn.Conv1d(2 * filters, 2 * filters, 5, padding=2)
        with torch.no_grad():  # begin as what the simplest clicks look like: pulses of a few widths
            width = torch.logspace(0.0, 1.2, filters)
            offset = torch.arange(CLICK_KERNEL) - CLICK_KERNEL // 2
            pulses = torch.exp(-((offset / width[:, None]) ** 2)) * torch.cos(2.0 * offset / width[:, None])
            self.short.weight.mul_(0.3).add_(0.5 * functional.normalize(pulses, dim=1).unsqueeze(1))

    def forward(self, white: torch.Tensor) -> torch.Tensor:
        samples = white.shape[1]
        ahead = CLICK_KERNEL // 2
        behind = -samples % 512 + CLICK_KERNEL - CLICK_STRIDE - ahead
        x = self.short(functional.pad(white, (ahead, behind)).unsqueeze(1))  # (b, c, n / 4)
        x = torch.log1p(functional.max_pool1d(x.abs(), self.POOLS[0]))  # (b, c, n / 8)
        x = functional.relu(self.medium(functional.pad(x, (2, 2))))  # (b, 2c, n / 32)
        x = functional.relu(self.long(functional.max_pool1d(x, self.POOLS[1])))  # (b, 2c, n / 128)
        return functional.max_pool1d(x, self.POOLS[2])  # (b, 2c, n / 512)


class ConvNorm(nn.Module):
    """Convolution and batch norm, with or without ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: Any = 1, groups: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(outputs)
        self.relu = relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn1(self.conv1(x))
        return functional.relu(x) if self.relu else x


class SeparableBlock(nn.Module):
    """3 x 3 depthwise and 1 x 1 pointwise convolution, with a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int | tuple[int, int]) -> None:
        super().__init__()
        self.depthwise = ConvNorm(inputs, inputs, 3, stride=stride, groups=inputs, relu=False)
        self.pointwise = ConvNorm(inputs, outputs, 1)
        self.is_residual = inputs == outputs and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.pointwise(self.depthwise(x))
        return x + y if self.is_residual else y


class DsCnn(nn.Module):
    """Waveform to log-probabilities of the defect classes.

    Shapes: b = batch, n = samples of one segment, t = frames, f = mel bands, c = channels, k = labels.
    """

    gains_from_bf16 = False  # a twentieth of the time on a CPU: its scores are better the same on every one
    bf16_needs_exact = False
    gains_from_int8 = False  # its front ends, logarithms and depthwise layers take the time
    few = 16  # segments at a time on a CPU: its layers' outputs stay in the cache, a tenth less time than 64 at a time

    def __init__(self, config: DsCnnConfig | None = None) -> None:
        super().__init__()
        self.config = config if config is not None else DsCnnConfig()
        self.log_mel = LogMel(self.config.sample_rate_hz, **self.config.front_end)
        self.statistics = WaveformStatistics()
        self.bn0 = nn.BatchNorm1d(self.log_mel.mel_basis.shape[0])
        self.stem = ConvNorm(1, self.config.stem, 5, stride=2)
        self.blocks = _stages(self.config.stem, self.config.stages)
        self.tones = ToneSpectrum(self.config.sample_rate_hz)
        self.bn_now, self.bn_steady = nn.BatchNorm2d(1), nn.BatchNorm1d(self.tones.descriptors)
        self.steady1 = nn.Conv1d(self.tones.descriptors, self.config.tone_descriptors, 9, padding=4)
        self.steady2 = nn.Conv1d(self.config.tone_descriptors, self.config.tone_descriptors, 5, padding=2)
        self.tone_stem = ConvNorm(1, TONE_STEM, 5)
        self.tone_blocks = _stages(
            TONE_STEM + self.config.tone_descriptors, self.config.tone_stages, first_stride=(1, 2)
        )
        features, branch = self.statistics.features, self.config.waveform_width
        self.clicks = ClickFilters(self.config.click_filters)
        self.bn_statistics = nn.BatchNorm1d(features)
        self.frames1 = nn.Conv1d(features + 2 * self.config.click_filters, branch, 5, padding=2)
        self.frames2 = nn.Conv1d(branch, branch, 5, padding=2)
        width, tone_width = self.config.stages[-1][0], self.config.tone_stages[-1][0]
        self.fc1 = nn.Linear(2 * width + 2 * tone_width + self.config.tone_descriptors + 2 * branch, self.config.hidden)
        self.fc_out = nn.Linear(self.config.hidden, len(self.config.labels))
        self.ranges: dict[str, tuple[float, float]] = {}  # see models.quantization

    @property
    def exact(self) -> list[nn.Module]:
        """Layers that bfloat16 or int8 would cost more in accuracy than it gives in speed."""
        layers = [self.stem, self.tone_stem, *self.blocks.modules()]
        return [layer for layer in layers if isinstance(layer, ConvNorm)]

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Turn (b, n) samples at full scale +-1 into (b, k) log-probabilities."""
        return self.classify(*self.hear(waveform))

    def hear(self, waveform: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The front ends: (b, t, f) log-mel; tones; (b, features, t) statistics; (b, n) whitened samples."""
        parts = [self._hear(part) for part in _few(waveform, self.few)]
        return parts[0] if len(parts) == 1 else tuple(torch.cat(part) for part in zip(*parts, strict=True))

    def classify(
        self,
        log_mel: torch.Tensor,
        now: torch.Tensor,
        steady: torch.Tensor,
        frames: torch.Tensor,
        white: torch.Tensor,
    ) -> torch.Tensor:
        """Turn what `hear` gave into (b, k) log-probabilities."""
        x = self.bn0(log_mel.transpose(1, 2)).transpose(1, 2)  # batch norm acts on the mel bands
        x = x.unsqueeze(1).contiguous(memory_format=torch.channels_last)  # (b, 1, t, f)
        x = self.blocks(self.stem(x))  # (b, c, t', f')
        with torch.autocast(white.device.type, enabled=False):
            z = functional.relu(self.steady1(self.bn_steady(steady)))  # (b, c, g): 1 Hz
            z = functional.relu(self.steady2(functional.max_pool1d(z, self.tones.STEP_HZ)))  # (b, c, f): 4 Hz
            lasting = z.amax(dim=2)  # (b, c)
            now = self.bn_now(now).contiguous(memory_format=torch.channels_last)  # (b, 1, t, f)
        now = self.tone_stem(now)  # (b, c, t, f)
        z = torch.cat([now, z.to(now.dtype).unsqueeze(2).expand(-1, -1, now.shape[2], -1)], dim=1)
        z = self.tone_blocks(z.contiguous(memory_format=torch.channels_last))  # (b, c, t', f')
        with torch.autocast(white.device.type, enabled=False):
            x, z = x.float(), z.float()
            bands = x.mean(dim=2)  # (b, c, f'): steady over time, wherever in frequency
            x = torch.cat([bands.amax(dim=2), x.mean(dim=3).amax(dim=2) + bands.mean(dim=2)], dim=1)  # (b, 2c)
            z = torch.cat([z.mean(dim=2).amax(dim=2), z.amax(dim=(2, 3))], dim=1)  # (b, 2c): all the time, at some time
            clicks = torch.cat([self.clicks(part) for part in _few(white, 4)])
            y = torch.cat([self.bn_statistics(frames), clicks], dim=1)  # (b, features + c, t)
            y = functional.relu(self.frames2(functional.relu(self.frames1(y))))
            y = torch.cat([y.amax(dim=2), y.mean(dim=2)], dim=1)
            x = functional.dropout(torch.cat([x, z, lasting, y], dim=1), self.config.dropout, self.training)
            return functional.log_softmax(self.fc_out(functional.relu(self.fc1(x))), dim=1)  # (b, k)

    @torch.no_grad()
    def _hear(self, waveform: torch.Tensor) -> tuple[torch.Tensor, ...]:
        samples = waveform.shape[1]
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.fft.rfft(waveform.float())  # (b, n // 2 + 1)
            white = whiten(spectrum, samples)
            now, steady = self.tones(spectrum, samples)
            few = list(zip(_few(waveform, 4), _few(white, 4), strict=True))
            log_mel = torch.cat([self.log_mel(part) for part, _ in few])
            return log_mel, now, steady, torch.cat([self.statistics(*part) for part in few]), white


def _few(x: torch.Tensor, count: int) -> Sequence[torch.Tensor]:
    """A batch in parts of a few segments, which keeps a CPU in its cache and nearly doubles its speed; elsewhere whole.

    Fourier transforms of whole segments have larger parts: each call prepares its tables anew.
    """
    is_whole = x.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing()  # any size of batch
    return (x,) if is_whole else x.split(count)


def _stages(width: int, stages: tuple[tuple[int, int], ...], first_stride: int | tuple[int, int] = 2) -> nn.Sequential:
    blocks: list[nn.Module] = []
    stride = first_stride
    for channels, count in stages:
        for number in range(count):
            blocks.append(SeparableBlock(width, channels, stride if number == 0 else 1))
            width = channels
        stride = 2
    return nn.Sequential(*blocks)
