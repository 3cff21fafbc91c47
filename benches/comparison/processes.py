"""The processes and the directory of a run: owned here, and gone when the run ends, however it ends."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any


class Stage:
    """A temporary directory and the processes that live in it. Leaving the `with` block ends all of them."""

    def __init__(self, user: str | None) -> None:
        self.user = user
        self.directory = Path(tempfile.mkdtemp(prefix="pgweir-compare-"))
        self.directory.chmod(0o755)
        self._running: list[tuple[subprocess.Popen[bytes], tuple[int, ...]]] = []

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A second Ctrl-C must not leave half of them behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for process, signals in reversed(self._running):
            end(process, signals)
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, command: list[str], log: Path, signals: tuple[int, ...]) -> subprocess.Popen[bytes]:
        """Starts a server as the service user; `signals` are tried one after the other to end it."""
        with log.open("ab") as output:
            process: subprocess.Popen[bytes] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                env=clean_environment(),
                # In its own session, so that Ctrl-C reaches this script first and the order of ending is its own.
                start_new_session=True,
                **self._identity(),
            )
        self._running.append((process, signals))
        return process

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Ends one process that `start` returned."""
        for entry in [entry for entry in self._running if entry[0] is process]:
            end(*entry)
            self._running.remove(entry)

    def call(self, command: list[str]) -> None:
        """Runs a command as the service user to its end; raises with its output if it fails."""
        done = subprocess.run(
            command, capture_output=True, cwd=self.directory, env=clean_environment(), check=False, **self._identity()
        )
        if done.returncode != 0:
            raise RuntimeError(f"{Path(command[0]).name} failed: {done.stderr.decode(errors='replace')}")

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        """A file in the directory that only the service user (and root) can read."""
        path = self.directory / name
        path.write_text(text)
        path.chmod(mode)
        return self.hand_over(path)

    def make_directory(self, name: str) -> Path:
        """A directory of the service user."""
        path = self.directory / name
        path.mkdir(mode=0o700)
        return self.hand_over(path)

    def hand_over(self, path: Path) -> Path:
        """Gives a file or directory to the service user."""
        if self.user:
            owner = pwd.getpwnam(self.user)
            os.chown(path, owner.pw_uid, owner.pw_gid)
        return path

    def _identity(self) -> dict[str, Any]:
        if not self.user:
            return {}
        return {"user": self.user, "group": pwd.getpwnam(self.user).pw_gid, "extra_groups": []}


def end(process: subprocess.Popen[bytes], signals: tuple[int, ...]) -> None:
    """Signals a process until it has ended, with a few seconds after each signal."""
    for number in (*signals, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            continue


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without libpq's, PostgreSQL's and pgweir's variables, and with untranslated messages."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return inherited | {"LC_ALL": "C"} | more


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def interrupt_on_signals() -> None:
    """SIGTERM and SIGHUP unwind like Ctrl-C, so that the cleaning up happens."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
