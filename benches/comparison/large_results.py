"""How much a pooler grows while a result of 1 GB passes through it."""

from __future__ import annotations

import subprocess
import time
from dataclasses import asdict, dataclass

from . import meter
from .client import Client
from .load import connection_environment
from .machine import Tools
from .poolers import Running
from .processes import clean_environment

ROW_BYTES = 1000
# One value that is a message of its own: it must stream as well. PostgreSQL builds it in memory several times over.
ROW_OF_MEGABYTES = 200

CASES = ("rows", "rows-tls", "copy", "one-row")
TITLES = {
    "rows": "rows of 1 kB",
    "rows-tls": "rows of 1 kB, TLS",
    "copy": "COPY TO STDOUT",
    "one-row": f"one row of {ROW_OF_MEGABYTES} MB",
}


@dataclass(frozen=True)
class Growth:
    """What the pooler's memory did."""

    megabytes: float  # size of the result
    seconds: float
    growth_kib: int  # highest resident memory during the result, less that before it
    after_kib: int  # resident memory after the result, less that before it

    def to_json(self) -> dict[str, object]:
        """All fields."""
        return asdict(self)


def measure(running: Running, case: str, megabytes: int, tools: Tools) -> Growth:
    """Passes one result through a freshly started pooler that has done a small query before."""
    if not running.process:
        raise ValueError("only a proxy can grow")
    pid = running.process.pid
    login = running.with_tls(case == "rows-tls")
    rows = f"select repeat('x', {ROW_BYTES}) from generate_series(1, {megabytes * 1_000_000 // ROW_BYTES})"
    client = Client(login)
    try:
        client.query("select 1")
        meter.forget_peak(pid)
        peak_before = meter.peak_kib(pid)
        now_before = meter.resident_kib(pid)
        began = time.monotonic()
        if case == "one-row":
            received = client.query(f"select repeat('x', {min(megabytes, ROW_OF_MEGABYTES)} * 1000 * 1000)")
        elif case == "copy":
            received = megabytes * 1_000_000
            copy_out(tools, running, f"copy ({rows}) to stdout")
        else:
            received = client.query(rows)
        seconds = time.monotonic() - began
        growth = meter.peak_kib(pid) - peak_before
        after = meter.resident_kib(pid) - now_before
    finally:
        client.close()
    return Growth(received / 1e6, seconds, growth, after)


def copy_out(tools: Tools, running: Running, statement: str) -> None:
    """Lets psql throw the rows away as they come; for a SELECT it would keep them all."""
    environment = clean_environment(**connection_environment(running.login))
    command = [tools.postgresql("psql"), "-Xq", "-v", "ON_ERROR_STOP=1", "-c", statement]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"psql failed: {done.stderr.strip()}")
