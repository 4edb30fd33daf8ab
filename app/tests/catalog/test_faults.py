"""What happens to requests while PostgreSQL restarts, is full, read-only, slow, or out of connections."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from threading import Event

import pytest
from sqlalchemy import create_engine, make_url

from app.catalog import FileRecord, Jobs, Ledger, Worker, leases, open_postgresql, postgresql, writers_lock
from app.catalog.claims import ClaimedLedger
from app.core.errors import OceanoError
from app.core.types import File
from tests.support.catalogs import new_postgresql_database
from tests.support.dying import wait_for, wait_until_suspended
from tests.support.postgresql import PostgresServer, binaries, shared_server

CONTEXT = multiprocessing.get_context("forkserver")
pytestmark = pytest.mark.skipif(not binaries(), reason="PostgreSQL is not installed")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that is as durable as a real one, with few connections."""
    server = PostgresServer(durable=True, max_connections=20).start()
    yield server
    server.remove()


@pytest.fixture
def ledger(server: PostgresServer) -> Iterator[Ledger]:
    """A ledger in a new database."""
    server.run("DROP DATABASE IF EXISTS oceano WITH (FORCE)")
    server.run("CREATE DATABASE oceano")
    opened = Ledger(open_postgresql(_url(server)), "c")
    yield opened
    opened.close()


def _url(server: PostgresServer) -> str:
    return make_url(server.url).set(database="oceano").render_as_string(hide_password=False)


def _file(number: int) -> FileRecord:
    return FileRecord(f"/{number}", 1, 2, f"i{number}", "done", 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_an_ingest_goes_on_when_the_server_is_restarted(ledger: Ledger, server: PostgresServer, number: int) -> None:
    ledger.database.retries.enable(Event(), 60)
    stop, recorded = threading.Event(), []

    def work() -> None:
        while not stop.is_set():
            ledger.record([_file(len(recorded))])
            assert ledger.file(f"/{len(recorded)}") is not None
            recorded.append(True)

    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(work)
        for _ in range(2):
            time.sleep(0.3)
            server.stop(number)
            time.sleep(0.5)
            server.start()  # in this thread: the server ends with the thread that started it
        before = len(recorded)
        while len(recorded) < before + 10 and not working.done():
            time.sleep(0.05)
        stop.set()
        working.result()
    assert ledger.totals().done == len(recorded)


def test_a_service_says_at_once_that_the_server_is_away_and_recovers(ledger: Ledger, server: PostgresServer) -> None:
    server.stop()
    start = time.monotonic()
    with pytest.raises(OceanoError, match=r"127\.0\.0\.1") as caught:
        ledger.totals()
    assert (caught.value.code, caught.value.details["settings"]) == ("ledger_unavailable", ["CATALOG_URL"])
    assert time.monotonic() - start < 5
    server.start()
    assert ledger.totals().done == 0


def test_a_stop_ends_the_wait_for_the_server(ledger: Ledger, server: PostgresServer) -> None:
    stop = Event()
    ledger.database.retries.enable(stop, 60)
    server.stop()
    threading.Timer(0.5, stop.set).start()
    start = time.monotonic()
    with pytest.raises(OceanoError):
        ledger.record([_file(1)])
    assert time.monotonic() - start < 10
    server.start()


def test_without_a_free_connection_an_ingest_waits(ledger: Ledger, server: PostgresServer) -> None:
    ledger.close()  # its connections are taken by others
    engine = create_engine(_url(server), pool_size=50)
    taken = [engine.connect() for _ in range(17)]  # three are kept for the administrator, who we are
    with pytest.raises(Exception, match="too many clients"):
        for _ in range(10):
            taken.append(engine.connect())
    with pytest.raises(OceanoError, match="too many clients"):
        ledger.totals()
    ledger.database.retries.enable(Event(), 60)
    threading.Timer(0.7, lambda: [one.close() for one in taken] and engine.dispose()).start()
    ledger.record([_file(1)])
    assert ledger.totals().done == 1
    engine.dispose()


def test_a_read_only_database_is_said(ledger: Ledger, server: PostgresServer) -> None:
    ledger.record([_file(1)])
    ledger.close()
    server.run("ALTER DATABASE oceano SET default_transaction_read_only = on")
    again = Ledger(open_postgresql(_url(server)), "c")
    assert again.totals().done == 1
    again.database.retries.enable(Event(), 60)
    start = time.monotonic()
    with pytest.raises(OceanoError, match="read-only") as caught:
        again.record([_file(2)])
    assert caught.value.code == "ledger_unavailable"
    assert "CATALOG_URL" in caught.value.message
    assert time.monotonic() - start < 5, "it will not pass"
    again.close()


def test_a_lock_that_another_program_holds_is_an_error_in_time(
    ledger: Ledger, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgresql._OF_THE_SESSION, "statement_timeout", 500)
    slow = Ledger(open_postgresql(_url(server)), "c")
    engine = create_engine(_url(server))
    with engine.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE files IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(OceanoError, match="took longer than") as caught:
            slow.record([_file(1)])
        assert caught.value.code == "ledger_unavailable"
        slow.database.retries.enable(Event(), 60)  # as an ingest does
        threading.Timer(1.2, connection.rollback).start()
        slow.record([_file(1)])
    slow.close()
    engine.dispose()


def test_while_one_has_the_catalog_to_itself_others_wait(ledger: Ledger, server: PostgresServer) -> None:
    other = Ledger(open_postgresql(_url(server)), "c")
    recorded = threading.Event()

    def record() -> None:
        other.record([_file(2)])
        recorded.set()

    with ledger.exclusive():
        threading.Thread(target=record, daemon=True).start()
        ledger.record([_file(1)])
        with ledger.exclusive():
            ledger.record([_file(3)])
        assert not recorded.wait(0.5)
        assert ledger.totals().done == 2
    assert recorded.wait(10)
    assert ledger.totals().done == 3
    other.close()


def test_the_lock_ends_with_its_connection_and_its_owner_writes_no_more(ledger: Ledger, server: PostgresServer) -> None:
    with closing(Ledger(open_postgresql(_url(server)), "c")) as other, ThreadPoolExecutor(1) as threads:
        with pytest.raises(OceanoError, match="lost its connection"), ledger.exclusive():
            server.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'oceano %' "
                "AND state = 'idle in transaction'"
            )
            threads.submit(other.record, [_file(1)]).result(10)
            with pytest.raises(OceanoError, match="lost its connection"):
                ledger.record([_file(2)])
        assert other.totals().done == 1


