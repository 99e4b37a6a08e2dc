"""Where settings come from: precedence, provenance, and names that are refused."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from config.errors import SettingsError
from config.loading import LoadedSettings, load_settings
from config.sources import parsed_option


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one, so that no file of this repository is read."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(
    toml: str | None = None, environ: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None
) -> LoadedSettings:
    """Settings of a ``fleet.toml`` with this content, these variables and this command line."""
    if toml is not None:
        Path("fleet.toml").write_text(toml, encoding="utf-8")
    return load_settings(config_file=None, environ=environ or {}, overrides=overrides or {})


def refusal(
    toml: str | None = None, environ: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None
) -> str:
    """The one line that these sources are refused with."""
    with pytest.raises(SettingsError) as refused:
        load(toml, environ, overrides)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_nearer_source_wins() -> None:
    """Command line over environment over file over profile over default; each value knows its source."""
    profile = "[worker]\nbatch_max_jobs = 1\nfinisher_threads = 1\nmax_failed_starts = 1\ngpus = 1"
    Path("mine.toml").write_text(profile, encoding="utf-8")
    file = "profile = 'mine.toml'\n[worker]\nbatch_max_jobs = 2\nfinisher_threads = 2\nmax_failed_starts = 2"
    environ = {"FLEET_WORKER__BATCH_MAX_JOBS": "3", "FLEET_WORKER__FINISHER_THREADS": "3"}
    loaded = load(file, environ, {"worker.batch_max_jobs": 4})
    worker = loaded.settings.worker
    assert (worker.batch_max_jobs, worker.finisher_threads, worker.max_failed_starts, worker.gpus) == (4, 3, 2, "1")
    assert loaded.origins["worker.batch_max_jobs"] == "command line"
    assert loaded.origins["worker.finisher_threads"] == "environment FLEET_WORKER__FINISHER_THREADS"
    assert loaded.origins["worker.max_failed_starts"] == "file fleet.toml"
    assert loaded.origins["worker.gpus"] == "profile mine.toml"
    assert loaded.origins["worker.concurrency"] == "default"


def test_engine_options_add_up_over_the_sources() -> None:
    """One option in the environment leaves the file's others in place."""
    loaded = load(
        "[engine.options]\nmax_num_seqs = 8\nseed = 1",
        {"FLEET_ENGINE__OPTIONS__MAX_NUM_SEQS": "64"},
        {"engine.options.dtype": "half"},
    )
    assert loaded.settings.engine.options == {"max_num_seqs": 64, "seed": 1, "dtype": "half"}
    assert loaded.origins["engine.options.max_num_seqs"] == "environment FLEET_ENGINE__OPTIONS__MAX_NUM_SEQS"
    assert loaded.origins["engine.options.seed"] == "file fleet.toml"
    assert loaded.origins["engine.options.dtype"] == "command line"


def test_all_engine_options_fit_into_one_variable() -> None:
    """A JSON object sets each of its keys."""
    loaded = load(environ={"FLEET_ENGINE__OPTIONS": '{"max_num_seqs": 64, "compilation_config": {"level": 3}}'})
    assert loaded.settings.engine.options == {"max_num_seqs": 64, "compilation_config": {"level": 3}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("64", 64),
        ("0.5", 0.5),
        ("true", True),
        ("False", False),
        ("null", None),
        ('{"level": 3}', {"level": 3}),
        ("[1, 2]", [1, 2]),
        ('"64"', "64"),
        ("fp8", "fp8"),
        ("NaN", "NaN"),
        ("{not json", "{not json"),
    ],
)
def test_option_text_is_read_as_json_where_it_is_json(text: str, value: object) -> None:
    """Everything else is the text itself."""
    assert parsed_option(text) == value


def test_options_null_reaches_the_engine() -> None:
    """None of the engine takes back what a profile sets; for our own settings None is an option that was not given."""
    loaded = load(overrides={"profile": "quantized", "engine.options.quantization": None, "worker.gpus": None})
    assert loaded.settings.engine.options["quantization"] is None
    assert loaded.origins["worker.gpus"] == "default"


