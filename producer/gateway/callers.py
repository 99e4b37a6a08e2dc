"""Who calls: the key in ``Authorization``, and what it may see."""

import hmac
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from producer.api_keys import ApiKey, Role, digest_of
from producer.async_client import AsyncProducer
from producer.contract import MAX_METADATA_PAIRS, GenerationRequest
from producer.errors import FleetUnreachable, ResultExpired
from producer.gateway.errors import BadParameter, NotAllowed, answer, of_fleet, refused
from producer.jobs import JobStatus
from producer.loopback import is_this_machine
from producer.outcome import unknown_job

KEYS_SECONDS: Final = 5.0
"""How long keys are remembered: a revoked one opens the door for so long at most."""
SCHEME: Final = "bearer"
OPEN_PATHS: Final = frozenset({"/health", "/ready"})
"""Of probes, which have no key; they tell nothing of jobs."""
UI_PATH: Final = "/ui"
"""Of the operator's page, which has a door of its own: browsers send no key (:mod:`producer.gateway.ui.door`)."""


def is_of_ui(path: str) -> bool:
    """Whether it is the operator's page, or of it."""
    return path == UI_PATH or path.startswith(f"{UI_PATH}/")


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or is_of_ui(path)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request."""

    tenant: str | None
    is_operator: bool
    """Sees every job, and submits for any tenant."""
    key: ApiKey | None = None
    """None where no keys are asked for."""

    def own(self, job: GenerationRequest) -> GenerationRequest:
        """The job as this caller may submit it.

        Raises:
            NotAllowed: it is for another tenant.
        """
        if self.is_operator:
            return job
        if job.tenant not in (None, self.tenant):
            raise NotAllowed(HTTPStatus.FORBIDDEN, "wrong_tenant", "this key submits for its own tenant only")
        return job.model_copy(update={"tenant": self.tenant})

    def own_for(self, job: GenerationRequest, user: str | None) -> GenerationRequest:
        """The job that this caller submits for one of its users: a tenant to an operator, a note to a tenant.

        Raises:
            BadParameter: the metadata has no room for the note.
        """
        if self.is_operator or user is None:
            return self.own(job.model_copy(update={"tenant": user}))
        noted = job.metadata | {"user": user}
        if len(noted) > MAX_METADATA_PAIRS:
            most = MAX_METADATA_PAIRS - 1
            raise BadParameter(
                "metadata", f"metadata: user takes one of its {len(noted) - 1} pairs; give at most {most}"
            )
        return self.own(job.model_copy(update={"metadata": noted}))


ANYBODY: Final = Caller(None, is_operator=True)
"""Where no keys are asked for."""


class KeyRing:
    """The keys that open this gateway's door."""

    def __init__(self, producer: AsyncProducer, *, is_asked_for: bool) -> None:
        self._producer = producer
        self._is_asked_for = is_asked_for
        self._known: dict[str, ApiKey] = {}
        self._known_until = 0.0

    @property
    def is_asked_for(self) -> bool:
        """Whether anybody has to have one."""
        return self._is_asked_for

    async def key(self, digest: str) -> ApiKey | None:
        """The key with this digest; None when there is none (any more).

        Raises:
            FleetUnreachable: keys could not be looked up.
        """
        # Digests are compared and not keys, all of them and each to its end: how long it takes tells nothing.
        found = [key for known, key in (await self._keys()).items() if hmac.compare_digest(known, digest)]
        return found[0] if found else None

    async def caller(self, authorization: str) -> Caller:
        """Who that is.

        Raises:
            NotAllowed: no key, or none that is known.
            FleetUnreachable: keys could not be looked up.
        """
        if not self._is_asked_for:
            return ANYBODY
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != SCHEME or not secret.strip():
            raise NotAllowed(HTTPStatus.UNAUTHORIZED, "missing_api_key", "give a key: Authorization: Bearer KEY")
        found = await self.key(digest_of(secret.strip()))
        if found is None:
            raise NotAllowed(HTTPStatus.UNAUTHORIZED, "invalid_api_key", "this key opens nothing here")
        return Caller(found.tenant, is_operator=found.role is Role.OPERATOR, key=found)

    async def _keys(self) -> dict[str, ApiKey]:
        if monotonic() >= self._known_until:
            self._known = await self._producer.api_keys()
            self._known_until = monotonic() + KEYS_SECONDS
        return self._known


def check_host(headers: Headers) -> None:
    """Where anybody may come in, let no web page read us under a name of its own (DNS rebinding).

    Raises:
        NotAllowed: the request is for a name that is not this machine's.
    """
    try:
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        host = ""
    if not is_this_machine(host):
        raise NotAllowed(
            HTTPStatus.FORBIDDEN,
            "wrong_host",
            "without keys this gateway is for this machine only: call it as localhost, 127.0.0.1 or [::1], or start it "
            "with --require-keys",
        )


class Doorkeeper:
    """Finds out who calls before anything of a request is read; probes may come in without a key."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry."""
        if scope["type"] == "http" and not _is_open(scope["path"]):
            ring: KeyRing = scope["app"].state.keys
            headers = Headers(scope=scope)
            try:
                if not ring.is_asked_for:
                    check_host(headers)
                caller = await ring.caller(headers.get("authorization", ""))
            except NotAllowed as error:
                await refused(error)(scope, receive, send)
                return
            except FleetUnreachable as error:
                await answer(*of_fleet(error))(scope, receive, send)
                return
            scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, send)


async def caller_of(request: Request) -> Caller:
    """Of this request."""
    caller: Caller = request.state.caller
    return caller


Known = Annotated[Caller, Depends(caller_of)]


async def seen(fleet: AsyncProducer, caller: Caller, job_id: str) -> JobStatus:
    """Where the job stands, if this caller may know; to others it does not exist.

    Raises:
        ResultExpired: nothing is known of it, or it is not the caller's.
    """
    status = await fleet.status(job_id)
    if not caller.is_operator and status.tenant != caller.tenant:
        raise ResultExpired(unknown_job(job_id))
    return status
