"""Starts a throw-away PostgreSQL and pgweir in front of it, runs the storm against both, and reports.

Called by `run`, which installs and builds. Needs Python 3.9 and nothing else.
"""

import argparse
import asyncio
import contextlib
import glob
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import storm

MAX_CONNECTIONS = 87
RESERVED = 3  # superuser_reserved_connections as it comes
USER = "app"
PASSWORD = "app"
START_SECONDS = 30
# PostgreSQL's, pgweir's and the metrics' port, as the README has them; another one where it is taken.
PORTS = (5433, 6432, 9127)


def main():
    arguments = parse_arguments()
    raise_file_limit()
    # A supervisor's way to end it cleans up as Ctrl-C does, and Ctrl-C works in the background too.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    with contextlib.ExitStack() as cleanup:
        directory = pathlib.Path(tempfile.mkdtemp(prefix="pgweir-quickstart-"))
        cleanup.callback(shutil.rmtree, directory, ignore_errors=True)
        try:
            sys.exit(show(arguments, directory, cleanup))
        except KeyboardInterrupt:
            print("\nStopping.")
            # A second one must not leave anything behind.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)


def parse_arguments():
    parser = argparse.ArgumentParser(prog="deploy/quickstart/run")
    parser.add_argument("--pgweir", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--clients", type=int, default=1000, help="clients at once")
    parser.add_argument("--once", action="store_true", help="end after the table")
    return parser.parse_args()


def show(arguments, directory, cleanup):
    # A run that ends by itself must not be in the way of another.
    ports = free_ports([0] * len(PORTS) if arguments.once else PORTS)
    database = ("127.0.0.1", ports[0])
    proxy = ("127.0.0.1", ports[1])
    metrics = f"http://127.0.0.1:{ports[2]}"
    print(f"Starting PostgreSQL with max_connections = {MAX_CONNECTIONS}")
    start_postgres(directory, ports[0], cleanup)
    print("Starting pgweir in front of it")
    start_pgweir(arguments.pgweir, directory, ports, metrics, cleanup)

    outcomes = []
    for name, address in (("directly", database), ("through pgweir", proxy)):
        print(f"{arguments.clients} clients at once, {name}", flush=True)
        login = storm.Login(address, USER, PASSWORD, USER)
        watched = storm.Login(str(directory / f".s.PGSQL.{ports[0]}"), "postgres", "", "postgres")
        outcomes.append((name, asyncio.run(storm.run(login, arguments.clients, watched))))
    print()
    print(storm.table(outcomes))
    result = verdict(outcomes[-1][1])
    if arguments.once:
        return result
    print("Both are running. To try pgweir:")
    print(f"  PGPASSWORD={PASSWORD} psql -h 127.0.0.1 -p {ports[1]} -U {USER} {USER}")
    print(f"Metrics:  {metrics}/metrics")
    print(f"Health:   {metrics}/readyz")
    print(f"Log:      {directory / 'pgweir.log'}")
    print("Ctrl-C ends both and removes their files.", flush=True)
    signal.pause()
    return 0


def verdict(outcome):
    """What must hold: no error, and no more servers than are not reserved."""
    budget = MAX_CONNECTIONS - RESERVED
    if outcome.errors or outcome.most_servers > budget:
        print(f"This is not as it should be: no error and at most {budget} servers were promised.")
        return 1
    return 0


def start_postgres(directory, port, cleanup):
    binaries = newest_binaries()
    shutil.chown(directory, *(("postgres", "postgres") if os.geteuid() == 0 else (os.getuid(),)))
    data = directory / "data"
    log = open(directory / "postgres.log", "wb")
    cleanup.enter_context(log)
    check_run(
        [binaries / "initdb", "--pgdata", data, "--username", "postgres", "--no-sync"]
        + ["--auth-local", "trust", "--auth-host", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"]
    )
    settings = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": directory,
        "max_connections": MAX_CONNECTIONS,
        "password_encryption": "scram-sha-256",
        "fsync": "off",
    }
    command = [binaries / "postgres", "-D", data]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    # SIGINT is PostgreSQL's fast shutdown.
    start(as_postgres(command), log, signal.SIGINT, cleanup)
    login = storm.Login(str(directory / f".s.PGSQL.{port}"), "postgres", "", "postgres")
    wait_for("PostgreSQL", directory / "postgres.log", lambda: asyncio.run(storm.value(login, "SELECT 1")))
    asyncio.run(storm.value(login, f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'"))
    asyncio.run(storm.value(login, f"CREATE DATABASE {USER} OWNER {USER}"))


def start_pgweir(binary, directory, ports, metrics, cleanup):
    secret = directory / "secret.json"
    secret.write_text(json.dumps({"username": USER, "password": PASSWORD}))
    config = directory / "pgweir.toml"
    config.write_text(
        f"""[proxy]
listen = "127.0.0.1:{ports[1]}"
# Whoever presses Ctrl-C does not want to wait for transactions.
shutdown_timeout = "2s"

[[proxy.auth]]
secret_file = "{secret}"

[target]
host = "127.0.0.1"
port = {ports[0]}

[admin]
listen = "127.0.0.1:{ports[2]}"
"""
    )
    path = directory / "pgweir.log"
    log = cleanup.enter_context(open(path, "wb"))
    process = start([binary.resolve(), "--config", config], log, signal.SIGTERM, cleanup)

    def ready():
        if process.poll() is not None:
            raise SystemExit(f"pgweir ended with {process.returncode}:\n{path.read_text()}")
        return urllib.request.urlopen(f"{metrics}/readyz", timeout=5).status == 200

    wait_for("pgweir", path, ready)


def start(command, log, stop_signal, cleanup):
    """Starts a process that Ctrl-C on the terminal does not reach, so that we end it in order."""
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd="/",
        start_new_session=True,
    )

    def stop():
        process.send_signal(stop_signal)
        try:
            process.wait(timeout=START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    cleanup.callback(stop)
    return process


def wait_for(name, log, attempt):
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if attempt():
                return
        except (OSError, urllib.error.URLError, storm.Refused):
            pass
        if time.monotonic() > deadline:
            raise SystemExit(f"{name} did not start:\n{log.read_text()}")
        time.sleep(0.05)


def newest_binaries():
    found = glob.glob("/usr/lib/postgresql/*/bin/initdb")
    if not found:
        raise SystemExit("PostgreSQL's server programs are not in /usr/lib/postgresql")
    return max((pathlib.Path(path).parent for path in found), key=lambda path: int(path.parent.name))


def as_postgres(command):
    """PostgreSQL refuses to run as root; its package brings a user for it."""
    if os.geteuid() != 0:
        return command
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]


def check_run(command):
    command = [str(word) for word in as_postgres(command)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command} failed:\n{done.stdout}{done.stderr}")


def free_ports(wanted):
    """Each of the ports, or one that the system gives, where it is taken; 0 is never taken."""
    with contextlib.ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(free_port(port)) for port in wanted]
        return [each.getsockname()[1] for each in sockets]


def free_port(port):
    """A socket bound to it, or to another."""
    each = socket.socket()
    # As the servers do: what is left of connections that ended takes no port.
    each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        each.bind(("127.0.0.1", port))
    except OSError:
        each.bind(("127.0.0.1", 0))
    return each


def raise_file_limit():
    """A socket is a file, on both sides of each client."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
