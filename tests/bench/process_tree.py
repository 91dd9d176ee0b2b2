"""Runs a command and measures the CPU time and memory of every process it starts."""

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

TICKS_PER_S = 100


@dataclass
class Measured:
    """What a command and its descendants used.

    Args:
        wall_s: seconds from start to end.
        cpu_s: user and system seconds, by kind of process.
        peak_mib: largest resident size of one process, by kind.
        output: what it printed, errors included.
    """

    wall_s: float
    cpu_s: dict[str, float] = field(default_factory=dict)
    peak_mib: dict[str, float] = field(default_factory=dict)
    output: str = ""

    @property
    def total_cpu_s(self) -> float:
        """CPU seconds of all processes."""
        return sum(self.cpu_s.values())


def measure(command: Sequence[str | Path], environment: dict[str, str]) -> Measured:
    """Run a command in a session of its own and watch the session's processes.

    Raises:
        RuntimeError: the command failed.
    """
    started = time.monotonic()
    process = subprocess.Popen(
        list(map(str, command)),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    seen: dict[str, tuple[str, float, float]] = {}
    members: set[str] = set()
    while process.poll() is None:
        _look(process.pid, seen, members)
        time.sleep(0.1)
    assert process.stdout is not None
    result = Measured(time.monotonic() - started, output=process.stdout.read())
    if process.returncode != 0:
        raise RuntimeError(f"{command} failed:\n{result.output}")
    for kind, cpu_s, mib in seen.values():
        result.cpu_s[kind] = result.cpu_s.get(kind, 0.0) + cpu_s
        result.peak_mib[kind] = max(result.peak_mib.get(kind, 0.0), mib)
    return result


def _look(session: int, seen: dict[str, tuple[str, float, float]], members: set[str]) -> None:
    """Note what the session's processes have used, and those that left it (daemons): children of `members`."""
    for folder in sorted(Path("/proc").iterdir(), key=lambda folder: int(folder.name) if folder.name.isdigit() else 0):
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) != session and fields[1] not in members:
                continue
            members.add(folder.name)
            words = (folder / "cmdline").read_bytes().split(b"\0")
            peak = next(
                (x for x in (folder / "status").read_text().splitlines() if x.startswith("VmHWM")), "VmHWM: 0 kB"
            )
        except (OSError, IndexError):
            continue  # it ended while we looked
        cpu_s = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
        key = f"{folder.name}/{fields[19]}"
        if words == [b""] and key in seen:
            continue  # a zombie has no command line any more
        seen[key] = (_kind(words), cpu_s, int(peak.split()[1]) / 1024)


def _kind(words: list[bytes]) -> str:
    line = b" ".join(words)
    if b"java" in words[0]:
        return "jvm"
    if b"udfs.decoder" in line:
        return "decoder"
    if b"pyspark.daemon" in line or line.startswith(b"ray::") or b"multiprocessing" in line or b"daft" in line:
        return "worker"
    if b"raylet" in line or b"gcs_server" in line or b"/ray/" in line:
        return "ray"
    return "driver"
