"""Before a worker takes jobs: does this server keep what it is given?"""

import logging
from typing import Final

import redis
from redis.exceptions import RedisError

from producer import keys
from producer.doctor import Level, check_server
from producer.refusals import advice

log = logging.getLogger(__name__)

EVICTION: Final = "maxmemory-policy"
"""The finding that no waiting mends."""


class ServerDropsJobs(Exception):
    """The server evicts keys when its memory is full: jobs, leases and results among them."""


class ServerRefuses(Exception):
    """TLS refuses the server, or the server us: the address, a certificate or a user's rights are to be changed."""


def refuse_an_unfit_server(client: "redis.Redis", model: str) -> None:
    """Log what the doctor finds; a server that is away is checked by whoever asks it next.

    Raises:
        ServerDropsJobs: the message says what to set.
        ServerRefuses: the message says what to change.
    """
    try:
        findings = check_server(client)
        client.hlen(keys.QueueKeys(model).leased)  # which none but a worker's user may look at
    except RedisError as error:
        if todo := advice(error):
            raise ServerRefuses(f"redis.url: {error}: {todo}") from error
        log.warning("the server was not checked: %s", error, extra={"action": "server_unchecked"})
        return
    for finding in findings:
        if finding.level is Level.REFUSED and finding.subject == EVICTION:
            raise ServerDropsJobs(f"{finding.subject}: {finding.sentence}")
        if finding.level is not Level.OK:
            log.warning("%s: %s", finding.subject, finding.sentence, extra={"action": "server_finding"})
