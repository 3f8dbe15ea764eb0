"""Values of the label ``tenant``, whose number is bounded."""

import threading


class TenantLabels:
    """Values of the label ``tenant``: the first ones as they are, those beyond a limit as one.

    Args:
        limit: Number of tenants with a value of their own.
        beyond: Value for the others.
    """

    def __init__(self, limit: int, *, beyond: str) -> None:
        self.limit = limit
        self._beyond = beyond
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def value(self, tenant: str) -> str:
        """Return the value for *tenant*: itself, or the one for all beyond the limit."""
        if tenant in self._known:
            return tenant
        with self._lock:
            if len(self._known) >= self.limit:
                return self._beyond
            self._known.add(tenant)
        return tenant
