"""Keys of tenants: their policies and token buckets."""

from functools import cached_property

from labelyard.ledger.key_namespace import KeyNamespace


class TenantKeys(KeyNamespace):
    """Policies and token buckets of tenants."""

    @cached_property
    def tenants(self) -> str:
        """Policies of tenants: weight and quotas.

        Type: hash
        Holds: a policy as JSON for each tenant that has one; that of `*` holds for all others.
        Writer: `labelyard tenants set` and `reset`.
        TTL: none: a policy is kept until an operator resets it.
        """
        return f"{self.namespace}:tenants"

    def rates(self, tenant: str) -> str:
        """Token buckets of a tenant with rates.

        Type: hash
        Holds: `images` and `prompts`: the tokens that were left, below 0 after a large job;
            `images_at` and `prompts_at`: when that was.
        Writer: the script that opens a job of a tenant with rates.
        TTL: until the buckets are full again.
        """
        return f"{self.namespace}:rates:{tenant}"
