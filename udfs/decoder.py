"""Decodes in a child process, so that a decoder that crashes or hangs costs one file and not the worker.

The child (`python -m udfs.decoder`) takes one JSON request a line on standard input and answers with messages:
a header (kind, length), then as much JSON. Samples go through slots of shared memory (`udfs.slots`).
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from udfs.blocks import Block, Resampler
from udfs.decode_report import DecodeReport
from udfs.decoding import decode
from udfs.media import MediaError, TrackInfo, describe, probe
from udfs.remote import local_copy
from udfs.slots import SAMPLES, SlotReader, SlotWriter
from udfs.stages import StageClock

_HEADER = struct.Struct("<cI")
_BLOCK, _ALIVE, _DONE, _FAILED = b"B", b"A", b"D", b"F"
ALIVE_S = 0.25  # between two signs of life, where there is progress and nothing to hand over
ACCIDENTS = frozenset({"crashed", "timeout", "out_of_memory"})


def encode_path(path: bytes | str) -> str:
    """A file path as text that any byte survives: what is not printable UTF-8 becomes %XX."""
    return quote_from_bytes(os.fsencode(path), safe="/")


def decode_path(text: str) -> bytes:
    """The path that `encode_path` wrote."""
    return unquote_to_bytes(text)


class Decoder:
    """A decoding child process, started on first use and after each accident.

    A request whose child died or hung is asked once more, of a new child that has done nothing else: what failed with
    the first may have come of memory that another title took. The second time, the file is to blame.

    Args:
        timeout_s: longest wait for the child's next sign of life before it is killed. It gives one where it gets on, however
            far it has to read or decode before there is something to hand over.
    """

    def __init__(self, timeout_s: float = 120.0) -> None:
        self.timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._slots: SlotReader | None = None
        # The child dies with the thread that started it (see _serve), so that thread must outlive every span.
        self._starter = ThreadPoolExecutor(max_workers=1)

    def probe(self, path: str) -> list[TrackInfo]:
        """`udfs.media.probe` of an encoded path, or of an object's URI.

        Raises:
            MediaError: as there and in `udfs.remote.local_copy`; also `crashed` and `timeout`.
        """
        request = {"do": "probe", "path": path}
        try:
            *_, (kind, answer) = self._ask(request)
        except MediaError as error:
            if error.code not in ACCIDENTS:
                raise
            *_, (kind, answer) = self._ask(request)
        assert kind == _DONE
        return [TrackInfo(**track) for track in answer["tracks"]]

    def decode(
        self,
        path: str,
        track: int,
        start_s: float,
        stop_s: float,
        rates_hz: list[int],
        *,
        can_seek: bool,
        is_timed: bool,
        report: DecodeReport,
    ) -> Iterator[tuple[int, Block]]:
        """Decode a span and resample it to each rate: yields (rate, block).

        Raises:
            MediaError: as `udfs.media.decode` and `udfs.remote.local_copy`; also `crashed` and `timeout`.
        """
        request = {
            "do": "decode",
            "path": path,
            "track": track,
            "start_s": start_s,
            "stop_s": stop_s,
            "rates_hz": rates_hz,
            "can_seek": can_seek,
            "is_timed": is_timed,
        }
        given: dict[int, int] = {}  # rate -> the sample after the last that was given
        try:
            yield from self._blocks(request, report, given)
        except MediaError as error:
            if error.code not in ACCIDENTS:
                raise
            yield from self._blocks(request, report, given)

    def _blocks(
        self, request: dict[str, Any], report: DecodeReport, given: dict[int, int]
    ) -> Iterator[tuple[int, Block]]:
        """The answer's blocks beyond what was given before."""
        before = dict(given)
        for kind, answer in self._ask(request):
            if kind != _BLOCK:
                vars(report).update(answer["report"])
                continue
            rate, position, names, slot, length = answer
            assert self._slots is not None
            samples = self._slots.take(slot, len(names), length)
            known = before.get(rate, position) - position
            if known > 0:
                position, samples = position + known, samples[:, known:]
            if samples.shape[1]:
                given[rate] = position + samples.shape[1]
                yield rate, Block(position, rate, samples, tuple(names))

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            self._process = None
        if self._slots is not None:
            self._slots.close()
            self._slots = None

    def _ask(self, request: dict[str, Any]) -> Iterator[tuple[bytes, Any]]:
        with local_copy(request["path"]) as path:
            yield from self._exchange({**request, "path": path})

    def _exchange(self, request: dict[str, Any]) -> Iterator[tuple[bytes, Any]]:
        process = self._started()
        finished = False
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(request).encode() + b"\n")
            while not finished:
                kind, length = _HEADER.unpack(self._read(_HEADER.size))
                answer = json.loads(bytes(self._read(length)))
                finished = kind in (_DONE, _FAILED)
                if kind == _FAILED:
                    raise MediaError(answer["code"], answer["message"])
                if kind != _ALIVE:
                    yield kind, answer
        except BrokenPipeError as error:
            raise self._accident() from error
        finally:
            if not finished:
                self.close()  # an unread answer must not meet the next request

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            self._slots = SlotReader()
            self._process = self._starter.submit(
                subprocess.Popen,
                [sys.executable, "-m", "udfs.decoder", *map(str, self._slots.inherited)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                env=environment,
                pass_fds=self._slots.inherited,
            ).result()
            self._slots.started()
        return self._process

    def _read(self, length: int) -> bytearray:
        assert self._process is not None
        assert self._process.stdout is not None
        pipe = self._process.stdout
        buffer = bytearray(length)
        view = memoryview(buffer)
        filled = 0
        while filled < length:
            if not select.select([pipe], [], [], self.timeout_s)[0]:
                self.close()
                raise MediaError(
                    "timeout",
                    f"the decoder got no further for {self.timeout_s:g} s and was stopped; check the file by hand",
                )
            count = pipe.readinto(view[filled:])  # type: ignore[attr-defined]
            if not count:
                raise self._accident()
            filled += count
        return buffer

    def _accident(self) -> MediaError:
        assert self._process is not None
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            status = None
        self.close()
        cause = signal.Signals(-status).name if status is not None and status < 0 else f"exit status {status}"
        return MediaError("crashed", f"the decoder died on this file ({cause}); check the file by hand")


_kept: Decoder | None = None


def worker_decoder(timeout_s: float) -> Decoder:
    """The Python worker's decoder, kept from task to task."""
    global _kept
    if _kept is None or _kept.timeout_s != timeout_s:
        if _kept is not None:
            _kept.close()
        _kept = Decoder(timeout_s)
    return _kept


def _serve(memory: int, freed: int) -> None:
    # Die with the Python worker, whatever kills it.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # nothing a library prints may mix with the messages
    slots = SlotWriter(memory, freed)

    def send(kind: bytes, answer: Any) -> None:
        text = json.dumps(answer).encode()
        view = memoryview(_HEADER.pack(kind, len(text)) + text)
        while view:
            view = view[answers.write(view) :]

    told = 0.0

    def progress() -> None:
        nonlocal told
        if time.monotonic() >= told + ALIVE_S:
            send(_ALIVE, None)
            told = time.monotonic()

    for line in sys.stdin.buffer:
        request = json.loads(line)
        path = os.fsdecode(decode_path(request["path"]))
        try:
            if request["do"] == "probe":
                send(_DONE, {"tracks": [asdict(track) for track in probe(path, progress)]})
            else:
                _decode(path, request, slots, send, progress)
        except MediaError as error:
            send(_FAILED, {"code": error.code, "message": error.message})
        except MemoryError:
            send(_FAILED, {"code": "out_of_memory", "message": "the decoder asked for more memory than there is"})
        except BrokenPipeError:
            raise
        except Exception as error:  # whatever a hostile file provokes costs this file only
            send(_FAILED, {"code": "undecodable", "message": f"{type(error).__name__}: {describe(error)}"})


def _decode(
    path: str,
    request: dict[str, Any],
    slots: SlotWriter,
    send: Callable[[bytes, Any], None],
    progress: Callable[[], None],
) -> None:
    report = DecodeReport()
    clock = StageClock()
    resamplers = [Resampler(rate) for rate in request["rates_hz"]]
    blocks = decode(
        path,
        request["track"],
        request["start_s"],
        request["stop_s"],
        can_seek=request["can_seek"],
        is_timed=request["is_timed"],
        report=report,
        progress=progress,
    )

    def pass_on(resampled: Iterator[Block]) -> None:
        for out in clock.each("resample", resampled):
            channels, length = out.samples.shape
            with clock.stage("send"):
                for first in range(0, length, SAMPLES // channels):
                    part = out.samples[:, first : first + SAMPLES // channels]
                    place = [slots.put(part), part.shape[1]]
                    send(_BLOCK, [out.rate_hz, out.position + first, out.channel_names, *place])

    for block in clock.each("decode", blocks):
        for resampler in resamplers:
            pass_on(resampler.push(block))
    for resampler in resamplers:
        pass_on(resampler.flush())
    send(_DONE, {"report": vars(report) | {"stages_s": clock.taken()}})


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        _serve(*map(int, sys.argv[1:]))
