"""What the Python drivers' scripts share: names of scenarios, and what all of them expect."""

import os
import sys

CLIENTS = 20
ROUNDS = 10
BIG = 5 * 1024 * 1024

HOST = os.environ["PGHOST"]
PORT = int(os.environ["PGPORT"])
SERVERS_MAX = int(os.environ.get("TEST_SERVERS_MAX", CLIENTS))


def said(name):
    print("passed:", name, flush=True)


def check_servers(process_ids):
    """The servers that all clients together were seen on."""
    distinct = len(set(process_ids))
    assert distinct <= SERVERS_MAX, f"{distinct} servers, {SERVERS_MAX} allowed"


def big_text():
    """Text of BIG characters that is not the same everywhere."""
    line = "".join(chr(ord("a") + at % 26) for at in range(1021))
    return (line * (BIG // len(line) + 1))[:BIG]


def finish():
    print("all passed")
    sys.stdout.flush()
