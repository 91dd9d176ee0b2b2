"""Decodes stretches of titles for people to hear and see, or to be compared."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from udfs.decoder import Decoder
from udfs.decoding import DecodeReport
from udfs.media import MediaError, TrackInfo

RATE_HZ = 48_000  # Opus' own rate, and enough for what the detectors hear
LATENCY_S = 0.25  # decoded beyond a stretch, for the resampler's filter
STEREO = ("FL", "FR")


@dataclass(frozen=True)
class Stretch:
    """Where to cut.

    Args:
        start_s: begin, seconds from the title's zero.
        end_s: end (exclusive).
        channels: names of the channels to hear; FL and FR give stereo, others their mean. A name that the track
            does not have is left out; all channels are taken where none is left.
    """

    start_s: float
    end_s: float
    channels: tuple[str, ...]


@dataclass
class Sound:
    """What was cut.

    Args:
        start_s: begin, seconds from the title's zero.
        samples: float32 (1 or 2, time) at `RATE_HZ`; zeros where nothing could be decoded.
        heard: names of the channels.
        decoded: which samples were decoded, bool (time,).
    """

    start_s: float
    samples: np.ndarray
    heard: tuple[str, ...]
    decoded: np.ndarray

    def part(self, start_s: float, end_s: float) -> "Sound":
        """The same between two times, ended where the title ends."""
        begin = max(0, round((start_s - self.start_s) * RATE_HZ))
        end = min(round((end_s - self.start_s) * RATE_HZ), _last(self.decoded))
        cut = slice(begin, max(begin, end))
        return Sound(self.start_s + begin / RATE_HZ, self.samples[:, cut], self.heard, self.decoded[cut])


def _last(decoded: np.ndarray) -> int:
    found = np.flatnonzero(decoded)
    return int(found[-1]) + 1 if found.size else 0


def heard_channels(names: tuple[str, ...], wanted: tuple[str, ...]) -> list[int]:
    """Indices of the wanted channels; all of them where the track has none of those (a downmix is of all).

    Example:
        >>> heard_channels(("FL", "FR", "FC"), ("FC",))
        [2]
        >>> heard_channels(("FL", "FR"), ("MIX",))
        [0, 1]
    """
    return [index for index, name in enumerate(names) if name in wanted] or list(range(len(names)))


def sounds(decoder: Decoder, path: str, info: TrackInfo, stretches: list[Stretch]) -> Iterator[tuple[int, Sound]]:
    """Cut stretches out of one track: yields (index in `stretches`, sound), in order of their ends.

    Where a seek is exact each is decoded by itself. Elsewhere decoding starts at the title's begin, so the track is
    gone through once for all of them.

    Args:
        decoder: the child process to decode in.
        path: file, as `udfs.decoder.encode_path` writes it.
        info: the track, as `Decoder.probe` describes it.
        stretches: what to cut, in any order.

    Raises:
        MediaError: decoding failed; what was complete before has been yielded.
    """
    order = sorted(range(len(stretches)), key=lambda index: stretches[index].start_s)
    groups = [[index] for index in order] if info.can_seek else [order]
    for group in groups:
        yield from _sounds_of_one_pass(decoder, path, info, {index: stretches[index] for index in group})


def _sounds_of_one_pass(
    decoder: Decoder, path: str, info: TrackInfo, waiting: dict[int, Stretch]
) -> Iterator[tuple[int, Sound]]:
    begun: dict[int, Sound] = {}
    if not waiting:
        return
    first_s = min(stretch.start_s for stretch in waiting.values())
    stop_s = max(stretch.end_s for stretch in waiting.values())
    for _, block in decoder.decode(
        path,
        info.track,
        first_s,
        stop_s + LATENCY_S,
        [RATE_HZ],
        can_seek=info.can_seek,
        is_timed=info.is_timed,
        report=DecodeReport(),
    ):
        block_end = block.position + block.samples.shape[1]
        for index, stretch in list(waiting.items()):
            begin, end = round(stretch.start_s * RATE_HZ), round(stretch.end_s * RATE_HZ)
            if block_end > begin and block.position < end:
                if index not in begun:  # only now: many long stretches of a film would not fit into memory at once
                    begun[index] = _silence(stretch)
                _add(begun[index], stretch, block.position - begin, block.samples, block.channel_names)
            if block_end >= end:
                del waiting[index]
                yield index, begun.pop(index) if index in begun else _silence(stretch)
    for index, stretch in waiting.items():  # the title ends before them
        yield index, begun.pop(index) if index in begun else _silence(stretch)


def _silence(stretch: Stretch) -> Sound:
    length = round(stretch.end_s * RATE_HZ) - round(stretch.start_s * RATE_HZ)
    rows = 2 if set(stretch.channels) == set(STEREO) else 1
    return Sound(stretch.start_s, np.zeros((rows, length), dtype=np.float32), (), np.zeros(length, dtype=bool))


def _add(sound: Sound, stretch: Stretch, offset: int, samples: np.ndarray, names: tuple[str, ...]) -> None:
    chosen = heard_channels(names, stretch.channels)
    begin, end = max(0, offset), min(sound.samples.shape[1], offset + samples.shape[1])
    taken = samples[chosen, begin - offset : end - offset]
    # Two rows: left and right as they are; where a track changes its layout midway, the mean on both.
    is_pair = sound.samples.shape[0] == 2 and tuple(names[index] for index in chosen) == STEREO
    sound.samples[:, begin:end] = taken if is_pair else taken.mean(axis=0)
    sound.decoded[begin:end] = True
    sound.heard = sound.heard or tuple(names[index] for index in chosen)


def track_of(tracks: list[TrackInfo], track: int) -> TrackInfo:
    """A decodable audio track of a file, by number.

    Raises:
        MediaError: the file does not have it any more, or it cannot be decoded.
    """
    if track >= len(tracks):
        raise MediaError("changed", f"expected audio track {track}, the file has {len(tracks)} now; scan it again")
    info = tracks[track]
    if info.error_code is not None:
        raise MediaError(info.error_code, info.error or "")
    return info
