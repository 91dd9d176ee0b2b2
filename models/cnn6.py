"""CNN6, the network of the Audio Artifacts paper (figure 2), after PANNs (Kong et al., 2020)."""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from models.features import LogMel

LABELS = ("no_defect", "hum", "hiss", "distortion", "click")


@dataclass(frozen=True)
class Cnn6Config:
    """Everything that shapes the network; stored beside its weights.

    Args:
        labels: output classes in order; the first is "no defect".
        sample_rate_hz: rate of the waveform the network was trained on.
        segment_s: length of one waveform, seconds.
        widths: channels of the four convolution blocks.
        pool_block4: average-pool after block 4 as PANNs does (the paper's figure shows no such pool).
        dropout: probability after each block (0.5 before the first linear layer is fixed by PANNs).
        front_end: further arguments of `models.features.LogMel`.
    """

    labels: tuple[str, ...] = LABELS
    sample_rate_hz: int = 48_000
    segment_s: float = 1.0
    widths: tuple[int, ...] = (64, 128, 256, 512)
    pool_block4: bool = True
    dropout: float = 0.2
    front_end: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Cnn6Config":
        """Read back what `to_dict` wrote (JSON turns tuples into lists)."""
        return cls(**{**values, "labels": tuple(values["labels"]), "widths": tuple(values["widths"])})


class ConvBlock(nn.Module):
    """5 x 5 convolution, batch norm, ReLU, optional 2 x 2 average pool: (b, c, t, f) -> (b, c', t', f')."""

    def __init__(self, inputs: int, outputs: int, *, pool: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=5, padding=2, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(outputs)
        self.pool = pool
        nn.init.xavier_uniform_(self.conv1.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        return functional.avg_pool2d(x, 2) if self.pool else x


class Cnn6(nn.Module):
    """Waveform to log-probabilities of the defect classes.

    Shapes: b = batch, n = samples of one segment, t = frames, f = mel bands, k = labels.
    The module's names follow the public PANNs checkpoints, so that their weights load by key
    (`bn0` excepted: 64 bands there, 128 here).
    """

    gains_from_bf16 = True  # it takes half the time on a CPU
    bf16_needs_exact = False
    gains_from_int8 = True  # half of bfloat16's again
    few = 8  # segments at a time on a CPU: its layers' outputs stay in the cache, a quarter less time than 64 at a time

    def __init__(self, config: Cnn6Config | None = None) -> None:
        super().__init__()
        self.config = config if config is not None else Cnn6Config()
        self.log_mel = LogMel(self.config.sample_rate_hz, **self.config.front_end)
        self.bn0 = nn.BatchNorm2d(self.log_mel.mel_basis.shape[0])
        widths = (1, *self.config.widths)
        pools = (True, True, True, self.config.pool_block4)
        for number, pool in enumerate(pools, start=1):
            self.add_module(f"conv_block{number}", ConvBlock(widths[number - 1], widths[number], pool=pool))
        self.fc1 = nn.Linear(widths[-1], widths[-1])
        self.fc_audioset = nn.Linear(widths[-1], len(self.config.labels))
        for layer in (self.fc1, self.fc_audioset):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.ranges: dict[str, tuple[float, float]] = {}  # see models.quantization

    @property
    def exact(self) -> list[nn.Module]:
        """Layers that bfloat16 or int8 would cost more in accuracy than it gives in speed."""
        return [self.get_submodule("conv_block1")]

    @property
    def blocks(self) -> list[nn.Module]:
        """The four convolution blocks in order."""
        return [self.get_submodule(f"conv_block{number}") for number in (1, 2, 3, 4)]

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Turn (b, n) samples at full scale +-1 into (b, k) log-probabilities."""
        return self.classify(*self.hear(waveform))

    def hear(self, waveform: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The front end: (b, t, f) log-mel in decibels."""
        return (self.log_mel(waveform),)

    def classify(self, log_mel: torch.Tensor) -> torch.Tensor:
        """Turn (b, t, f) decibels into (b, k) log-probabilities."""
        x = log_mel.transpose(1, 2).unsqueeze(3)  # (b, f, t, 1): batch norm acts on the mel bands
        x = self.bn0(x)
        x = x.permute(0, 3, 2, 1)  # (b, 1, t, f)
        x = x.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = functional.dropout(block(x), self.config.dropout, self.training)  # (b, c, t', f')
        with torch.autocast(x.device.type, enabled=False):  # next to no work, and much of bfloat16's error
            x = x.float().mean(dim=3)  # (b, c, t')
            x = x.amax(dim=2) + x.mean(dim=2)  # (b, c)
            x = functional.relu(self.fc1(functional.dropout(x, 0.5, self.training)))
            return functional.log_softmax(self.fc_audioset(x), dim=1)  # (b, k)
