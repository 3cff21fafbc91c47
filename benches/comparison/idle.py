"""Resident memory per idle client: thousands of clients, logged in and silent, then silent after one query each.

The first clients are not counted: what the pooler allocates once (code pages, pools, TLS library) is not theirs.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from . import meter
from .client import Client, insecure_tls_context
from .poolers import Running

UNCOUNTED_CLIENTS = 100
# How many log in, or query, at the same time: what they need together meanwhile may stay with the allocator.
AT_ONCE = 16


@dataclass(frozen=True)
class IdleMemory:
    """KiB of resident memory per client."""

    clients: int
    logged_in_kib: float
    after_query_kib: float

    def to_json(self) -> dict[str, object]:
        """All fields."""
        return asdict(self)


def measure(running: Running, clients: int, *, tls: bool) -> IdleMemory:
    """Opens the clients at a freshly started pooler, and closes them."""
    if not running.process:
        raise ValueError("only a proxy has idle clients to measure")
    pid = running.process.pid
    login = running.with_tls(tls)
    context = insecure_tls_context() if tls else None
    opened: list[Client] = []

    def open_one(_index: int) -> None:
        opened.append(Client(login, context))

    def query(client: Client) -> None:
        client.query("select 1")

    with ThreadPoolExecutor(AT_ONCE) as threads:
        try:
            list(threads.map(open_one, range(UNCOUNTED_CLIENTS)))
            list(threads.map(query, opened))
            before = meter.settled_kib(pid)
            list(threads.map(open_one, range(clients)))
            logged_in = meter.settled_kib(pid)
            list(threads.map(query, opened))
            after_query = meter.settled_kib(pid)
        finally:
            list(threads.map(Client.close, opened))
    return IdleMemory(clients, (logged_in - before) / clients, (after_query - before) / clients)
