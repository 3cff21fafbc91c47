"""What the show needs, each in a process of its own that ends with the show: PostgreSQL, PgBouncer, pgweir."""

import glob
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

# What RDS gives a db.t3.micro, about.
MAX_CONNECTIONS = 87
RESERVED = 3  # superuser_reserved_connections as it comes
BUDGET = MAX_CONNECTIONS - RESERVED
USER = "app"
PASSWORD = "app"
SUPERUSER = "postgres"
START_SECONDS = 30
# How often the database is asked for its connections, in seconds.
SAMPLE_EVERY = 0.01


class Stage:
    """A directory, and processes that `cleanup` ends."""

    def __init__(self, directory, cleanup):
        self.directory = directory
        self.cleanup = cleanup
        shutil.chown(directory, *((SUPERUSER, SUPERUSER) if os.geteuid() == 0 else (os.getuid(),)))

    def start(self, command, log, stop_signal):
        """Starts a process that Ctrl-C on the terminal does not reach, so that we end it in order."""
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )

        self.cleanup.callback(stop, process, stop_signal)
        return process

    def log(self, name):
        """The log of a process, and its path."""
        path = self.directory / f"{name}.log"
        return self.cleanup.enter_context(open(path, "wb")), path

    def write(self, name, text):
        """A file that only its owner can read: the user that servers run as."""
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_text(text)
        give_to_postgres(path)
        return path


def stop(process, stop_signal):
    """Ends a process if it has not ended."""
    if process.poll() is not None:
        return
    process.send_signal(stop_signal)
    try:
        process.wait(timeout=START_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Certificate:
    """For 127.0.0.1, signed by itself."""

    def __init__(self, stage):
        self.certificate = stage.directory / "server.pem"
        self.key = stage.directory / "server.key"
        check_run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
            + ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
            + ["-keyout", self.key, "-out", self.certificate]
        )


class Postgres:
    """A throw-away PostgreSQL with one user and a database of that user's name."""

    def __init__(self, stage, port, certificate):
        self.stage = stage
        self.port = port
        self._binaries = newest_binaries()
        data = stage.directory / "data"
        check_run(
            [self._binaries / "initdb", "--pgdata", data, "--username", SUPERUSER, "--no-sync"]
            + ["--auth-local", "trust", "--auth-host", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"]
        )
        settings = {
            "port": port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": stage.directory,
            "max_connections": MAX_CONNECTIONS,
            "password_encryption": "scram-sha-256",
            "ssl": "on",
            "ssl_cert_file": certificate.certificate,
            "ssl_key_file": certificate.key,
            "fsync": "off",
        }
        command = [self._binaries / "postgres", "-D", data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        log, path = stage.log("postgres")
        # SIGINT is PostgreSQL's fast shutdown.
        process = stage.start(as_postgres(command), log, signal.SIGINT)
        wait_for("PostgreSQL", process, path, lambda: self._psql("-c", "SELECT 1").returncode == 0)
        for sql in (f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'", f"CREATE DATABASE {USER} OWNER {USER}"):
            done = self._psql("-c", sql)
            if done.returncode != 0:
                raise SystemExit(done.stderr)

    def _psql(self, *words):
        return subprocess.run([*self.psql_command(), *words], capture_output=True, text=True, check=False)

    def psql_command(self):
        """psql as superuser, whose connection is one of the reserved ones."""
        where = ["-h", str(self.stage.directory), "-p", str(self.port), "-U", SUPERUSER]
        return [str(self._binaries / "psql"), "-XAtq", *where, SUPERUSER]


class Watcher:
    """Counts the user's connections in the database, past everything that is between, until it is stopped."""

    def __init__(self, postgres):
        self._most = 0
        self._ended = threading.Event()
        self._psql = subprocess.Popen(
            postgres.psql_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._count()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self):
        """The most that were seen at once."""
        self._ended.set()
        self._thread.join()
        self._psql.communicate()
        return self._most

    def _watch(self):
        while not self._ended.wait(SAMPLE_EVERY):
            self._count()

    def _count(self):
        self._psql.stdin.write(f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{USER}';\n")
        self._psql.stdin.flush()
        self._most = max(self._most, int(self._psql.stdout.readline()))


def start_pgbouncer(stage, port, postgres, certificate):
    """In front of it, in transaction mode, with as many servers as pgweir may have; all else as it comes."""
    # It is not in the PATH of ordinary users.
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    users = stage.write("userlist.txt", f'"{USER}" "{PASSWORD}"\n')
    configuration = stage.write(
        "pgbouncer.ini",
        f"""[databases]
{USER} = host=127.0.0.1 port={postgres.port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
pool_mode = transaction
default_pool_size = {BUDGET}
max_client_conn = 10000
auth_type = scram-sha-256
auth_file = {users}
client_tls_sslmode = require
client_tls_cert_file = {certificate.certificate}
client_tls_key_file = {certificate.key}
""",
    )
    log, path = stage.log("pgbouncer")
    process = stage.start(as_postgres([program, configuration]), log, signal.SIGTERM)
    wait_for("PgBouncer", process, path, lambda: socket.create_connection(("127.0.0.1", port)).close() is None)
    return process


def start_pgweir(stage, port, metrics_port, postgres, certificate, binary):
    """In front of it, with its defaults."""
    secret = stage.write("secret.json", json.dumps({"username": USER, "password": PASSWORD}))
    configuration = stage.write(
        "pgweir.toml",
        f"""[proxy]
listen = "127.0.0.1:{port}"
tls_certificate = "{certificate.certificate}"
tls_private_key = "{certificate.key}"
# Whoever presses Ctrl-C does not want to wait for transactions.
shutdown_timeout = "2s"

[[proxy.auth]]
secret_file = "{secret}"

[target]
host = "127.0.0.1"
port = {postgres.port}

[admin]
listen = "127.0.0.1:{metrics_port}"
""",
    )
    log, path = stage.log("pgweir")
    process = stage.start([binary.resolve(), "--config", configuration], log, signal.SIGTERM)
    ready = f"http://127.0.0.1:{metrics_port}/readyz"
    wait_for("pgweir", process, path, lambda: urllib.request.urlopen(ready, timeout=5).status == 200)
    return path


def wait_for(name, process, log, attempt):
    """Until the attempt succeeds, as long as the process lives."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if attempt():
                return
        except (OSError, urllib.error.URLError):
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{name} did not start:\n{log.read_text()}")
        time.sleep(0.05)


def newest_binaries():
    """Directory of the newest PostgreSQL's programs."""
    found = glob.glob("/usr/lib/postgresql/*/bin/initdb")
    if not found:
        raise SystemExit("PostgreSQL's server programs are not in /usr/lib/postgresql")
    return max((pathlib.Path(path).parent for path in found), key=lambda path: int(path.parent.name))


def as_postgres(command):
    """PostgreSQL and PgBouncer refuse to run as root; the package of the first brings a user for it."""
    if os.geteuid() != 0:
        return command
    return ["setpriv", f"--reuid={SUPERUSER}", f"--regid={SUPERUSER}", "--clear-groups", *command]


def give_to_postgres(path):
    """So that what `as_postgres` starts can read it."""
    if os.geteuid() == 0:
        shutil.chown(path, SUPERUSER, SUPERUSER)


def check_run(command):
    """Runs it to its end."""
    command = [str(word) for word in as_postgres(command)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command} failed:\n{done.stdout}{done.stderr}")
