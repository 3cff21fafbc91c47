"""The things compared: PostgreSQL itself, PgBouncer as it comes and with large buffers, pgweir and its variants."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from .client import Login
from .cluster import DATABASE, USER, Certificate, Cluster, wait_for_login
from .machine import pgbouncer_version
from .processes import Stage, free_port

POOL_SIZE = 20
MAX_CLIENTS = 10000

PGBOUNCER = """\
[databases]
{database} = host=127.0.0.1 port={server_port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = {max_clients}
auth_type = scram-sha-256
auth_file = {userlist}
server_tls_sslmode = disable
client_tls_sslmode = allow
client_tls_cert_file = {certificate}
client_tls_key_file = {key}
{extra}
"""

# Everything that is not here keeps its default, as it does for PgBouncer. Idle servers are all kept, as PgBouncer
# keeps them, so that the pool is one of 20 in every round.
PGWEIR = """\
[proxy]
listen = "127.0.0.1:{port}"
tls_certificate = "{certificate}"
tls_private_key = "{key}"
max_client_connections = {max_clients}
runtime = "{runtime}"

[[proxy.auth]]
secret_file = "{secret}"

[target]
host = "127.0.0.1"
port = {server_port}
tls = "disable"
max_connections = {pool_size}
max_idle_connections_percent = 100

[admin]
listen = "off"
"""


@dataclass(frozen=True)
class Contestant:
    """One column of the tables."""

    name: str
    kind: str  # "direct", "pgbouncer", "pgweir" or "forwarder"
    option: str = ""  # pkt_buf for PgBouncer, the runtime for pgweir, the threads for the forwarder


@dataclass(frozen=True)
class Running:
    """A contestant that accepts clients. PostgreSQL itself has no process to measure."""

    contestant: Contestant
    login: Login
    process: subprocess.Popen[bytes] | None
    prepared: bool = True

    @property
    def name(self) -> str:
        """The column's name."""
        return self.contestant.name

    def mode(self, wanted: str) -> str:
        """PgBouncer before 1.21 has no prepared statements in transaction mode: its extended figure stands there."""
        return "extended" if wanted == "prepared" and not self.prepared else wanted

    def with_tls(self, tls: bool) -> Login:
        """The login with or without TLS."""
        return replace(self.login, tls=tls)


DIRECT = Contestant("direct", "direct")
PGBOUNCER_STOCK = Contestant("pgbouncer", "pgbouncer")
PGBOUNCER_LARGE = Contestant("pgbouncer-64k", "pgbouncer", "65536")
PGWEIR_DEFAULT = Contestant("pgweir", "pgweir", "per-core")
VARIANTS = {
    "work-stealing": Contestant("pgweir-ws", "pgweir", "work-stealing"),
    "forwarder": Contestant("forwarder", "forwarder", "1"),
}
CONTESTANTS = {each.name: each for each in (DIRECT, PGBOUNCER_STOCK, PGBOUNCER_LARGE, PGWEIR_DEFAULT)}


class Poolers:
    """Starts contestants in front of one cluster."""

    def __init__(
        self,
        stage: Stage,
        cluster: Cluster,
        certificate: Certificate,
        pgbouncer: str | None,
        pgweir: Path | None,
        forwarder: Path | None,
    ) -> None:
        self.userlist = "scram"
        self._stage = stage
        self._cluster = cluster
        self._certificate = certificate
        self._pgbouncer = pgbouncer
        self.pgbouncer_prepares = pgbouncer is not None and pgbouncer_version(pgbouncer) >= (1, 21)
        self._pgweir = self._copy(pgweir) if pgweir else None
        self._forwarder = self._copy(forwarder) if forwarder else None
        self._counter = 0

    def _copy(self, binary: Path) -> Path:
        # The service user may not see the build directory, and a build that happens meanwhile must not matter.
        copy = Path(shutil.copy(binary, self._stage.directory / binary.name))
        copy.chmod(0o755)
        return copy

    def start(self, contestant: Contestant) -> Running:
        """Starts it with a fresh process and waits until a client can log in."""
        if contestant.kind == "direct":
            return Running(contestant, self._cluster.login(), None)
        self._counter += 1
        login = replace(self._cluster.login(), port=free_port())
        log = self._stage.directory / f"{contestant.name}-{self._counter}.log"
        if contestant.kind == "pgbouncer":
            command, signals = self._pgbouncer_command(contestant, login.port)
        elif contestant.kind == "forwarder":
            command, signals = self._forwarder_command(contestant, login.port)
        else:
            command, signals = self._pgweir_command(contestant, login.port)
        process = self._stage.start(command, log, signals)
        wait_for_login(login, process, log)
        prepared = contestant.kind != "pgbouncer" or self.pgbouncer_prepares
        return Running(contestant, login, process, prepared)

    def stop(self, running: Running) -> None:
        """Ends what `start` started."""
        if running.process:
            self._stage.stop(running.process)

    def _pgbouncer_command(self, contestant: Contestant, port: int) -> tuple[list[str], tuple[int, ...]]:
        if not self._pgbouncer:
            raise RuntimeError("PgBouncer is not installed")
        extra = [f"pkt_buf = {contestant.option}"] if contestant.option else []
        if self.pgbouncer_prepares:
            extra.append("max_prepared_statements = 200")
        text = PGBOUNCER.format(
            database=DATABASE,
            server_port=self._cluster.port,
            port=port,
            pool_size=POOL_SIZE,
            max_clients=MAX_CLIENTS,
            userlist=self._write_userlist(),
            certificate=self._certificate.certificate,
            key=self._certificate.key,
            extra="\n".join(extra),
        )
        configuration = self._stage.write(f"{contestant.name}-{self._counter}.ini", text)
        return [self._pgbouncer, str(configuration)], (signal.SIGTERM,)

    def _write_userlist(self) -> Path:
        scram = self.userlist == "scram"
        password = self._cluster.scram_secret() if scram else self._cluster.password
        return self._stage.write(f"userlist-{self.userlist}.txt", f'"{USER}" "{password}"\n')

    def _forwarder_command(self, contestant: Contestant, port: int) -> tuple[list[str], tuple[int, ...]]:
        if not self._forwarder:
            raise RuntimeError("there is no forwarder")
        addresses = [f"127.0.0.1:{port}", f"127.0.0.1:{self._cluster.port}"]
        names = [self._cluster.trusted_user(), DATABASE]
        return [str(self._forwarder), *addresses, *names, str(POOL_SIZE), contestant.option], (signal.SIGTERM,)

    def _pgweir_command(self, contestant: Contestant, port: int) -> tuple[list[str], tuple[int, ...]]:
        if not self._pgweir:
            raise RuntimeError("there is no pgweir binary")
        secret = json.dumps({"username": USER, "password": self._cluster.password})
        text = PGWEIR.format(
            port=port,
            certificate=self._certificate.certificate,
            key=self._certificate.key,
            max_clients=MAX_CLIENTS,
            runtime=contestant.option,
            secret=self._stage.write("secret.json", secret),
            server_port=self._cluster.port,
            pool_size=POOL_SIZE,
        )
        configuration = self._stage.write(f"{contestant.name}-{self._counter}.toml", text)
        # The first SIGTERM drains, the second ends at once.
        return [str(self._pgweir), "--config", str(configuration)], (signal.SIGTERM, signal.SIGTERM)
