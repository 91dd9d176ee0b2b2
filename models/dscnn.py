"""A depthwise-separable network with a waveform branch: the fast detector of the Audio Artifacts classes.

It hears what CNN6 hears at about a hundredth of its arithmetic. Steady tones and noise are read off a log-mel
spectrogram with long windows (fine frequency steps, few frames) by depthwise-separable convolutions (Howard et al.,
"MobileNets", 2017); clicks and clipped peaks, which a spectrogram smears, off statistics of the waveform itself.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from models.cnn6 import LABELS
from models.features import LogMel, WaveformStatistics


@dataclass(frozen=True)
class DsCnnConfig:
    """Everything that shapes the network; stored beside its weights.

    Args:
        labels: output classes in order; the first is "no defect".
        sample_rate_hz: rate of the waveform the network was trained on.
        segment_s: length of one waveform, seconds.
        stem: channels after the first convolution.
        stages: (channels, blocks) of each stage; a stage halves time and frequency.
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
    waveform_width: int = 48
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
        stages = tuple((channels, blocks) for channels, blocks in values["stages"])
        return cls(**{**values, "labels": tuple(values["labels"]), "stages": stages})


class ConvNorm(nn.Module):
    """Convolution and batch norm, with or without ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: Any = 1, groups: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(outputs)
        self.relu = relu
        self.is_exact = False  # stay in float32 under autocast; set by models.serving

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.is_exact:
            with torch.autocast(x.device.type, enabled=False):
                return self._layer(x.float())
        return self._layer(x)

    def _layer(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn1(self.conv1(x))
        return functional.relu(x) if self.relu else x


class SeparableBlock(nn.Module):
    """3 x 3 depthwise and 1 x 1 pointwise convolution, with a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
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

    def __init__(self, config: DsCnnConfig | None = None) -> None:
        super().__init__()
        self.config = config if config is not None else DsCnnConfig()
        self.log_mel = LogMel(self.config.sample_rate_hz, **self.config.front_end)
        self.statistics = WaveformStatistics()
        self.bn0 = nn.BatchNorm1d(self.log_mel.mel_basis.shape[0])
        self.stem = ConvNorm(1, self.config.stem, 5, stride=2)
        blocks: list[nn.Module] = []
        width = self.config.stem
        for channels, count in self.config.stages:
            for number in range(count):
                blocks.append(SeparableBlock(width, channels, 2 if number == 0 else 1))
                width = channels
        self.blocks = nn.Sequential(*blocks)
        features, branch = self.statistics.features, self.config.waveform_width
        self.bn_statistics = nn.BatchNorm1d(features)
        self.frames1 = nn.Conv1d(features, branch, 5, padding=2)
        self.frames2 = nn.Conv1d(branch, branch, 5, padding=2)
        self.fc1 = nn.Linear(2 * width + 2 * branch, self.config.hidden)
        self.fc_out = nn.Linear(self.config.hidden, len(self.config.labels))

    @property
    def first(self) -> ConvNorm:
        """The convolution that hears the decibels."""
        return self.stem

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Turn (b, n) samples at full scale +-1 into (b, k) log-probabilities."""
        x = self.bn0(self.log_mel(waveform).transpose(1, 2))  # (b, f, t): batch norm acts on the mel bands
        x = x.transpose(1, 2).unsqueeze(1).contiguous(memory_format=torch.channels_last)  # (b, 1, t, f)
        x = self.blocks(self.stem(x))  # (b, c, t', f')
        with torch.autocast(waveform.device.type, enabled=False):
            x = x.float()
            bands = x.mean(dim=2)  # (b, c, f'): steady over time, wherever in frequency
            x = torch.cat([bands.amax(dim=2), x.mean(dim=3).amax(dim=2) + bands.mean(dim=2)], dim=1)  # (b, 2c)
            y = self.bn_statistics(self.statistics(waveform))  # (b, features, t)
            y = functional.relu(self.frames2(functional.relu(self.frames1(y))))
            y = torch.cat([y.amax(dim=2), y.mean(dim=2)], dim=1)
            x = functional.dropout(torch.cat([x, y], dim=1), self.config.dropout, self.training)
            return functional.log_softmax(self.fc_out(functional.relu(self.fc1(x))), dim=1)  # (b, k)
