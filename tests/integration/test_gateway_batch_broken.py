"""A batch over HTTP of which Redis took a part only: nothing of it is left that nobody waits for."""

from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpx
import pytest

from producer import AsyncProducer, Producer
from producer.batch import BatchSubmitFailed
from producer.contract import GenerationRequest
from producer.conversation import ConversationTerms
from producer.errors import FleetUnreachable
from producer.gateway.app import create_app
from producer.jobs import JobState, SubmitOutcome
from producer.submission import as_job

ROUTES: dict[str, dict[str, Any]] = {
    "/batch_generate": {"prompts": ["a", "b", "c", "d"]},
    "/v1/completions": {"model": "m", "prompt": ["a", "b", "c", "d"]},
}


@pytest.fixture(params=list(ROUTES))
def asked(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Where one request makes several jobs, and the request."""
    return {"url": request.param, "json": ROUTES[request.param]}


@pytest.fixture
async def client(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """Of a gateway whose Redis takes three of four jobs, and tells of two."""
    whole = AsyncProducer.submit_many

    async def breaking(self: AsyncProducer, requests: Iterable[GenerationRequest]) -> list[SubmitOutcome]:
        jobs = [as_job(request) for request in requests]
        told = await whole(self, jobs[:2])
        await whole(self, jobs[2:3])
        raise BatchSubmitFailed("Redis went away", told, list(jobs[2:]))

    monkeypatch.setattr(AsyncProducer, "submit_many", breaking)
    with Producer(redis_url) as producer:
        producer.declare_model("m")
    app = create_app(redis_url, require_keys=False, request_timeout_seconds=60, conversation_terms=ConversationTerms())
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield client


def states(redis_url: str) -> list[JobState]:
    """Of all jobs that were queued."""
    with Producer(redis_url) as producer:
        return [job.state for job in producer.jobs().jobs]


async def test_what_was_queued_is_cancelled(client: httpx.AsyncClient, redis_url: str, asked: dict[str, Any]) -> None:
    """Also the job of which Redis did not tell; the one that it never had is no trouble."""
    refused = await client.post(**asked)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    assert "What was queued of the batch is cancelled" in refused.json()["error"]["message"]
    assert states(redis_url) == [JobState.CANCELLED] * 3


async def test_with_a_key_the_jobs_wait_for_the_repeat(
    client: httpx.AsyncClient, redis_url: str, asked: dict[str, Any]
) -> None:
    """It finds them again."""
    refused = await client.post(**asked, headers={"Idempotency-Key": "batch"})
    assert refused.status_code == 503
    assert "again with its Idempotency-Key" in refused.json()["error"]["message"]
    assert states(redis_url) == [JobState.QUEUED] * 3


async def test_what_can_not_be_cancelled_is_named(
    client: httpx.AsyncClient, redis_url: str, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is still away: whoever asked can cancel them later."""

    async def away(_: AsyncProducer, job: str) -> None:
        raise FleetUnreachable(f"no Redis for {job}")

    monkeypatch.setattr(AsyncProducer, "cancel", away)
    refused = await client.post(**asked)
    assert refused.status_code == 503
    with Producer(redis_url) as producer:
        queued = [job.job_id for job in producer.jobs().jobs]
    assert len(queued) == 3
    assert all(job_id in refused.json()["error"]["message"] for job_id in queued)
