"""psycopg 3 against any server: what it does must not depend on who answers."""

import threading
import time

import psycopg
from psycopg import errors

from scenario import CLIENTS, ROUNDS, big_text, check_servers, finish, said


def connect(**options):
    return psycopg.connect(**options)


def prepare_tables():
    with connect() as connection:
        connection.execute("DROP TABLE IF EXISTS psycopg_rows")
        connection.execute("CREATE TABLE psycopg_rows (id int PRIMARY KEY, body text)")


def queries():
    with connect(autocommit=True) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        rows = connection.execute(
            "SELECT %s::int + n, %s::text FROM generate_series(1, 3) n", (40, "x")
        ).fetchall()
        assert rows == [(41, "x"), (42, "x"), (43, "x")], rows
        assert connection.execute("SELECT %b::bytea", (b"\x00\xff",)).fetchone() == (b"\x00\xff",)
        assert connection.execute("SELECT NULL").fetchone() == (None,)
        with connection.cursor(binary=True) as cursor:
            assert cursor.execute("SELECT 7::int8").fetchone() == (7,)
        # Several statements in one simple query.
        cursor = connection.execute("SELECT 1; SELECT 2", prepare=False)
        assert cursor.nextset() and cursor.fetchone() == (2,)
    said("queries")


def prepared_statements():
    with connect(prepare_threshold=0) as connection:
        for number in range(10):
            with connection.transaction():
                row = connection.execute("SELECT %s::int * 2", (number,)).fetchone()
                assert row == (number * 2,)
        # More statements than the driver keeps, so that it closes some.
        connection.prepared_max = 5
        for number in range(20):
            row = connection.execute(f"SELECT %s::int + {number}", (1,)).fetchone()
            assert row == (1 + number,)
            connection.commit()
    said("prepared statements")


def transactions():
    with connect() as connection:
        connection.execute("INSERT INTO psycopg_rows VALUES (1, 'kept')")
        connection.commit()
        connection.execute("INSERT INTO psycopg_rows VALUES (2, 'lost')")
        connection.rollback()
        with connection.transaction():
            connection.execute("INSERT INTO psycopg_rows VALUES (3, 'kept')")
            try:
                with connection.transaction():
                    connection.execute("INSERT INTO psycopg_rows VALUES (4, 'lost')")
                    connection.execute("SELECT 1 / 0")
            except errors.DivisionByZero:
                pass
        ids = connection.execute("SELECT id FROM psycopg_rows ORDER BY id").fetchall()
        assert ids == [(1,), (3,)], ids
        connection.rollback()
        with connection.transaction(), connection.cursor(name="in_pieces") as cursor:
            cursor.itersize = 10
            cursor.execute("SELECT n FROM generate_series(1, 100) n")
            assert sum(row[0] for row in cursor) == 5050
    said("transactions")


def failures():
    with connect(prepare_threshold=0) as connection:
        for _ in range(3):
            try:
                connection.execute("SELECT * FROM missing_table")
                raise AssertionError("no error")
            except errors.UndefinedTable as error:
                assert error.diag.sqlstate == "42P01"
            try:
                connection.execute("SELECT 1")
                raise AssertionError("no error")
            except errors.InFailedSqlTransaction:
                connection.rollback()
            assert connection.execute("SELECT %s::int", (5,)).fetchone() == (5,)
            connection.rollback()
    said("failures")


def pipelines():
    with connect(autocommit=True, prepare_threshold=1) as connection:
        with connection.pipeline():
            cursors = [connection.execute("SELECT %s::int", (n,)) for n in range(200)]
        assert [cursor.fetchone()[0] for cursor in cursors] == list(range(200))
        for _ in range(3):
            try:
                with connection.pipeline() as pipeline:
                    before = connection.execute("SELECT 1")
                    pipeline.sync()
                    connection.execute("SELECT 1 / %s::int", (0,))
                    connection.execute("SELECT 2")
                    pipeline.sync()
                raise AssertionError("no error")
            except errors.DivisionByZero:
                assert before.fetchone() == (1,)
            assert connection.execute("SELECT 3").fetchone() == (3,)
        with connection.cursor() as cursor:
            rows = [(n, f"many {n}") for n in range(1000, 1500)]
            cursor.executemany("INSERT INTO psycopg_rows VALUES (%s, %s)", rows)
        count = connection.execute("SELECT count(*) FROM psycopg_rows WHERE id >= 1000").fetchone()
        assert count == (500,), count
    said("pipelines")


def copies():
    with connect() as connection, connection.cursor() as cursor:
        with cursor.copy("COPY psycopg_rows FROM STDIN") as copy:
            for number in range(20_000, 30_000):
                copy.write_row((number, f"copied {number}"))
        connection.commit()
        with cursor.copy("COPY (SELECT * FROM psycopg_rows WHERE id >= 20000) TO STDOUT") as copy:
            assert sum(1 for _ in copy.rows()) == 10_000
        connection.commit()
        try:
            with cursor.copy("COPY psycopg_rows FROM STDIN") as copy:
                copy.write(b"no number\tx\n")
            raise AssertionError("no error")
        except errors.InvalidTextRepresentation:
            connection.rollback()
        try:
            with cursor.copy("COPY psycopg_rows FROM STDIN") as copy:
                copy.write_row((1, "twice"))
                raise KeyError("gives up halfway")
        except KeyError:
            connection.rollback()
        assert cursor.execute("SELECT 1").fetchone() == (1,)
    said("copies")


def big_values():
    text = big_text()
    with connect(autocommit=True) as connection:
        assert connection.execute("SELECT %s::text", (text,)).fetchone() == (text,)
        assert connection.execute(f"SELECT length('{text}')").fetchone() == (len(text),)
        row = connection.execute("SELECT repeat('y', %s)", (len(text),)).fetchone()
        assert row == ("y" * len(text),)
    said("big values")


def cancels():
    with connect(autocommit=True) as connection:
        for _ in range(3):
            timer = threading.Timer(0.3, connection.cancel_safe)
            timer.start()
            begun = time.monotonic()
            try:
                connection.execute("SELECT pg_sleep(30)")
                raise AssertionError("not cancelled")
            except errors.QueryCanceled:
                assert time.monotonic() - begun < 20
            timer.join()
            assert connection.execute("SELECT 1").fetchone() == (1,)
    said("cancels")


def many_clients():
    process_ids = []
    failed = []

    def client(number):
        try:
            with connect(prepare_threshold=0) as connection:
                for _ in range(ROUNDS):
                    with connection.transaction():
                        row = connection.execute("SELECT %s::int, pg_backend_pid()", (number,))
                        got, process_id = row.fetchone()
                        assert got == number
                        process_ids.append(process_id)
                        again = connection.execute("SELECT pg_backend_pid()").fetchone()[0]
                        assert again == process_id, "the server changed inside a transaction"
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed
    assert len(process_ids) == CLIENTS * ROUNDS
    check_servers(process_ids)
    said("many clients")


prepare_tables()
queries()
prepared_statements()
transactions()
failures()
pipelines()
copies()
big_values()
cancels()
many_clients()
finish()
