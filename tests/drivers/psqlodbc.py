"""psqlODBC below pyodbc, as it comes and with cursors of the server; errors inside a transaction, by its savepoints."""

import glob
import threading

import pyodbc

from orm import CLIENTS, ROUNDS, SERVER, at_once
from scenario import check_servers, finish, said

# Debian's package odbc-postgresql.
DRIVER = glob.glob("/usr/lib/*/odbc/psqlodbcw.so")[0]

# Connections of their own for each client.
pyodbc.pooling = False


def connect(autocommit=False, **options):
    parts = {
        "Driver": DRIVER,
        "Server": SERVER["host"],
        "Port": SERVER["port"],
        "Database": SERVER["database"],
        "UID": SERVER["username"],
        "PWD": "{" + SERVER["password"] + "}",
    } | options
    return pyodbc.connect(";".join(f"{name}={value}" for name, value in parts.items()), autocommit=autocommit)


def queries(name, **options):
    connection = connect(**options)
    cursor = connection.cursor()
    cursor.execute("DROP TABLE IF EXISTS odbc_rows")
    cursor.execute("CREATE TABLE odbc_rows (id serial PRIMARY KEY, owner varchar(50) UNIQUE, n int)")
    connection.commit()
    cursor.executemany("INSERT INTO odbc_rows (owner, n) VALUES (?, ?)", [(f"many {n}", n) for n in range(300)])
    connection.commit()
    assert cursor.execute("SELECT sum(n) FROM odbc_rows WHERE n < ?", 10).fetchval() == 45
    assert len(cursor.execute("SELECT * FROM odbc_rows ORDER BY id").fetchall()) == 300
    connection.rollback()
    cursor.execute("INSERT INTO odbc_rows (owner) VALUES (?)", "lost")
    connection.rollback()
    # The driver has a savepoint around each statement, so that the transaction goes on after an error.
    cursor.execute("INSERT INTO odbc_rows (owner) VALUES (?)", "kept")
    try:
        cursor.execute("INSERT INTO odbc_rows (owner) VALUES (?)", "many 1")
        raise AssertionError("no error")
    except pyodbc.Error as error:
        assert error.args[0] == "23505", error
    cursor.execute("UPDATE odbc_rows SET n = ? WHERE owner = ?", (7, "kept"))
    assert cursor.rowcount == 1
    connection.commit()
    kept = cursor.execute("SELECT owner, n FROM odbc_rows WHERE owner IN ('lost', 'kept')").fetchall()
    assert [tuple(row) for row in kept] == [("kept", 7)], kept
    # The catalogue, as tools read it.
    assert "odbc_rows" in [row.table_name for row in cursor.tables(table="odbc_rows")]
    assert [row.column_name for row in cursor.columns(table="odbc_rows")] == ["id", "owner", "n"]
    assert [row.column_name for row in cursor.primaryKeys(table="odbc_rows")] == ["id"]
    connection.rollback()
    connection.close()
    said(name)


def many_clients():
    process_ids = []
    lock = threading.Lock()

    def client(number):
        connection = connect(ConnSettings="SET timezone = 'Asia/Tokyo'")
        cursor = connection.cursor()
        for round_ in range(ROUNDS):
            cursor.execute("SELECT set_config('app.tenant', ?, true)", str(number))
            cursor.execute("INSERT INTO odbc_rows (owner) VALUES (?)", f"client {number} {round_}")
            row = cursor.execute("SELECT current_setting('app.tenant'), pg_backend_pid()").fetchone()
            assert row[0] == str(number)
            with lock:
                process_ids.append(row[1])
            assert cursor.execute("SELECT current_setting('timezone')").fetchval() == "Asia/Tokyo"
            connection.commit()
        connection.close()

    at_once(client)
    check_servers(process_ids)
    connection = connect(autocommit=True)
    count = connection.execute("SELECT count(*) FROM odbc_rows WHERE owner LIKE 'client %'").fetchval()
    assert count == CLIENTS * ROUNDS, count
    connection.execute("DROP TABLE odbc_rows")
    connection.close()
    said("many clients")


queries("as it comes")
queries("cursors of the server", UseDeclareFetch=1, Fetch=50)
queries("statements of the client", UseServerSidePrepare=0)
many_clients()
finish()
