"""``fleet gateway`` as its user runs it, in front of a fleet."""

import os
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.running import FLEET
from tests.waiting import eventually, free_port


@contextmanager
def running_gateway(redis_url: str, folder: Path, *arguments: str, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Its address; it has stopped by itself afterwards. ``tls`` trusts its certificate, where it is given one."""
    port = free_port()
    address = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    command = [*FLEET, "gateway", "--port", str(port), *arguments]
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | {"FLEET_REDIS_URL": redis_url}, stdout=log, stderr=log)
    try:
        eventually(lambda: answers(f"{address}/health", tls), seconds=90, what="the gateway answers")
        yield address
    finally:
        process.terminate()
        assert process.wait(30) == 0, (folder / "gateway.log").read_text()


def answers(url: str, tls: ssl.SSLContext | None = None) -> bool:
    """Whether somebody says 200 there."""
    try:
        return httpx.get(url, timeout=5, verify=tls or True).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
