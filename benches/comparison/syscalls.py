"""System calls per transaction, counted by `strace -c -f`.

strace is attached while the pooler is idle but warm, and detached after a run of a fixed number of transactions, so
both numbers are exact. The logins of that run are in them: some ten calls per client, against hundreds of
transactions each.
"""

from __future__ import annotations

import re
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from .load import Pgbench
from .poolers import Running
from .workloads import Workload

DATA_CALLS = frozenset(
    "read readv recvfrom recvmsg recvmmsg write writev sendto sendmsg sendmmsg splice io_uring_enter".split()
)
TRANSACTIONS_PER_CLIENT = 500


@dataclass(frozen=True)
class SystemCalls:
    """Calls per transaction; those that returned an error (mostly EAGAIN) are counted too."""

    transactions: int
    data: float
    data_errors: float
    wait: float  # epoll_wait and its kin
    other: float
    calls: dict[str, float]

    def to_json(self) -> dict[str, object]:
        """All fields."""
        return asdict(self)


def measure(pgbench: Pgbench, workload: Workload, running: Running, directory: Path) -> SystemCalls:
    """Counts the calls of a warm pooler in one workload."""
    if not running.process:
        raise ValueError("only a proxy's system calls are counted")
    summary = directory / "strace.txt"
    command = ["strace", "-c", "-f", "-o", str(summary), "-p", str(running.process.pid)]
    strace = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_until_attached(strace, running.process.pid)
        transactions = pgbench.run_count(workload, running, TRANSACTIONS_PER_CLIENT)
    finally:
        if strace.poll() is None:
            strace.send_signal(signal.SIGINT)
        strace.communicate()
    return evaluate(summary.read_text(), transactions)


def wait_until_attached(strace: subprocess.Popen[bytes], pid: int) -> None:
    """Waits until the kernel names strace as the tracer of every thread."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if strace.poll() is not None:
            said = strace.stderr.read().decode(errors="replace").strip() if strace.stderr else ""
            raise RuntimeError(f"strace cannot attach (it needs root, or kernel.yama.ptrace_scope = 0): {said}")
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        if all(f"TracerPid:\t{strace.pid}\n" in (task / "status").read_text() for task in tasks):
            return
        time.sleep(0.05)
    raise RuntimeError("strace did not attach within 10 s")


def evaluate(summary: str, transactions: int) -> SystemCalls:
    """Reads strace's table: % time, seconds, usecs/call, calls, errors (may be missing), name."""
    calls: dict[str, float] = {}
    data_errors = 0
    for line in summary.splitlines():
        found = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(\d+)?\s*([a-z]\w*)$", line)
        if not found or found.group(3) == "total":
            continue
        calls[found.group(3)] = int(found.group(1)) / transactions
        if found.group(3) in DATA_CALLS:
            data_errors += int(found.group(2) or 0)
    data = sum(count for name, count in calls.items() if name in DATA_CALLS)
    wait = sum(count for name, count in calls.items() if name.startswith(("epoll_wait", "epoll_pwait", "poll")))
    other = sum(calls.values()) - data - wait
    ordered = dict(sorted(calls.items(), key=lambda item: -item[1]))
    return SystemCalls(transactions, data, data_errors / transactions, wait, other, ordered)


