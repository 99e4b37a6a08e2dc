"""Pictures of the dashboards for the documents: ``python -m tests.dashboard_pictures``, from a fleet that it starts.

A worker with the simulated engine under a load that changes, and one with the real engine and the tiny model; a real
Prometheus scrapes them and the exporter, and the pictures are drawn from the very queries of the dashboards. It takes
about five minutes. Needs matplotlib (the extra ``bench``), and Pillow, which vLLM brings.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from producer import Priority, Producer
from producer.contract import GenerationRequest
from tests.dashboard_panels import Sampled, draw
from tests.exporters import running_exporter
from tests.prometheuses import DASHBOARDS, RunningPrometheus, asked, quick_rules, running_prometheus
from tests.running import VLLM_OPTIONS, RunningFleet
from tests.waiting import free_port
from workers.embedded import EmbeddedServer
from workers.models.tiny import make_tiny_model

FOLDER: Final = Path(__file__).parents[1] / "docs" / "images"
MODEL: Final = "chat-8b"
TINY: Final = "tiny-llama"
SECONDS: Final = 200
SCRAPE_SECONDS: Final = 2
COLORS: Final = 64
MOST_BYTES: Final = 100_000
COLUMN_INCHES: Final = 0.5
ROW_INCHES: Final = 0.25


@dataclass
class Load:
    """What is done to the fleet, second by second."""

    producer: Producer
    fleet: RunningFleet

    def second(self, number: int) -> None:
        """A steady load with changes; a lot at once; the worker is killed; a prompt that kills engines."""
        self._submit(MODEL, 2 + number // 10 % 4, Priority.NORMAL)
        self._submit(MODEL, 1, Priority.INTERACTIVE)
        self._submit(TINY, 1 if number % 40 else 120, Priority.NORMAL)
        match number:
            case 30:
                self._submit(MODEL, 400, Priority.BATCH)
            case 95:
                self.fleet.kill()
            case 120:
                self.fleet.start()
            case 140:
                self.producer.submit(model=MODEL, prompt="x", metadata={"simulate": "kills_engine"})

    def _submit(self, model: str, count: int, priority: Priority) -> None:
        requests = [
            GenerationRequest(
                model=model,
                prompt="Why queues? " * 20,
                priority=priority,
                sampling={"max_tokens": 40 + 20 * (each % 3), "ignore_eos": True},
            )
            for each in range(count)
        ]
        for submitted in self.producer.submit_many(requests):
            submitted.unwrap()


def play(load: Load) -> tuple[float, float]:
    """All of it, at its pace; when it began and ended."""
    began = time.time()
    for number in range(SECONDS):
        load.second(number)
        time.sleep(max(0.0, began + number + 1 - time.time()))
    return began, time.time()


def sampled(prometheus: RunningPrometheus, panel: dict[str, Any], window: tuple[float, float]) -> Iterator[Sampled]:
    """A panel's lines."""
    for target in panel["targets"]:
        answer = prometheus.ask(
            "query_range",
            query=asked(target["expr"], "30s"),
            start=str(window[0]),
            end=str(window[1]),
            step=str(SCRAPE_SECONDS),
        )
        for line in answer["result"]:
            name = target["legendFormat"]
            for label, value in line["metric"].items():
                name = name.replace(f"{{{{{label}}}}}", value)
            moments = [float(at) - window[0] for at, _ in line["values"]]
            yield Sampled(name, moments, [float(value) for _, value in line["values"]])


def picture(prometheus: RunningPrometheus, board: dict[str, Any], window: tuple[float, float]) -> Figure:
    """A whole dashboard, its panels where Grafana has them."""
    places = [panel["gridPos"] for panel in board["panels"]]
    height = max(place["y"] + place["h"] for place in places)
    figure = Figure(figsize=(24 * COLUMN_INCHES, height * ROW_INCHES), dpi=80)
    for panel, place in zip(board["panels"], places, strict=True):
        left, bottom = (place["x"] + 1.0) / 24, 1 - (place["y"] + place["h"] - 1.1) / height
        axes = figure.add_axes((left, bottom, (place["w"] - 1.3) / 24, (place["h"] - 2.2) / height))
        draw(axes, panel, list(sampled(prometheus, panel, window)), window[1] - window[0])
    return figure


def save(figure: Figure, name: str) -> None:
    """As ``dashboard-<name>.png``, with few colours."""
    drawn = BytesIO()
    FigureCanvasAgg(figure).print_png(drawn)
    path = FOLDER / f"dashboard-{name}.png"
    Image.open(drawn).convert("RGB").quantize(COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        path, optimize=True
    )
    size = path.stat().st_size
    assert size < MOST_BYTES, f"{path} has {size:,} bytes"
    print(f"{path.name}: {size:,} bytes")  # noqa: T201 - a program's output


def main() -> None:
    """Start it all, play the load, and draw."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(EmbeddedServer(folder / "valkey", free_port()))
        (folder / "tiny").mkdir()
        real = {f"engine.options.{name}": value for name, value in VLLM_OPTIONS.items()}
        model = make_tiny_model(folder / "models" / TINY)
        tiny = stack.enter_context(RunningFleet(server.url, folder / "tiny", str(model), real))
        options = {"engine.kind": "simulated", "worker.gpus": "none", "engine.options.max_num_seqs": 16}
        options["engine.options.seconds_per_token"] = 0.02
        fleet = stack.enter_context(RunningFleet(server.url, folder, MODEL, options))
        exporter = stack.enter_context(running_exporter(server.url, folder))
        targets = {
            "worker": [f"127.0.0.1:{one.port}" for one in (fleet, tiny)],
            "exporter": [exporter.address.removeprefix("http://")],
        }
        rules = quick_rules(folder / "rules", SCRAPE_SECONDS, wait="10s")
        prometheus = stack.enter_context(running_prometheus(folder, targets, rules, SCRAPE_SECONDS))
        producer = stack.enter_context(Producer(server.url))
        window = play(Load(producer, fleet))
        for path in sorted(DASHBOARDS.glob("*.json")):
            save(picture(prometheus, json.loads(path.read_text()), window), path.stem)


if __name__ == "__main__":
    sys.exit(main())
