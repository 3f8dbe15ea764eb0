"""Settings of a fetcher: its limits, and the sources that it opens, by scheme."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from labelyard.errors import UnsupportedUriError
from labelyard_worker.intake.image_uri import redact, scheme_of
from labelyard_worker.intake.sources.source import Source, TransferLimits

UNKNOWN_SCHEME = "write s3://bucket/key"


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One source, as the worker describes it to a fetcher.

    Attributes:
        scheme: Scheme of its addresses, the part before ``://``.
        opener: ``module:function`` that a fetcher calls with *settings* to open the source.
        settings: Settings of the source, as plain JSON.
        variables: Environment variables that its libraries read; a name that ends in ``_``
            stands for all that begin with it.
        off_reason: Why its addresses are refused; empty if the operator turned it on.
    """

    scheme: str
    opener: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    variables: tuple[str, ...] = ()
    off_reason: str = ""

    def open(self) -> Source:
        """Open the source in the running event loop."""
        module, _, function = self.opener.partition(":")
        opener: Callable[[Mapping[str, Any]], Source]
        opener = getattr(importlib.import_module(module), function)
        return opener(self.settings)


@dataclass(frozen=True, slots=True)
class FetcherSettings:
    """Settings of a fetcher.

    Attributes:
        sources: Sources that the worker knows, those that are turned off included.
        limits: Limits on each transfer.
        fetching_bytes: Bytes that unfinished fetches may hold in memory.
    """

    sources: tuple[SourceConfig, ...]
    limits: TransferLimits = field(default_factory=TransferLimits)
    fetching_bytes: int = 128 * 1024 * 1024

    @property
    def variables(self) -> tuple[str, ...]:
        """Environment variables that the sources' libraries read."""
        return tuple(name for source in self.sources for name in source.variables)

    def to_json(self) -> dict[str, Any]:
        """Write the settings as plain fields, for the frame that a fetcher starts with."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Rebuild settings from the output of :meth:`to_json`."""
        return cls(
            sources=tuple(
                SourceConfig(**{**source, "variables": tuple(source["variables"])})
                for source in fields["sources"]
            ),
            limits=TransferLimits(**fields["limits"]),
            fetching_bytes=fields["fetching_bytes"],
        )


class OpenSources:
    """The sources of one fetcher, opened once; dispatches addresses by their scheme."""

    def __init__(self, configs: tuple[SourceConfig, ...]) -> None:
        self._by_scheme = {one.scheme: one.open() for one in configs if not one.off_reason}
        self._off_reasons = {one.scheme: one.off_reason for one in configs if one.off_reason}

    def choose(self, uri: str) -> Source:
        """Return the source that reads *uri*.

        Raises:
            UnsupportedUriError: No source has this scheme, or the operator did not turn it on.
        """
        scheme = scheme_of(uri)
        source = self._by_scheme.get(scheme)
        if source is None:
            reason = self._off_reasons.get(scheme, UNKNOWN_SCHEME)
            raise UnsupportedUriError(redact(uri), reason)
        return source
