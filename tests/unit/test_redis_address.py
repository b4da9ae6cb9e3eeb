"""What the address of a server means."""

import pytest

from nbqueue.brokers.redis.address import parse


def test_a_plain_address_has_defaults():
    address = parse("redis://")

    assert ("server", (("localhost", 6379),), 0) == (address.kind, address.hosts, address.db)
    assert (False, None, None) == (address.tls, address.username, address.password)
    assert "nbq:{default}:" == address.prefix


def test_everything_can_be_said():
    address = parse("rediss://user:p%40ss@[::1]:7000/3?namespace=team&ca=/ca.pem&eviction=allow")

    assert ((("::1", 7000),), 3, True) == (address.hosts, address.db, address.tls)
    assert ("user", "p@ss") == (address.username, address.password)
    assert ("nbq:{team}:", "/ca.pem", "allow") == (address.prefix, address.ca, address.eviction)


def test_a_unix_socket_has_a_path():
    address = parse("unix:///run/redis/redis.sock?db=2")

    assert ("unix", "/run/redis/redis.sock", 2) == (address.kind, address.path, address.db)


def test_sentinels_are_listed_with_the_name_of_their_master():
    address = parse("redis+sentinel://:secret@one,two:5000/main/4")

    assert ("sentinel", (("one", 26379), ("two", 5000)), "main", 4) == (
        address.kind,
        address.hosts,
        address.service,
        address.db,
    )
    assert "secret" == address.password


def test_a_cluster_is_known_by_some_of_its_nodes():
    address = parse("redis+cluster://one:7000,two:7001")

    assert ("cluster", (("one", 7000), ("two", 7001))) == (address.kind, address.hosts)


def test_an_address_is_shown_without_its_password():
    assert "host:1" == str(parse("redis://user:secret@host:1/0"))
    assert "secret" not in repr(str(parse("redis+sentinel://user:secret@host:1/main")))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://host:port", "bad port"),
        ("redis://host/zero", "bad database"),
        ("redis://host?colour=red", "unknown options"),
        ("redis+sentinel:///main", "no host"),
        ("http://host", "unknown scheme"),
    ],
)
def test_a_bad_address_is_refused_in_words_and_without_the_password(url, words):
    with pytest.raises(ValueError, match=words) as caught:
        parse(url.replace("//", "//me:secret@", 1))

    assert "secret" not in str(caught.value)
