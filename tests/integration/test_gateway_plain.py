"""The plain API of one gateway in front of one fleet, on either engine; and its readiness."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from producer import Producer
from producer.jobs import JobState
from tests.gateways import answers, running_gateway
from tests.running import RunningFleet, simulated
from tests.waiting import eventually


@pytest.fixture
def client(fleet: RunningFleet, tmp_path: Path) -> Iterator[httpx.Client]:
    """Of a gateway in front of either fleet."""
    with running_gateway(fleet.redis_url, tmp_path) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


def test_a_prompt_is_answered_with_its_text(client: httpx.Client, fleet: RunningFleet, producer: Producer) -> None:
    """The only model there is need not be named; the answer is the queue's own."""
    asked = {"prompt": "Once upon a time", "max_tokens": 12, "temperature": 0, "top_p": 1}
    said = client.post("/generate", json=asked).json()
    job = producer.submit(
        model=fleet.served, prompt="Once upon a time", sampling={"max_tokens": 12, "temperature": 0, "top_p": 1}
    )
    choice = producer.result(job, timeout_seconds=60).choices[0]
    assert said == {
        "id": said["id"],
        "model": fleet.served,
        "text": choice.text,
        "tokens_generated": choice.token_count,
        "finish_reason": choice.finish_reason,
    }
    assert producer.status(said["id"]).state is JobState.SUCCEEDED


def test_several_prompts_are_answered_in_their_order(client: httpx.Client, fleet: RunningFleet) -> None:
    """Each as if it had been asked alone; a stop string ends each; one that fails says why in its place."""
    prompts = [f"prompt {number}" for number in range(12)]
    shared = {"model": fleet.served, "max_tokens": 8, "temperature": 0}
    alone = [client.post("/generate", json={"prompt": prompt} | shared).json()["text"] for prompt in prompts]
    together = client.post("/batch_generate", json={"prompts": [*prompts, "far too long " * 5_000]} | shared)
    assert together.status_code == 200
    *texts, failed = together.json()["results"]
    assert [one["text"] for one in texts] == alone
    assert len({one["id"] for one in texts}) == len(prompts)
    assert failed["error"]["code"] == "context_length_exceeded"
    stop = alone[0][2:4]
    stopped = client.post("/batch_generate", json={"prompts": prompts[:1], "stop": stop} | shared).json()["results"]
    assert stopped[0]["finish_reason"] == "stop"
    assert stop not in stopped[0]["text"]


def test_what_is_wrong_is_named(client: httpx.Client) -> None:
    """Unknown fields, values out of range and unknown models, as everywhere."""
    for body, parameter in (
        ({"prompt": "x", "max_length": 3}, "max_length"),
        ({"prompt": "x", "temperature": 3}, "temperature"),
        ({"max_tokens": 3}, "prompt"),
        ({"prompt": ""}, "prompt"),
    ):
        refused = client.post("/generate", json=body)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == parameter
    assert client.post("/batch_generate", json={"prompts": []}).status_code == 400
    refused = client.post("/batch_generate", json={"prompts": ["x", ""]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "prompts.1")
    assert client.post("/generate", json={"prompt": "x", "model": "none"}).status_code == 404
    assert client.get("/model_info", params={"model": "none"}).status_code == 404


def test_an_idempotency_key_makes_one_job(client: httpx.Client) -> None:
    """Of one prompt and of each of several."""
    headers = {"Idempotency-Key": "plain"}
    first, again = (client.post("/generate", json={"prompt": "x"}, headers=headers).json() for _ in range(2))
    assert first == again
    batch = {"prompts": ["x", "y"], "max_tokens": 3}
    first, again = (client.post("/batch_generate", json=batch, headers=headers).json() for _ in range(2))
    assert first == again


def test_model_info_tells_what_workers_say(client: httpx.Client, fleet: RunningFleet) -> None:
    """Its limits and who serves it."""
    info = client.get("/model_info").json()
    assert (info["model"], info["ready_workers"]) == (fleet.served, 1)
    assert info["max_model_len"] > 0
    [worker] = info["workers"]
    assert worker["phase"] == "ready"
    assert worker["max_num_seqs"] > 0
    assert "pages" not in worker


def test_several_models_have_to_be_named(redis_url: str, tmp_path: Path) -> None:
    """Where the fleet knows more than one; the refusal says which there are."""
    with running_gateway(redis_url, tmp_path) as address, Producer(redis_url) as producer:
        assert httpx.post(f"{address}/generate", json={"prompt": "x"}, timeout=60).status_code == 404
        producer.declare_model("one")
        producer.declare_model("two")
        producer.set_alias("another", "two")
        assert httpx.get(f"{address}/model_info", params={"model": "another"}, timeout=60).json()["model"] == "two"
        for refused in (
            httpx.post(f"{address}/generate", json={"prompt": "x"}, timeout=60),
            httpx.get(f"{address}/model_info", timeout=60),
        ):
            assert refused.status_code == 400
            assert refused.json()["error"]["message"] == "name a model, one of: one, two"


def test_ready_is_what_a_worker_is(redis_url: str, tmp_path: Path) -> None:
    """503 before one is there, while it loads, and when it has gone; probes need no key."""
    with running_gateway(redis_url, tmp_path, "--require-keys") as address:
        nobody = httpx.get(f"{address}/ready", timeout=60)
        assert (nobody.status_code, nobody.json()) == (503, {"status": "not_ready", "ready_workers": {}})
        with simulated(redis_url, tmp_path, start_seconds=1):
            eventually(lambda: answers(f"{address}/ready"), what="a worker is ready")
            assert httpx.get(f"{address}/ready", timeout=60).json() == {"status": "ready", "ready_workers": {"sim": 1}}
            assert answers(f"{address}/ready?model=sim")
            typo = httpx.get(f"{address}/ready", params={"model": "sin"}, timeout=60)
            assert (typo.status_code, typo.json()["error"]["code"]) == (404, "model_not_found")
            with Producer(redis_url) as producer:
                producer.declare_model("other")
                producer.set_alias("usual", "sim")
            eventually(lambda: answers(f"{address}/ready?model=usual"), what="another name is as ready as its model")
            other = httpx.get(f"{address}/ready", params={"model": "other"}, timeout=60)
            assert (other.status_code, other.json()["ready_workers"]) == (503, {"other": 0})
        eventually(lambda: not answers(f"{address}/ready"), what="nobody is ready")
        assert httpx.get(f"{address}/ready", timeout=60).json()["ready_workers"] == {"other": 0, "sim": 0}


def test_a_client_that_leaves_a_batch_cancels_it(redis_url: str, tmp_path: Path) -> None:
    """Nobody works for whoever has gone."""
    with (
        simulated(redis_url, tmp_path, seconds_per_token=5) as fleet,
        running_gateway(redis_url, tmp_path) as address,
    ):
        asked = {"prompts": ["a", "b", "c"], "max_tokens": 2000}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{address}/batch_generate", json=asked, timeout=httpx.Timeout(30, read=1.5))
        eventually(lambda: fleet.metric("fleet_requests_total", status="cancelled") == 3, what="all are cancelled")
