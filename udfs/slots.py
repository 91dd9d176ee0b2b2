"""Samples from one process to another through memory that both have mapped.

A pipe copies them into pages of the kernel and out again, which took a quarter of the decoding's own time.
"""

import contextlib
import mmap
import os
from collections import deque

import numpy as np

COUNT, SAMPLES = 4, 1 << 17  # slots, and float32 samples in each: a second of stereo at 48 kHz has 96,000


class SlotReader:
    """The memory, and the side that takes samples out of it.

    Attributes:
        inherited: file descriptors that the other process must inherit, to make its `SlotWriter` of.
    """

    def __init__(self) -> None:
        # Not /dev/shm: containers give it 64 MiB for all, and what a killed process leaves there stays.
        memory = os.memfd_create("auscult-slots")
        os.ftruncate(memory, COUNT * SAMPLES * 4)
        self._slots = _mapped(memory)
        freed, self._free = os.pipe()
        self.inherited: tuple[int, ...] = (memory, freed)

    def started(self) -> None:
        """To be called once the other process has inherited; it then notices when this one is gone."""
        for descriptor in self.inherited:
            os.close(descriptor)
        self.inherited = ()

    def take(self, slot: int, channels: int, length: int) -> np.ndarray:
        """A copy (channels, length) of what a slot holds; the writer may have the slot again."""
        samples = self._slots[slot, : channels * length].reshape(channels, length).copy()
        with contextlib.suppress(BrokenPipeError):  # if the other process has ended, the caller's next read tells
            os.write(self._free, bytes([slot]))
        return samples

    def close(self) -> None:
        """Give the memory back."""
        self.started()
        os.close(self._free)
        del self._slots


class SlotWriter:
    """The side that puts samples in.

    Args:
        memory: the inherited descriptor of the memory.
        freed: that of the pipe on which freed slots come back.
    """

    def __init__(self, memory: int, freed: int) -> None:
        self._slots = _mapped(memory)
        self._freed = freed
        self._free = deque(range(COUNT))

    def put(self, samples: np.ndarray) -> int:
        """Copy float32 (channels, length) of at most `SAMPLES` in all into a free slot, once there is one; its number.

        Raises:
            BrokenPipeError: the reader has gone away.
        """
        if not self._free:
            freed = os.read(self._freed, COUNT)
            if not freed:
                raise BrokenPipeError("the reader of the slots has gone away")
            self._free.extend(freed)
        slot = self._free.popleft()
        self._slots[slot, : samples.size].reshape(samples.shape)[...] = samples
        return slot


def _mapped(memory: int) -> np.ndarray:
    return np.frombuffer(mmap.mmap(memory, COUNT * SAMPLES * 4), dtype=np.float32).reshape(COUNT, SAMPLES)
