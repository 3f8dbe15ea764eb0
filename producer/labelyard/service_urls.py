"""Addresses of the broker and the ledger: what can be connected to, and a sentence for the rest.

No sentence repeats the address: it may hold a password.
"""

from collections.abc import Iterable
from typing import Annotated, Final
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator

REDIS_SCHEMES: Final = ("redis", "rediss")
AMQP_SCHEMES: Final = ("amqp", "amqps", "pyamqp")
EXAMPLE: Final = "redis://host:6379/0"


def check_ledger_url(url: str) -> str:
    """Return *url* if the ledger can be reached at such an address.

    Raises:
        ValueError: The address cannot be used; the text names the right form.
    """
    _check_shape(url, REDIS_SCHEMES)
    _check_redis(_split(url))
    return url


def check_broker_url(url: str) -> str:
    """Return *url* if a broker can be reached at such an address.

    Raises:
        ValueError: The address cannot be used; the text names the right form.
    """
    _check_shape(url, (*REDIS_SCHEMES, *AMQP_SCHEMES))
    if url.startswith("redis"):
        _check_redis(_split(url))
    else:
        for one in url.split(";"):  # kombu tries them in turn
            _check_shape(one, AMQP_SCHEMES)
            _split(one)
    return url


def _check_shape(url: str, schemes: Iterable[str]) -> None:
    if not url.strip():
        raise ValueError(f"is empty: write {EXAMPLE}, or do not set the variable")
    if url != url.strip(" \t\r\n\"'"):
        raise ValueError("begins or ends with a quotation mark or a blank: remove it")
    if url.startswith(("unix:", "redis+socket:", "socket:")):
        raise ValueError(
            "a Unix socket cannot be used: let Redis listen on 127.0.0.1, and write "
            "redis://127.0.0.1:6379/0"
        )
    if not url.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        known = ", ".join(f"{scheme}://" for scheme in schemes)
        raise ValueError(f"write an address that begins with one of {known}")
    if any(letter.isspace() or not letter.isprintable() for letter in url):
        raise ValueError("holds a blank or a control character: write it as %20 and the like")


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ValueError(
            "host and port cannot be read: write special characters of user and password as "
            "%2F, %40 and the like"
        ) from error
    if any(len(label) > 63 for label in (parts.hostname or "").split(".")):
        raise ValueError("a part of the host's name is longer than 63 letters")
    return parts


def _check_redis(parts: SplitResult) -> None:
    database = parts.path.strip("/")
    if database and not (database.isascii() and database.isdigit()):
        raise ValueError("what follows the host is the number of the database: write /0")


LedgerUrl = Annotated[str, AfterValidator(check_ledger_url)]
BrokerUrl = Annotated[str, AfterValidator(check_broker_url)]


def without_password(url: str) -> str:
    """Replace the password in an address by ``***``, and leave out what follows a ``?``."""
    parts = urlsplit(url)
    who, at, host = parts.netloc.rpartition("@")
    user, colon, _ = who.partition(":")
    hidden = f"{user}:***@" if colon else who + at
    return parts._replace(netloc=hidden + host, query="", fragment="").geturl()
