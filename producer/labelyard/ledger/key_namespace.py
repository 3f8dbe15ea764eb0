"""Namespace of keys: the first part of each key in the ledger's Redis."""


class KeyNamespace:
    """Namespace of a deployment, with which each of its keys begins."""

    def __init__(self, namespace: str) -> None:
        self.namespace: str = namespace
