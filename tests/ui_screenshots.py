"""Pictures of the operator's page for the documents: ``python -m tests.ui_screenshots``, from a fleet that it starts.

Its workers have the simulated engine, so the text is noise; everything else is real. Needs Pillow, which vLLM brings.
"""

import socket
import sys
import tempfile
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Final

from PIL import Image

from producer import Priority, Producer
from tests.browsers import Browser, running_browser
from tests.gateways import running_gateway
from tests.running import RunningFleet
from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer

FOLDER: Final = Path(__file__).parents[1] / "docs" / "images"
MODEL: Final = "chat-8b"
GREEDY: Final = {"temperature": 0, "max_tokens": 256}
COLORS: Final = 256
MOST_BYTES: Final = 200_000
LEAST_WORDS: Final = 10
"""Of an answer that is still written when its picture is taken."""


WITHOUT_HOST: Final = """
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(`@${arguments[0]}`, '@gpu-host');
"""
"""Workers are named for their machine, and whose this one is matters to nobody."""


def save(browser: Browser, name: str, height: int) -> None:
    """The upper part of the page as ``<name>.png``."""
    size = {"width": 1280, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.script(WITHOUT_HOST, socket.gethostname())
    picture = Image.open(BytesIO(browser.chrome.get_screenshot_as_png())).convert("RGB")
    path = FOLDER / f"{name}.png"
    picture.quantize(COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    assert size < MOST_BYTES, f"{path} has {size:,} bytes"
    print(f"{path.name}: {size:,} bytes")  # noqa: T201 - a program's output


def poison(producer: Producer) -> str:
    """A prompt that kills engines, until nobody tries it again; its dead letter."""
    fatal = {"simulate": "kills_engine"}
    job = producer.submit(model=MODEL, prompt="Summarise: " + "data " * 400, tenant="globex", metadata=fatal)
    eventually(producer.dead_letter_ids, what="it is given up", seconds=60)
    return job.job_id


def longest(producer: Producer) -> tuple[str, str]:
    """Of some chats the one with the longest answer: its text and its job."""
    texts = [f"Tell me {number} things about queues." for number in range(2, 60)]
    chats = [
        {"model": MODEL, "messages": [{"role": "user", "content": text}], "tenant": "globex", "sampling": GREEDY}
        for text in texts
    ]
    jobs = [outcome.unwrap().job_id for outcome in producer.submit_many(chats)]
    answers = {ended.index: ended.unwrap().usage.completion_tokens for ended in producer.results(jobs)}
    index = max(answers, key=lambda each: answers[each])
    return texts[index], jobs[index]


def fill(producer: Producer) -> None:
    """Jobs of all kinds."""
    for model in ("embed-docs", "reports-70b"):
        producer.declare_model(model)
    producer.set_queue_limit("reports-70b", 10_000)
    for number in range(60):
        tenant = ("acme", "globex", None)[number % 3]
        producer.submit(model="reports-70b", prompt=f"Report {number}", priority=Priority.BATCH, tenant=tenant)
    for number in range(20):
        sampling = {"max_tokens": 1500, "ignore_eos": True}
        producer.submit(model=MODEL, prompt=f"Chapter {number}", tenant="acme", sampling=sampling)


def take(browser: Browser, address: str, producer: Producer) -> None:
    """All of them."""
    letter, (text, job_id) = poison(producer), longest(producer)
    fill(producer)
    eventually(lambda: producer.workers(MODEL)[0].running_jobs > 1, what="the worker says what it runs")
    browser.open(f"{address}/ui/")
    save(browser, "ui-overview", 660)
    browser.open(f"{address}/ui/letter?id={letter}")
    save(browser, "ui-dead-letter", 760)
    browser.open(f"{address}/ui/job?id={job_id}")
    save(browser, "ui-job", 860)
    browser.open(f"{address}/ui/jobs?tenant=acme")
    save(browser, "ui-jobs", 760)
    browser.open(f"{address}/ui/try")
    browser.labelled("Text").send_keys(text)
    browser.labelled("Temperature").clear()
    browser.labelled("Temperature").send_keys("0")
    browser.press("Send")
    browser.eventually(lambda: browser.one("#stream").text.count(" ") > LEAST_WORDS, "the answer grows")
    save(browser, "ui-try", 940)


def main() -> None:
    """Start a fleet, fill it, and take the pictures."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(EmbeddedServer(folder / "valkey", free_port()))
        options = {"engine.kind": "simulated", "worker.gpus": "none", "engine.options.max_num_seqs": 16}
        options["engine.options.seconds_per_token"] = 0.02
        stack.enter_context(RunningFleet(server.url, folder, MODEL, options))
        address = stack.enter_context(running_gateway(server.url, folder))
        browser = stack.enter_context(running_browser(folder, "--hide-scrollbars"))
        producer = stack.enter_context(Producer(server.url))
        producer.lists_jobs = True
        take(browser, address, producer)


if __name__ == "__main__":
    sys.exit(main())