def test_a_process_that_keeps_the_catalog_to_itself_for_long_is_named_and_a_stop_ends_the_wait(
    ledger: Ledger, server: PostgresServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writers_lock, "_SAID_AFTER_SECONDS", 0.3)
    stop = Event()
    with closing(Ledger(open_postgresql(_url(server)), "c")) as other, ThreadPoolExecutor(3) as threads:
        other.database.retries.enable(stop)
        with ledger.exclusive():
            recording = threads.submit(other.record, [_file(1)])
            locking = threads.submit(_enter, other)
            jobs = Jobs(other.database, "c")
            job_id = threads.submit(lambda: jobs.stop(jobs.add("/", {}, "tests")).id).result(10)
            wait_for(lambda: len(caplog.records) >= 2)
            stop.set()
            for waiting in (recording, locking):
                with pytest.raises(
                    OceanoError, match=rf"stopped while waiting for oceano .*:{os.getpid()} at 127"
                ) as e:
                    waiting.result(10)
                assert e.value.code == "ledger_unavailable"
    assert [one.levelname for one in caplog.records] == ["WARNING", "WARNING"]
    assert f":{os.getpid()} at 127.0.0.1" in caplog.text
    assert Jobs(ledger.database, "c").get(job_id).state == "interrupted"


def test_the_wait_for_the_catalog_has_an_end(
    ledger: Ledger, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers_lock, "_LONGEST_WAIT_SECONDS", 0.3)
    with closing(Ledger(open_postgresql(_url(server)), "c")) as other, ThreadPoolExecutor(1) as threads:
        other.database.retries.enable(Event())
        with ledger.exclusive(), pytest.raises(OceanoError, match=r"waited for .* minutes for oceano"):
            threads.submit(other.record, [_file(1)]).result(10)


def test_a_long_time_alone_with_the_catalog_keeps_the_lock(
    ledger: Ledger, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgresql._OF_THE_SESSION, "idle_in_transaction_session_timeout", 700)
    monkeypatch.setattr(writers_lock, "_BEAT_SECONDS", 0.1)
    with closing(Ledger(open_postgresql(_url(server)), "c")) as alone, alone.exclusive():
        time.sleep(1.5)
        alone.record([_file(1)])
    assert ledger.totals().done == 1


def _enter(ledger: Ledger) -> None:
    with ledger.exclusive():
        pass


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "in a transaction"])
def test_a_suspended_process_blocks_the_others_for_a_while_only(
    ledger: Ledger, server: PostgresServer, alone: bool
) -> None:
    suspended = CONTEXT.Process(target=_suspend_itself, args=(_url(server), alone))
    suspended.start()
    try:
        wait_until_suspended(suspended.pid or 0)
        start = time.monotonic()
        if alone:
            ledger.record([_file(1)])
        else:
            _enter(ledger)
        assert 0.5 < time.monotonic() - start < 10
    finally:
        suspended.kill()
        suspended.join()


