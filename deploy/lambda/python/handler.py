"""One connection for the life of the container, with psycopg.

Settings are those of ../node/connection.js: DB_HOST, DB_PORT, DB_NAME, DB_USER; DB_PASSWORD, DB_SECRET or
DB_IAM=true; DB_IAM_HOST, DB_IAM_PORT; DB_SSL_CA or DB_SSL=true.
"""

import json
import os
import tempfile
import time

import psycopg

# A connection that was not used for longer is not trusted: a frozen container does not see it close.
# Below pgweir's idle_client_timeout of 30 minutes.
IDLE_MAX_S = 10 * 60

connection = None
last_used = 0.0


def tls():
    """libpq's sslmode and sslrootcert."""
    authority = os.environ.get("DB_SSL_CA")
    if not authority:
        if os.environ.get("DB_SSL") == "true":
            return {"sslmode": "verify-full", "sslrootcert": "system"}
        return {"sslmode": "disable"}
    if "-----BEGIN" in authority:
        # libpq reads files only; /tmp is the one place that a function may write to.
        with tempfile.NamedTemporaryFile("w", suffix=".pem", delete=False) as file:
            file.write(authority)
        authority = file.name
    return {"sslmode": "verify-full", "sslrootcert": authority}


def read_secret():
    import boto3

    answer = boto3.client("secretsmanager").get_secret_value(SecretId=os.environ["DB_SECRET"])
    return json.loads(answer["SecretString"])


def token(user):
    """Good for 15 minutes, and only for logging in."""
    import boto3

    environment = os.environ
    return boto3.client("rds").generate_db_auth_token(
        DBHostname=environment.get("DB_IAM_HOST") or environment["DB_HOST"],
        Port=int(environment.get("DB_IAM_PORT") or environment.get("DB_PORT") or 5432),
        DBUsername=user,
    )


def connect():
    environment = os.environ
    user = environment.get("DB_USER")
    if environment.get("DB_IAM") == "true":
        password = token(user)
    elif "DB_SECRET" in environment:
        secret = read_secret()
        user, password = user or secret["username"], secret["password"]
    else:
        password = environment["DB_PASSWORD"]
    return psycopg.connect(
        host=environment["DB_HOST"],
        port=int(environment.get("DB_PORT") or 5432),
        dbname=environment["DB_NAME"],
        user=user,
        password=password,
        connect_timeout=20,
        autocommit=True,
        **tls(),
    )


def usable():
    global connection
    if connection is not None and (connection.closed or time.time() - last_used > IDLE_MAX_S):
        connection.close()
        connection = None
    if connection is None:
        connection = connect()
    return connection


def work(connection, event):
    """A query with a parameter, and a short transaction."""
    (n,) = connection.execute("SELECT %s::int", [event.get("n", 0)]).fetchone()
    with connection.transaction():
        connection.execute("SELECT pg_sleep(0.01)")
    return {"n": n}


def handler(event, context):
    global last_used
    try:
        return work(usable(), event)
    finally:
        last_used = time.time()
