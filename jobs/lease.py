"""One scan at a time per warehouse: two writers would score and store the same titles twice."""

import json
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from jobs.launch import AuscultError, log
from jobs.storage import Storage

LEASE = "_lease.json"
LEASE_S = 120.0
RENEW_S = 20.0


class Lease:
    """Held while a scan writes; renewed by a thread, and left to expire by a scan that dies.

    A holder that died on this same host is recognised at once and does not have to expire;
    `was_abandoned` then tells that there may be something to recover.

    Args:
        storage: the warehouse.
        scan_id: who holds it.

    Raises:
        AuscultError: another scan holds it (on entering).
    """

    def __init__(self, storage: Storage, scan_id: str) -> None:
        self.storage = storage
        self.scan_id = scan_id
        self.was_abandoned = False
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Lease":
        holder = self._read()
        if holder is not None and _is_alive(holder):
            raise AuscultError(
                f"warehouse {self.storage.root}: scan {holder['scan_id']} on {holder['host']} (process {holder['pid']}) "
                f"is writing to it; wait for it to end, or take another --warehouse"
            )
        if holder is not None:
            self.was_abandoned = True
            self.storage.delete(LEASE)
        try:
            self._write(overwrite=False)
        except Exception as error:
            raise AuscultError(f"warehouse {self.storage.root}: another scan took it at the same moment") from error
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join(timeout=RENEW_S)
        self.storage.delete(LEASE)

    def _renew(self) -> None:
        while not self._done.wait(RENEW_S):
            try:
                self._write(overwrite=True)
            except Exception as error:  # the scan itself will meet the same trouble and report it
                log.warning("the lease on %s could not be renewed: %s", self.storage.root, str(error).splitlines()[0])

    def _write(self, *, overwrite: bool) -> None:
        text = json.dumps(
            {
                "scan_id": self.scan_id,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "process_started": _process_started(os.getpid()),
                "expires_at": time.time() + LEASE_S,
            }
        )
        self.storage.write_text(LEASE, text, overwrite=overwrite)

    def _read(self) -> dict[str, Any] | None:
        if not self.storage.exists(LEASE):
            return None
        try:
            return dict(json.loads(self.storage.read_text(LEASE)))
        except ValueError:
            return None  # its writer died while writing it


def _is_alive(holder: dict[str, Any]) -> bool:
    if holder["host"] == socket.gethostname():
        return _process_started(holder["pid"]) == holder["process_started"]
    return bool(holder["expires_at"] > time.time())


def _process_started(pid: int) -> str | None:
    """Start time of a process in the kernel's ticks, so that a reused number is not taken for it; None if gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
