"""Valid files, mutated."""

from collections.abc import Iterator

import numpy as np


def mutations(sources: dict[str, bytes], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Files that began as valid ones: flipped bits, cuts, splices, repeats, swapped headers. Same seed, same files."""
    rng = np.random.default_rng(seed)
    names = sorted(sources)
    for number in range(count):
        suffix = names[number % len(names)]
        data = bytearray(sources[suffix])
        kinds = []
        for _ in range(int(rng.integers(1, 4))):
            kind = str(rng.choice(["flip", "burst", "cut", "splice", "repeat", "header", "zero", "head flip"]))
            kinds.append(kind)
            size = len(data)
            at = int(rng.integers(0, size))
            span = int(min(rng.integers(1, 4000), max(1, size // 4)))
            if kind == "flip":
                for place in rng.integers(0, size, int(rng.integers(1, 40))):
                    data[place] ^= 1 << int(rng.integers(8))
            elif kind == "head flip":  # where the sizes and the counts are
                for place in rng.integers(0, min(size, 600), int(rng.integers(1, 12))):
                    data[place] ^= 1 << int(rng.integers(8))
            elif kind == "burst":
                data[at : at + span] = rng.bytes(span)
            elif kind == "cut":
                del data[at : at + span]
            elif kind == "repeat":
                data[at:at] = data[at : at + span]
            elif kind == "zero":
                data[at : at + span] = bytes(len(data[at : at + span]))
            else:
                other = sources[str(rng.choice(names))]
                if kind == "header":
                    cut = int(rng.integers(4, 2000))
                    data[:cut] = other[:cut]
                else:
                    begin = int(rng.integers(0, len(other)))
                    data[at:at] = other[begin : begin + span]
            if not data:
                data = bytearray(b"\0")
        yield f"{number:03d} {'+'.join(kinds)}{suffix}", bytes(data)
