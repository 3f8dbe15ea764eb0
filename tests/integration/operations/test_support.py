"""The test support works: faults are faults, leaks are found, broken pictures are broken."""

import io
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import redis
from PIL import Image, UnidentifiedImageError
from redis.backoff import NoBackoff
from redis.retry import Retry

from labelyard_worker.local.embedded import can_bind, choose_ports
from tests.chaos import slots
from tests.chaos.slots import Link
from tests.support import broken_pictures, leaks, pictures
from tests.support.proxy import TcpProxy
from tests.support.waiting import wait_until


@pytest.fixture
def proxy(clean_valkey) -> Iterator[TcpProxy]:
    with TcpProxy(clean_valkey.port) as started:
        yield started


def client_of(proxy: TcpProxy) -> redis.Redis:
    """Open a client that tries once and gives up after 0.2 s."""
    return redis.Redis(port=proxy.port, socket_timeout=0.2, retry=Retry(NoBackoff(), 0))


def test_a_frozen_connection_stays_open_and_silent_while_new_ones_work(proxy):
    with client_of(proxy) as old, client_of(proxy) as new:
        old.ping()
        proxy.freeze()

        with pytest.raises(redis.TimeoutError):
            old.ping()
        assert new.ping()


def test_a_frozen_connections_end_is_hidden_from_the_server(proxy, clean_valkey):
    with client_of(proxy) as doomed:
        doomed.client_setname("doomed")
        proxy.freeze()

    with redis.Redis.from_url(clean_valkey.url) as direct:
        names = [client["name"] for client in direct.client_list()]
        assert "doomed" in names


def test_a_lost_reply_closes_the_connection_after_the_server_has_done_its_part(proxy, clean_valkey):
    with client_of(proxy) as cut, redis.Redis.from_url(clean_valkey.url) as direct:
        cut.ping()
        proxy.lose_next_reply()

        with pytest.raises(redis.ConnectionError):
            cut.incr("counter")
        assert direct.getdel("counter") == b"1"
        assert cut.ping()


def test_a_dripping_server_sends_byte_by_byte_until_the_limit_is_lifted(proxy, clean_valkey):
    with TcpProxy(clean_valkey.port) as plain, client_of(plain) as direct:
        direct.set("picture", b"x" * 10_000, ex=60)
    with socket.create_connection(("127.0.0.1", proxy.port)) as reader:
        proxy.drip(bytes_per_s=20.0)
        reader.sendall(b"GET picture\r\n")
        first = reader.recv(65_536)
        proxy.drip(bytes_per_s=0)
        rest = b""
        while not rest.endswith(b"x\r\n"):
            rest += reader.recv(65_536)

    assert len(first) <= 2
    assert (first + rest) == b"$10000\r\n" + b"x" * 10_000 + b"\r\n"


def test_links_that_draw_one_port_get_two(clean_valkey, monkeypatch):
    first, second = choose_ports(2)
    draws = iter([(first,), (first,), (second,)])
    monkeypatch.setattr(slots, "choose_ports", lambda _: next(draws))

    one, other = Link(clean_valkey), Link(clean_valkey)  # as a stage makes them: none listens yet
    with one, other:
        assert (one.port, other.port) == (first, second)
        with client_of(one) as client, client_of(other) as other_client:
            assert client.ping()
            assert other_client.ping()


def test_a_link_holds_its_port_while_it_refuses(clean_valkey):
    with Link(clean_valkey) as link, ExitStack() as held:
        link.sever()

        assert not can_bind(link.port, held=held)
        with client_of(link) as client, pytest.raises(redis.ConnectionError):
            client.ping()

        link.start()
        with client_of(link) as client:
            assert client.ping()
    with ExitStack() as held:
        assert can_bind(link.port, held=held)


def test_a_thawed_connection_delivers_what_was_held_back(proxy):
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=2) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(100) == b"+PONG\r\n"
        proxy.freeze()
        connection.sendall(b"PING\r\n")

        proxy.thaw()

        assert connection.recv(100) == b"+PONG\r\n"


def test_a_cut_connection_ends_at_once_while_new_ones_work(proxy):
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=2) as connection:
        connection.sendall(b"PING\r\n")
        connection.recv(100)

        proxy.cut()

        assert connection.recv(100) == b""
    with client_of(proxy) as client:
        assert client.ping()


def test_a_refusing_proxy_refuses_until_it_is_started_again(proxy):
    proxy.refuse()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port))

    proxy.start()
    with client_of(proxy) as client:
        assert client.ping()


def test_waiting_returns_the_answer_or_says_what_did_not_come():
    answers = iter([0, None, "ready"])

    assert wait_until(lambda: next(answers)) == "ready"
    with pytest.raises(AssertionError, match=r"not within 0\.01 s: the moon .last answer: 0"):
        wait_until(lambda: 0, within_s=0.01, message="the moon")


def test_a_key_that_stays_for_ever_is_found_and_kombus_own_are_not(broker_redis, ledger_redis):
    broker_redis.rpush("labelyard.bulk", "a message")
    broker_redis.zadd("unacked_index", {"tag": 1})
    broker_redis.sadd("_kombu.binding.celery", "binding")
    ledger_redis.set("mortal", "x", ex=60)
    ledger_redis.set("immortal", "x")
    ledger_redis.rpush("immortal_list", "x")

    found = leaks.keys_without_ttl([broker_redis, ledger_redis])

    assert found == ["1:immortal", "1:immortal_list"]
    ledger_redis.flushdb()


@pytest.mark.allow_persistent_keys("it is the marker that is tested")
def test_the_marker_allows_keys_that_stay(ledger_redis):
    ledger_redis.set("immortal", "x")

    assert leaks.keys_without_ttl([ledger_redis]) == ["1:immortal"]  # and the test passes


def test_a_process_and_a_thread_left_over_are_found_and_named(monkeypatch):
    monkeypatch.setattr(leaks, "LEFTOVERS_WITHIN_S", 0.1)
    before = leaks.threads_and_processes([])
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="labelyard-test", daemon=True)
    thread.start()
    command = [sys.executable, "-c", "input()"]

    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        left = leaks.left_over_since(before, [])
        process.kill()
    done.set()

    assert "thread labelyard-test" in left
    assert any(one.startswith(f"process {process.pid} ") for one in left)
    assert leaks.left_over_since(before, []) == []


@pytest.mark.parametrize("name", pictures.GOOD_PICTURES)
def test_good_pictures_decode_and_are_always_the_same(name):
    make = pictures.GOOD_PICTURES[name]

    with Image.open(io.BytesIO(make())) as picture:
        picture.load()

    assert picture.size == pictures.SMALL
    assert make() == make()


@pytest.mark.parametrize("name", broken_pictures.UNDECODABLE)
def test_undecodable_pictures_do_not_decode(name):
    content = broken_pictures.UNDECODABLE[name]()

    with pytest.raises((UnidentifiedImageError, OSError)):
        Image.open(io.BytesIO(content)).load()


@pytest.mark.parametrize("name", broken_pictures.TOO_LARGE)
def test_too_large_pictures_are_small_files_that_claim_hundreds_of_megapixels(name, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)  # Pillow's own; intake has another
    content = broken_pictures.TOO_LARGE[name]()

    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(content))
    assert len(content) < 100_000


@pytest.mark.parametrize("name", pictures.PHOTO_FILES)
def test_photographs_come_out_of_the_wheels(name):
    with Image.open(io.BytesIO(pictures.photo(name))) as picture:
        assert min(picture.size) >= 300
