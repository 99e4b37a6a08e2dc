"""OpenAI's own client against the gateway that ``fleet up`` starts: whole and streamed, sync and async.

``pip install openai``, then ``python examples/openai_client.py MODEL [BASE_URL]``.
"""

import asyncio
import sys

from openai import AsyncOpenAI, OpenAI

MODEL = sys.argv[1]
BASE_URL = sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:8000/v1"
API_KEY = "none"  # a gateway with --require-keys wants one that "fleet keys create" printed


def whole() -> None:
    """The answer in one piece. The key makes one job of what the client sends again after a lost connection."""
    with OpenAI(base_url=BASE_URL, api_key=API_KEY) as client:
        answer = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Why queues?"}],
            max_tokens=32,
            extra_headers={"Idempotency-Key": "why-queues-1"},
        )
        print("whole:", answer.choices[0].message.content)


def streamed() -> None:
    """The answer as it is generated. Leaving early cancels its job."""
    with (
        OpenAI(base_url=BASE_URL, api_key=API_KEY) as client,
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Why streams?"}], max_tokens=32, stream=True
        ) as chunks,
    ):
        print("streamed: ", end="")
        for chunk in chunks:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
        print()


async def streamed_together() -> None:
    """Several streams in one event loop."""
    async with AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY) as client:

        async def ask(question: str) -> str:
            chunks = await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": question}], max_tokens=32, stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

        for answer in await asyncio.gather(ask("Why leases?"), ask("Why lanes?")):
            print("together:", answer)


if __name__ == "__main__":
    whole()
    streamed()
    asyncio.run(streamed_together())
