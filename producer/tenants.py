"""How tenants that wait for one model share it: their weights and limits (``fleet:tenants``)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from pydantic import TypeAdapter, ValidationError

from producer.errors import InvalidRequest
from producer.flow import escaped_tenant
from producer.prompting import Name

LEAST_WEIGHT: Final = 0.001
MOST_WEIGHT: Final = 1000.0
_NAME: TypeAdapter[str] = TypeAdapter(Name)


@dataclass(frozen=True, slots=True)
class TenantTerms:
    """What a tenant is given; one that nobody set has these."""

    weight: float = 1.0
    """Its share of the tokens beside the weights of others, while they wait too."""
    max_running_jobs: int | None = None
    """Its jobs that workers hold at a time, over all lanes of a model; None: any number."""
    max_waiting_jobs: int | None = None
    """Its jobs that may wait for a model, over all its lanes; None: any number, 0: it submits none."""


def tenant_field(tenant: str) -> str:
    """A tenant's field in the hash.

    Raises:
        InvalidRequest: no tenant may have this name.
    """
    try:
        return escaped_tenant(_NAME.validate_python(tenant))
    except ValidationError as error:
        raise InvalidRequest("a tenant's name has 1 to 256 characters of text") from error


def encoded_terms(terms: TenantTerms) -> str:
    """The hash's value, as ``flows.lua`` reads it.

    Raises:
        InvalidRequest: the weight or the limit is none.
    """
    weight = terms.weight
    if not isinstance(weight, int | float) or not LEAST_WEIGHT <= weight <= MOST_WEIGHT or math.isnan(weight):
        raise InvalidRequest(f"weight: a number from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}, not {weight!r}")
    limits = (
        _limit("max_running_jobs", terms.max_running_jobs, 1),
        _limit("max_waiting_jobs", terms.max_waiting_jobs, 0),
    )
    return f"{weight:g} {limits[0]}" + (f" {limits[1]}" if limits[1] else "")


def _limit(name: str, value: int | None, least: int) -> str:
    if value is None:
        return ""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidRequest(f"{name}: a whole number from {least} on, or None for no limit; not {value!r}")
    return str(value)


def read_tenants(entries: Mapping[bytes, bytes]) -> dict[str, TenantTerms]:
    """The hash, by tenant."""
    return {unquote(name.decode()): _terms(value.decode()) for name, value in sorted(entries.items())}


def _terms(value: str) -> TenantTerms:
    weight, *limits = value.split(" ")
    return TenantTerms(float(weight), *(int(limit) if limit else None for limit in limits))
