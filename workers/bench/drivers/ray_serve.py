"""``ray-serve``: Ray Serve's Celery task consumer, one AsyncLLM in its one replica, stock producers.

Needs ``pip install "ray[serve]"`` beside vLLM; tried with Ray 2.60. Its task handlers are functions that block, run by
Celery's threads pool inside the replica.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import psutil

from workers.bench.drivers.base import visible_gpu
from workers.bench.drivers.server import QueueDriver
from workers.bench.drivers.stock_celery import CONF, QUEUE, TASK, StockProducer, answer_of
from workers.bench.engines.threaded import ThreadedEngine
from workers.bench.load import BenchJob, Load
from workers.bench.records import PassRecord
from workers.bench.target import BenchError, EngineTarget

REPLICA_TITLE: Final = "ServeReplica"
MANAGED_BY_RAY: Final = ("task_acks_late", "broker_transport_options")


class RayServeDriver(QueueDriver):
    """See the module."""

    def __init__(self, target: EngineTarget, folder: Path) -> None:
        super().__init__(target, folder)
        self._producer = StockProducer(self.server.url)
        self._is_running = False

    def start(self) -> None:
        """See :meth:`Driver.start`."""
        if find_spec("ray") is None:
            raise BenchError('driver ray-serve needs Ray: pip install "ray[serve]"')
        import ray
        from ray import serve

        self.start_server(with_listener=True)
        self._is_running = True
        ray.init(include_dashboard=False, configure_logging=False, log_to_driver=True)
        serve.run(self._deployment().bind(self.target), route_prefix=None)

    def _deployment(self) -> Any:  # noqa: ANN401 - Ray is not installed where this is checked
        from ray import serve
        from ray.serve.schema import CeleryAdapterConfig, TaskProcessorConfig
        from ray.serve.task_consumer import task_consumer, task_handler

        adapter = CeleryAdapterConfig(
            broker_url=self.server.url,
            backend_url=self.server.url,
            broker_transport_options=CONF["broker_transport_options"],
            app_custom_config={name: value for name, value in CONF.items() if name not in MANAGED_BY_RAY},
        )
        gpus = 0 if self.target.gpu == "none" else 1

        @serve.deployment(
            max_ongoing_requests=self.target.slots_and_headroom,
            ray_actor_options={"num_gpus": gpus, "runtime_env": {"env_vars": visible_gpu(self.target)}},
        )
        @task_consumer(task_processor_config=TaskProcessorConfig(queue_name=QUEUE, adapter_config=adapter))
        class Consumer:
            """The replica."""

            def __init__(self, target: EngineTarget) -> None:
                self._engine = ThreadedEngine(target)
                self._engine.start()

            @task_handler(name=TASK)  # type: ignore[untyped-decorator]  # Ray is not installed where this is checked
            def generate(self, job: dict[str, Any]) -> dict[str, Any]:
                """Run one job; it takes its thread until it ends."""
                return answer_of(self._engine.generate(BenchJob(**job)))

        return Consumer

    def workers(self) -> list[psutil.Process]:
        """The replica."""
        family = psutil.Process().children(recursive=True)
        return [process for process in family if REPLICA_TITLE in " ".join(process.cmdline())]

    def run(self, load: Load) -> PassRecord:
        """See :meth:`Driver.run`."""
        return self._producer.run(load)

    def stop(self) -> None:
        """See :meth:`Driver.stop`."""
        self._producer.close()
        if self._is_running:
            import ray
            from ray import serve

            serve.shutdown()
            ray.shutdown()
        self.stop_server()
