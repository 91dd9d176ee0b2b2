"""One writer at a time per warehouse: two would score and store the same titles twice."""

import hashlib
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
from jobs.tables import first_line

LEASE = "_lease.json"
LEASE_S = 60.0
RENEW_S = 15.0


class Lease:
    """Held while a job writes; renewed by a thread, and left to others by a job that dies.

    No clock is compared: a holder on this host is looked up among its processes, one on another host is watched for
    `LEASE_S` seconds and is alive if it renews the lease meanwhile. `was_abandoned` then tells that there may be
    something to recover.

    Args:
        storage: the warehouse.
        scan_id: who holds it.
        watch_s: how long a holder on another host is watched, seconds; several times its `RENEW_S`.

    Raises:
        AuscultError: another job holds it (on entering).
    """

    def __init__(self, storage: Storage, scan_id: str, watch_s: float = LEASE_S) -> None:
        self.storage = storage
        self.scan_id = scan_id
        self.watch_s = watch_s
        self.was_abandoned = False
        self._beats = 0
        self._writing = threading.Lock()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Lease":
        text = self._settled()
        if text is None:
            try:
                self._write(overwrite=False)
            except Exception as error:
                if self._text() is None:  # nobody else's: a full disk, say
                    raise AuscultError(
                        f"warehouse {self.storage.root}: the lease cannot be written: {first_line(error)}; make room or give rights, "
                        "or take another --warehouse"
                    ) from error
                raise self._taken() from error
        else:
            holder = _parsed(text)
            if holder is not None and self._is_alive(holder, text):
                raise self._taken()
            self._take_over(text)
            self.was_abandoned = True
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join(timeout=RENEW_S)
        try:
            if self._is_mine():
                self.storage.delete(LEASE)
        except Exception:
            if error is None:
                raise  # else what went wrong first is to be told; whoever comes next finds this process dead

    def check(self) -> None:
        """Raise AuscultError if another job has taken the lease, as it may from one that stood still for long."""
        if not self._is_mine():
            raise AuscultError(
                f"warehouse {self.storage.root}: this job stood still for so long that another took it over; nothing "
                f"more is written; run it again once the other has ended"
            )

    def holder(self) -> str | None:
        """Which job holds the lease; None where nobody alive does."""
        text = self._settled()
        found = _parsed(text) if text is not None else None
        return str(found["scan_id"]) if found is not None and self._is_alive(found, text or "") else None

    def _renew(self) -> None:
        while not self._done.wait(RENEW_S):
            try:
                if not self._is_mine():
                    return  # `check` will say so
                self._write(overwrite=True)
            except Exception as error:  # the job itself will meet the same trouble and report it
                log.warning("the lease on %s could not be renewed: %s", self.storage.root, first_line(error))

    def _write(self, *, overwrite: bool) -> None:
        self._beats += 1
        content = {
            "scan_id": self.scan_id,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started": _process_started(os.getpid()),
            "beats": self._beats,
        }
        with self._writing:
            self.storage.write_text(LEASE, json.dumps(content), overwrite=overwrite)

    def _text(self) -> str | None:
        """What the lease says; empty while it is being written, None where there is none."""
        try:
            return self.storage.read_text(LEASE)
        except Exception:  # it is gone, or its checksum is not there yet
            return "" if self.storage.exists(LEASE) else None

    def _settled(self) -> str | None:
        """As `_text`; what cannot be read for some seconds was left by a job that died while writing it."""
        for _ in range(15):
            text = self._text()
            if text is None or _parsed(text) is not None:
                return text
            time.sleep(0.2)
        return text

    def _is_mine(self) -> bool:
        with self._writing:
            text = self._text()
        return text is not None and (_parsed(text) or {}).get("scan_id") == self.scan_id

    def _is_alive(self, holder: dict[str, Any], text: str) -> bool:
        if holder["host"] == socket.gethostname():
            started = _process_started(holder["pid"])
            # The boot came before the ticks later than the ticks alone.
            return started is not None and holder["process_started"] in (started, started.rpartition("/")[2])
        log.info(
            "scan %s on %s holds the warehouse; watching for %.0f s whether it is alive",
            holder["scan_id"], holder["host"], self.watch_s,
        )  # fmt: skip
        return self._changes(text)

    def _changes(self, text: str) -> bool:
        """Whether the lease becomes another than this within the time of watching."""
        until = time.monotonic() + self.watch_s
        while time.monotonic() < until:
            time.sleep(min(1.0, self.watch_s / 10))
            if self._text() != text:
                return True
        return False

    def _take_over(self, text: str) -> None:
        """Replace a dead holder's lease. Of several that found it dead, one can create the marker for this very lease."""
        marker = f"{LEASE}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        for is_last in (False, True):
            try:
                self.storage.write_text(marker, self.scan_id, overwrite=False)
                break
            except Exception as error:
                if is_last or self._changes(text):
                    raise self._taken() from error
                self.storage.delete(marker)  # whoever made it died before it had replaced the lease
        try:
            if self._text() != text:  # another made the marker, replaced the lease and was done before we came
                raise self._taken()
            self._write(overwrite=True)
        finally:
            self.storage.delete(marker)

    def _taken(self) -> AuscultError:
        holder = _parsed(self._settled() or "")
        who = f"scan {holder['scan_id']} on {holder['host']} (process {holder['pid']})" if holder else "another job"
        return AuscultError(
            f"warehouse {self.storage.root}: {who} is writing to it; wait for it to end, or take another --warehouse"
        )


def _parsed(text: str) -> dict[str, Any] | None:
    """A lease's content; None where its writer died while writing it."""
    try:
        holder = json.loads(text)
        return {name: holder[name] for name in ("scan_id", "host", "pid", "process_started")}
    except (ValueError, KeyError, TypeError):
        return None


def _process_started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks since which boot: a reused number is not taken for it. None if gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return None if fields[0] == "Z" else f"{boot}/{fields[19]}"
