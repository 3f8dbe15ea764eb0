"""Lines of the tenants: each queue on Redis, sorted by tenant so that they take turns.

Producers push every message to its queue's list. A worker's claim moves messages from there to one
line for each tenant, and takes the next one from the tenant whose turn it is. ``keys.py`` lists the
keys, ``scripts/`` holds the changes and the reads, each one an atomic Lua script;
``docs/decisions/0006-fair-shares.md`` says why.
"""
