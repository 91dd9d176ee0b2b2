"""A hostile file, the rows that a scan must leave of it, and the folder that such files are written into."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from signals import music_like, write

RATE = 48_000
SECONDS = 3.2
SUFFIXES = (".flac", ".wav", ".mp3", ".m4a", ".aac", ".mp4", ".mka", ".opus", ".webm", ".mkv")
REJECTED = "rejected"


@dataclass(frozen=True)
class Case:
    """A file and what its rows in `tracks` may say.

    Args:
        name: path below the folder, bytes.
        group: what kind of trouble it is.
        status: allowed values of `tracks.status`.
        codes: allowed values of `tracks.error_code`; empty allows any that goes with the status.
        tracks: rows expected.
        heard_s: seconds that must have been decoded (least, most).
    """

    name: bytes
    group: str
    status: frozenset[str]
    codes: frozenset[str | None] = frozenset()
    tracks: int = 1
    heard_s: tuple[float, float] = (0.0, 1e9)


def ok(seconds: float = SECONDS, slack: float = 0.2) -> dict[str, Any]:
    return {
        "status": frozenset({"ok"}),
        "codes": frozenset({None}),
        "heard_s": (seconds - slack, seconds + slack),
    }


def rejected(*codes: str) -> dict[str, Any]:
    return {"status": frozenset({REJECTED}), "codes": frozenset(codes), "heard_s": (0.0, 0.0)}


def partial(*codes: str, least_s: float = 0.0, most_s: float = SECONDS + 0.2) -> dict[str, Any]:
    return {"status": frozenset({"partial"}), "codes": frozenset(codes), "heard_s": (least_s, most_s)}


def either(*choices: dict[str, Any]) -> dict[str, Any]:
    return {
        "status": frozenset().union(*(choice["status"] for choice in choices)),
        "codes": frozenset().union(*(choice["codes"] for choice in choices)),
        "heard_s": (min(choice["heard_s"][0] for choice in choices), max(choice["heard_s"][1] for choice in choices)),
    }


class Maker:
    """Writes the files into a folder and keeps the list of cases."""

    def __init__(self, folder: Path, seed: int = 1) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rng = np.random.default_rng(seed)
        self.music = music_like(SECONDS, RATE, self.rng) * 0.5
        self.cases: list[Case] = []
        self.outside = folder.parent / f"{folder.name}-outside"
        self.outside.mkdir(exist_ok=True)
        self.sources = {suffix: write(self.outside / f"good{suffix}", self.music) for suffix in SUFFIXES}

    def add(self, name: str | bytes, group: str, content: bytes | None, **expected: Any) -> Path:
        raw = os.fsencode(name)
        path = Path(os.fsdecode(os.path.join(os.fsencode(self.folder), raw)))
        if content is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.cases.append(Case(raw, group, **expected))
        return path

    def good(self, suffix: str) -> bytes:
        return self.sources[suffix].read_bytes()
