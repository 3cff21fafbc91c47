"""A throw-away PostgreSQL cluster: SCRAM, TLS, no fsync, pgbench's tables."""

from __future__ import annotations

import secrets
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from .client import Client, Login
from .machine import Tools
from .processes import Stage, clean_environment, free_port

# Fewer branches than servers would measure the waiting for row locks: 20 servers, 32 branches.
SCALE = 32
DATABASE = "bench"
USER = "bench"

# A benchmark of poolers: nothing that makes PostgreSQL's own work uneven from one round to the next.
SETTINGS = """
listen_addresses = '127.0.0.1'
max_connections = 200
shared_buffers = 512MB
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
max_wal_size = 8GB
checkpoint_timeout = 1h
max_parallel_workers_per_gather = 0
jit = off
password_encryption = 'scram-sha-256'
ssl = on
log_min_messages = fatal
"""

ACCESS = """
local all all trust
host all forwarder 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
"""


@dataclass(frozen=True)
class Certificate:
    """A self-signed RSA-2048 certificate for all TLS listeners of the run."""

    certificate: Path
    key: Path


def make_certificate(stage: Stage) -> Certificate:
    """Lets openssl make the certificate."""
    made = Certificate(stage.directory / "server.pem", stage.directory / "server.key")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -sha256 -days 30 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(made.key), "-out", str(made.certificate)]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    made.key.chmod(0o600)
    stage.hand_over(made.key)
    stage.hand_over(made.certificate)
    return made


class Cluster:
    """The running cluster, with the database that pgbench filled."""

    def __init__(self, stage: Stage, tools: Tools, certificate: Certificate) -> None:
        self.port = free_port()
        self.password = secrets.token_urlsafe(18)
        self._tools = tools
        self._sockets = stage.make_directory("sockets")
        data = stage.directory / "data"
        self._create(stage, data, certificate)
        log = stage.directory / "postgresql.log"
        command = [tools.postgresql("postgres"), "-D", str(data)]
        # SIGINT is the fast shutdown; SIGQUIT the immediate one.
        self.process = stage.start(command, log, (signal.SIGINT, signal.SIGQUIT))
        self._wait(log)
        self._fill()

    def _create(self, stage: Stage, data: Path, certificate: Certificate) -> None:
        stage.make_directory("data")
        initdb = [self._tools.postgresql("initdb"), "-D", str(data), "-U", "postgres", "-A", "trust"]
        stage.call([*initdb, "-E", "UTF8", "--locale=C", "--no-sync"])
        places = f"port = {self.port}\nunix_socket_directories = '{self._sockets}'\n"
        files = f"ssl_cert_file = '{certificate.certificate}'\nssl_key_file = '{certificate.key}'\n"
        stage.write("data/postgresql.auto.conf", SETTINGS + places + files)
        stage.write("data/pg_hba.conf", ACCESS)

    def _wait(self, log: Path) -> None:
        until = time.monotonic() + 60
        while self._psql("postgres", "select 1").returncode != 0:
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)

    def _fill(self) -> None:
        self.sql(f"create role {USER} login password '{self.password}'", "postgres")
        self.sql(f"create database {DATABASE} owner {USER}", "postgres")
        command = [self._tools.postgresql("pgbench"), "-i", "-q", "-s", str(SCALE), "-U", USER, DATABASE]
        done = run_program([*command, *self._local()])
        if done.returncode != 0:
            raise RuntimeError(f"pgbench -i failed: {done.stderr}")
        self.sql("checkpoint", "postgres")

    def login(self) -> Login:
        """A client's login straight to PostgreSQL."""
        return Login(self.port, DATABASE, USER, self.password)

    def scram_secret(self) -> str:
        """What PostgreSQL has stored of the password of the user."""
        return self.sql(f"select rolpassword from pg_authid where rolname = '{USER}'", "postgres")

    def trusted_user(self) -> str:
        """A user that may do the same, and needs no password: the forwarder cannot log in with one."""
        exists = self.sql("select count(*) from pg_roles where rolname = 'forwarder'", "postgres")
        if exists == "0":
            self.sql(f"create role forwarder login in role {USER}", "postgres")
        return "forwarder"

    def tidy(self) -> None:
        """What pgbench does before its own TPC-B: without it, each run finds more dead rows than the one before."""
        self.sql("vacuum pgbench_branches, pgbench_tellers")
        self.sql("truncate pgbench_history")

    def sql(self, statement: str, database: str = DATABASE) -> str:
        """Runs a statement as the superuser and returns its unaligned output."""
        done = self._psql(database, statement)
        if done.returncode != 0:
            raise RuntimeError(f"psql failed: {done.stderr}")
        return done.stdout.strip()

    def _psql(self, database: str, statement: str) -> subprocess.CompletedProcess[str]:
        command = [self._tools.postgresql("psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", *self._local()]
        command += ["-U", "postgres", "-d", database, "-c", statement]
        return run_program(command)

    def _local(self) -> list[str]:
        return ["-h", str(self._sockets), "-p", str(self.port)]


def run_program(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs one of PostgreSQL's programs to its end."""
    return subprocess.run(command, capture_output=True, text=True, env=clean_environment(), check=False)


def wait_for_login(login: Login, process: subprocess.Popen[bytes], log: Path, seconds: float = 20) -> None:
    """Waits until a client can log in and run a query; raises with the end of the log if that never happens."""
    until = time.monotonic() + seconds
    while True:
        try:
            client = Client(login, timeout=5)
            client.query("select 1")
            client.close()
            return
        except Exception as error:
            if process.poll() is not None or time.monotonic() > until:
                tail = log.read_text(errors="replace")[-2000:]
                ended = process.poll()
                reason = f"it ended with code {ended}" if ended is not None else f"no login within {seconds:.0f} s"
                raise RuntimeError(f"{reason}: {error}\n{tail}") from error
            time.sleep(0.1)
