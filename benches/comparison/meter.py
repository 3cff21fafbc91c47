"""Reads what the kernel says about a process: CPU time, context switches, resident memory."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Reading:
    """The counters of a process, all threads together, at one moment."""

    at: float  # seconds since the epoch, as in pgbench's log
    threads: frozenset[str]
    run_nanoseconds: int | None  # user and system time of the threads; None without /proc/PID/schedstat
    ticks: int  # the same for the process, ended threads included, in clock ticks
    switches: int  # voluntary and involuntary


def read(process_id: int) -> Reading:
    """The counters now. Threads that end while they are read are left out."""
    base = Path(f"/proc/{process_id}")
    at = time.time()
    stat = (base / "stat").read_text().rpartition(")")[2].split()
    threads, nanoseconds, switches = set(), 0, 0
    exact = True
    for task in (base / "task").iterdir():
        try:
            status = (task / "status").read_text()
            scheduling = (task / "schedstat").read_text() if (task / "schedstat").exists() else ""
        except OSError:
            continue
        threads.add(task.name)
        switches += sum(int(count) for count in re.findall(r"voluntary_ctxt_switches:\s*(\d+)", status))
        nanoseconds += int(scheduling.split()[0]) if scheduling else 0
        exact = exact and bool(scheduling)
    return Reading(at, frozenset(threads), nanoseconds if exact else None, int(stat[11]) + int(stat[12]), switches)


def cpu_seconds(before: Reading, after: Reading) -> float:
    """User and system time between two readings.

    The scheduler counts nanoseconds per thread, but forgets a thread that ended; where the set of threads changed,
    the process's clock ticks (10 ms) are taken.
    """
    if before.threads == after.threads and before.run_nanoseconds is not None and after.run_nanoseconds is not None:
        return (after.run_nanoseconds - before.run_nanoseconds) / 1e9
    return (after.ticks - before.ticks) / TICKS_PER_SECOND


def switches(before: Reading, after: Reading) -> int:
    """Context switches between two readings."""
    return max(0, after.switches - before.switches)


def resident_kib(process_id: int) -> int:
    """Resident memory in KiB.

    From the page tables where they may be read: the counters behind `VmRSS` may be off by some dozen pages per core.
    """
    try:
        return kib_field(Path(f"/proc/{process_id}/smaps_rollup"), "Rss")
    except OSError:
        return kib_field(Path(f"/proc/{process_id}/status"), "VmRSS")


def peak_kib(process_id: int) -> int:
    """The highest resident memory in KiB since the process began, or since `forget_peak`."""
    return kib_field(Path(f"/proc/{process_id}/status"), "VmHWM")


def kib_field(path: Path, field: str) -> int:
    """A line like `VmRSS:  1234 kB`."""
    found = re.search(rf"^{field}:\s*(\d+) kB", path.read_text(), re.MULTILINE)
    if not found:
        raise RuntimeError(f"no {field} in {path}")
    return int(found.group(1))


def forget_peak(process_id: int) -> bool:
    """Sets `VmHWM` back to `VmRSS`. Needs to be the process's owner or root; says whether it worked."""
    try:
        Path(f"/proc/{process_id}/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def settled_kib(process_id: int, seconds: float = 10) -> int:
    """Resident memory once it has stopped changing for a second, or after some seconds at most."""
    until = time.monotonic() + seconds
    last = resident_kib(process_id)
    while time.monotonic() < until:
        time.sleep(1)
        now = resident_kib(process_id)
        if abs(now - last) <= 16:
            return now
        last = now
    return last
