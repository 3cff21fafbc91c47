"""One run of pgbench against one contestant, and what it cost the proxy.

CPU time and context switches are read ten times a second while pgbench runs. The figures are for a window that
begins half a second after the first transaction has ended, so logging in is not in them (but for the workloads that
connect for each transaction), and the transactions in it are counted by pgbench's log of all transactions.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from . import meter
from .client import Login
from .machine import Tools
from .poolers import Running
from .processes import clean_environment
from .workloads import MEGABYTE_SCRIPT, SESSION_SCRIPT, SESSIONS, Workload

SAMPLE_SECONDS = 0.1
SETTLE_SECONDS = 0.5
# How long logging in may take, or a run of a fixed number of transactions, before pgbench counts as stuck.
PATIENCE_SECONDS = 90


class LoadError(Exception):
    """pgbench could not do a run; the text is what it said."""


@dataclass(frozen=True)
class Result:
    """The figures of one run. Those of the proxy's process are `None` for PostgreSQL itself."""

    tps: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    transactions: int
    seconds: float
    errors: int
    cpu_us: float | None  # user and system time of the proxy per transaction
    cores: float | None  # the same per second: how much of the machine the proxy used
    switches: float | None  # context switches of the proxy per transaction

    def to_json(self) -> dict[str, object]:
        """All fields."""
        return asdict(self)


@dataclass(frozen=True)
class Transaction:
    """A line of pgbench's log."""

    client: int
    ended: float  # seconds since the epoch
    latency: float  # seconds


class Pgbench:
    """Runs pgbench with its logs in a directory of its own."""

    def __init__(self, tools: Tools, directory: Path) -> None:
        self._program = tools.postgresql("pgbench")
        self._directory = directory
        texts = {name: SESSION_SCRIPT.format(first=first) for name, first in SESSIONS.items()}
        self._scripts = {name: directory / f"{name}.sql" for name in ("megabyte", *texts)}
        for name, path in self._scripts.items():
            path.write_text(texts.get(name, MEGABYTE_SCRIPT))

    def login_seconds(self, workload: Workload, running: Running) -> float:
        """How long it takes until all clients have logged in and done one transaction.

        pgbench's clock starts before they log in, and 500 times libpq's part of SCRAM takes seconds.
        """
        began = time.monotonic()
        self.run_count(workload, running, 1)
        return time.monotonic() - began

    def measure(self, workload: Workload, running: Running, seconds: float, login_seconds: float) -> Result:
        """A run of which at most `seconds` are measured, if logging in takes no longer than said."""
        logs = Path(tempfile.mkdtemp(dir=self._directory))
        command = self._command(workload, running)
        duration = math.ceil(login_seconds + SETTLE_SECONDS + seconds)
        command += ["-T", str(duration), "-l", f"--log-prefix={logs}/log"]
        try:
            output, readings = self._run(command, running.with_tls(workload.tls), running, duration)
            transactions = read_logs(logs)
        finally:
            shutil.rmtree(logs)
        return evaluate(workload, transactions, readings, count_errors(output), seconds)

    def run_count(self, workload: Workload, running: Running, per_client: int) -> int:
        """A run of a fixed number of transactions; returns how many there were."""
        command = [*self._command(workload, running), "-t", str(per_client)]
        output, _ = self._run(command, running.with_tls(workload.tls), running, 0)
        found = re.search(r"actually processed: (\d+)", output)
        if not found or count_errors(output):
            raise LoadError(output.strip()[-1000:])
        return int(found.group(1))

    def _command(self, workload: Workload, running: Running) -> list[str]:
        script = [part.format(**self._scripts) for part in workload.script]
        options = ["-n", "-M", running.mode(workload.mode), "-c", str(workload.clients), "-j", str(workload.threads)]
        return [self._program, *script, *options, *(["-C"] if workload.connects else [])]

    def _run(
        self, command: list[str], login: Login, running: Running, duration: float
    ) -> tuple[str, list[meter.Reading]]:
        environment = clean_environment(**connection_environment(login))
        give_up = time.monotonic() + duration + PATIENCE_SECONDS
        readings: list[meter.Reading] = []
        with tempfile.TemporaryFile(dir=self._directory) as output:
            pgbench = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
            )
            try:
                while pgbench.poll() is None:
                    if time.monotonic() > give_up:
                        raise LoadError(f"pgbench was stuck {PATIENCE_SECONDS} s after its time")
                    if running.process and running.process.poll() is not None:
                        raise LoadError(f"{running.name} ended with code {running.process.returncode}")
                    if running.process:
                        readings.append(meter.read(running.process.pid))
                    time.sleep(SAMPLE_SECONDS)
            finally:
                pgbench.kill()
                pgbench.wait()
            output.seek(0)
            text = output.read().decode(errors="replace")
        if pgbench.returncode not in (0, 2):  # 2: some clients were aborted, which the errors show
            raise LoadError(text.strip()[-1000:])
        return text, readings


