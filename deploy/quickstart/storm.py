"""Many short-lived PostgreSQL clients at once, each as a Lambda function opens one per invocation.

Speaks the protocol itself, so that nothing needs to be installed:
https://www.postgresql.org/docs/current/protocol-flow.html
"""

import asyncio
import base64
import collections
import dataclasses
import functools
import hashlib
import hmac
import os
import statistics
import struct
import time

# What a handler does besides querying, in seconds; its connection stays open meanwhile.
OTHER_WORK = 0.05
# How often the database is asked for its connections, in seconds.
SAMPLE_EVERY = 0.01
# No single answer may take longer, in seconds.
PATIENCE = 180


class Refused(Exception):
    """An ErrorResponse."""

    def __init__(self, body):
        fields = {part[:1]: part[1:].decode("utf-8", "replace") for part in body.split(b"\0") if part}
        # The server closes the connection after these.
        self.fatal = fields.get(b"V") in ("FATAL", "PANIC")
        super().__init__(f"{fields.get(b'C', '?????')} {fields.get(b'M', '')}")


@dataclasses.dataclass(frozen=True)
class Login:
    """Where and as whom to connect; a string as address is a Unix socket's path."""

    address: object
    user: str
    password: str
    database: str


@dataclasses.dataclass
class Outcome:
    """What the clients of one run saw."""

    clients: int
    # Seconds from the start of the connection to its end, of those that succeeded.
    times: list
    errors: collections.Counter
    # Most connections of the clients' user at once, as the database counted them.
    most_servers: int


async def run(login, clients, watched):
    """Starts all clients at once, while `watched` (a superuser past pgweir) counts connections."""
    connection = await Connection.open(watched)
    ended = asyncio.Event()
    watcher = asyncio.create_task(most_connections(connection, login.user, ended))
    attempts = [asyncio.create_task(timed_client(login, number)) for number in range(clients)]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    ended.set()
    most = await watcher
    await connection.close()
    errors = collections.Counter(describe(result) for result in results if isinstance(result, BaseException))
    times = [result for result in results if not isinstance(result, BaseException)]
    return Outcome(clients, times, errors, most)


async def value(login, sql):
    """The first value of a query on a connection of its own, or None."""
    connection = await Connection.open(login)
    try:
        return await connection.query(sql)
    finally:
        await connection.close()


async def timed_client(login, number):
    begun = time.monotonic()
    await asyncio.wait_for(client(login, number), PATIENCE)
    return time.monotonic() - begun


async def client(login, number):
    """One invocation: connect, a query, other work, a transaction, disconnect."""
    connection = await Connection.open(login)
    try:
        if await connection.query(f"SELECT {number}") != str(number).encode():
            raise AssertionError("the answer to another client's query")
        await asyncio.sleep(OTHER_WORK)
        await connection.query("BEGIN")
        await connection.query("SELECT count(*) FROM pg_class")
        await connection.query("COMMIT")
    finally:
        await connection.close()


async def most_connections(connection, user, ended):
    sql = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{user}'"
    most = 0
    while not ended.is_set():
        most = max(most, int(await connection.query(sql)))
        await asyncio.sleep(SAMPLE_EVERY)
    return most


def describe(error):
    if isinstance(error, Refused):
        return str(error)
    return f"{type(error).__name__} {error}".strip()


def table(outcomes):
    """The outcomes side by side, as text, and below them which errors there were."""
    rows = [("", [name for name, _ in outcomes])]
    each = [outcome for _, outcome in outcomes]
    rows.append(("clients", [outcome.clients for outcome in each]))
    rows.append(("succeeded", [len(outcome.times) for outcome in each]))
    rows.append(("failed", [sum(outcome.errors.values()) for outcome in each]))
    rows.append(("server connections at most", [outcome.most_servers for outcome in each]))
    for name, part in (("p50", 0.50), ("p99", 0.99)):
        times = [f"{quantile(outcome.times, part):.2f} s" for outcome in each]
        rows.append((f"connect to disconnect, {name}", times))
    width = max(len(name) for name, _ in rows)
    lines = [name.ljust(width) + "".join(f"{cell!s:>18}" for cell in cells) for name, cells in rows]
    for name, outcome in outcomes:
        if outcome.errors:
            lines += ["", f"errors {name}"]
        lines += [f"{count:>6} x {error}" for error, count in outcome.errors.most_common()]
    return "\n".join(lines) + "\n"


