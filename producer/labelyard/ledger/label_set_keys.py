"""Keys of label sets: the sets, their versions and their aliases."""

from functools import cached_property

from labelyard.ledger.key_namespace import KeyNamespace


class LabelSetKeys(KeyNamespace):
    """Registered label sets, with their versions and aliases."""

    def label_set(self, digest: str) -> str:
        """Registered label set.

        Type: string
        Holds: the label set as JSON.
        Writer: `client.label_sets.register`.
        TTL: none: it is kept until an operator deletes it.
        """
        return f"{self.namespace}:label_set:{digest}"

    @cached_property
    def label_set_names(self) -> str:
        """References of the registered label sets.

        Type: sorted set
        Holds: `name@sha256:…`, by the time of registration.
        Writer: `client.label_sets.register`.
        TTL: none: it is kept until an operator deletes it.
        """
        return f"{self.namespace}:label_set_names"

    def label_set_version(self, reference: str) -> str:
        """Version of a label set: what is known of it besides its labels.

        Type: hash
        Holds: `parent`, the version that it was made from; `author`, `note`; `created_at`;
            `metrics`, the figures of an evaluation, and `baseline`, the answers that drift is
            measured from, as JSON.
        Writer: `client.label_sets.register`, `attach` and `set_baseline`.
        TTL: none: it is kept until the version is deleted.
        """
        return f"{self.namespace}:label_set_version:{reference}"

    @cached_property
    def label_set_aliases(self) -> str:
        """Aliases of label sets.

        Type: hash
        Holds: for each alias, such as `moderation@prod`, JSON with `reference`, the version that
            it names; `canary` and `share`; `moved_at`, `moves`, `author`, `note`. At most 1,000 aliases.
        Writer: `client.label_sets.promote` and `remove_alias`.
        TTL: none: an alias is kept until it is removed.
        """
        return f"{self.namespace}:label_set_aliases"

    def label_set_moves(self, alias: str) -> str:
        """Moves of an alias.

        Type: stream
        Holds: one entry for each move: `action`, `reference`, `before`, `author`, `note`. Trimmed
            to about 1,000 entries.
        Writer: the script that moves an alias.
        TTL: none: it is kept, also after the alias was removed.
        """
        return f"{self.namespace}:label_set_moves:{alias}"
