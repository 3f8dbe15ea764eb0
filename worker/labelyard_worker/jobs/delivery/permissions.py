"""Permissions of deliveries: the webhooks that may be called, the objects that may be written."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from labelyard.buckets import is_bucket_name
from labelyard.errors import ServiceConfigError
from labelyard.messages import Job
from labelyard.runs.parts import EndPart
from labelyard.webhook_address import WebhookAddress

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
TENANT: Final = "{tenant}"


class NotPermittedError(Exception):
    """The operator's settings do not permit this delivery; the text holds no address."""


@dataclass(frozen=True, slots=True)
class WebhookHosts:
    """Receivers that LABELYARD_WEBHOOK_HOSTS lists.

    Attributes:
        receivers: Scheme, host and port of each.
        loopback: Names of this machine that were listed without scheme and port: every
            scheme and port of theirs may be called, for development.
    """

    receivers: frozenset[tuple[str, str, int]]
    loopback: frozenset[str]

    @classmethod
    def parse(cls, entries: Iterable[str]) -> Self:
        """Read ``host``, ``host:port``, ``https://host:port`` and ``http://host:port``.

        Raises:
            ServiceConfigError: An entry has another form.
        """
        receivers, loopback = set(), set()
        for entry in entries:
            if entry.strip("[]") in LOOPBACK:
                loopback.add(entry.strip("[]"))
                continue
            try:
                listed = WebhookAddress.parse(entry if "://" in entry else f"https://{entry}")
            except ValueError:
                listed = None
            if listed is None or listed.target != "/" or entry.endswith("/"):
                raise ServiceConfigError(
                    f"LABELYARD_WEBHOOK_HOSTS: {entry!r} is not host, host:port or "
                    "http://host:port (without it, https is meant)"
                )
            receivers.add((listed.scheme, listed.host, listed.port))
        return cls(frozenset(receivers), frozenset(loopback))

    def check(self, address: WebhookAddress) -> None:
        """Permit a call.

        Raises:
            NotPermittedError: The receiver is not listed with this scheme and port.
        """
        if address.host in self.loopback:
            return
        if (address.scheme, address.host, address.port) not in self.receivers:
            raise NotPermittedError(
                "LABELYARD_WEBHOOK_HOSTS does not list its host with this port and scheme"
            )


@dataclass(frozen=True, slots=True)
class ResultPlace:
    """Bucket, or a part of it, that results may be written to.

    Attributes:
        prefix: Start of every key, ending in ``/``; may hold ``{tenant}``; empty means
            the whole bucket.
    """

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, entry: str) -> Self:
        """Read ``bucket`` or ``bucket/prefix/``.

        Raises:
            ServiceConfigError: The entry has another form.
        """
        bucket, _, prefix = entry.partition("/")
        rest = prefix.replace(TENANT, "t")
        if (
            not is_bucket_name(bucket)
            or (prefix and not prefix.endswith("/"))
            or (rest and fault_of_key(f"{rest}k"))
            or re.search(r"[{}]", rest)
        ):
            raise ServiceConfigError(
                f"LABELYARD_RESULT_BUCKETS: {entry!r} is not bucket or bucket/prefix/ "
                f"(a prefix ends in / and may hold {TENANT})"
            )
        return cls(bucket, prefix)

    def holds(self, *, bucket: str, key: str, tenant: str) -> bool:
        """Return whether a job of *tenant* may write this object."""
        return bucket == self.bucket and key.startswith(self.prefix.replace(TENANT, tenant))


@dataclass(frozen=True, slots=True)
class ResultPlaces:
    """Places that LABELYARD_RESULT_BUCKETS lists; an empty list permits no object."""

    places: tuple[ResultPlace, ...]

    @classmethod
    def parse(cls, entries: Iterable[str], *, readable: Iterable[str]) -> Self:
        """Read the setting.

        Args:
            readable: Buckets that LABELYARD_ALLOWED_BUCKETS lists.

        Raises:
            ServiceConfigError: An entry has another form, or lets results take the place
                of pictures.
        """
        places = tuple(ResultPlace.parse(entry) for entry in entries)
        for place in places:
            if not place.prefix and place.bucket in set(readable):
                raise ServiceConfigError(
                    f"LABELYARD_RESULT_BUCKETS: pictures are read from {place.bucket!r} too "
                    "(LABELYARD_ALLOWED_BUCKETS): name a prefix of it for results, "
                    f"{place.bucket}/results/"
                )
        return cls(places)

    def check(self, job: Job | EndPart) -> tuple[str, str]:
        """Permit a job's object, and return its bucket and key.

        Raises:
            NotPermittedError: The operator lists no such place, the key can be read in
                two ways, or the object is one of the job's pictures.
        """
        uri = job.deliver.object_uri or ""
        bucket, key = self.check_uri(uri, tenant=job.tenant)
        if isinstance(job, Job) and uri in {image.uri for image in job.images}:
            raise NotPermittedError("the object is a picture of the job")
        return bucket, key

    def check_uri(self, uri: str, *, tenant: str) -> tuple[str, str]:
        """Permit an object of a tenant, and return its bucket and key.

        Raises:
            NotPermittedError: The operator lists no such place, or the key can be read in two
                ways.
        """
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        if fault := fault_of_key(key):
            raise NotPermittedError(fault)
        if not any(place.holds(bucket=bucket, key=key, tenant=tenant) for place in self.places):
            raise NotPermittedError("LABELYARD_RESULT_BUCKETS does not list its bucket and prefix")
        return bucket, key


def fault_of_key(key: str) -> str:
    """Return the reason why a key could name another object than it seems to, or nothing."""
    if not key.isprintable():
        return "the key holds a control character"
    if {"", ".", ".."} & set(key.split("/")):
        return "the key has an empty segment, or one that is . or .."
    return ""