def quantile(times, part):
    if len(times) < 2:
        return max(times, default=0)
    return statistics.quantiles(times, n=100, method="inclusive")[round(part * 100) - 1]


class Connection:
    """A logged-in connection."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, login):
        if isinstance(login.address, str):
            connection = cls(*await asyncio.open_unix_connection(login.address))
        else:
            connection = cls(*await asyncio.open_connection(*login.address))
        try:
            await connection.log_in(login)
        except BaseException:
            connection.writer.close()
            raise
        return connection

    async def log_in(self, login):
        parameters = f"user\0{login.user}\0database\0{login.database}\0\0".encode()
        self.writer.write(struct.pack("!II", 8 + len(parameters), 3 << 16) + parameters)
        scram = Scram(login.password)
        while True:
            tag, body = await self.read()
            if tag == b"Z":
                return
            if tag == b"R":
                self.answer(scram, struct.unpack("!I", body[:4])[0], body[4:])

    def answer(self, scram, request, data):
        if request == 10:
            first = scram.first()
            self.send(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(first)) + first)
        elif request == 11:
            self.send(b"p", scram.last(data))
        elif request == 12:
            scram.verify(data)
        elif request != 0:
            raise AssertionError(f"authentication request {request}")

    async def query(self, sql):
        """Runs a simple query; returns the first value of its last row, or None."""
        self.send(b"Q", sql.encode() + b"\0")
        result, failed = None, None
        while True:
            try:
                tag, body = await self.read()
            except Refused as refused:
                if refused.fatal:
                    raise
                failed = refused
                continue
            if tag == b"D":
                length = struct.unpack("!i", body[2:6])[0]
                result = body[6 : 6 + length] if length >= 0 else None
            if tag == b"Z":
                if failed:
                    raise failed
                return result

    async def close(self):
        self.send(b"X", b"")
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass  # the other side was faster

    def send(self, tag, body):
        self.writer.write(tag + struct.pack("!I", 4 + len(body)) + body)

    async def read(self):
        try:
            header = await self.reader.readexactly(5)
            body = await self.reader.readexactly(struct.unpack("!I", header[1:])[0] - 4)
        except asyncio.IncompleteReadError:
            raise ConnectionError("closed without a word") from None
        if header[:1] == b"E":
            raise Refused(body)
        return header[:1], body


@functools.lru_cache
def salted_password(password, salt, iterations):
    """The expensive part of a login, the same for every client of one user."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)


class Scram:
    """The client's half of SCRAM-SHA-256: RFC 5802, RFC 7677."""

    def __init__(self, password):
        self.password = password
        self.first_bare = "n=,r=" + base64.b64encode(os.urandom(18)).decode()
        self.signature = b""

    def first(self):
        return f"n,,{self.first_bare}".encode()

    def last(self, server_first):
        server_first = server_first.decode()
        fields = dict(part.split("=", 1) for part in server_first.split(","))
        if not fields["r"].startswith(self.first_bare[5:]):
            raise AssertionError("the answer to another client's login")
        salted = salted_password(self.password, base64.b64decode(fields["s"]), int(fields["i"]))
        without_proof = f"c=biws,r={fields['r']}"
        signed = f"{self.first_bare},{server_first},{without_proof}".encode()
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        stored_key = hashlib.sha256(client_key).digest()
        mask = hmac.digest(stored_key, signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, mask))
        self.signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), signed, "sha256")
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, server_final):
        if server_final != b"v=" + base64.b64encode(self.signature):
            raise AssertionError("the server does not know the password")
