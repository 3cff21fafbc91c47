"""What this machine has, what is installed on it, and how pgweir is built."""

from __future__ import annotations

import glob
import json
import os
import platform
import pwd
import re
import resource
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

# 2,000 idle clients are two descriptors each at most, and PgBouncer wants room for all of its max_client_conn.
DESCRIPTORS_WANTED = 65536


class SetupError(Exception):
    """Something that this script needs cannot be had; the text says what and why."""


@dataclass(frozen=True)
class Tools:
    """Where the programs are."""

    postgresql_bin: Path
    pgbouncer: str | None

    def postgresql(self, program: str) -> str:
        """The path of one of PostgreSQL's programs. Debian's wrappers in PATH are Perl, so they are not used."""
        return str(self.postgresql_bin / program)


def run_text(*command: str) -> str:
    """Standard output of a command, stripped; empty if it cannot be run or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def postgresql_bin(chosen: Path | None) -> Path | None:
    """The directory of the newest PostgreSQL server that also has pgbench, or the chosen one."""
    if chosen:
        return chosen
    found = [Path(path).parent for path in glob.glob("/usr/lib/postgresql/*/bin/initdb")]
    found = [path for path in found if (path / "pgbench").exists()]
    if found:
        return max(found, key=lambda path: float(path.parent.name))
    initdb = shutil.which("initdb")
    return Path(initdb).parent if initdb else None


def system_program(name: str) -> str | None:
    """Like `which`, but also looks where Debian keeps daemons."""
    return shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")


def install(packages: list[str]) -> None:
    """Installs by apt, and stops the services that the installation itself has started."""
    if not shutil.which("apt-get"):
        raise SetupError(f"please install {' '.join(packages)}: there is no apt-get here")
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    print(f"installing {' '.join(packages)}", flush=True)
    for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
        command = [*as_root, "apt-get", *arguments]
        if subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode != 0:
            raise SetupError(f"failed: {' '.join(command)}")
    if os.path.isdir("/run/systemd/system"):
        # Only services of packages that were absent a moment ago: nobody can be using them.
        services = [name for name in ("pgbouncer", "postgresql") if name in packages]
        subprocess.run([*as_root, "systemctl", "stop", *services], check=False)


def provide_tools(chosen_bin: Path | None, *, pgbouncer: bool, strace: bool, compiler: bool) -> Tools:
    """Finds the programs that the run needs and installs those that are missing."""
    missing = []
    if not postgresql_bin(chosen_bin):
        missing += ["postgresql", "postgresql-contrib"]
    if pgbouncer and not system_program("pgbouncer"):
        missing.append("pgbouncer")
    if not shutil.which("openssl"):
        missing.append("openssl")
    if strace and not shutil.which("strace"):
        missing.append("strace")
    if compiler and not shutil.which("cc"):
        missing.append("build-essential")
    if missing:
        install(missing)
    found = postgresql_bin(chosen_bin)
    if not found or not (found / "pgbench").exists():
        raise SetupError("no PostgreSQL server programs with pgbench found; name their directory with --postgresql-bin")
    return Tools(found, system_program("pgbouncer"))


def build_pgweir() -> Path:
    """`cargo build --release`; cargo itself says where the binary is, so CARGO_TARGET_DIR and its like are honoured."""
    return build("--bin", "pgweir")


def build_forwarder() -> Path:
    """The bare forwarder of `benches/forwarder.rs`."""
    return build("--example", "forwarder")


def build(kind: str, name: str) -> Path:
    """Builds one program with the settings of a release."""
    if not shutil.which("cargo"):
        raise SetupError("cargo is not in PATH: install Rust from https://rustup.rs, or name a binary with --pgweir")
    command = ["cargo", "build", "--release", kind, name, "--message-format=json-render-diagnostics"]
    print(" ".join(command[:5]), flush=True)
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=False)
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == name:
            return Path(message["executable"])
    raise SetupError(f"cargo built no {name} binary")


def service_user() -> str | None:
    """Who runs PostgreSQL and the poolers: neither PostgreSQL nor PgBouncer runs as root. `None`: the caller."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise SetupError("started as root, and there is no user postgres to run the servers as")


def raise_descriptor_limit() -> int:
    """Lifts this process's and its children's limit of open files as far as it goes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_WANTED)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def busy_share(seconds: float) -> float:
    """The share of all cores (0 to 1) that was in use, or stolen by other virtual machines, over some seconds."""

    def read() -> tuple[int, int]:
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]

    total_before, idle_before = read()
    time.sleep(seconds)
    total, idle = read()
    passed = max(1, total - total_before)
    return 1 - (idle - idle_before) / passed


def describe(tools: Tools, pgweir: Path | None, *, built: bool) -> dict[str, str]:
    """The header of the report. No host names and no paths."""
    cpu_info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*:\s*(.+)", cpu_info)
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    system = re.search(r'PRETTY_NAME="(.+)"', Path("/etc/os-release").read_text())
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": model.group(1) if model else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{int(memory.group(1)) / 1048576:.0f} GiB" if memory else "?",
        "system": f"{system.group(1) if system else platform.system()}, kernel {platform.release()}",
        "postgresql": run_text(tools.postgresql("postgres"), "--version"),
    }
    if tools.pgbouncer:
        facts["pgbouncer"] = pgbouncer_version_text(tools.pgbouncer)
    if pgweir:
        origin = f" ({commit()})" if built else " (a binary that was given)"
        facts["pgweir"] = (run_text(str(pgweir), "--version") or "pgweir") + origin
    return facts


def commit() -> str:
    """The commit that was built."""
    name = run_text("git", "rev-parse", "--short", "HEAD") or "unknown commit"
    changed = run_text("git", "status", "--porcelain", "--", "src", "Cargo.toml", "Cargo.lock")
    return f"{name} with local changes" if changed else name


def pgbouncer_version_text(program: str) -> str:
    """PgBouncer's version with its TLS library, in one line."""
    lines = run_text(program, "--version").splitlines()
    tls = [line for line in lines if line.startswith("tls:")]
    return ", ".join(lines[:1] + tls)


def pgbouncer_version(program: str) -> tuple[int, int]:
    """Major and minor version."""
    found = re.search(r"(\d+)\.(\d+)", run_text(program, "--version"))
    return (int(found.group(1)), int(found.group(2))) if found else (1, 0)
