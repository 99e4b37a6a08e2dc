"""Which pages are followed, what in them is not run and why, and what stands for something of the reader's own."""

from typing import Final

PAGES: Final = (
    "README.md",
    "docs/web-apps.md",
    "docs/gateway.md",
    "docs/models.md",
    "docs/flower.md",
    "docs/monitoring.md",
    "docs/logs.md",
    "docs/tracing.md",
    "docs/security.md",
    "docs/upgrading.md",
    "docs/troubleshooting.md",
    "docs/webhooks.md",
    "docs/conversations.md",
    "docs/tools.md",
    "docs/streams.md",
    "docs/reliability.md",
    "docs/operator-page.md",
    "docs/who-is-next.md",
)
HUB: Final = "asks the model hub; tests/integration/test_models.py has one of its own"
GPUS: Final = "needs GPUs"
NOTHING_DEAD: Final = "nothing has died here; tests/integration/test_cli_dead.py buries something first"
LEFT_OUT: Final = {
    ("README.md", "make demo"): "tests/integration/test_demo.py runs it",
    ("README.md", "make test"): "it is what runs this",
    ("README.md", "fleet worker --model meta-llama"): GPUS,
    ("README.md", "fleet worker --model big"): GPUS,
    ("README.md", "fleet worker --model Qwen/Qwen3-0.6B"): "measures engines; tests/integration/test_calibration.py",
    ("README.md", "fleet models pull"): HUB,
    ("README.md", "deploy/compose/make_secrets.sh"): "needs Docker; deploy/compose/check.sh looks at the stack",
    ("README.md", "fleet dead show"): NOTHING_DEAD,
    ("README.md", "fleet dead replay"): NOTHING_DEAD,
    ("README.md", "fleet dead purge"): NOTHING_DEAD,
    ("README.md", "make chaos"): "kills things for minutes; tests/chaos",
    ("docs/gateway.md", "pip install"): "tests/integration/test_examples.py installs the package by itself",
    ("docs/gateway.md", "fleet gateway --host"): "listens beyond this machine; test_gateway_keys.py",
    ("docs/models.md", "fleet models pull"): HUB,
    ("docs/models.md", "fleet models verify"): HUB,
    ("docs/models.md", "fleet models preload"): HUB,
    ("docs/models.md", "fleet models remove"): HUB,
    ("docs/monitoring.md", "promtool"): "tests/unit/test_prometheus_rules.py runs both",
    ("docs/logs.md", "fleet gateway"): "writes below /var/log; tests/integration/test_logs.py",
    ("docs/tracing.md", "pip install"): "the tests have its packages",
    ("docs/tracing.md", "export"): "names a collector that is not there; tests/integration/test_tracing.py has one",
    ("docs/troubleshooting.md", "fleet doctor"): HUB,
    ("docs/tools.md", "fleet worker"): "needs vLLM's parsers; tests/integration/test_gateway_tools.py",
    ("docs/webhooks.md", "import os"): "tests/integration/test_webhooks.py runs it, as a receiver",
    ("docs/webhooks.md", "fleet webhooks replay"): "nothing was given up here; test_webhooks.py",
    ("docs/webhooks.md", "fleet gateway --webhook-allow-hosts"): "is the gateway of this fleet, with an option",
    ("docs/reliability.md", "cp snapshot.rdb"): "tests/faults/test_snapshot_restored.py does it",
    ("docs/reliability.md", "valkey-"): "tests/faults/test_snapshot_restored.py does it",
}
"""By page and beginning."""
FILLED: Final = {
    ("docs/gateway.md", "fleet keys revoke"): ("ID", "$(fleet keys list | awk '/web/ {print $1}')"),
    ("docs/troubleshooting.md", "fleet status"): ("ID", "$(fleet submit --model Qwen/Qwen3-0.6B --prompt x)"),
    ("docs/gateway.md", "curl -s "): ("ID", "$(curl -s $base/v1/jobs | grep -om1 '[0-9a-f-]\\{36\\}' | head -1)"),
}
"""By page and beginning of a command: the word that stands for something else, and what the shell has for it."""
NAMES: Final = """
from datetime import UTC, datetime, timedelta

from openai import OpenAI

model = "Qwen/Qwen3-0.6B"
client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
requests = [{"model": model, "prompt": "Why?"}, {"model": model, "prompt": "How?"}]
sections = ["One.", "Two."]
messages = [{"role": "user", "content": "How is the weather in Vienna?"}]
schema_of_a_city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
read_a_million_pages = lambda: ["a page"] * 3
in_30_seconds = lambda: datetime.now(UTC) + timedelta(seconds=30)
save = show = done = lambda *what: print(what)
clear = lambda: None
the_weather = lambda where: "sunny"
"""
"""What the Python blocks take as given."""
READY: Final = {
    "fleet up": "is served",
    "fleet gateway": "Uvicorn running",
    "fleet worker": "takes jobs for",
    "fleet exporter": "metrics on",
    "fleet flower": "Visit me at",
    "fleet webhooks deliver": "deliver",
}
