"""Data in the place of sound: Dolby E, AC-3 and others that travel in PCM channels (SMPTE ST 337, IEC 61937).

Masters of broadcasters carry them in a pair of channels, or in two tracks of one channel. As sound they are noise at full
scale, in which a detector of hiss or distortion finds what nobody will ever hear. Each burst begins with two words that
sound does not have there, again and again: one in either channel of the pair, or one after the other in the same channel.
"""

import numpy as np

LOUD = 0.9  # payload reaches full scale many times a second; quieter sound is not looked at
BURSTS = 2  # in a second, at least: Dolby E has 24 to 30, AC-3 31
BURSTS_ALONE = 8  # where only one of the words is to be seen, the other being in another track: silence comes before it
GUARD = 4  # samples of that silence
SHORT_S = 0.1  # a rest of a channel with data that has room for no burst
_WORDS = ((16, 0xF872, 0x4E1F), (20, 0x6F872, 0x54E1F), (24, 0x96F872, 0xA54E1F))  # Pa and Pb at each word length
# Of SMPTE ST 338 and IEC 61937.
_KINDS = {1: "AC-3", 11: "DTS", 12: "DTS", 13: "DTS", 16: "E-AC-3", 21: "E-AC-3", 28: "Dolby E"}


def _sample(word: int, bits: int) -> np.float32:
    """A word, whose first bit is the sign, as a sample; float32 holds 24 bits without loss."""
    return np.float32((word - (word >> (bits - 1) << bits)) / (1 << (bits - 1)))


_SYNC = tuple((_sample(first, bits), _sample(second, bits)) for bits, first, second in _WORDS)


class DataBursts:
    """Finds the channels of a track that carry data, and silences them. It remembers them from one block to the next."""

    def __init__(self) -> None:
        self._carries: dict[int, str] = {}

    def silence(self, samples: np.ndarray, rate_hz: int) -> dict[int, str]:
        """Silence what is data in a block of consecutive samples, in place.

        Args:
            samples: float32 (channels, time) of about a second, full scale +-1, converted from whole numbers.
            rate_hz: samples per second.

        Returns:
            The channels that carry data, and what it is ("AC-3", "Dolby E" ...).
        """
        found: dict[int, str] = {}
        if samples.max(initial=0.0) > LOUD and samples.min(initial=0.0) < -LOUD:
            for channel in range(len(samples)):
                for first, second in _SYNC:
                    if channel not in found:
                        found |= self._search(samples, channel, first, second)
        if samples.shape[1] < SHORT_S * rate_hz:
            found = self._carries | found
        for channel in found:
            samples[channel] = 0.0
        self._carries = found
        return found

    def _search(self, samples: np.ndarray, channel: int, first: np.float32, second: np.float32) -> dict[int, str]:
        own, other = samples[channel], samples[channel + 1] if channel + 1 < len(samples) else None
        starts = np.flatnonzero(own[:-2] == first)
        known = channel in self._carries
        for step, partner in ((0, other), (1, own)):
            if partner is None:
                continue
            bursts = starts[partner[starts + step] == second]
            if len(bursts) >= (1 if known else BURSTS):
                kind = _kind(own[bursts[0] + step + 1])
                return {channel: kind} if step else {channel: kind, channel + 1: kind}
        for word in (first, second):
            starts = np.flatnonzero(own == word)
            starts = starts[starts >= GUARD]
            quiet = ~np.any([own[starts - back] for back in range(1, GUARD + 1)], axis=0)
            if quiet.sum() >= (1 if known else BURSTS_ALONE):
                at = int(starts[quiet][0]) + 1
                return {channel: _kind(own[at]) if word == first and at < len(own) else "half of a pair"}
        return {}


def _kind(information: np.float32) -> str:
    """What the word behind the two says of the data: its type is in the last five of the first sixteen bits."""
    number = int(np.floor(float(information) * 32768)) & 0x1F
    return _KINDS.get(number, f"type {number}")
