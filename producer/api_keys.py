"""Keys of the HTTP gateway (``fleet:keys``): who may call it, for which tenant, and what else they may do.

Redis holds a key's SHA-256 only. A key has 256 random bits: a slow hash would protect nothing that a fast one does not.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

import orjson
from pydantic import TypeAdapter, ValidationError

from producer import keys
from producer.errors import InvalidRequest
from producer.prompting import Name
from producer.rate_limits import UNLIMITED, RateLimits
from producer.script import Script, ScriptRun

PREFIX: Final = "fleet-"
"""Of every key, so that one that was committed somewhere can be found."""
ID_CHARACTERS: Final = 12
REPLACE_SCRIPT: Final = Script.named("replace_key")
_NAME: TypeAdapter[str] = TypeAdapter(Name)


class Role(StrEnum):
    """What a key is for."""

    PRODUCER = "producer"
    """Submits jobs of its tenant, and sees those alone."""
    OPERATOR = "operator"
    """Sees every job, and may submit for any tenant."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key; the key itself is nowhere."""

    key_id: str
    name: str
    role: Role
    tenant: str | None
    """Whose jobs it submits; None for an operator's."""
    created_at: float
    """Seconds since the epoch, by the machine that made it."""
    limits: RateLimits = UNLIMITED


def new_secret() -> str:
    """A key, to be shown once."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(secret: str) -> str:
    """What Redis knows a key by."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def key_for(digest: str, name: str, role: Role, tenant: str | None, created_at: float) -> ApiKey:
    """The key of this digest; a producer's is for the tenant of its own name unless one is given.

    Raises:
        InvalidRequest: the name is none, or an operator's key has a tenant.
    """
    try:
        _NAME.validate_python(name)
        _NAME.validate_python(tenant or name)
    except ValidationError as error:
        raise InvalidRequest("a key's name, and a tenant's, has 1 to 256 characters of text") from error
    if role is Role.OPERATOR and tenant is not None:
        raise InvalidRequest("an operator's key is for every tenant: leave the tenant out")
    owner = None if role is Role.OPERATOR else tenant or name
    return ApiKey(digest[:ID_CHARACTERS], name, role, owner, created_at)


def encoded_key(key: ApiKey) -> bytes:
    """The hash's value."""
    fields = {"name": key.name, "role": key.role, "tenant": key.tenant, "created_at": key.created_at}
    limits = {name: limit for name, limit in asdict(key.limits).items() if limit is not None}
    return orjson.dumps(fields | limits)


def replace_run(digest: str, before: bytes, key: ApiKey) -> ScriptRun:
    """The script run that lets this be known of a key in place of what was read."""
    return ScriptRun(REPLACE_SCRIPT, (keys.API_KEYS,), (digest, before, encoded_key(key)))


def read_keys(entries: Mapping[bytes, bytes]) -> dict[str, ApiKey]:
    """The hash, by digest."""
    return {digest.decode(): _read(digest.decode(), orjson.loads(value)) for digest, value in sorted(entries.items())}


def _read(digest: str, fields: Mapping[str, Any]) -> ApiKey:
    limits = RateLimits(fields.get("requests_per_minute"), fields.get("tokens_per_minute"))
    role, created_at = Role(fields["role"]), float(fields["created_at"])
    return ApiKey(digest[:ID_CHARACTERS], fields["name"], role, fields["tenant"], created_at, limits)


def digest_with_id(known: Mapping[str, ApiKey], key_id: str) -> str:
    """The digest of the key with this id.

    Raises:
        InvalidRequest: there is none.
    """
    for digest, key in known.items():
        if key.key_id == key_id:
            return digest
    raise InvalidRequest(f"no key {key_id!r}; see: fleet keys list")
