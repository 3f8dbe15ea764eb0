"""Fetch image files from S3-compatible storage: with obstore, else with a request of boto3's.

obstore is several times cheaper than boto3, but cannot ask for every key that S3 allows,
and cannot read every answer that boto3 reads. In these cases boto3 signs the request, and
our own client sends it, with the same limits.
"""

import asyncio
import secrets
import ssl
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from obstore.exceptions import NotModifiedError, PreconditionError
from obstore.store import S3Store

from labelyard.errors import (
    ImageAccessDeniedError,
    ImageNotFoundError,
    LabelyardError,
    StorageUnavailableError,
    UnsupportedUriError,
)
from labelyard_worker.intake.sources.fetcher_settings import SourceConfig
from labelyard_worker.intake.sources.http_answers import errors_as_ours, stamp_in
from labelyard_worker.intake.sources.http_client import HttpAnswer, Peer, get
from labelyard_worker.intake.sources.object_reads import read_object, stamp_of_meta
from labelyard_worker.intake.sources.s3_address import S3Address
from labelyard_worker.intake.sources.s3_answers import (
    CHANGED,
    error_of,
    is_broken_off,
    obstore_reason,
    read_body,
    read_obstore,
)
from labelyard_worker.intake.sources.s3_clients import open_signer, open_store, presign
from labelyard_worker.intake.sources.s3_settings import S3Settings, resolve_s3
from labelyard_worker.intake.sources.source import (
    FetchedFile,
    FetchOrder,
    SourceDownError,
    Transfer,
    TransferLimits,
    quote_etag,
    unquote_etag,
)
from labelyard_worker.pixels import Unchanged

if TYPE_CHECKING:
    from obstore import GetOptions

    from labelyard_worker.settings import WorkerSettings

PROBE_TIMEOUT_S = 5.0
UNCONDITIONAL_304 = "storage answers 304 to an unconditional request"


def configure(settings: "WorkerSettings", limits: TransferLimits) -> SourceConfig:
    """Describe the S3 source to the fetchers."""
    return config_of(resolve_s3(settings, timeout_s=limits.timeout_s))


def config_of(settings: S3Settings) -> SourceConfig:
    """Describe an S3 source with these settings."""
    return SourceConfig(
        "s3",
        opener=f"{__name__}:open_source",
        settings=settings.to_json(),
        variables=("AWS_", "BOTO_CONFIG"),
    )


def open_source(settings: Mapping[str, Any]) -> "S3Source":
    """Open the S3 source in a fetcher."""
    return S3Source(S3Settings.from_json(settings))


