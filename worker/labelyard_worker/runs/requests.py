"""Requests of runs, read from the ledger once for each run."""

import threading
from collections import OrderedDict
from typing import Final

from labelyard.runs.ledger import RunLedger
from labelyard.runs.request import RunRequest

MAX_KEPT: Final = 32


class RunRequests:
    """Keeps the requests of the last runs, which never change; called from many threads."""

    def __init__(self, runs: RunLedger) -> None:
        self._runs = runs
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, RunRequest] = OrderedDict()

    def get(self, run_id: str) -> RunRequest:
        """Return the request of a run.

        Raises:
            RunNotFoundError: The ledger does not know the run.
        """
        with self._lock:
            if run_id in self._kept:
                self._kept.move_to_end(run_id)
                return self._kept[run_id]
        request = self._runs.find(run_id).request
        with self._lock:
            self._kept[run_id] = request
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return request