@pytest.mark.parametrize(
    ("variable", "setting", "value"),
    [
        ("FLEET_REDIS_URL", "redis.url", "redis://elsewhere:6379/0"),
        ("FLEET_REDIS__URL", "redis.url", "redis://elsewhere:6379/0"),
        ("FLEET_MODEL", "model.name", "a/b"),
        ("FLEET_MODEL__NAME", "model.name", "a/b"),
        ("FLEET_PROFILE", "profile", "small"),
    ],
)
def test_variables_short_and_long(variable: str, setting: str, value: str) -> None:
    """The two settings that everybody sets have a short name too."""
    loaded = load(environ={variable: value})
    assert loaded.origins[setting] == f"environment {variable}"
    assert next(shown.value for shown in loaded.shown() if shown.name == setting) == value


def test_two_variables_that_disagree_are_refused() -> None:
    """Short and long name of one setting must not differ; saying it twice alike is fine."""
    both = {"FLEET_MODEL": "a", "FLEET_MODEL__NAME": "a"}
    assert load(environ=both).settings.model.name == "a"
    assert refusal(environ=both | {"FLEET_MODEL": "b"}) == (
        "environment FLEET_MODEL and FLEET_MODEL__NAME set model.name differently: leave one out"
    )


def test_a_value_may_lie_in_a_file(tmp_path: Path) -> None:
    """As containers get what is secret; the source is the variable, and the value is masked as ever."""
    secret = tmp_path / "secret"
    secret.write_text("redis://worker:pass@elsewhere:6379/0\n")
    for variable in ("FLEET_REDIS_URL_FILE", "FLEET_REDIS__URL_FILE"):
        loaded = load(environ={variable: str(secret)})
        assert loaded.settings.redis.url == "redis://worker:pass@elsewhere:6379/0"
        shown = next(shown for shown in loaded.shown() if shown.name == "redis.url")
        assert (shown.value, shown.origin) == ("redis://worker:***@elsewhere:6379/0", f"environment {variable}")


def test_a_file_of_a_value_that_does_not_serve_is_refused(tmp_path: Path) -> None:
    """Missing, empty, or beside a variable that says something else; and only settings have such files."""
    secret = tmp_path / "secret"
    named = {"FLEET_REDIS_URL_FILE": str(secret)}
    assert refusal(environ=named).startswith(f"environment FLEET_REDIS_URL_FILE: {secret} cannot be read: No such file")
    secret.write_text("\n")
    assert refusal(environ=named) == f"environment FLEET_REDIS_URL_FILE: {secret} is empty"
    secret.write_text("redis://a:6379/0")
    assert "set redis.url differently: leave one out" in refusal(
        environ=named | {"FLEET_REDIS_URL": "redis://b:6379/0"}
    )
    assert "unknown variable 'FLEET_CONFIG_FILE'" in refusal(environ={"FLEET_CONFIG_FILE": str(secret)})


def test_empty_variable_counts_as_not_set() -> None:
    """Compose files pass on variables that may be empty."""
    loaded = load("[model]\nname = 'a'", {"FLEET_MODEL": "", "FLEET_CONFIG": "", "FLEET_NO_SUCH": ""})
    assert loaded.settings.model.name == "a"


