"""Hook-Net: a U-shaped 1-D network that says where in a waveform a click or a damaged MP3 frame lies.

After "Hook-Net" (source 001): 16,384 samples at 44.1 kHz in, 128 outputs of 128 samples (2.9 ms) each. The paper gives kernel
sizes, depth and 27,307,633 parameters; channels and the kernel of the first convolution are those that make this number.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from models.precision import exactly

KERNEL_DOWN, KERNEL_UP, KERNEL_FIRST = 15, 5, 5
SLOPE = 0.2  # of the leaky rectifiers
EXACT_BLOCKS = 2  # at either end


@dataclass(frozen=True)
class HookNetConfig:
    """Everything that shapes the network; stored beside its weights.

    Args:
        label: what an output is the probability of.
        sample_rate_hz: rate of the waveform the network was trained on.
        samples: length of one waveform, a power of two from 2 ** (depth + 1) on.
        frames: outputs of one waveform.
        growth: channels that each contracting block adds (the paper's network: 24).
        depth: contracting blocks, and as many expanding ones.
        margin: samples at either end of a segment whose outputs its neighbours give better (a scan overlaps segments by
            twice as many; the paper's did not overlap). A click is found as well four outputs from an end as in the
            middle, damaged MP3 frames eight.
        prior: share of outputs that are defective in training, which the last bias starts from.
    """

    label: str = "click"
    sample_rate_hz: int = 44_100
    samples: int = 16_384
    frames: int = 128
    growth: int = 24
    depth: int = 13
    margin: int = 512
    prior: float = 0.1 / 128

    @property
    def segment_s(self) -> float:
        """Length of one waveform, seconds."""
        return self.samples / self.sample_rate_hz

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return (self.label,)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "HookNetConfig":
        """Read back what `to_dict` wrote."""
        return cls(**values)


class _ConvNorm(nn.Module):
    """Zero-padded convolution, batch norm, leaky rectifier: (b, c, t) -> (b, c', t)."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn1: nn.Module = nn.BatchNorm1d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.leaky_relu(self.bn1(self.conv1(x)), SLOPE)


class _Contracting(nn.Module):
    """Two convolutions and the block's own input added: (b, c, t) -> (b, c', t)."""

    def __init__(self, inputs: int, outputs: int, first_kernel: int) -> None:
        super().__init__()
        self.first = _ConvNorm(inputs, outputs, first_kernel)
        self.second = _ConvNorm(outputs, outputs, KERNEL_DOWN)
        self.more = outputs - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # The residual path has no parameters: channels that the input lacks are zeros.
        return self.second(self.first(x)) + functional.pad(x, (0, 0, 0, self.more))


class _Expanding(nn.Module):
    """Up-scaling, the skip pooled to its length beside it, one convolution: (b, c, t) -> (b, c', t or 2t)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose1d(
            inputs, outputs, KERNEL_DOWN, stride, padding=KERNEL_DOWN // 2, output_padding=stride - 1, bias=False
        )
        self.conv = _ConvNorm(2 * outputs, outputs, KERNEL_UP)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = self.up(x)
        skip = functional.max_pool1d(skip, skip.shape[2] // x.shape[2])
        return self.conv(torch.cat([x, skip], dim=1))


class HookNet(nn.Module):
    """Waveform to log-odds of a defect in each frame.

    Shapes: b = batch, n = samples of one segment, t = frames, c = channels of a layer.

    Raises:
        ValueError: the configuration does not lead from `samples` to `frames`.
    """

    gains_from_bf16 = True  # a third less time on a CPU
    bf16_needs_exact = True
    gains_from_int8 = True  # half the time of float32 in OpenVINO, a third less than its bfloat16
    few = 8  # segments at a time on a CPU

    def __init__(self, config: HookNetConfig | None = None) -> None:
        super().__init__()
        self.config = config if config is not None else HookNetConfig()
        depth, growth = self.config.depth, self.config.growth
        widths = [1, *(growth * number for number in range(1, depth + 1))]
        # Up-scaling doubles in every second block, the deepest one not, so that the outputs are fewer than the samples.
        strides = [1 + number % 2 for number in range(depth)]
        reached = (self.config.samples >> depth) * math.prod(strides)
        if self.config.samples % (1 << depth) or reached != self.config.frames:
            raise ValueError(
                f"hooknet: {self.config.samples} samples and {depth} blocks lead to {reached} frames, expected "
                f"{self.config.frames}"
            )
        self.contracting = nn.ModuleList(
            _Contracting(widths[number - 1], widths[number], KERNEL_FIRST if number == 1 else KERNEL_DOWN)
            for number in range(1, depth + 1)
        )
        self.bottleneck = _ConvNorm(widths[-1], widths[-1], KERNEL_DOWN)
        self.expanding = nn.ModuleList(
            _Expanding(widths[min(number + 1, depth)], widths[number], stride)
            for number, stride in zip(range(depth, 0, -1), strides, strict=True)
        )
        self.head = nn.Conv1d(widths[1], 1, 1)
        # Defects are rare: a network that begins with their share has that much less to learn.
        nn.init.constant_(self.head.bias, math.log(self.config.prior / (1 - self.config.prior)))  # type: ignore[arg-type]
        self.ranges: dict[str, tuple[float, float]] = {}  # see models.quantization

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Turn (b, n) samples at full scale +-1 into (b, t) log-odds."""
        x = waveform.unsqueeze(1)  # (b, 1, n)
        skips = []
        for number, block in enumerate(self.contracting):
            x = exactly(block, x) if number < EXACT_BLOCKS else block(x)  # (b, c, n')
            skips.append(x)
            x = functional.max_pool1d(x, 2)
        x = self.bottleneck(x)
        for number, (block, skip) in enumerate(zip(self.expanding, reversed(skips), strict=True)):
            x = exactly(block, x, skip) if number >= len(self.expanding) - EXACT_BLOCKS else block(x, skip)
        return exactly(self.head, x).squeeze(1)  # (b, t)

    @property
    def exact(self) -> list[nn.Module]:
        """Layers that bfloat16 or int8 would cost more in accuracy than it gives in speed: the first, and the last."""
        exact: list[nn.Module] = [self.head]
        for block in (*self.contracting[:EXACT_BLOCKS], *self.expanding[-EXACT_BLOCKS:]):
            exact += [layer for layer in block.modules() if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d)]
        return exact

    def hear(self, waveform: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """It has no front end."""
        return (waveform,)

    def classify(self, waveform: torch.Tensor) -> torch.Tensor:
        """Turn (b, n) samples into (b, t, 1) log-probabilities, as serving wants them."""
        return functional.logsigmoid(HookNet.forward(self, waveform).float()).unsqueeze(2)
