"""How messages reach a worker and leave it: claimed under leases, acknowledged with their result, never lost between.

The scripts (``*.lua``) are the protocol, :mod:`workers.transport.lease_store` calls them, and
:mod:`workers.transport.channel` fits them under kombu's Redis transport.
"""
