"""Calls of the scripts that read the event stream, built from named fields."""

from labelyard.ledger.commands import Command
from labelyard.ledger.keys import LedgerKeys
from labelyard.ledger.limits import MAX_EVENT_GROUPS
from labelyard.ledger.scripts import ScriptName


class EventCommands:
    """Builds the call of each script of the event stream for one namespace."""

    def __init__(self, keys: LedgerKeys, *, open_ttl_s: int) -> None:
        self.keys: LedgerKeys = keys
        self._ttl_s = str(open_ttl_s)

    def _of_group(self, script: ScriptName, group: str, *values: object) -> Command:
        """Put a script's own arguments behind those that all scripts of groups share."""
        keys = self.keys
        return Command(
            script,
            [keys.events, keys.event_group(group), keys.event_groups, keys.erased_events],
            [keys.namespace, self._ttl_s, group, *map(str, values)],
        )

    def join(self, group: str, *, start: str, after: str, where: str) -> Command:
        """Make a group, or find it."""
        return self._of_group("join_events", group, start, after, where, MAX_EVENT_GROUPS)

    def read(
        self,
        group: str,
        *,
        consumer: str,
        limit: int,
        claim_after_s: float,
        is_claiming: bool,
        own_after: str,
    ) -> Command:
        """Give events to a consumer."""
        claim_after_ms = int(claim_after_s * 1000)
        return self._of_group(
            "read_events", group, consumer, limit, claim_after_ms, int(is_claiming), own_after
        )

    def hold(self, group: str, *, consumer: str, event_ids: list[str]) -> Command:
        """Renew the hold on events that were received and not handled yet."""
        return self._of_group("hold_events", group, consumer, " ".join(event_ids))

    def leave(self, group: str, *, consumer: str, is_releasing: bool) -> Command:
        """End a consumer's part in its group."""
        return self._of_group("leave_events", group, consumer, int(is_releasing))

    def ack_gap(self, group: str, *, gap_id: str) -> Command:
        """Acknowledge the gap of a group."""
        return self._of_group("ack_gap", group, gap_id)

    def delete(self, group: str) -> Command:
        """Delete a group."""
        return self._of_group("delete_event_group", group)

    def erase(self, record_id: str, *, after: str, count: int) -> Command:
        """Erase the events of a record that is gone."""
        args = [self.keys.namespace, self._ttl_s, record_id, after, str(count)]
        return Command("erase_events", [self.keys.events], args)

    def trim(self, *, max_entries: int, max_age_s: float, result_max_bytes: int) -> Command:
        """Write the bounds of the stream, and drop what is old."""
        keys = self.keys
        return Command(
            "trim_events",
            [keys.events, keys.event_state, keys.event_groups],
            [
                keys.namespace,
                self._ttl_s,
                str(max_entries),
                str(int(max_age_s)),
                str(result_max_bytes),
            ],
        )
