"""SQLAlchemy with psycopg: its pool with both ways to reset, the ORM, savepoints, reflection."""

import sqlalchemy
from sqlalchemy import ForeignKey, Identity, Integer, MetaData, String, Table
from sqlalchemy import create_engine, event, func, insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.pool import NullPool

from orm import CLIENTS, ROUNDS, SERVER, at_once
from scenario import check_servers, finish, said

URL = sqlalchemy.URL.create("postgresql+psycopg", **SERVER)


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "sqlalchemy_authors"
    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    books: Mapped[list["Book"]] = relationship(back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "sqlalchemy_books"
    id: Mapped[int] = mapped_column(primary_key=True)  # a serial column
    author_id: Mapped[int] = mapped_column(ForeignKey(Author.id), index=True)
    title: Mapped[str]
    copies: Mapped[int] = mapped_column(default=0)
    author: Mapped[Author] = relationship(back_populates="books")


def discard_all(engine):
    """The recipe of the documentation for a reset that leaves nothing."""

    @event.listens_for(engine, "reset")
    def reset(connection, _record, state):
        connection.rollback()
        if not state.terminate_only:
            connection.autocommit = True
            connection.execute("DISCARD ALL")
            connection.autocommit = False


def migrate(engine):
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE sqlalchemy_books ADD COLUMN note text DEFAULT 'none'"))
    inspector = inspect(engine)
    assert inspector.has_table("sqlalchemy_books")
    columns = [column["name"] for column in inspector.get_columns("sqlalchemy_books")]
    assert columns == ["id", "author_id", "title", "copies", "note"], columns
    assert inspector.get_foreign_keys("sqlalchemy_books")[0]["referred_table"] == "sqlalchemy_authors"
    reflected = Table("sqlalchemy_books", MetaData(), autoload_with=engine)
    assert [key.name for key in reflected.primary_key] == ["id"]
    said("migration and reflection")


def orm(engine):
    with Session(engine) as session:
        ann = Author(name="Ann", books=[Book(title=f"A{n}") for n in range(30)])
        session.add_all([ann, Author(name="Ben")])
        session.commit()
        assert ann.id and len(ann.books) == 30
        try:
            with session.begin_nested():
                session.add(Author(name="Ann"))
                session.flush()
            raise AssertionError("no error")
        except IntegrityError as error:
            assert error.orig.sqlstate == "23505"
        with session.begin_nested():
            ann.books[0].copies = 7
        session.delete(ann.books[1])
        session.commit()
        total = session.scalar(select(func.sum(Book.copies)).join(Author).where(Author.name == "Ann"))
        assert total == 7
        assert session.scalar(select(func.count()).select_from(Book)) == 29
        ben = session.scalars(select(Author).where(Author.name == "Ben").with_for_update()).one()
        ben.name = "Bea"
        session.rollback()
        assert ben.name == "Ben"
    said("orm")


def core(engine):
    with engine.begin() as connection:
        author = connection.scalar(insert(Author).values(name="Cid").returning(Author.id))
        rows = [{"author_id": author, "title": f"C{n}", "copies": n} for n in range(2500)]
        ids = connection.scalars(insert(Book).returning(Book.id, sort_by_parameter_order=True), rows).all()
        assert len(set(ids)) == 2500 and ids == sorted(ids)
        changed = connection.execute(update(Book).where(Book.author_id == author).values(copies=1))
        assert changed.rowcount == 2500
    with engine.connect() as connection:
        # A cursor of the server.
        streaming = connection.execution_options(stream_results=True, yield_per=100)
        seen = sum(1 for _ in streaming.execute(select(Book.id).where(Book.author_id == author)))
        assert seen == 2500
        connection.rollback()
    with engine.connect().execution_options(isolation_level="SERIALIZABLE") as connection:
        assert connection.scalar(text("SHOW transaction_isolation")) == "serializable"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM sqlalchemy_books"))
    with engine.connect() as connection:
        assert connection.scalar(text("SHOW transaction_isolation")) == "read committed"
        try:
            connection.execute(text("SELECT 1 / 0"))
            raise AssertionError("no error")
        except DBAPIError as error:
            assert error.orig.sqlstate == "22012"
    said("core")


def many_clients(engine, resets):
    """More threads than connections in the pool; what each sets is gone for the next one if the pool resets it."""
    process_ids = []

    def client(number):
        for round_ in range(ROUNDS):
            with Session(engine) as session, session.begin():
                # The tenant of row-level security, and a role of the application.
                session.execute(select(func.set_config("app.tenant", str(number), True)))
                session.execute(text("SET LOCAL statement_timeout = '20s'"))
                author = Author(name=f"client {number} {round_}", books=[Book(title="x"), Book(title="y")])
                session.add(author)
                session.flush()
                row = session.execute(text("SELECT current_setting('app.tenant'), pg_backend_pid()")).one()
                assert row[0] == str(number), row
                process_ids.append(row[1])
            if resets:
                with engine.begin() as connection:
                    assert connection.scalar(text("SHOW work_mem")) == "4MB"
                    connection.execute(text("SET work_mem = '9MB'"))
                    assert connection.scalar(text("SHOW work_mem")) == "9MB"

    at_once(client)
    check_servers(process_ids)
    with Session(engine) as session:
        count = session.scalar(select(func.count()).where(Author.name.like("client %")))
        assert count == CLIENTS * ROUNDS, count
        session.execute(text("DELETE FROM sqlalchemy_books"))
        session.execute(text("DELETE FROM sqlalchemy_authors"))
        session.commit()


def search_path(engine):
    @event.listens_for(engine, "connect", insert=True)
    def connected(connection, _record):
        before = connection.autocommit
        connection.autocommit = True
        connection.execute("SET SESSION search_path = pg_catalog, public")
        connection.autocommit = before

    def client(_number):
        for _ in range(ROUNDS):
            with engine.connect() as connection:
                assert connection.scalar(text("SHOW search_path")) == "pg_catalog, public"

    at_once(client)


def main():
    rolling_back = create_engine(URL, pool_size=3, max_overflow=2, pool_pre_ping=True)
    migrate(rolling_back)
    orm(rolling_back)
    core(rolling_back)
    many_clients(rolling_back, resets=False)
    rolling_back.dispose()
    said("pool that rolls back")

    discarding = create_engine(URL, pool_size=3, pool_reset_on_return=None, connect_args={"prepare_threshold": 0})
    discard_all(discarding)
    many_clients(discarding, resets=True)
    discarding.dispose()
    said("pool that discards all")

    for engine in (create_engine(URL, poolclass=NullPool), create_engine(URL, pool_size=2)):
        search_path(engine)
        engine.dispose()
    said("settings at connect")
    engine = create_engine(URL)
    Base.metadata.drop_all(engine)
    engine.dispose()
    finish()


main()
