"""Limit on the bytes of files that are being fetched, shared fairly between tenants."""

import asyncio
import time
from collections import Counter


class ByteBudget:
    """Bytes of unfinished transfers, over all tenants.

    A tenant may use half of it, so that files which stop arriving in the middle cannot
    take the memory from others. The oldest transfer always goes on, so that half-fetched
    files never wait for each other: at most one file more than *total_bytes* is held.

    Args:
        total_bytes: Bytes that unfinished transfers may hold.
    """

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._used = 0
        self._by_tenant: Counter[str] = Counter()
        self._open: dict[Account, None] = {}  # oldest first
        self._waiters: set[asyncio.Event] = set()

    @property
    def used_bytes(self) -> int:
        """Bytes that are reserved."""
        return self._used

    def open(self, tenant: str) -> "Account":
        """Begin a transfer."""
        account = Account(self, tenant)
        self._open[account] = None
        return account

    async def reserve(self, account: "Account", count: int) -> float:
        """Wait for room for *count* bytes; return the seconds that it took."""
        waited_s = 0.0
        if not self._has_room(account, count):
            began_at = time.monotonic()
            await self._wait_for_room(account, count)
            waited_s = time.monotonic() - began_at
        self._used += count
        self._by_tenant[account.tenant] += count
        account.used += count
        return waited_s

    def release(self, account: "Account") -> None:
        """End a transfer."""
        if account not in self._open:
            return
        del self._open[account]
        self._used -= account.used
        self._by_tenant[account.tenant] -= account.used
        if not self._by_tenant[account.tenant]:
            del self._by_tenant[account.tenant]
        for freed in self._waiters:
            freed.set()

    async def _wait_for_room(self, account: "Account", count: int) -> None:
        freed = asyncio.Event()
        self._waiters.add(freed)
        try:
            while not self._has_room(account, count):
                freed.clear()
                await freed.wait()
        finally:
            self._waiters.discard(freed)

    def _has_room(self, account: "Account", count: int) -> bool:
        if next(iter(self._open), None) is account:
            return True
        if self._used + count > self._total_bytes:
            return False
        ours = next((one for one in self._open if one.tenant == account.tenant), None)
        return ours is account or self._by_tenant[account.tenant] + count <= self._total_bytes // 2


class Account:
    """One transfer's share of the budget."""

    def __init__(self, budget: ByteBudget, tenant: str) -> None:
        self.tenant = tenant
        self.used = 0
        self._budget = budget

    async def reserve(self, count: int) -> float:
        """Wait for room; return the seconds that it took."""
        return await self._budget.reserve(self, count)

    def close(self) -> None:
        """Release all bytes of the transfer."""
        self._budget.release(self)