def test_variables_of_others_are_left_alone() -> None:
    """Nothing without our prefix, and not what Kubernetes sets for a service called fleet-redis or fleet."""
    environ = {
        "PATH": "/bin",
        "fleet_model": "x",
        "FLEET_ACCELERATOR": "cpu",
        "FLEET_REDIS_SERVICE_HOST": "10.0.0.1",
        "FLEET_REDIS_SERVICE_PORT": "6379",
        "FLEET_REDIS_SERVICE_PORT_REDIS": "6379",
        "FLEET_REDIS_PORT": "tcp://10.0.0.1:6379",
        "FLEET_REDIS_PORT_6379_TCP": "tcp://10.0.0.1:6379",
        "FLEET_REDIS_PORT_6379_TCP_ADDR": "10.0.0.1",
        "FLEET_PORT": "tcp://10.0.0.2:80",
    }
    assert set(load(environ=environ).origins.values()) == {"default"}


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("FLEET_WORKER_GPUS", "FLEET_WORKER__GPUS"),
        ("FLEET_REDIS__URI", "FLEET_REDIS__URL"),
        ("FLEET_REDISURL", "FLEET_REDIS_URL"),
        ("FLEET_METRIC_PORT", "FLEET_METRICS__PORT"),
        ("FLEET_CONFIGS", "FLEET_CONFIG"),
    ],
)
def test_unknown_variable_is_refused_with_the_nearest(variable: str, nearest: str) -> None:
    """A typing error never counts as a default."""
    assert refusal(environ={variable: "1"}) == (
        f"environment: unknown variable {variable!r}: did you mean {nearest!r}?"
    )


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[worker]\ngpu = 1", "unknown setting 'worker.gpu': did you mean 'worker.gpus'?"),
        ("[workers]\ngpus = 1", "unknown setting 'workers': did you mean 'worker'?"),
        ("profil = 'x'", "unknown setting 'profil': did you mean 'profile'?"),
        (
            "[log]\nqqq = 1",
            "unknown setting 'log.qqq': known are log.backups, log.file, log.format, log.level, log.max_bytes",
        ),
        ("worker = 5", "'worker' is a group of settings: write it as a table, [worker]"),
        ("[engine]\noptions = 5", "engine.options must be a table of options by vLLM's names"),
    ],
)
def test_unknown_key_of_the_file_is_refused_with_the_nearest(toml: str, message: str) -> None:
    """The message starts with the file."""
    assert refusal(toml) == f"file fleet.toml: {message}"


def test_vllm_option_outside_its_table_is_shown_the_way() -> None:
    """The commonest mistake gets its own hint."""
    assert refusal("[engine]\nmax_num_seqs = 5").endswith("(an option of vLLM goes under [engine.options])")


def test_unknown_override_is_refused_with_the_nearest() -> None:
    """As on every source."""
    assert refusal(overrides={"worker.gpu": "0"}) == (
        "command line: unknown setting 'worker.gpu': did you mean 'worker.gpus'?"
    )


def test_refused_value_names_its_source() -> None:
    """Whoever set it reads where."""
    message = refusal("[metrics]\nport = 0", {"FLEET_WORKER__BATCH_MAX_JOBS": "x"})
    assert message.startswith("worker.batch_max_jobs (environment FLEET_WORKER__BATCH_MAX_JOBS): ")
    assert "; metrics.port (file fleet.toml): " in message


def test_named_file_wins_over_the_variable_and_over_fleet_toml(working_directory: Path) -> None:
    """One settings file is read: --config, else FLEET_CONFIG, else fleet.toml."""
    for name in ("fleet", "by_variable", "by_option"):
        (working_directory / f"{name}.toml").write_text(f"[model]\nname = '{name}'", encoding="utf-8")
    environ = {"FLEET_CONFIG": "by_variable.toml"}
    option = Path("by_option.toml")
    assert load_settings(config_file=option, environ=environ, overrides={}).settings.model.name == "by_option"
    assert load(environ=environ).settings.model.name == "by_variable"
    assert load().settings.model.name == "fleet"


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read: No such file"), (b"= 1", "is not TOML: Invalid"), (b"\xff\xfe", "is not TOML: 'utf-8'")],
)
def test_named_file_must_be_there_and_be_toml(working_directory: Path, content: bytes | None, message: str) -> None:
    """Only fleet.toml may be missing, because nobody named it."""
    file = working_directory / "named.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=f"^file {re.escape(str(file))}: {message}"):
        load_settings(config_file=file, environ={}, overrides={})
