"""What webhooks cost that wait for their jobs: memory, the look for ended jobs, and how soon these are told.

``python -m benchmarks.webhooks --pending 1000000 --told 2000``
"""

import argparse
import asyncio
import contextlib
import json
import tempfile
import time
import uuid
from pathlib import Path
from statistics import median

import redis

from producer import Producer, keys
from producer.script import Script
from producer.tasks import end
from producer.webhooks.addresses import AddressPolicy
from producer.webhooks.deliverer import Deliverer, DeliveryOptions
from producer.webhooks.outbox import look_run
from tests.waiting import free_port
from workers.embedded import EmbeddedServer

URL = "http://localhost:{port}/hooks/fleet?customer=0123456789"
NOTE = """
for place = 2, #ARGV do
  note_webhook(ARGV[place], {tenant = 'acme', url = ARGV[1]})
  redis.call('HSET', 'fleet:job:' .. ARGV[place], 'model', 'sim')
end
"""
CANCELLED = json.dumps({"status": "REVOKED", "result": "cancelled"})
PORTION = 1_000


def main() -> None:
    """Print one line per measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pending", type=int, default=1_000_000)
    parser.add_argument("--told", type=int, default=2_000)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedServer(Path(folder), free_port()) as server,
        redis.Redis.from_url(server.url) as client,
        Producer(server.url) as producer,
    ):
        producer.create_webhook_secret("acme")
        port = free_port()
        ids = [str(uuid.uuid4()) for _ in range(options.pending)]
        note(client, ids, URL.format(port=port))
        look(client)
        middle = (len(ids) - options.told) // 2
        asyncio.run(tell(client, server.url, port, ids[middle : middle + options.told]))


def note(client: "redis.Redis", ids: list[str], url: str) -> None:
    """Note them all, and say how much memory the notes alone take."""
    text = Script.named("webhooks").text + NOTE
    for start in range(0, len(ids), PORTION):
        client.eval(text, 0, url, *ids[start : start + PORTION])
    noted_bytes = client.memory_usage("fleet:webhooks:awaiting", samples=0)
    print(f"{len(ids):,} pending: {noted_bytes / len(ids):.0f} bytes each, {noted_bytes / 2**20:.0f} MiB")


def look(client: "redis.Redis") -> None:
    """Look often while nothing ends, and say how long Redis is busy with each."""
    run, seconds = look_run(64), []
    for _ in range(200):
        began_at = time.perf_counter()
        client.eval(run.script.text, 0, *run.arguments)
        seconds.append(time.perf_counter() - began_at)
        time.sleep(0.1)
    print(f"a look: {median(seconds) * 1e3:.2f} ms (median), {max(seconds) * 1e3:.2f} ms (longest), 10 a second")


async def tell(client: "redis.Redis", redis_url: str, port: int, ids: list[str]) -> None:
    """End these jobs, with one deliverer, and say when the first and the last are told."""
    told, all_told = [], asyncio.Event()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
                told.append(time.perf_counter())
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                if len(told) == len(ids):
                    all_told.set()
        writer.close()

    server = await asyncio.start_server(receive, "127.0.0.1", port)
    deliverer = Deliverer(redis_url, DeliveryOptions(AddressPolicy(["localhost"])))
    running = asyncio.create_task(deliverer.run())
    began_at = time.perf_counter()
    client.mset({keys.result(job_id): CANCELLED for job_id in ids})
    await all_told.wait()
    await end(running)
    await deliverer.close()
    server.close()
    print(
        f"{len(ids):,} jobs in their middle end: the first is told after {min(told) - began_at:.1f} s, "
        f"the last after {max(told) - began_at:.1f} s, {len(ids) / (max(told) - min(told)):.0f} a second"
    )


if __name__ == "__main__":
    main()
