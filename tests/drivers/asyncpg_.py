"""asyncpg against any server. It prepares everything, and resets a connection that it pools."""

import asyncio
import os
import ssl

import asyncpg

from scenario import CLIENTS, ROUNDS, big_text, check_servers, finish, said


def tls():
    if "PGSSLROOTCERT" not in os.environ:
        return False
    return ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])


async def connect():
    return await asyncpg.connect(ssl=tls())


async def queries(connection):
    assert await connection.fetchval("SELECT 1") == 1
    rows = await connection.fetch("SELECT $1::int + n AS n FROM generate_series(1, 3) n", 40)
    assert [row["n"] for row in rows] == [41, 42, 43]
    assert await connection.fetchval("SELECT $1::bytea", b"\x00\xff") == b"\x00\xff"
    assert await connection.fetchval("SELECT NULL") is None
    assert await connection.execute("SELECT 1; SELECT 2") == "SELECT 1"
    # An array makes the driver ask the server about its type.
    assert await connection.fetchval("SELECT $1::int[]", [1, 2, 3]) == [1, 2, 3]
    said("queries")


async def prepared_statements(connection):
    statement = await connection.prepare("SELECT $1::int * 2")
    for number in range(10):
        async with connection.transaction():
            assert await statement.fetchval(number) == number * 2
    for number in range(150):
        # More texts than the driver's cache holds, so that it closes some.
        assert await connection.fetchval(f"SELECT $1::int + {number}", 1) == 1 + number
    said("prepared statements")


async def transactions(connection):
    async with connection.transaction():
        await connection.execute("INSERT INTO asyncpg_rows VALUES (1, 'kept')")
        try:
            async with connection.transaction():
                await connection.execute("INSERT INTO asyncpg_rows VALUES (2, 'lost')")
                await connection.execute("SELECT 1 / 0")
        except asyncpg.DivisionByZeroError:
            pass
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("INSERT INTO asyncpg_rows VALUES (3, 'lost')")
    await transaction.rollback()
    rows = await connection.fetch("SELECT id FROM asyncpg_rows ORDER BY id")
    assert [row["id"] for row in rows] == [1]
    async with connection.transaction(isolation="serializable", readonly=True):
        total = 0
        async for row in connection.cursor("SELECT n FROM generate_series(1, 100) n", prefetch=10):
            total += row["n"]
        assert total == 5050
    said("transactions")


async def failures(connection):
    for _ in range(3):
        try:
            await connection.fetch("SELECT * FROM missing_table")
            raise AssertionError("no error")
        except asyncpg.UndefinedTableError as error:
            assert error.sqlstate == "42P01"
        try:
            await connection.fetchval("SELECT 1 / $1::int", 0)
            raise AssertionError("no error")
        except asyncpg.DivisionByZeroError:
            pass
        assert await connection.fetchval("SELECT $1::int", 5) == 5
    said("failures")


async def batches(connection):
    rows = [(number, f"many {number}") for number in range(1000, 1500)]
    await connection.executemany("INSERT INTO asyncpg_rows VALUES ($1, $2)", rows)
    try:
        bad = [(2000, "lost"), (1000, "there already"), (2001, "lost")]
        await connection.executemany("INSERT INTO asyncpg_rows VALUES ($1, $2)", bad)
        raise AssertionError("no error")
    except asyncpg.UniqueViolationError:
        pass
    count = await connection.fetchval("SELECT count(*) FROM asyncpg_rows WHERE id >= 1000")
    assert count == 500, count
    said("batches")


async def copies(connection):
    records = [(number, f"copied {number}") for number in range(20_000, 30_000)]
    await connection.copy_records_to_table("asyncpg_rows", records=records)
    pieces = []

    async def collect(data):
        pieces.append(data)

    await connection.copy_from_query(
        "SELECT id FROM asyncpg_rows WHERE id >= $1", 20_000, output=collect
    )
    assert b"".join(pieces).count(b"\n") == 10_000
    try:
        await connection.copy_records_to_table("asyncpg_rows", records=records[:1])
        raise AssertionError("no error")
    except asyncpg.UniqueViolationError:
        pass
    assert await connection.fetchval("SELECT 1") == 1
    said("copies")


async def big_values(connection):
    text = big_text()
    assert await connection.fetchval("SELECT $1::text", text) == text
    assert await connection.fetchval("SELECT repeat('y', $1)", len(text)) == "y" * len(text)
    said("big values")


async def cancels(connection):
    for _ in range(3):
        try:
            # The driver cancels by a CancelRequest when a call takes too long.
            await connection.fetchval("SELECT pg_sleep(30)", timeout=0.3)
            raise AssertionError("not cancelled")
        except asyncio.TimeoutError:
            pass
        assert await connection.fetchval("SELECT 1") == 1
    said("cancels")


async def many_clients():
    process_ids = []

    async def client(number):
        connection = await connect()
        for _ in range(ROUNDS):
            async with connection.transaction():
                row = await connection.fetchrow("SELECT $1::int, pg_backend_pid()", number)
                assert row[0] == number
                process_ids.append(row[1])
                assert await connection.fetchval("SELECT pg_backend_pid()") == row[1]
        await connection.close()

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    assert len(process_ids) == CLIENTS * ROUNDS
    check_servers(process_ids)
    said("many clients")


async def main():
    connection = await connect()
    await connection.execute("DROP TABLE IF EXISTS asyncpg_rows")
    await connection.execute("CREATE TABLE asyncpg_rows (id int PRIMARY KEY, body text)")
    for scenario in (
        queries,
        prepared_statements,
        transactions,
        failures,
        batches,
        copies,
        big_values,
        cancels,
    ):
        await scenario(connection)
    await connection.close()
    await many_clients()
    finish()


asyncio.run(main())
