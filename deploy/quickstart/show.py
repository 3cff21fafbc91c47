"""Lets a fleet of Lambda containers loose on PostgreSQL directly, through PgBouncer and through pgweir, and reports.

Called by `run`, which installs and builds. The fleet is that of `deploy/lambda/invoke.js`. Needs Python 3.9.
"""

import argparse
import contextlib
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

import servers

FLEET = pathlib.Path(__file__).parent.parent / "lambda" / "invoke.js"
# Containers in one process of Node.js: 1,000 processes do not fit a small machine.
CONTAINERS_PER_PROCESS = 40
# How long connections of containers that were killed may be there still, in seconds.
REAPED_WITHIN = 10
# PostgreSQL's, PgBouncer's, pgweir's and the metrics' port, as the README has them; another one where it is taken.
PORTS = (5433, 6433, 6543, 9127)
# In /proc/net/tcp: ESTABLISHED and CLOSE_WAIT.
STATES_OF_CONNECTIONS = ("01", "08")


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
            sys.exit(show(arguments, servers.Stage(directory, cleanup)))
        except KeyboardInterrupt:
            print("\nStopping.")
            # A second one must not leave anything behind.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)


def parse_arguments():
    parser = argparse.ArgumentParser(prog="deploy/quickstart/run")
    parser.add_argument("--pgweir", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--containers", type=int, default=1000, help="containers that start at once")
    parser.add_argument(
        "--handler", choices=("pool", "client"), default="pool", help="one connection per container, or per invocation"
    )
    parser.add_argument("--once", action="store_true", help="end after the table")
    return parser.parse_args()


def show(arguments, stage):
    # A run that ends by itself must not be in the way of another.
    ports = free_ports([0] * len(PORTS) if arguments.once else PORTS)
    certificate = servers.Certificate(stage)
    print(f"Starting PostgreSQL with max_connections = {servers.MAX_CONNECTIONS}", flush=True)
    print("1,000 containers, three times, take about two minutes", flush=True)
    postgres = servers.Postgres(stage, ports[0], certificate)
    outcomes = []

    def storm_on(way, port):
        print(f"{arguments.containers} containers start at once, {way}", flush=True)
        outcomes.append((way, storm(arguments, port, postgres, certificate)))

    storm_on("directly", ports[0])
    pgbouncer = servers.start_pgbouncer(stage, ports[1], postgres, certificate)
    storm_on("through PgBouncer", ports[1])
    # It would keep the database's connections.
    servers.stop(pgbouncer, signal.SIGTERM)
    log = servers.start_pgweir(stage, ports[2], ports[3], postgres, certificate, arguments.pgweir)
    storm_on("through pgweir", ports[2])
    print()
    print(table(outcomes))
    result = verdict(outcomes[-1][1])
    if arguments.once:
        return result
    print("PostgreSQL and pgweir are running. To try pgweir:")
    print(f"  PGPASSWORD={servers.PASSWORD} psql -h 127.0.0.1 -p {ports[2]} -U {servers.USER} {servers.USER}")
    print(f"Metrics:  http://127.0.0.1:{ports[3]}/metrics")
    print(f"Health:   http://127.0.0.1:{ports[3]}/readyz")
    print(f"Log:      {log}")
    print("Ctrl-C ends both and removes their files.", flush=True)
    signal.pause()
    return 0


def storm(arguments, port, postgres, certificate):
    """What the fleet reports, and what is seen of it from outside."""
    watcher = servers.Watcher(postgres)
    processes = max(1, arguments.containers // CONTAINERS_PER_PROCESS)
    sizes = ["--containers", str(arguments.containers), "--processes", str(processes)]
    settings = {
        # Not by name: that may have another address too, and Node.js tries both when it is slow.
        "DB_HOST": "127.0.0.1",
        "DB_PORT": str(port),
        "DB_NAME": servers.USER,
        "DB_USER": servers.USER,
        "DB_PASSWORD": servers.PASSWORD,
        "DB_SSL_CA": str(certificate.certificate),
        "DB_CONNECT_TIMEOUT_MS": "60000",
    }
    fleet = subprocess.Popen(
        ["node", str(FLEET), arguments.handler, "--freeze", "--hold", *sizes],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **settings},
    )
    line = fleet.stdout.readline()
    if not line:
        raise SystemExit(f"the fleet ended with {fleet.wait()}")
    outcome = json.loads(line)
    outcome["most_servers"] = watcher.stop()
    outcome["left_open"] = connections_of_clients(port)
    # Now all of its processes are killed, frozen as they are.
    fleet.communicate()
    outcome["reaped_after"] = seconds_until_reaped(port)
    return outcome


def seconds_until_reaped(port):
    """How long after the end of the fleet its connections are gone; None if they stay."""
    begun = time.monotonic()
    while connections_of_clients(port):
        if time.monotonic() - begun > REAPED_WITHIN:
            return None
        time.sleep(0.01)
    return time.monotonic() - begun


def connections_of_clients(port):
    """Connections that a server on this port has not closed, as the kernel counts them."""
    found = 0
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, state = line.split()[1], line.split()[3]
        found += int(local.split(":")[1], 16) == port and state in STATES_OF_CONNECTIONS
    return found


def verdict(outcome):
    """What must hold: no error, no more servers than are not reserved, nothing left of the fleet."""
    if outcome["failed"] or outcome["most_servers"] > servers.BUDGET or outcome["reaped_after"] is None:
        print(f"This is not as it should be: no error, at most {servers.BUDGET} servers and no connection left")
        print("of containers that are gone were promised.")
        return 1
    return 0


def table(outcomes):
    """The outcomes side by side, as text, and below them which errors there were."""
    each = [outcome for _, outcome in outcomes]
    rows = [("", [name for name, _ in outcomes])]
    rows.append(("containers", [outcome["containers"] for outcome in each]))
    rows.append(("without an error", [outcome["succeeded"] for outcome in each]))
    rows.append(("invocations that failed", [outcome["failed_invocations"] for outcome in each]))
    rows.append(("server connections at most", [outcome["most_servers"] for outcome in each]))
    for name, key in (("connect and log in", "connect"), ("query", "query")):
        for part in ("p50", "p99"):
            rows.append((f"{name}, {part}", [milliseconds(outcome[key][f"{part}_ms"]) for outcome in each]))
    rows.append(("left open by the killed fleet", [outcome["left_open"] for outcome in each]))
    rows.append(("all of them reaped after", [seconds(outcome["reaped_after"]) for outcome in each]))
    width = max(len(name) for name, _ in rows)
    lines = [name.ljust(width) + "".join(f"{cell!s:>19}" for cell in cells) for name, cells in rows]
    for name, outcome in outcomes:
        if outcome["errors"]:
            lines += ["", f"errors {name}"]
        lines += [f"{count:>6} x {error}" for error, count in outcome["errors"].items()]
    return "\n".join(lines) + "\n"


def milliseconds(value):
    return "-" if value is None else f"{value:.0f} ms"


def seconds(value):
    return "never" if value is None else f"{value:.1f} s"


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
