"""Every setting: its name, unit, bounds, default, and the reason for the default."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from config.aliases import parsed_adapters, parsed_aliases
from config.doors import ExporterSettings, MetricsSettings
from config.flower_settings import FlowerSettings
from config.gateway_settings import GatewaySettings
from config.gpus import MOST_ENGINES_PER_GPU, parsed_engines_per_gpu, parsed_gpus
from config.group import DAY_SECONDS, OptionalSeconds, Seconds, SettingsGroup
from config.log_settings import LogSettings
from config.redis_url import check_redis_url
from config.tracing_settings import TracingSettings

OPTIONS_WITH_OWN_SETTING: Final = {
    "model": "model.name",
    "served_model_name": "model.served_model_name",
    "revision": "model.revision",
}
"""Engine options that have a setting of their own, so that nothing is said twice."""


EnginesPerGpu = Annotated[
    Annotated[int, Field(ge=1, le=MOST_ENGINES_PER_GPU)] | Literal["auto"], BeforeValidator(parsed_engines_per_gpu)
]


class RedisSettings(SettingsGroup):
    """The server that holds queues, results and everything else that is shared."""

    url: str = "redis://127.0.0.1:6379/0"
    """Address of the server, `redis://` or `rediss://` (TLS), or of the sentinels that know the master:
    `sentinel://host:26379,host:26379/master/0`; the default is a server on this machine. A password in it is never
    shown."""
    connect_timeout_seconds: Seconds = 5.0
    """Seconds to wait for a connection; a server that is up answers in milliseconds, 5 s outlasts a busy network."""
    socket_timeout_seconds: Seconds = 30.0
    """Seconds to wait for an answer; without it a half-open connection would hang for ever."""
    max_memory_bytes: int = Field(default=0, ge=0)
    """`maxmemory` of the server that `fleet up` starts; 0: half of the machine's memory, or of the container's limit.
    From 90 % of it on no job is taken."""

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        check_redis_url(value)
        return value


class ModelSettings(SettingsGroup):
    """The model that this worker serves."""

    name: str = ""
    """A folder, or a name that the model hub knows; empty: none given, the command says what it does then."""
    served_model_name: str = Field(default="", max_length=256)
    """The name that jobs use, and so the queue's; empty: the folder's last component, otherwise `model.name`."""
    aliases: Annotated[str, BeforeValidator(parsed_aliases)] = ""
    """Other names, with commas, under which jobs reach the same queue; one that is a model's own name, or another
    model's alias already, is refused in the log and left as it is."""
    revision: str = ""
    """Branch, tag or commit on the model hub; empty: its default branch."""
    lora_adapters: Annotated[str, BeforeValidator(parsed_adapters)] = ""
    """LoRA adapters of this model, `name=folder` with commas, or a table in a file: jobs that name one as their model
    are answered with it. All workers of a model should have the same; a name that is not free is refused in the log."""

    @field_validator("name")
    @classmethod
    def _expand_home(cls, value: str) -> str:
        return str(Path(value).expanduser()) if value.startswith("~/") else value

    @property
    def other_names(self) -> tuple[str, ...]:
        """The aliases, each for itself."""
        return tuple(self.aliases.split(",")) if self.aliases else ()

    @property
    def adapters(self) -> dict[str, str]:
        """The folder of each adapter, by its name."""
        pairs = (pair.partition("=") for pair in self.lora_adapters.split(",") if pair)
        return {name: folder for name, _, folder in pairs}

    @property
    def served_as(self) -> str:
        """The name that jobs use, derived when none is set; empty when there is no model."""
        if self.served_model_name or not self.name:
            return self.served_model_name
        folder = Path(self.name)
        looks_like_folder = self.name.startswith((".", "/")) or folder.is_dir()
        return folder.resolve().name if looks_like_folder else self.name


