"""SQLAlchemy with asyncpg, which prepares everything and asks about types; its pool with both ways to reset."""

import asyncio

import sqlalchemy
from sqlalchemy import JSON, event, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from orm import CLIENTS, ROUNDS, SERVER
from scenario import check_servers, finish, said

URL = sqlalchemy.URL.create("postgresql+asyncpg", **SERVER)


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "sqlalchemy_asyncpg_rows"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(unique=True)
    body: Mapped[dict] = mapped_column(JSON)


def reset_all(engine):
    """Not DISCARD ALL: asyncpg would not know that its statements are gone."""

    @event.listens_for(engine.sync_engine, "reset")
    def reset(connection, _record, state):
        connection.rollback()
        if not state.terminate_only:
            connection.autocommit = True
            connection.cursor().execute("RESET ALL")
            connection.autocommit = False


async def migrate(engine):
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
        names = await connection.run_sync(lambda sync: sqlalchemy.inspect(sync).get_table_names())
        assert "sqlalchemy_asyncpg_rows" in names
    said("migration and reflection")


async def orm(engine):
    async with AsyncSession(engine, expire_on_commit=False) as session:
        session.add_all([Row(owner=f"many {n}", body={"n": n}) for n in range(1500)])
        await session.commit()
        try:
            async with session.begin_nested():
                session.add(Row(owner="many 1", body={}))
                await session.flush()
            raise AssertionError("no error")
        except IntegrityError as error:
            assert error.orig.sqlstate == "23505"
        result = await session.stream(select(Row).execution_options(yield_per=100))
        seen = 0
        async for row in result.scalars():
            seen += row.body["n"] >= 0
        assert seen == 1500
        await session.rollback()
        assert await session.scalar(select(func.count()).select_from(Row)) == 1500
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="SERIALIZABLE")
        assert await connection.scalar(text("SHOW transaction_isolation")) == "serializable"
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("VACUUM sqlalchemy_asyncpg_rows"))
    said("orm")


async def many_clients(engine, name, resets):
    process_ids = []

    async def client(number):
        for round_ in range(ROUNDS):
            async with AsyncSession(engine) as session, session.begin():
                await session.execute(select(func.set_config("app.tenant", str(number), True)))
                session.add(Row(owner=f"{name} {number} {round_}", body={"number": number}))
                await session.flush()
                row = (await session.execute(text("SELECT current_setting('app.tenant'), pg_backend_pid()"))).one()
                assert row[0] == str(number), row
                process_ids.append(row[1])
            if resets:
                async with engine.begin() as connection:
                    assert await connection.scalar(text("SHOW work_mem")) == "4MB"
                    await connection.execute(text("SET work_mem = '9MB'"))

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    check_servers(process_ids)
    async with AsyncSession(engine) as session:
        count = await session.scalar(select(func.count()).where(Row.owner.like(f"{name} %")))
        assert count == CLIENTS * ROUNDS, count
    said(name)


async def main():
    rolling_back = create_async_engine(URL, pool_size=3, max_overflow=2, pool_pre_ping=True)
    await migrate(rolling_back)
    await orm(rolling_back)
    await many_clients(rolling_back, "pool that rolls back", resets=False)
    await rolling_back.dispose()

    settings = {"server_settings": {"application_name": "with settings", "statement_timeout": "20s"}}
    resetting = create_async_engine(URL, pool_size=3, pool_reset_on_return=None, connect_args=settings)
    reset_all(resetting)
    await many_clients(resetting, "pool that resets all", resets=True)
    async with resetting.connect() as connection:
        assert await connection.scalar(text("SHOW statement_timeout")) == "20s"
    await resetting.dispose()

    engine = create_async_engine(URL)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    await engine.dispose()
    finish()


asyncio.run(main())
