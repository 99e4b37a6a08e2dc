"""The documents, followed word by word beside a running fleet: every command and every Python block, or why not.

``make docs`` runs it; it takes minutes. ``tests/docs_table.py`` has what is left out.
"""

import ast
import inspect
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.docs_blocks import Block, blocks, commands
from tests.docs_table import FILLED, LEFT_OUT, NAMES, PAGES, READY
from tests.gateways import running_gateway
from tests.running import FLEET, RunningFleet
from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer

MODEL: Final = "Qwen/Qwen3-0.6B"
SECONDS: Final = 60.0


@dataclass(frozen=True)
class Stand:
    """A fleet as ``fleet up`` starts it, but for its addresses, and an empty folder to work in."""

    redis_url: str
    gateway: str
    folder: Path

    @property
    def environ(self) -> dict[str, str]:
        """What the reader has exported; what else is started takes other ports, and needs no model."""
        ports = {f"FLEET_{name}__PORT": str(free_port()) for name in ("GATEWAY", "METRICS", "EXPORTER", "FLOWER")}
        path = f"{Path(FLEET[0]).parent}:{os.environ['PATH']}"
        settings = {"FLEET_ENGINE__KIND": "simulated", "FLEET_WORKER__GPUS": "none", "FLEET_REDIS_URL": self.redis_url}
        return os.environ | ports | settings | {"PATH": path, "PYTHONPATH": os.pathsep.join(sys.path)}

    def here(self, text: str) -> str:
        """With the addresses of this fleet in place of those that ``fleet up`` has when it is alone."""
        return text.replace("redis://127.0.0.1:6379/0", self.redis_url).replace("http://127.0.0.1:8000", self.gateway)

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """What became of a command in the folder."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """One for all pages."""
    folder = tmp_path_factory.mktemp("followed")
    options = {"engine.kind": "simulated", "worker.gpus": "none", "engine.options.seconds_per_token": 0.002}
    options |= {"engine.tool_call_parser": "simulated"}
    with (
        EmbeddedServer(folder / "valkey", free_port()) as server,
        RunningFleet(server.url, folder, MODEL, options),
        running_gateway(server.url, folder) as gateway,
    ):
        empty = folder / "empty"
        empty.mkdir()
        stand = Stand(server.url, gateway, empty)
        # README says so in a sentence, of webhooks without a tenant.
        subprocess.run([*FLEET, "webhooks", "secret", "create"], env=stand.environ, check=True, capture_output=True)
        yield stand


def reason(page: str, text: str) -> str | None:
    """Why this is not run; None for what is."""
    found = [why for (where, start), why in LEFT_OUT.items() if where == page and text.lstrip().startswith(start)]
    assert len(found) <= 1, text
    return found[0] if found else None


def filled(page: str, command: str) -> str:
    """With what stands for something of the reader's own."""
    for (where, start), (word, value) in FILLED.items():
        if where == page and command.startswith(start):
            command = re.sub(rf"\b{word}\b", lambda _, value=value: value, command)  # type: ignore[misc]
    return command


@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_followed(stand: Stand, page: str) -> None:
    """From its first block to its last."""
    script, wrong = ["set -euo pipefail"], []
    for block in blocks(page):
        if block.language == "python":
            wrong += follow_python(stand, block)
        for command in commands(block) if block.language == "sh" else ():
            if reason(page, command) is None:
                wrong += follow(stand, block, script, command)
    assert wrong == [], "\n\n".join(wrong)


def follow(stand: Stand, block: Block, script: list[str], command: str) -> list[str]:
    """One command, in a shell that has what the page has assigned before; what is wrong with it."""
    text = stand.here(filled(block.page, command))
    word = next((ready for start, ready in READY.items() if re.match(rf"(\w+=\S+ )?{start}\b(?!s)", command)), None)
    if word is not None:
        return follow_server(stand, block, text, word)
    if re.match(r"(export \w+=|\w+=\S*$|\w+='[^']*'$)", text):
        script.append(text)
    done = stand.run("bash", "-c", "\n".join([*script, text]))
    if done.returncode == 0 and "Traceback" not in done.stderr:
        return []
    return [f"{block.page}:{block.line}: {text}\n-> {done.returncode}\n{done.stdout[-500:]}{done.stderr[-1500:]}"]


def follow_server(stand: Stand, block: Block, text: str, word: str) -> list[str]:
    """One that runs until it is stopped: it says that it is ready, and ends well."""
    log = stand.folder / "server.log"
    with log.open("wb") as output:
        command = ["bash", "-c", f"exec env {text}"]
        process = subprocess.Popen(command, cwd=stand.folder, env=stand.environ, stdout=output, stderr=output)
    try:
        eventually(lambda: word in log.read_text() or process.poll() is not None, seconds=SECONDS, what=text)
    finally:
        process.terminate()
        status = process.wait(SECONDS)
    if word in log.read_text() and status in {0, -15}:
        return []
    return [f"{block.page}:{block.line}: {text}\n-> {status}\n{log.read_text()[-1500:]}"]


def follow_python(stand: Stand, block: Block) -> list[str]:
    """One block, beside what its page takes as given."""
    if reason(block.page, block.text) is not None:
        return []
    text = stand.here(block.text)
    tree = ast.parse(text)
    is_async = any(isinstance(node, ast.Await | ast.AsyncFor) for node in ast.walk(tree))
    kind = "AsyncProducer" if is_async else "Producer"
    given = f"from producer import *\nfrom producer import {kind}\nproducer = {kind}({stand.redis_url!r})\n{NAMES}\n"
    if compile(text, block.page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT).co_flags & inspect.CO_COROUTINE:
        text = f"import asyncio\nasync def followed():\n{textwrap.indent(text, '    ')}\nasyncio.run(followed())\n"
    done = stand.run(sys.executable, "-c", stand.here(given) + text)
    return [] if done.returncode == 0 else [f"{block.page}:{block.line}: {done.stdout[-500:]}{done.stderr[-2500:]}"]
