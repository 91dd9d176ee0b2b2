"""Simulated segments seen more than once, where simulating them is what a training would wait for."""

import torch

GAIN_DB = 6.0  # at most so much quieter: a segment comes again at another level, and upside down every other time


class Replay:
    """The latest simulated segments, from which batches are drawn again.

    Args:
        capacity: segments kept; a new batch takes the place of the oldest.
        device: where they are kept; a second at 48 kHz takes 192 kB.
        seed: of what is drawn.
    """

    def __init__(self, capacity: int, device: torch.device, seed: int) -> None:
        self.capacity, self.device = capacity, device
        self._random = torch.Generator().manual_seed(seed)
        self._segments = self._targets = torch.empty(0)
        self._next = self._filled = 0

    def add(self, segments: torch.Tensor, targets: torch.Tensor) -> None:
        """Keep segments (b, n) with their targets (b, ...); those of another length are forgotten."""
        if self._segments.shape[1:] != segments.shape[1:]:
            self._segments = torch.empty(self.capacity, *segments.shape[1:], device=self.device)
            self._targets = torch.empty(self.capacity, *targets.shape[1:], dtype=targets.dtype, device=self.device)
            self._next = self._filled = 0
        segments, targets = segments[-self.capacity :], targets[-self.capacity :]
        places = (torch.arange(len(segments)) + self._next) % self.capacity
        self._next = (self._next + len(segments)) % self.capacity
        self._filled = min(self._filled + len(segments), self.capacity)
        places = places.to(self.device)
        self._segments[places], self._targets[places] = segments.to(self.device), targets.to(self.device)

    def draw(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As many segments (count, n) with their targets (count, ...), at other levels than they were kept at."""
        places = torch.randint(self._filled, (count,), generator=self._random).to(self.device)
        gains = 10.0 ** (-GAIN_DB / 20.0 * torch.rand(count, generator=self._random))
        gains *= torch.randint(2, (count,), generator=self._random) * 2 - 1
        return self._segments[places] * gains.to(self.device)[:, None], self._targets[places]
