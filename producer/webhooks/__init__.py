"""Webhooks: the end of a job is told to a URL, signed, from an outbox in Redis, as often as it takes.

``webhooks.lua`` says how the outbox is kept. The enqueue script notes each webhook with its job; a
:class:`~producer.webhooks.deliverer.Deliverer`, of which any number may run, finds the jobs that ended and tells.
"""
