"""Django: migrations, the ORM, atomic blocks and savepoints, cursors of the server, persistent connections."""

import django
from django.conf import settings

from orm import CLIENTS, ROUNDS, SERVER, at_once
from scenario import check_servers, finish, said

DATABASE = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": SERVER["database"],
    "USER": SERVER["username"],
    "PASSWORD": SERVER["password"],
    "HOST": SERVER["host"],
    "PORT": SERVER["port"],
    # Connections stay open from one request to the next.
    "CONN_MAX_AGE": None,
    "CONN_HEALTH_CHECKS": True,
}

settings.configure(
    # One connection for each thread, and a pool that binds on the server.
    DATABASES={
        "default": DATABASE,
        "pooled": DATABASE
        | {"CONN_MAX_AGE": 0, "OPTIONS": {"server_side_binding": True, "pool": {"min_size": 1, "max_size": 3}}},
    },
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
    USE_TZ=True,
    TIME_ZONE="Europe/Berlin",
    SECRET_KEY="of no use",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from django.contrib.auth.models import Group, Permission, User  # noqa: E402
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import IntegrityError, close_old_connections, connection, connections, transaction  # noqa: E402
from django.db.models import Count, F  # noqa: E402


def forget_tables():
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            if table.startswith(("django_", "auth_")):
                cursor.execute(f'DROP TABLE "{table}" CASCADE')


def migrations():
    forget_tables()
    call_command("migrate", verbosity=0)
    call_command("migrate", "sessions", "zero", verbosity=0)
    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        assert "auth_user" in connection.introspection.table_names(cursor)
        columns = connection.introspection.get_table_description(cursor, "auth_group")
        assert [column.name for column in columns] == ["id", "name"]
    assert Permission.objects.count() == 20, Permission.objects.count()
    said("migrations")


def orm():
    users = User.objects.bulk_create(
        [User(username=f"user {n}", email=f"{n}@example.com") for n in range(1200)], batch_size=500
    )
    assert len({user.pk for user in users}) == 1200
    # A cursor of the server, WITH HOLD when there is no transaction around it.
    assert sum(1 for _ in User.objects.order_by("pk").iterator(chunk_size=100)) == 1200
    with transaction.atomic():
        assert sum(1 for _ in User.objects.iterator(chunk_size=100)) == 1200
    group = Group.objects.create(name="readers")
    group.user_set.add(*users[:10])
    group.permissions.set(Permission.objects.all()[:5])
    assert Group.objects.annotate(size=Count("user")).get().size == 10
    assert User.objects.filter(groups=group).update(first_name=F("username")) == 10
    found, created = User.objects.get_or_create(username="user 7")
    assert found.pk == users[7].pk and not created
    User.objects.bulk_update(users[:20], ["email"])
    store = SessionStore()
    store["cart"] = [1, 2, 3]
    store.save()
    assert SessionStore(store.session_key)["cart"] == [1, 2, 3]
    said("orm")


def transactions():
    try:
        with transaction.atomic():
            User.objects.create(username="lost")
            raise KeyError("gives up")
    except KeyError:
        pass
    with transaction.atomic():
        User.objects.create(username="kept")
        try:
            with transaction.atomic():
                User.objects.create(username="user 1")
            raise AssertionError("no error")
        except IntegrityError as error:
            assert error.__cause__.sqlstate == "23505"
        with transaction.atomic(durable=False):
            User.objects.select_for_update().get(username="kept")
    assert [User.objects.filter(username=name).count() for name in ("lost", "kept")] == [0, 1]
    assert len(User.objects.raw("SELECT * FROM auth_user WHERE id < %s", [0])) == 0
    said("transactions")


def many_clients():
    """As requests do: what is too old is closed, work, and again."""
    process_ids = []

    def client(number, database="default"):
        for round_ in range(ROUNDS):
            close_old_connections()
            with transaction.atomic(using=database):
                User.objects.using(database).create(username=f"{database} {number} {round_}")
                with connections[database].cursor() as cursor:
                    cursor.execute("SELECT set_config('app.tenant', %s, true)", [str(number)])
                    cursor.execute("SELECT current_setting('app.tenant'), pg_backend_pid()")
                    tenant, process_id = cursor.fetchone()
                    assert tenant == str(number)
                    process_ids.append(process_id)
            with connections[database].cursor() as cursor:
                cursor.execute("SHOW timezone")
                assert cursor.fetchone() == ("UTC",)
        connections[database].close()

    at_once(client)
    at_once(lambda number: client(number, "pooled"))
    check_servers(process_ids)
    assert User.objects.filter(username__startswith="default ").count() == CLIENTS * ROUNDS
    assert User.objects.filter(username__startswith="pooled ").count() == CLIENTS * ROUNDS
    said("many clients")


migrations()
orm()
transactions()
many_clients()
forget_tables()
connections["pooled"].close_pool()
finish()