def _suspend_itself(url: str, alone: bool) -> None:
    postgresql._OF_THE_SESSION["idle_in_transaction_session_timeout"] = 1500
    ledger = Ledger(open_postgresql(url), "c")
    with ledger.exclusive() if alone else ledger.database.writing():
        os.kill(os.getpid(), signal.SIGSTOP)


def test_workers_go_on_after_the_server_was_away_for_longer_than_their_leases(
    ledger: Ledger, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Jobs(ledger.database, "c")
    ingest, dead, late = (Worker(ledger.database, "c", name, lease_seconds=1) for name in ("ingest", "dead", "new"))
    for worker in (ingest, dead):
        worker._register()  # without a thread that renews the lease
    job_id, dead_id = (jobs.add("/", {}, "tests", worker=one.id) for one in (ingest, dead))
    server.stop(signal.SIGQUIT)
    time.sleep(2.2)
    server.start()
    late._register()  # a process that starts now
    jobs.settle()
    assert jobs.get(job_id).state == "running"
    ingest.renew()
    assert not ingest.stop.is_set()
    jobs.end(job_id, "done", worker=ingest.id)
    assert jobs.get(dead_id).state == "running"
    monkeypatch.setattr(leases, "AFTER_START_SECONDS", -2)  # as if they had passed; it may still be the same second
    jobs.settle()
    assert jobs.get(dead_id).state == "interrupted"
    with pytest.raises(OceanoError, match="others may do its job"):
        jobs.end(dead_id, "done", worker=dead.id)


def test_a_wrong_password_is_a_wrong_setting(ledger: Ledger, server: PostgresServer) -> None:
    server.run("CREATE ROLE guarded LOGIN PASSWORD 'right'")
    access = server.folder / "data" / "pg_hba.conf"
    before = access.read_text()
    access.write_text("host all guarded 127.0.0.1/32 scram-sha-256\n" + before)
    server.run("SELECT pg_reload_conf()")
    for password in ("", ":wrong"):
        url = f"postgresql://guarded{password}@127.0.0.1:{server.port}/oceano"
        with pytest.raises(OceanoError, match="password") as caught:
            open_postgresql(url)
        assert caught.value.code == "invalid_setting"
        assert "wrong" not in caught.value.message
    access.write_text(before)
    server.run("DROP ROLE guarded")


def test_a_result_that_is_written_twice_counts_once(ledger: Ledger) -> None:
    """As after a connection that was cut between the commit and its answer."""
    worker = Worker(ledger.database, "c", "tests")
    worker.join()
    jobs = Jobs(ledger.database, "c")
    job_id = jobs.add("/", {}, "tests")
    assert worker.take_job() == job_id
    assert worker.hold("scan")
    claimed = ClaimedLedger(worker, job_id)
    claimed.add([File("/1", 1, 2, 3)], 1)
    assert [one.path for one in claimed.take(10)] == ["/1"]
    for _ in range(2):
        claimed.record([_file(1)], counts={"done": 1, "faces": 1})
    assert jobs.get(job_id).counts == {"files": 1, "done": 1, "faces": 1}
    worker.leave()


def test_a_new_database_is_deleted_in_the_end() -> None:
    with new_postgresql_database() as url:
        open_postgresql(url).close()
    with pytest.raises(OceanoError, match="does not exist"):
        open_postgresql(url)


def test_a_full_disk_is_said_and_nothing_recorded_is_lost() -> None:
    server = shared_server()
    place = server.folder / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m,mode=777", "tmpfs", place], check=False).returncode != 0:
        pytest.skip("this user may not mount a small disk")
    try:
        shutil.chown(place, "postgres", "postgres")
        server.run(f"CREATE TABLESPACE small LOCATION '{place}'")
        server.run("CREATE DATABASE full_one TABLESPACE small")
        ledger = Ledger(open_postgresql(_url(server).replace("/oceano", "/full_one")), "c")
        ledger.database.retries.enable(Event(), 60)
        recorded = 0
        with pytest.raises(OceanoError, match="No space left on device") as caught:
            while recorded < 200_000:
                files = [replace(_file(recorded + one), message=os.urandom(900).hex()) for one in range(100)]
                ledger.record(files)
                recorded += len(files)
        assert caught.value.code == "disk_full"
        assert ledger.totals().done == recorded > 0
        ledger.close()
        server.run("DROP DATABASE full_one WITH (FORCE)")
        server.run("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "--lazy", place], check=False)