class EngineSettings(SettingsGroup):
    """The engine that holds the model."""

    kind: Literal["vllm", "simulated"] = "vllm"
    """`vllm` generates; `simulated` answers without a model, for tests and for trying out a fleet."""
    options: Mapping[str, Any] = Field(default_factory=dict)
    """Engine options under vLLM's own names (`AsyncEngineArgs`), passed through; the worker refuses unknown ones."""
    tool_call_parser: str = ""
    """Who reads the tool calls that the model writes when it decides by itself (`tool_choice = "auto"`), under vLLM's
    own names (`--tool-call-parser`: `hermes`, `llama3_json`, …); empty: nobody, and only calls that are asked for by
    name, or as `required`, are served."""
    start_timeout_seconds: Seconds = 1800.0
    """Seconds for loading the model; the first start also downloads and compiles, so half an hour."""
    health_interval_seconds: float = Field(default=1.0, gt=0, le=60)
    """Seconds between two health checks; a check is cheap, and jobs of a dead engine wait this long for another."""
    hang_timeout_seconds: Seconds = 10.0
    """Seconds without an answer after which an engine counts as hung: its jobs go to others and the worker starts
    again. It must be longer than the longest step; a large model's prefill on a CPU may take more than this."""

    @field_validator("options")
    @classmethod
    def _leave_out_what_has_its_own_setting(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        for option in value:
            if own := OPTIONS_WITH_OWN_SETTING.get(option):
                raise ValueError(f"{option!r} is not set here; set {own}")
        if not any(value.get("trust_remote_code", False) is answer for answer in (True, False)):
            raise ValueError("'trust_remote_code' is true or false: true lets the model's own Python run on the worker")
        return value


class WorkerSettings(SettingsGroup):
    """One worker process: what it takes, how much at once, and how it stops."""

    gpus: Annotated[str, BeforeValidator(parsed_gpus)] = "auto"
    """`all`: every visible GPU; `none`: the CPU; `auto`: every visible GPU, or the CPU where there is none; or indices
    and UUIDs with commas."""
    engines_per_gpu: EnginesPerGpu = 1
    """Engines, each in a worker process of its own, that share each GPU (or the CPU) and its memory. A small model
    leaves a GPU idle while one engine's Python is busy; one engine of a large model fills it, so 1. `auto`: measured at
    the first start, which takes minutes, and kept."""
    calibration_folder: str = ""
    """Folder that keeps what `engines_per_gpu = "auto"` chose and measured, one JSON file per model, engine options and
    GPU; empty: `inference-fleet` in `$XDG_CACHE_HOME`, or in `~/.cache`."""
    batch_max_jobs: int = Field(default=64, ge=1, le=1024)
    """Most jobs taken from the queue in one call; 64 fill an engine in a few calls, and no call keeps Redis long."""
    batch_max_wait_ms: int = Field(default=0, ge=0, le=60_000)
    """Milliseconds to wait for a micro-batch to fill; 0: an idle engine starts at once, later jobs join it running."""
    max_message_bytes: int = Field(default=20 * 1024 * 1024, ge=64 * 1024, le=512 * 1024 * 1024)
    """A larger message is refused before it is read, and its job is answered `invalid_request`; 20 MiB hold any request
    that the contract takes, however its sender escapes and encodes it. All workers of a queue should agree."""
    concurrency: int = Field(default=0, ge=0, le=100_000)
    """Most jobs inside the worker; 0: the engine's `max_num_seqs` plus the headroom."""
    concurrency_headroom: float = Field(default=0.05, ge=0, le=0.10)
    """Jobs that wait in the worker, as a share of `max_num_seqs`, so that a free sequence finds its next job there;
    more than 0.10 would hoard jobs that another worker could run."""
    refill_jobs: int = Field(default=0, ge=0, le=1024)
    """Jobs that enter a nearly full engine together: a step that begins jobs costs it more than one that only
    continues them. At most a quarter of its sequences; 0: an eighth of them; 1: each job at once."""
    refill_max_wait_ms: int = Field(default=500, ge=0, le=60_000)
    """Milliseconds that the first of these jobs waits for the others; 0: not at all. Interactive jobs never wait, nor
    does anybody while each job finds a free sequence when it comes."""
    interactive_reserve: int = Field(default=4, ge=0, le=1024)
    """Sequences that the engine has beyond those for other lanes, so that an interactive job need not wait for one to
    end; 0: none. At most an eighth of the engine's sequences. Where `engine.options.max_num_seqs` is set, they come on
    top of it; otherwise they are part of vLLM's default."""
    interactive_engines: int = Field(default=0, ge=0, le=1024)
    """Of a machine's engines, the last so many take interactive jobs alone and the others all else: a first token then
    waits for no step that is full of other jobs. 0: every engine takes what `lanes` says."""
    others_active_thread_percentage: int = Field(default=100, ge=10, le=100)
    """Percent of a GPU's multiprocessors that its other engines use at most, where `interactive_engines` share it:
    below 100 interactive jobs always find some free, at the cost of the others' tokens. Needs NVIDIA's MPS daemon."""
    others_yield: bool = False
    """Whether other engines that share a GPU with `interactive_engines` begin no step while one of those owes a first
    token, for 50 ms at most, and none ahead of time while more are expected. It costs the others tokens as long as
    interactive jobs come, and nothing otherwise."""
    lanes: Literal["all", "interactive", "others"] = "all"
    """Lanes that this machine's workers take jobs from: all, the interactive one alone, or all others. What no worker
    takes waits."""
    prefix_window_seconds: float = Field(default=60.0, ge=0, le=DAY_SECONDS)
    """Jobs whose prompts begin like those that the engine has just run go before others that came at most so many
    seconds before them, so that its prefix cache serves them; 0: every tenant's jobs in the order of their arrival."""
    finisher_threads: int = Field(default=2, ge=1, le=64)
    """Threads that write results; two, so that one slow answer of Redis does not hold up the next."""
    lease_seconds: float = Field(default=5.0, ge=1, le=600)
    """Seconds that a worker's jobs stay its own when it is not heard of: killed, its jobs are elsewhere this much
    later. Renewed three times meanwhile; raise it where machines freeze for seconds."""
    max_deliveries: int = Field(default=3, ge=1, le=1000)
    """Workers or engines that may die under a job before it is answered as poisoned and kept as a dead letter."""
    drain_timeout_seconds: float = Field(default=30.0, ge=0, le=DAY_SECONDS)
    """Seconds that running jobs have to finish after SIGTERM; then the rest goes back to the queue. What stops
    the worker (Kubernetes after 30 s, Compose after 10 s, unless told otherwise) must allow more than this."""
    restart_backoff_initial_seconds: Seconds = 1.0
    """Seconds before a worker that died is started again; doubles with each death."""
    restart_backoff_max_seconds: Seconds = 60.0
    """Longest such wait, in seconds: a machine that is well again serves within a minute."""
    max_failed_starts: int = Field(default=5, ge=1, le=1000)
    """Failed starts in a row after which the supervisor gives up: by then it is the settings, not luck."""
    soft_time_limit_seconds: OptionalSeconds = None
    """Seconds after which a running job is cancelled and fails; `none`: its deadline and `max_tokens` end it."""
    time_limit_seconds: OptionalSeconds = None
    """Seconds after which a job that the soft limit did not end is given up; `none`: no limit."""

    @field_validator("restart_backoff_max_seconds")
    @classmethod
    def _is_not_below_initial(cls, value: float, info: ValidationInfo) -> float:
        initial = info.data.get("restart_backoff_initial_seconds", value)
        if value < initial:
            raise ValueError(f"must not be below worker.restart_backoff_initial_seconds ({initial:g})")
        return value

    @field_validator("time_limit_seconds")
    @classmethod
    def _is_above_soft_limit(cls, value: float | None, info: ValidationInfo) -> float | None:
        soft = info.data.get("soft_time_limit_seconds")
        if value is not None and soft is not None and value <= soft:
            raise ValueError(f"must be above worker.soft_time_limit_seconds ({soft:g})")
        return value


class ResultSettings(SettingsGroup):
    """How long Redis keeps what was answered."""

    expires_seconds: int = Field(default=DAY_SECONDS, ge=1, le=365 * DAY_SECONDS)
    """Seconds that a result can be fetched; a day, as in Celery."""
    job_record_seconds: int = Field(default=7 * DAY_SECONDS, ge=1, le=365 * DAY_SECONDS)
    """Seconds that a job's record (state, idempotency key) lives; a week, so that Monday knows of Friday's jobs."""
    stream_expires_seconds: int = Field(default=3600, ge=60, le=365 * DAY_SECONDS)
    """Seconds that what a streamed job said can be read on from where a reader left it; its result lives as any."""

    @field_validator("job_record_seconds")
    @classmethod
    def _outlives_the_result(cls, value: int, info: ValidationInfo) -> int:
        expires = info.data.get("expires_seconds", value)
        if value < expires:
            raise ValueError(f"must not be below results.expires_seconds ({expires}): a record outlives its result")
        return value


class Settings(SettingsGroup):
    """All settings in force."""

    profile: str = ""
    """A packaged profile's name, or the path of a `.toml` file; empty: none."""
    redis: RedisSettings = RedisSettings()
    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    worker: WorkerSettings = WorkerSettings()
    results: ResultSettings = ResultSettings()
    metrics: MetricsSettings = MetricsSettings()
    exporter: ExporterSettings = ExporterSettings()
    flower: FlowerSettings = FlowerSettings()
    gateway: GatewaySettings = GatewaySettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
