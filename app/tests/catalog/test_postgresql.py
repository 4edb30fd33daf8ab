"""What only a PostgreSQL catalog does: URLs, databases of others, errors of the server."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest
from sqlalchemy import create_engine, make_url, text

from app.catalog import FileRecord, Ledger, open_postgresql
from app.core.errors import OceanoError


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://root@localhost/oceano", "mysql is not supported"),
        ("sqlite:///catalog.sqlite3", "sqlite is not supported"),
        ("postgresql+asyncpg://localhost/oceano", "postgresql\\+asyncpg is not supported"),
        ("localhost:5432", "not a URL|not supported"),
        ("postgresql://localhost", "names no database"),
    ],
)
def test_a_wrong_url_is_an_error_of_the_setting(url: str, reason: str) -> None:
    with pytest.raises(OceanoError, match=reason) as raised:
        open_postgresql(url)
    assert raised.value.code == "invalid_setting"
    assert raised.value.details == {"settings": ["CATALOG_URL"]}


def test_a_server_that_does_not_respond_is_unavailable_and_no_password_is_said(unused_port: int) -> None:
    with pytest.raises(OceanoError, match="refused") as raised:
        open_postgresql(f"postgresql://oceano:secret@127.0.0.1:{unused_port}/oceano")
    assert raised.value.code == "ledger_unavailable"
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(("query", "milliseconds"), [({}, "30000"), ({"tcp_user_timeout": "5000"}, "5000")])
def test_a_connection_whose_packets_are_lost_ends_in_time(
    postgresql_url: str, query: dict[str, str], milliseconds: str
) -> None:
    url = make_url(postgresql_url).update_query_dict(query)
    database = open_postgresql(url.render_as_string(hide_password=False))
    with database.reading() as connection:
        used = connection.connection.driver_connection.info.get_parameters()  # type: ignore[union-attr]
    assert used["tcp_user_timeout"] == milliseconds
    assert (used["keepalives_idle"], used["connect_timeout"]) == ("10", "10")
    database.close()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_url_may_begin_as_those_of_other_programs_do(postgresql_url: str, scheme: str) -> None:
    database = open_postgresql(f"{scheme}://{postgresql_url.partition('://')[2]}")
    with database.reading() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    database.close()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"sslmode": "bogus"}, "bogus"),
        ({"sslmode": "require"}, "SSL was required"),
        ({"channel_binding": "maybe"}, "maybe"),
        ({"options": "-c no_such_setting=1"}, "no_such_setting"),
        ({"options": "-c search_path=nowhere"}, "Create the schema that search_path names"),
    ],
)
def test_a_wrong_option_of_the_connection_is_a_wrong_setting(
    postgresql_url: str, query: dict[str, str], said: str
) -> None:
    with pytest.raises(OceanoError, match=said) as raised:
        open_postgresql(make_url(postgresql_url).update_query_dict(query).render_as_string(hide_password=False))
    assert (raised.value.code, raised.value.details) == ("invalid_setting", {"settings": ["CATALOG_URL"]})


def test_options_of_the_url_are_used_beside_those_that_the_catalog_needs(postgresql_url: str) -> None:
    engine = create_engine(postgresql_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA apart"))
    url = make_url(postgresql_url).update_query_dict({"options": "-c search_path=apart -c synchronous_commit=off"})
    with closing(Ledger(open_postgresql(url.render_as_string(hide_password=False)), "c")) as ledger:
        ledger.record([FileRecord("/a", 1, 2, "i1", "done", 1)])
        with ledger.database.reading() as connection:
            names = ("synchronous_commit", "statement_timeout", "idle_in_transaction_session_timeout")
            used = [connection.execute(text(f"SHOW {name}")).scalar_one() for name in names]
        assert used == ["on", "1min", "1min"]
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM apart.files")).scalar_one() == 1
        assert connection.execute(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")).scalar_one() == 0
    engine.dispose()


def test_a_missing_database_is_a_wrong_setting(postgresql_url: str) -> None:
    with pytest.raises(OceanoError, match="does not exist") as raised:
        open_postgresql(make_url(postgresql_url).set(database="nowhere").render_as_string(hide_password=False))
    assert raised.value.code == "invalid_setting"


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_with_another_encoding_is_refused_and_unchanged(postgresql_url: str, encoding: str) -> None:
    url = make_url(postgresql_url)
    name = f"{url.database}_{encoding.lower()}"
    server = create_engine(url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(
            text(f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        )
    try:
        with pytest.raises(OceanoError, match=f"encoding {encoding}.*UTF8") as raised:
            open_postgresql(url.set(database=name).render_as_string(hide_password=False))
        assert (raised.value.code, raised.value.details) == ("invalid_setting", {"settings": ["CATALOG_URL"]})
    finally:
        with server.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        server.dispose()


def test_a_database_of_another_program_is_refused_and_unchanged(postgresql_url: str) -> None:
    engine = create_engine(postgresql_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE songs (title TEXT)"))
    with pytest.raises(OceanoError, match=r"another program \(songs\)"):
        open_postgresql(postgresql_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")).scalar() == 1
    engine.dispose()


def test_processes_that_start_at_once_create_the_tables_once(postgresql_url: str) -> None:
    failures: list[OceanoError] = []

    def start() -> None:
        try:
            open_postgresql(postgresql_url).close()
        except OceanoError as failure:
            failures.append(failure)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_connection_that_the_server_ends_is_replaced(postgresql_url: str) -> None:
    ledger = Ledger(open_postgresql(postgresql_url), "c")
    ledger.record([FileRecord("/a", 1, 2, "i1", "done", 1)])
    engine = create_engine(postgresql_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name LIKE 'oceano %' AND datname = current_database()"
            )
        )
    engine.dispose()
    assert ledger.paths_of("i1") == ["/a"]
    ledger.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://o:s3cret@127.0.0.1:PORT/nowhere", "does not exist"),
        ("postgresql://o@127.0.0.1:PORT/postgres?password=s3cret", 'role "o" does not exist'),
        ("postgresql://postgres:s3cret@127.0.0.1:PORT/postgres?nonsense=1", "nonsense"),
        ("postgresql://o:s3cret@127.0.0.1:abc/o", "not a URL"),
        ("mysql://o:s3cret@127.0.0.1/o", "mysql is not supported"),
        ("postgresql://o:s3cret@127.0.0.1:PORT", "names no database"),
        ("postgresql://o:p@s3cret/w:s3cret@127.0.0.1:PORT/o", "write @ in the password as %40"),
        ("postgresql://o:p@s3cret@127.0.0.1:PORT/o", "write @ in the password as %40"),
        ("postgresql://o:p@h/s3cret?s3cret@127.0.0.1:PORT/o", "write @ in the password as %40"),
    ],
)
def test_a_wrong_url_is_said_without_its_password(postgresql_url: str, url: str, said: str) -> None:
    with pytest.raises(OceanoError, match=said) as caught:
        open_postgresql(url.replace("PORT", str(make_url(postgresql_url).port)))
    assert caught.value.code == "invalid_setting"
    assert "CATALOG_URL" in caught.value.message
    assert "s3cret" not in caught.value.message + repr(caught.value.details)