class S3Source:
    """Fetches objects of the buckets that the operator allows; belongs to one event loop."""

    def __init__(self, settings: S3Settings) -> None:
        """Prepare to fetch; connections are opened when they are needed."""
        self._settings = settings
        self._stores: dict[str, S3Store] = {}

    async def fetch(self, order: FetchOrder, transfer: Transfer) -> FetchedFile | Unchanged:
        """Read one object; see ``Source.fetch``."""
        address = self._checked(order.uri)
        if not address.is_plain or order.is_suspect or not _is_header(order.version_id):
            return await self._get_signed(order, address, transfer)
        try:
            return await self._get(order, address, transfer)
        except LabelyardError:
            raise
        except NotModifiedError as error:
            return unchanged(order, error)
        except PreconditionError as error:
            raise ImageNotFoundError(order.uri, CHANGED) from error
        except Exception as error:
            answer = read_obstore(error)
            if answer is not None and answer.is_readable:
                raise error_of(answer, uri=order.uri) from error
            if not is_broken_off(error):  # perhaps a header that obstore cannot read
                return await self._get_signed(order, address, transfer)
            raise SourceDownError(order.uri, obstore_reason(error)) from error

    async def is_down(self, uri: str) -> bool:
        """Probe the bucket with a GET of a random key; "not found" is a sign of life."""
        try:
            address = self._checked(uri)
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                key = f"labelyard-probe-{secrets.token_hex(8)}"
                await self._store(address.bucket).get_async(key)
        except TimeoutError:
            return True
        except Exception as error:  # noqa: BLE001 - every error of obstore is classified
            answer = read_obstore(error)
            return answer is None or isinstance(error_of(answer, uri=uri), SourceDownError)
        return False

    def _checked(self, uri: str) -> S3Address:
        address = S3Address.parse(uri)
        allowed = self._settings.allowed_buckets
        if allowed and address.bucket not in allowed:
            raise UnsupportedUriError(uri, "the bucket is not in LABELYARD_ALLOWED_BUCKETS")
        return address

    async def _get(
        self, order: FetchOrder, address: S3Address, transfer: Transfer
    ) -> FetchedFile | Unchanged:
        options: GetOptions = {}
        if order.version_id is not None:
            options["version"] = order.version_id
        if order.etag is not None:
            options["if_match"] = _header(order.etag, uri=order.uri)
        store = self._store(address.bucket)
        if await self._is_unchanged(order, address, options=options, transfer=transfer):
            return Unchanged(unquote_etag(order.known_etag or ""))
        answer = await transfer.await_piece(store.get_async(address.key, options=options))
        await read_object(answer, transfer, uri=order.uri)
        etag = unquote_etag(answer.meta["e_tag"] or "")
        return transfer.finish(etag, stamp=stamp_of_meta(answer.meta))

    async def _is_unchanged(
        self,
        order: FetchOrder,
        address: S3Address,
        *,
        options: "GetOptions",
        transfer: Transfer,
    ) -> bool:
        """Check by HEAD whether the object is still the version with known pixels.

        If-None-Match would not do: obstore hides the time and the version of a 304. Any
        error means ``False``: an answer to HEAD has no body that could explain it, and some
        servers do not implement it. The GET that follows tells the reason, or reads the object.
        """
        if order.known_etag is None or not order.known_stamp:
            return False
        head = self._store(address.bucket).get_async(address.key, options={**options, "head": True})
        try:
            meta = (await transfer.await_piece(head)).meta
        except LabelyardError:
            raise
        except Exception:  # noqa: BLE001 - the GET fails with the same error, and a body
            return False
        found = (unquote_etag(meta["e_tag"] or ""), stamp_of_meta(meta))
        return found == (unquote_etag(order.known_etag), order.known_stamp)

    async def _get_signed(
        self, order: FetchOrder, address: S3Address, transfer: Transfer
    ) -> FetchedFile | Unchanged:
        """Read an object with a request that boto3 signed; about a millisecond slower."""
        conditions = {}
        if order.etag is not None:
            conditions["IfMatch"] = _header(order.etag, uri=order.uri)
        if order.version_id is not None:
            conditions["VersionId"] = order.version_id
        url, headers = await asyncio.to_thread(self._presign, order, address, conditions)
        parts = urlsplit(url)
        is_tls = parts.scheme == "https"
        host = parts.hostname or ""
        port = parts.port or (443 if is_tls else 80)
        peer = Peer(host, port, parts.netloc, host if is_tls else None)
        with errors_as_ours(order.uri):
            request = get(
                peer,
                url.removeprefix(f"{parts.scheme}://{parts.netloc}"),
                headers={**headers, "Accept-Encoding": "identity"},
                ssl_context=self._ssl_context if is_tls else None,
            )
            answer = await transfer.await_piece(request.__aenter__())
            try:
                return await self._read(answer, order, transfer)
            finally:
                await request.__aexit__(None, None, None)

    async def _read(
        self, answer: HttpAnswer, order: FetchOrder, transfer: Transfer
    ) -> FetchedFile | Unchanged:
        if answer.status == 304:
            return unchanged(order, None)
        if not 200 <= answer.status < 300:
            body = await transfer.await_piece(answer.read_piece())
            raise error_of(read_body(answer.status, body), uri=order.uri)
        transfer.announce(answer.length or 0)
        etag = unquote_etag(answer.header("etag"))
        stamp = stamp_in(answer, size_bytes=answer.length or 0)
        if stamp and (etag, stamp) == (order.known_etag, order.known_stamp):
            return Unchanged(etag)  # and the rest of the answer is not read
        while piece := await transfer.await_piece(answer.read_piece()):
            await transfer.write(piece)
        is_md5 = not (
            answer.header("x-amz-server-side-encryption").startswith("aws:kms")
            or answer.header("x-amz-server-side-encryption-customer-algorithm")
        )
        return transfer.finish(etag, is_md5=is_md5, stamp=stamp)

    def _presign(
        self, order: FetchOrder, address: S3Address, conditions: dict[str, str]
    ) -> tuple[str, dict[str, str]]:
        from botocore.exceptions import BotoCoreError, NoCredentialsError

        try:
            return presign(self._signer, bucket=address.bucket, key=address.key, **conditions)
        except NoCredentialsError as error:
            raise ImageAccessDeniedError(order.uri, "the worker has no credentials") from error
        except BotoCoreError as error:
            raise StorageUnavailableError(order.uri, type(error).__name__) from error

    def _store(self, bucket: str) -> S3Store:
        if bucket not in self._stores:
            self._stores[bucket] = open_store(self._settings, bucket)
        return self._stores[bucket]

    @cached_property
    def _signer(self) -> Any:
        return open_signer(self._settings)

    @cached_property
    def _ssl_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._settings.ca_certificates is not None:
            context.load_verify_locations(cadata=self._settings.ca_certificates)
        return context


def unchanged(order: FetchOrder, error: Exception | None) -> Unchanged:
    """Return the answer for a 304, if the request was conditional.

    Raises:
        StorageUnavailableError: The request was unconditional, so a 304 has no meaning.
    """
    if order.known_etag is None:
        raise StorageUnavailableError(order.uri, UNCONDITIONAL_304) from error
    return Unchanged(unquote_etag(order.known_etag))


def _is_header(value: str | None) -> bool:
    return value is None or (value.isascii() and value.isprintable())


def _header(etag: str, *, uri: str) -> str:
    """Write an ETag as a header; obstore panics if it cannot be one."""
    if not _is_header(etag):
        raise ImageNotFoundError(uri, CHANGED)
    return quote_etag(etag)