def connection_environment(login: Login) -> dict[str, str]:
    """libpq's environment variables."""
    return {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(login.port),
        "PGUSER": login.user,
        "PGPASSWORD": login.password,
        "PGDATABASE": login.database,
        "PGSSLMODE": "require" if login.tls else "disable",
        "PGGSSENCMODE": "disable",
    }


def read_logs(directory: Path) -> list[Transaction]:
    """All transactions of the log files of a run, those that failed excepted.

    A line is: client, its transaction number, latency in us (or a word), script, epoch seconds, microseconds.
    """
    transactions = []
    for path in directory.iterdir():
        with path.open() as lines:
            for line in lines:
                fields = line.split()
                if fields[2].isdigit():
                    ended = int(fields[4]) + int(fields[5]) / 1e6
                    transactions.append(Transaction(int(fields[0]), ended, int(fields[2]) / 1e6))
    transactions.sort(key=lambda transaction: transaction.ended)
    return transactions


def count_errors(output: str) -> int:
    """Aborted clients and failed transactions, as far as pgbench says."""
    failed = re.search(r"failed transactions: (\d+)", output)
    aborted = len(re.findall(r"client \d+ (?:aborted|script \d+ aborted)", output))
    return (int(failed.group(1)) if failed else 0) + aborted


def evaluate(
    workload: Workload, transactions: list[Transaction], readings: list[meter.Reading], errors: int, most: float
) -> Result:
    """The figures of the window, which is at most so many seconds long."""
    if not transactions:
        raise LoadError("no transaction succeeded")
    begin = transactions[0].ended + SETTLE_SECONDS
    end = min(transactions[-1].ended, begin + most)
    inside = [reading for reading in readings if begin <= reading.at <= end]
    first, last = None, None
    if len(inside) >= 2:
        first, last = inside[0], inside[-1]
        begin, end = first.at, last.at
    elif readings or end <= begin:
        raise LoadError(f"the run was too short to measure: {len(transactions)} transactions")
    if workload.connects:
        # pgbench's latency leaves the connecting out: the time from one end to the next has it.
        transactions = with_connecting(transactions)
    window = [transaction for transaction in transactions if begin < transaction.ended <= end]
    if not window:
        raise LoadError("no transaction ended inside the measured window")
    latencies = sorted(transaction.latency for transaction in window)
    count, seconds = len(window), end - begin
    cpu = meter.cpu_seconds(first, last) if first and last else None
    return Result(
        tps=count / seconds,
        p50_ms=percentile(latencies, 0.50) * 1e3,
        p95_ms=percentile(latencies, 0.95) * 1e3,
        p99_ms=percentile(latencies, 0.99) * 1e3,
        transactions=count,
        seconds=seconds,
        errors=errors,
        cpu_us=cpu / count * 1e6 if cpu is not None else None,
        cores=cpu / seconds if cpu is not None else None,
        switches=meter.switches(first, last) / count if first and last else None,
    )


def with_connecting(transactions: list[Transaction]) -> list[Transaction]:
    """The transactions but the first of each client, each with the time since the end of its client's last one."""
    last: dict[int, float] = {}
    longer = []
    for transaction in transactions:
        if transaction.client in last:
            latency = transaction.ended - last[transaction.client]
            longer.append(Transaction(transaction.client, transaction.ended, latency))
        last[transaction.client] = transaction.ended
    return longer


def percentile(ordered: list[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]
