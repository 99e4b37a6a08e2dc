"""Before a worker takes jobs: does this server keep what it is given?"""

import logging
from typing import Final

import redis
from redis.exceptions import RedisError

from producer.doctor import Level, check_server

log = logging.getLogger(__name__)

EVICTION: Final = "maxmemory-policy"
"""The finding that no waiting mends."""


class ServerDropsJobs(Exception):
    """The server evicts keys when its memory is full: jobs, leases and results among them."""


def refuse_a_server_that_evicts(client: "redis.Redis") -> None:
    """Log what the doctor finds; a server that is away is checked by whoever asks it next.

    Raises:
        ServerDropsJobs: the message says what to set.
    """
    try:
        findings = check_server(client)
    except RedisError as error:
        log.warning("the server was not checked: %s", error, extra={"action": "server_unchecked"})
        return
    for finding in findings:
        if finding.level is Level.REFUSED and finding.subject == EVICTION:
            raise ServerDropsJobs(f"{finding.subject}: {finding.sentence}")
        if finding.level is not Level.OK:
            log.warning("%s: %s", finding.subject, finding.sentence, extra={"action": "server_finding"})
