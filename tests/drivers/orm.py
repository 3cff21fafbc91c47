"""What the scripts of the Python ORMs share."""

import os
import threading

from scenario import HOST, PORT

USER = os.environ["PGUSER"]
PASSWORD = os.environ["PGPASSWORD"]
DATABASE = os.environ["PGDATABASE"]

CLIENTS = 6
ROUNDS = 5


SERVER = {"username": USER, "password": PASSWORD, "host": HOST, "port": PORT, "database": DATABASE}


def at_once(client):
    """Runs `client(number)` in as many threads as there are clients."""
    failed = []

    def run(number):
        try:
            client(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
