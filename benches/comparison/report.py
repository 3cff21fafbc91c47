"""The tables: Markdown whose columns are aligned, so that it reads as well in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .collected import Collected
from .large_results import TITLES
from .workloads import (
    GROWTH_TARGET_KIB,
    IDLE_TARGET_KIB,
    P99_TARGET,
    SYSCALLS_TARGET,
    THROUGHPUT_TARGET,
    WORKLOADS,
    Workload,
)

NOTHING = "-"


@dataclass(frozen=True)
class Metric:
    """One table of figures of the pgbench workloads."""

    title: str
    figure: str  # a field of `load.Result`
    digits: int
    more_is_better: bool = False
    target: Callable[[Workload], str] | None = None
    spread: bool = False


METRICS = (
    Metric(
        "Proxy CPU per transaction, us (user + system)",
        "cpu_us",
        1,
        target=lambda workload: NOTHING if workload.cpu_target is None else f"<= {workload.cpu_target:.2f}",
        spread=True,
    ),
    Metric(
        "Throughput, transactions per second",
        "tps",
        0,
        more_is_better=True,
        # Filled in by `throughput_target`, which depends on the figures.
        target=lambda _: "",
        spread=True,
    ),
    Metric("Latency p50, ms", "p50_ms", 2),
    Metric("Latency p95, ms", "p95_ms", 2),
    Metric(
        "Latency p99, ms",
        "p99_ms",
        2,
        target=lambda workload: NOTHING if workload.settings else f"<= {P99_TARGET:.1f}",
        spread=True,
    ),
    Metric("Context switches of the proxy per transaction", "switches", 2),
    Metric("Cores used by the proxy", "cores", 2),
)

EXPLANATION = """\
ratio: pgweir to the better of the PgBouncers in the same run. Spread: the widest (largest - smallest) / median of the
rounds among the columns; a ratio closer to its target than that says little.
The target of throughput holds where the proxy, not PostgreSQL or pgbench, is the limit. That is taken to be so unless
PostgreSQL without a proxy is less than that much faster than PgBouncer; "(no)" stands there."""


def render(collected: Collected) -> str:
    """The whole report."""
    parts = ["\n".join(f"- {name}: {value}" for name, value in (collected.machine | texts(collected)).items())]
    if collected.loads:
        parts += [load_table(collected, metric) for metric in METRICS]
        parts.append(EXPLANATION)
    if collected.idle:
        parts.append(idle_table(collected))
    if collected.growth:
        parts.append(growth_table(collected))
    if collected.syscalls:
        parts.append(syscalls_table(collected))
    problems = collected.failures + error_lines(collected)
    if problems:
        parts.append("**Errors**\n\n" + "\n".join(f"- {line}" for line in problems))
    if collected.notes:
        parts.append("\n".join(f"- {note}" for note in collected.notes))
    return "\n\n".join(parts) + "\n"


def texts(collected: Collected) -> dict[str, str]:
    """How the run was done."""
    return {"run": ", ".join(f"{name} {value}" for name, value in collected.settings.items())}


def load_table(collected: Collected, metric: Metric) -> str:
    """The table of one metric over all workloads."""
    names = [column.name for column in collected.columns if column.kind != "direct" or metric.figure in DIRECT_FIGURES]
    weirs = weir_names(collected)
    header = ["workload", *names, *ratio_titles(weirs)]
    header += (["target"] if metric.target else []) + (["spread"] if metric.spread else [])
    rows = []
    for workload in WORKLOADS:
        if workload.name not in collected.loads:
            continue
        values = {name: collected.load(workload.name, name, metric.figure) for name in names}
        row = [workload.title]
        for name in names:
            bad = "!" if collected.errors(workload.name, name) else ""
            row.append(number(values[name], metric.digits) + bad)
        row += ratios(values, weirs, bouncer_names(collected), metric.more_is_better)
        if metric.more_is_better:
            row.append(NOTHING if workload.settings else throughput_target(values, bouncer_names(collected)))
        elif metric.target:
            row.append(metric.target(workload))
        row += [spread(collected, workload.name, names, metric.figure)] if metric.spread else []
        rows.append(row)
    return table(metric.title, header, rows)


def throughput_target(values: dict[str, float | None], bouncers: list[str]) -> str:
    """The target, unless PostgreSQL itself could hardly do so much."""
    known = [value for name in bouncers if (value := values.get(name)) is not None]
    direct = values.get("direct")
    limited = not known or direct is None or direct >= THROUGHPUT_TARGET * max(known)
    return f">= {THROUGHPUT_TARGET:.1f}" if limited else "(no)"


# What can be said of PostgreSQL itself.
DIRECT_FIGURES = {"tps", "p50_ms", "p95_ms", "p99_ms"}


def spread(collected: Collected, row: str, names: Iterable[str], figure: str) -> str:
    """The widest relative spread of a figure over the rounds."""
    widest = 0.0
    for name in names:
        values = collected.load_values(row, name, figure)
        median = collected.load(row, name, figure)
        if len(values) < 2 or not median:
            continue
        widest = max(widest, (max(values) - min(values)) / median)
    return f"{widest:.0%}" if widest else NOTHING


def idle_table(collected: Collected) -> str:
    """KiB per idle client."""
    weirs, bouncers = weir_names(collected), bouncer_names(collected)
    names = bouncers + weirs
    rows = []
    for tls in (False, True):
        results = collected.idle.get("tls" if tls else "plain", {})
        for figure, title in (("logged_in_kib", "logged in"), ("after_query_kib", "after one query")):
            values = {name: getattr(results[name], figure) if name in results else None for name in names}
            row = [f"{'TLS' if tls else 'plain'}, {title}", *(number(values[name], 1) for name in names)]
            rows.append([*row, *ratios(values, weirs, bouncers, False), f"<= {IDLE_TARGET_KIB[tls]:.1f} KiB"])
    header = ["idle clients", *names, *ratio_titles(weirs), "target"]
    return table("Resident memory per idle client, KiB", header, rows)


def growth_table(collected: Collected) -> str:
    """Growth while a large result passes."""
    names = bouncer_names(collected) + weir_names(collected)
    rows = []
    for case, results in collected.growth.items():
        size = max(result.megabytes for result in results.values())
        row = [f"{TITLES[case]}, {size:.0f} MB"]
        for name in names:
            done = results.get(name)
            row.append(f"{done.growth_kib} ({done.after_kib}) in {done.seconds:.1f} s" if done else NOTHING)
        rows.append([*row, f"< {GROWTH_TARGET_KIB} KiB"])
    title = "Growth of resident memory during one result, KiB at its highest (and afterwards)"
    return table(title, ["result", *names, "target"], rows)


def syscalls_table(collected: Collected) -> str:
    """System calls per transaction."""
    header = ["workload, proxy", "data", "of them failed", "waits", "other", "data target"]
    rows, details = [], []
    for workload, results in collected.syscalls.items():
        for name, found in results.items():
            calls = ", ".join(f"{call} {count:.2f}" for call, count in found.calls.items() if count >= 0.005)
            figures = [f"{each:.2f}" for each in (found.data, found.data_errors, found.wait, found.other)]
            rows.append([f"{workload}, {name}", *figures, f"{SYSCALLS_TARGET:.0f}"])
            details.append(f"- {workload}, {name}: {calls}")
    return table("System calls per transaction (strace -c -f)", header, rows) + "\n\n" + "\n".join(details)


def error_lines(collected: Collected) -> list[str]:
    """What the exclamation marks in the tables mean."""
    lines = []
    for row, columns in collected.loads.items():
        for column in columns:
            count = collected.errors(row, column)
            if count:
                lines.append(f"{row}, {column}: {count} failed transactions or aborted clients")
    return lines


def weir_names(collected: Collected) -> list[str]:
    """The columns of pgweir, and that of the bare forwarder."""
    return [column.name for column in collected.columns if column.kind in ("pgweir", "forwarder")]


def bouncer_names(collected: Collected) -> list[str]:
    """The columns of PgBouncer."""
    return [column.name for column in collected.columns if column.kind == "pgbouncer"]


def ratio_titles(weirs: list[str]) -> list[str]:
    """The heads of the columns that `ratios` fills."""
    return ["ratio" if name == "pgweir" else f"ratio {name.removeprefix('pgweir-')}" for name in weirs]


def ratios(
    values: dict[str, float | None], weirs: list[str], bouncers: list[str], more_is_better: bool
) -> list[str]:
    """Each pgweir to the better PgBouncer."""
    known = [value for name in bouncers if (value := values.get(name)) is not None]
    best = (max(known) if more_is_better else min(known)) if known else None
    cells = []
    for name in weirs:
        value = values.get(name)
        cells.append(f"{value / best:.2f}" if value is not None and best else NOTHING)
    return cells


def number(value: float | None, digits: int) -> str:
    """A figure, or a dash where there is none."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def table(title: str, header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: list[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([f"**{title}**", "", line(header), rule, *(line(row) for row in rows)])
