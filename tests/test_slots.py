"""Samples come out of the slots as they went in, in order, whoever is the faster."""

import os
import signal
import time

import numpy as np
import pytest

from udfs.slots import COUNT, SAMPLES, SlotReader, SlotWriter


def _forked(reader: SlotReader, write) -> int:
    """Run `write(SlotWriter)` in a child that inherited the slots; its process."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader._free)
            write(SlotWriter(*reader.inherited))
            status = 0
        except BrokenPipeError:
            status = 3
        finally:
            os._exit(status)
    reader.started()
    return child


@pytest.mark.parametrize("is_slow_reader", [True, False])
def test_samples_come_out_as_they_went_in(is_slow_reader):
    rng = np.random.default_rng(1)
    shapes = [(1, 1), (2, 48_000), (64, SAMPLES // 64), (1, SAMPLES), (6, 1000)] * 8
    blocks = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    numbers, told = os.pipe()

    def write(writer):
        for block in blocks:
            os.write(told, bytes([writer.put(block)]))
            if not is_slow_reader:
                time.sleep(0.002)

    reader = SlotReader()
    child = _forked(reader, write)
    used = set()
    for block in blocks:
        if is_slow_reader:
            time.sleep(0.002)
        [slot] = os.read(numbers, 1)
        used.add(slot)
        np.testing.assert_array_equal(reader.take(slot, *block.shape), block)
    assert used <= set(range(COUNT))
    assert os.waitpid(child, 0)[1] == 0
    reader.close()
    os.close(numbers)
    os.close(told)


def test_a_writer_waits_for_its_reader_and_notices_its_end():
    block = np.ones((1, 4), dtype=np.float32)

    def write(writer):
        for _ in range(COUNT + 1):
            writer.put(block)

    reader = SlotReader()
    child = _forked(reader, write)
    time.sleep(0.3)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)  # all slots are full
    reader.close()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def test_what_a_dead_writer_gave_is_still_there():
    block = np.arange(8, dtype=np.float32).reshape(2, 4)

    def write(writer):
        writer.put(block)
        os.kill(os.getpid(), signal.SIGKILL)

    reader = SlotReader()
    os.waitpid(_forked(reader, write), 0)
    np.testing.assert_array_equal(reader.take(0, 2, 4), block)
    reader.close()


def test_no_descriptor_is_left_open():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        SlotReader().close()
        reader = SlotReader()
        os.waitpid(_forked(reader, lambda writer: None), 0)
        reader.close()
    assert len(os.listdir("/proc/self/fd")) == before
