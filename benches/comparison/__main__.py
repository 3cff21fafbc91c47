"""Command line and order of a comparison."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import idle, large_results, machine, report, syscalls
from .cluster import SCALE, Cluster, make_certificate
from .collected import Collected
from .load import Pgbench
from .poolers import CONTESTANTS, PGBOUNCER_STOCK, POOL_SIZE, VARIANTS, Contestant, Poolers, Running
from .processes import Stage, interrupt_on_signals
from .workloads import NAMES, WORKLOADS, Workload

SYSCALL_WORKLOADS = ("simple", "prepared", "settings-none", "settings-same", "settings-own")
# Above this share of busy cores before a run, its figures are not those of a quiet machine.
QUIET = 0.10


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="benches/compare", description="Compares pgweir with PgBouncer, side by side, on this machine."
    )
    parser.add_argument("--only", type=names, metavar="NAMES", help=f"of: {', '.join(NAMES)}; separated by commas")
    parser.add_argument("--seconds", type=float, help="measured time of a run (default 5)")
    parser.add_argument("--warm-up", type=float, help="seconds before the first round (default 1.5)")
    parser.add_argument("--rounds", type=int, help="rounds, alternating between the poolers (default 3)")
    parser.add_argument("--quick", action="store_true", help="smaller defaults: a trial of the script, no measurement")
    parser.add_argument("--poolers", type=columns, metavar="NAMES", help=f"of: {', '.join(CONTESTANTS)} (default: all)")
    parser.add_argument("--variants", metavar="NAMES", help=f"more columns, of: {', '.join(VARIANTS)}")
    parser.add_argument("--pgweir", type=existing, metavar="PATH", help="a pgweir binary; without it one is built")
    parser.add_argument("--postgresql-bin", type=existing, metavar="DIR", help="where PostgreSQL's programs are")
    parser.add_argument("--idle-clients", type=int, help="how many idle clients to hold (default 2000)")
    parser.add_argument("--large-megabytes", type=int, help="size of the large results (default 1000)")
    parser.add_argument("--syscalls", action="store_true", help="also count system calls with strace")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to a file too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results of every round to a file")
    arguments = parser.parse_args()
    for name, (default, quick) in DEFAULTS.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, quick if arguments.quick else default)
        if getattr(arguments, name) < 0.5:
            parser.error(f"--{name.replace('_', '-')} is too small")
    arguments.only = arguments.only or [name for name in NAMES if name != "syscalls" or arguments.syscalls]
    arguments.syscalls = arguments.syscalls or "syscalls" in arguments.only
    return arguments


# Without and with --quick.
DEFAULTS = {
    "seconds": (5, 1.5),
    "warm_up": (1.5, 0.5),
    "rounds": (3, 1),
    "idle_clients": (2000, 500),
    "large_megabytes": (1000, 100),
}


def existing(text: str) -> Path:
    """A path that is there, made absolute."""
    path = Path(text).resolve()
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text} does not exist")
    return path


def names(text: str) -> list[str]:
    """The workloads of `--only`."""
    return known(text, NAMES)


def columns(text: str) -> list[str]:
    """The contestants of `--poolers`."""
    return known(text, tuple(CONTESTANTS))


def known(text: str, allowed: tuple[str, ...]) -> list[str]:
    """A list separated by commas, of allowed names."""
    given = text.split(",")
    unknown = [name for name in given if name not in allowed]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(allowed)}")
    return given


def choose(arguments: argparse.Namespace) -> list[Contestant]:
    """The columns."""
    chosen = [CONTESTANTS[name] for name in arguments.poolers or CONTESTANTS]
    variants = known(arguments.variants, tuple(VARIANTS)) if arguments.variants else []
    return chosen + [VARIANTS[name] for name in variants]


class Comparison:
    """A run: its contestants, and what it has found out so far."""

    def __init__(
        self, arguments: argparse.Namespace, collected: Collected, stage: Stage, tools: machine.Tools, poolers: Poolers
    ) -> None:
        self._arguments = arguments
        self._collected = collected
        self._stage = stage
        self._tools = tools
        self._poolers = poolers
        self._pgbench = Pgbench(tools, stage.directory)
        self._busy: list[float] = []
        self.proxies = [column for column in collected.columns if column.kind in ("pgbouncer", "pgweir")]

    @contextmanager
    def started(self, contestants: list[Contestant]) -> Iterator[list[Running]]:
        """Fresh processes, ended afterwards. One that does not start is left out, and reported."""
        running = []
        try:
            for contestant in contestants:
                with self.attempt(f"starting {contestant.name}"):
                    running.append(self._poolers.start(contestant))
            yield running
        finally:
            for each in running:
                self._poolers.stop(each)

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """One failure must not cost the other results: it is noted, and the run goes on."""
        try:
            yield
        except Exception as error:
            failure = f"{what}: {' '.join(str(error).split())}"
            progress(f"FAILED: {failure}")
            if failure not in self._collected.failures:
                self._collected.failures.append(failure)

    def choose_userlist(self) -> None:
        """PgBouncer with the password in plain text and with PostgreSQL's SCRAM secret: the cheaper login is used."""
        login = next(workload for workload in WORKLOADS if workload.name == "connect")
        cost = {}
        for kind, title in (("plain", "a plain-text password"), ("scram", "PostgreSQL's SCRAM secret")):
            self._poolers.userlist = kind
            with self.started([PGBOUNCER_STOCK]) as running, self.attempt(f"PgBouncer with {title}"):
                cost[kind] = self._pgbench.measure(login, running[0], 1.5, 0.5).cpu_us or 0
                progress(f"PgBouncer with {title} in its userlist: {cost[kind]:.0f} us of CPU per connection")
        self._poolers.userlist = min(cost, key=lambda kind: cost[kind]) if cost else "scram"
        words = ", ".join(f"{kind} {value:.0f} us" for kind, value in cost.items())
        note = f"PgBouncer's userlist: {self._poolers.userlist}, the cheaper one for it (CPU per connection: {words})"
        self._collected.notes.append(note)

    def load(self, workload: Workload, cluster: Cluster) -> None:
        """All rounds of a pgbench workload."""
        contestants = [column for column in self._collected.columns if workload.suits(column.kind)]
        with self.started(contestants) as running:
            logging_in = 0.0
            for each in running:
                with self.attempt(f"{workload.name}, {each.name}, warm-up"):
                    # Twice, because it may take longer the next time.
                    logging_in = max(logging_in, 2 * self._pgbench.login_seconds(workload, each))
                    self._pgbench.measure(workload, each, self._arguments.warm_up, logging_in)
            for index in range(self._arguments.rounds):
                # Each round begins with another one, so that none is always the first or always after the same one.
                turn = index % max(1, len(running))
                for each in running[turn:] + running[:turn]:
                    if workload.writes:
                        cluster.tidy()
                    self._busy.append(machine.busy_share(0.3))
                    with self.attempt(f"{workload.name}, {each.name}, round {index + 1}"):
                        result = self._pgbench.measure(workload, each, self._arguments.seconds, logging_in)
                        self._collected.add_load(workload.name, each.name, result)
                        cpu = f"{result.cpu_us:.1f} us" if result.cpu_us is not None else "-"
                        what = f"{workload.name}, round {index + 1}, {each.name}"
                        progress(f"{what}: {result.tps:.0f}/s, CPU {cpu}, p99 {result.p99_ms:.2f} ms")

    def idle(self) -> None:
        """Memory of idle clients."""
        for transport in ("plain", "tls"):
            for contestant in self.proxies:
                with self.started([contestant]) as running, self.attempt(f"idle, {transport}, {contestant.name}"):
                    for each in running:
                        found = idle.measure(each, self._arguments.idle_clients, tls=transport == "tls")
                        self._collected.idle.setdefault(transport, {})[contestant.name] = found
                        kib = f"{found.logged_in_kib:.1f} KiB, after a query {found.after_query_kib:.1f} KiB"
                        progress(f"idle, {transport}, {contestant.name}: {kib}")

    def large(self) -> None:
        """Growth during large results."""
        for case in large_results.CASES:
            for contestant in self.proxies:
                with self.started([contestant]) as running, self.attempt(f"results-1gb, {case}, {contestant.name}"):
                    for each in running:
                        found = large_results.measure(each, case, self._arguments.large_megabytes, self._tools)
                        self._collected.growth.setdefault(case, {})[contestant.name] = found
                        progress(f"results-1gb, {case}, {contestant.name}: {found.growth_kib} KiB more")

    def syscalls(self) -> None:
        """System calls per transaction."""
        for workload in [workload for workload in WORKLOADS if workload.name in SYSCALL_WORKLOADS]:
            for contestant in [each for each in self.proxies if workload.suits(each.kind)]:
                what = f"system calls, {workload.name}, {contestant.name}"
                with self.started([contestant]) as running, self.attempt(what):
                    for each in running:
                        self._pgbench.run_count(workload, each, 50)
                        found = syscalls.measure(self._pgbench, workload, each, self._stage.directory)
                        self._collected.syscalls.setdefault(workload.name, {})[contestant.name] = found
                        progress(f"{what}: {found.data:.2f} data, {found.wait:.2f} waits")

    def conclude(self) -> None:
        """Notes that hold for the whole run."""
        loud = [share for share in self._busy if share > QUIET]
        if loud:
            note = f"NOT A QUIET MACHINE: just before {len(loud)} of {len(self._busy)} runs, more than {QUIET:.0%} of "
            self._collected.notes.append(f"{note}it was busy with something else (up to {max(loud):.0%})")
        prepared = {name for name in self._collected.loads if name in PREPARED}
        if prepared and not self._poolers.pgbouncer_prepares and any(c.kind == "pgbouncer" for c in self.proxies):
            note = "This PgBouncer has no prepared statements in transaction mode: its extended mode stands there"
            self._collected.notes.append(note)


