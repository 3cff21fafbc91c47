"""The workloads that pgbench runs, and the ratios to PgBouncer that pgweir is to reach in them."""

from __future__ import annotations

from dataclasses import dataclass

from .cluster import SCALE

SELECT = ("-b", "select-only")
TPC_B = ("-b", "tpcb-like")
# Replaced by the path of a file with this script.
MEGABYTE = ("-f", "{megabyte}")
MEGABYTE_SCRIPT = "select repeat('x', 1000) from generate_series(1, 1000);\n"

# Select-only by clients that each begin with what stands for {first}; replaced by the path of a file, like the above.
SESSION_SCRIPT = """\
\\if :begun
\\else
{first}
\\set begun 1
\\endif
\\set aid random(1, 100000 * :scale)
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
"""
SET_TWO = "SET work_mem = '5MB';\nSET lock_timeout = '50s';\n"
SESSIONS = {
    "no_settings": "",
    "same_settings": SET_TWO + "SELECT set_config('myapp.tenant', 'a', false);",
    "own_settings": SET_TWO + "SELECT set_config('myapp.tenant', (:client_id)::text, false);",
}


def session(name: str) -> tuple[str, ...]:
    """pgbench's options for one of `SESSIONS`."""
    return ("-f", f"{{{name}}}", "-D", "begun=0", "-s", str(SCALE))


@dataclass(frozen=True)
class Workload:
    """One row of the tables."""

    name: str
    title: str
    script: tuple[str, ...]
    mode: str
    clients: int
    cpu_target: float | None  # most CPU per transaction, as ratio to the better PgBouncer
    tls: bool = False
    connects: bool = False  # a new connection for each transaction
    direct: bool = True  # whether PostgreSQL itself can take that many clients
    threads: int = 2
    settings: bool = False  # compared with each other, not with PgBouncer, which does not keep them apart

    def suits(self, kind: str) -> bool:
        """Whether this kind of contestant can run it: the forwarder has no TLS, no login and no prepared statements."""
        if kind == "direct":
            return self.direct
        if self.settings:
            return kind == "pgweir"
        beyond = self.tls or self.connects or self.mode == "prepared" or self.script == MEGABYTE
        return kind != "forwarder" or not beyond

    @property
    def writes(self) -> bool:
        """Whether the tables should be vacuumed before each run, as pgbench itself would."""
        return self.script == TPC_B


WORKLOADS = (
    Workload("simple", "select-only, simple, 32 clients", SELECT, "simple", 32, 0.95),
    Workload("extended", "select-only, extended, 32 clients", SELECT, "extended", 32, 0.85),
    Workload("prepared", "select-only, prepared, 32 clients", SELECT, "prepared", 32, 0.85),
    Workload("one-client", "select-only, simple, 1 client", SELECT, "simple", 1, 0.95, threads=1),
    Workload("one-client-prepared", "select-only, prepared, 1 client", SELECT, "prepared", 1, 0.85, threads=1),
    Workload("tpcb", "TPC-B, simple, 32 clients", TPC_B, "simple", 32, 0.85),
    # pgbench prepares synchronously: a client that waits for a server would stop those of its thread which hold one.
    Workload("tpcb-prepared", "TPC-B, prepared, 32 clients", TPC_B, "prepared", 32, 0.85, threads=32),
    Workload("clients-500", "select-only, prepared, 500 clients", SELECT, "prepared", 500, 0.85, direct=False),
    Workload("tls", "select-only, prepared, TLS, 32 clients", SELECT, "prepared", 32, 0.85, tls=True),
    # pgbench connects synchronously, so each client that connects for each transaction needs a thread.
    Workload("connect", "connection per transaction, 8 clients", SELECT, "simple", 8, 0.80, connects=True, threads=8),
    Workload(
        "connect-tls", "the same over TLS", SELECT, "simple", 8, 0.50, tls=True, connects=True, threads=8
    ),
    Workload("results-1mb", "results of 1 MB, simple, 8 clients", MEGABYTE, "simple", 8, 0.90),
    *(
        Workload(name, title, session(script), "prepared", 32, None, settings=True)
        for name, title, script in (
            ("settings-none", "prepared, 32 clients without settings", "no_settings"),
            ("settings-same", "with three settings, all the same", "same_settings"),
            ("settings-own", "with three settings, one its own", "own_settings"),
        )
    ),
)

# Measured otherwise than by pgbench; see the modules of the same names.
OTHERS = {
    "results-1gb": "growth of resident memory while a result of 1 GB passes through",
    "idle": "resident memory per idle client, plain and TLS",
    "syscalls": "system calls per transaction; only with --syscalls or when named",
}

NAMES = (*(workload.name for workload in WORKLOADS), *OTHERS)

# Most p99 latency and least throughput (where the proxy is the limit), as ratio to the better PgBouncer.
P99_TARGET = 1.0
THROUGHPUT_TARGET = 1.2
# Most resident memory per idle client in KiB, and most growth during a result of 1 GB.
IDLE_TARGET_KIB = {False: 2.8, True: 12.0}
GROWTH_TARGET_KIB = 1024
# Data system calls for a pooled transaction.
SYSCALLS_TARGET = 4.0
