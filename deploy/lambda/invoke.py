#!/usr/bin/env python3
"""Calls python/handler.py as Lambda does: containers that start at once, each invoked several times.

    python3 invoke.py --containers 20
    python3 invoke.py --hold            ends only when its standard input ends

A container is a fresh copy of the handler's module in a thread of its own. Settings (DB_HOST, ...) come from the
environment. Prints JSON.
"""

import argparse
import collections
import concurrent.futures
import importlib.util
import json
import os
import pathlib
import sys
import time

HANDLER = pathlib.Path(__file__).parent / "python" / "handler.py"


def start_container():
    """Loads the module anew, with all that it keeps."""
    spec = importlib.util.spec_from_file_location("handler", HANDLER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.handler


# For as long as the process lives, so does what their modules keep.
CONTAINERS = []


def live(n, invocations):
    """A container's latencies in milliseconds, and its first error."""
    handler = start_container()
    CONTAINERS.append(handler)
    latencies = []
    for _ in range(invocations):
        begun = time.perf_counter()
        try:
            answer = handler({"n": n}, None)
        except Exception as error:
            return latencies, f"{type(error).__name__}: {error}"
        if answer != {"n": n}:
            return latencies, f"{answer} is another container's answer"
        latencies.append((time.perf_counter() - begun) * 1000)
    return latencies, None


def percentile(values, percent):
    values = sorted(values)
    return round(values[min(len(values) - 1, len(values) * percent // 100)], 1) if values else None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--containers", type=int, default=1)
    parser.add_argument("--invocations", type=int, default=3)
    parser.add_argument("--hold", action="store_true")
    arguments = parser.parse_args()
    with concurrent.futures.ThreadPoolExecutor(arguments.containers) as threads:
        lives = list(threads.map(lambda n: live(n, arguments.invocations), range(arguments.containers)))
    errors = [error for _, error in lives if error]
    first = [latencies[0] for latencies, _ in lives if latencies]
    later = [latency for latencies, _ in lives for latency in latencies[1:]]
    print(json.dumps({
        "containers": arguments.containers,
        "succeeded": arguments.containers - len(errors),
        "failed": len(errors),
        "errors": dict(collections.Counter(errors).most_common()),
        "first": {"p50_ms": percentile(first, 50), "p99_ms": percentile(first, 99)},
        "later": {"p50_ms": percentile(later, 50), "p99_ms": percentile(later, 99)},
    }))
    sys.stdout.flush()
    if arguments.hold:
        sys.stdin.read()
    # As a container ends: at once, with its connections open.
    os._exit(0)


if __name__ == "__main__":
    main()
