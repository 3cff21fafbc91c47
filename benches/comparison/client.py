"""A small blocking PostgreSQL client: startup, TLS, SCRAM-SHA-256, simple queries whose results it throws away.

It exists for what pgbench and psql cannot do: to hold thousands of clients open in one process, and to read results
of any size without keeping them.

Source: <https://www.postgresql.org/docs/current/protocol-flow.html>,
<https://www.postgresql.org/docs/current/sasl-authentication.html>
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import os
import socket
import ssl
import struct
from dataclasses import dataclass

PROTOCOL_3_0 = 196608
SSL_REQUEST = 80877103
READ_SIZE = 256 * 1024


class ClientError(Exception):
    """The server refused or closed the connection, or spoke another protocol."""


@dataclass(frozen=True)
class Login:
    """Where to connect, and as whom."""

    port: int
    database: str
    user: str
    password: str
    tls: bool = False


def insecure_tls_context() -> ssl.SSLContext:
    """TLS that checks no certificate: pgbench's `sslmode=require` does the same."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# Poolers use one salt for a user, so thousands of logins cost one derivation here.
@functools.lru_cache(maxsize=64)
def salted_password(password: str, salt: bytes, iterations: int) -> bytes:
    """SCRAM's slow step."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)


class Client:
    """One connection, logged in and idle."""

    def __init__(self, login: Login, tls: ssl.SSLContext | None = None, timeout: float = 60.0) -> None:
        self._socket: socket.socket = socket.create_connection(("127.0.0.1", login.port), timeout=timeout)
        self._received = bytearray()
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if login.tls:
                self._start_tls(tls or insecure_tls_context())
            self._log_in(login)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Says goodbye and closes."""
        try:
            self._socket.sendall(b"X\0\0\0\4")
        except OSError:
            pass
        self._socket.close()

    def query(self, sql: str) -> int:
        """Runs a simple query and returns how many bytes its messages had."""
        self._send(b"Q", sql.encode() + b"\0")
        received = 0
        while True:
            tag, length = self._header()
            received += length + 1
            if tag == b"E":
                raise ClientError(error_text(self._take(length - 4)))
            if tag == b"Z":
                self._take(length - 4)
                return received
            self._skip(length - 4)

    def _start_tls(self, context: ssl.SSLContext) -> None:
        self._socket.sendall(struct.pack("!ii", 8, SSL_REQUEST))
        answer = self._socket.recv(1)
        if answer != b"S":
            raise ClientError(f"the server offers no TLS (answer {answer!r})")
        self._socket = context.wrap_socket(self._socket)

    def _log_in(self, login: Login) -> None:
        parameters = ("user", login.user, "database", login.database)
        body = b"".join(text.encode() + b"\0" for text in parameters) + b"\0"
        self._socket.sendall(struct.pack("!ii", len(body) + 8, PROTOCOL_3_0) + body)
        scram: Scram | None = None
        while True:
            tag, length = self._header()
            body = self._take(length - 4)
            if tag == b"E":
                raise ClientError(error_text(body))
            if tag == b"Z":
                return
            if tag != b"R":
                continue
            (kind,) = struct.unpack_from("!i", body)
            if kind == 10 and b"SCRAM-SHA-256" in body[4:].split(b"\0"):
                scram = Scram(login.password)
                first = scram.client_first()
                self._send(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first)
            elif kind == 11 and scram:
                self._send(b"p", scram.client_final(body[4:]))
            elif kind == 12 and scram:
                scram.check_server(body[4:])
            elif kind != 0:
                raise ClientError(f"the server asks for authentication of kind {kind}, not SCRAM-SHA-256")

    def _send(self, tag: bytes, body: bytes) -> None:
        self._socket.sendall(tag + struct.pack("!i", len(body) + 4) + body)

    def _header(self) -> tuple[bytes, int]:
        tag, length = struct.unpack("!ci", self._take(5))
        return tag, length

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            self._receive()
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    def _skip(self, count: int) -> None:
        """Drops the rest of a message, piece by piece: a row may be larger than the memory here."""
        while count > len(self._received):
            count -= len(self._received)
            self._received.clear()
            self._receive()
        del self._received[:count]

    def _receive(self) -> None:
        piece = self._socket.recv(READ_SIZE)
        if not piece:
            raise ClientError("the server closed the connection")
        self._received += piece


class Scram:
    """The client's side of SCRAM-SHA-256 without channel binding."""

    def __init__(self, password: str) -> None:
        self._password = password
        self._nonce = base64.b64encode(os.urandom(18)).decode()
        self._server_signature = b""

    def client_first(self) -> bytes:
        return f"n,,n=,r={self._nonce}".encode()

    def client_final(self, server_first: bytes) -> bytes:
        text = server_first.decode()
        fields = dict(field.split("=", 1) for field in text.split(","))
        if not fields["r"].startswith(self._nonce):
            raise ClientError("the server's nonce does not begin with ours")
        salted = salted_password(self._password, base64.b64decode(fields["s"]), int(fields["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        without_proof = f"c=biws,r={fields['r']}"
        message = f"n=,r={self._nonce},{text},{without_proof}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        proof = bytes(left ^ right for left, right in zip(client_key, signature, strict=True))
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        self._server_signature = hmac.digest(server_key, message, "sha256")
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def check_server(self, server_final: bytes) -> None:
        if server_final != b"v=" + base64.b64encode(self._server_signature):
            raise ClientError("the server does not know the password")


def error_text(body: bytes) -> str:
    """The SQLSTATE and message of an ErrorResponse."""
    fields = {field[:1]: field[1:].decode(errors="replace") for field in body.split(b"\0") if field}
    return f"{fields.get(b'C', '?')}: {fields.get(b'M', '?')}"