PREPARED = {workload.name for workload in WORKLOADS if workload.mode == "prepared"}


def progress(text: str) -> None:
    """One line about what has just been done."""
    print(text, file=sys.stderr, flush=True)


def run(
    arguments: argparse.Namespace,
    collected: Collected,
    tools: machine.Tools,
    pgweir: Path | None,
    forwarder: Path | None,
) -> None:
    """Everything between the first process and the last."""
    wanted = arguments.only
    with Stage(machine.service_user()) as stage:
        progress("creating a PostgreSQL cluster")
        certificate = make_certificate(stage)
        cluster = Cluster(stage, tools, certificate)
        poolers = Poolers(stage, cluster, certificate, tools.pgbouncer, pgweir, forwarder)
        comparison = Comparison(arguments, collected, stage, tools, poolers)
        if any(column.kind == "pgbouncer" for column in collected.columns):
            comparison.choose_userlist()
        for workload in WORKLOADS:
            if workload.name in wanted:
                comparison.load(workload, cluster)
        if "results-1gb" in wanted:
            comparison.large()
        if "idle" in wanted:
            comparison.idle()
        if arguments.syscalls:
            comparison.syscalls()
        comparison.conclude()


def main() -> int:
    """Exit code 0: all was measured; 1: something failed or had errors; 2: the run could not begin."""
    arguments = parse_arguments()
    interrupt_on_signals()
    chosen = choose(arguments)
    kinds = {contestant.kind for contestant in chosen}
    build = "pgweir" in kinds and not arguments.pgweir
    try:
        tools = machine.provide_tools(
            arguments.postgresql_bin,
            pgbouncer="pgbouncer" in kinds,
            strace=arguments.syscalls,
            compiler=build or "forwarder" in kinds,
        )
        binary = machine.build_pgweir() if build else arguments.pgweir
        forwarder = machine.build_forwarder() if "forwarder" in kinds else None
    except machine.SetupError as error:
        progress(f"benches/compare: {error}")
        return 2
    machine.raise_descriptor_limit()
    settings = {
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "pool": POOL_SIZE,
        "scale": SCALE,
        "idle clients": arguments.idle_clients,
    }
    facts = machine.describe(tools, binary if "pgweir" in kinds else None, built=build)
    collected = Collected(facts, settings, chosen)
    interrupted = False
    try:
        run(arguments, collected, tools, binary, forwarder)
    except KeyboardInterrupt:
        interrupted = True
        collected.notes.append("INTERRUPTED: not everything was measured")
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        collected.failures.append(f"the run ended early: {error}")
    text = report.render(collected)
    print(text, end="")
    if arguments.markdown:
        arguments.markdown.write_text(text)
    if arguments.json:
        arguments.json.write_text(collected.to_json())
    if interrupted:
        return 130
    return 1 if collected.failures or report.error_lines(collected) else 0


if __name__ == "__main__":
    sys.exit(main())
