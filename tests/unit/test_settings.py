"""Settings: defaults, bounds, and what is derived from them."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from config.errors import SettingsError
from config.gateway_settings import GatewaySettings
from config.loading import load_settings
from config.names import group_names, setting_names
from config.settings import ModelSettings, RedisSettings, Settings


def load(**overrides: Any) -> Settings:  # noqa: ANN401 - any setting's value
    """The settings with ``overrides`` by dotted name, ``__`` for the dot."""
    named = {name.replace("__", "."): value for name, value in overrides.items()}
    return load_settings(config_file=None, environ={}, overrides=named).settings


@pytest.fixture(autouse=True)
def _empty_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_nothing_needs_to_be_set() -> None:
    """Without any source every setting has its default."""
    assert load() == Settings()


def test_every_setting_says_what_it_means() -> None:
    """Each field has a docstring; a number's says its unit in the name or the text."""
    for name in setting_names():
        group, _, field = name.partition(".")
        model = type(getattr(Settings(), group)) if field else Settings
        assert model.model_fields[field or group].description, name


def test_settings_cannot_be_changed_once_loaded() -> None:
    """The models are frozen."""
    settings = load()
    with pytest.raises(ValidationError, match="frozen"):
        settings.worker.batch_max_jobs = 1  # type: ignore[misc]


@pytest.mark.parametrize("group", group_names())
def test_unknown_fields_are_refused_by_every_group(group: str) -> None:
    """A group built in code refuses what it does not know, as a file does."""
    with pytest.raises(ValidationError, match="Extra inputs"):
        Settings.model_validate({group: {"no_such_setting": 1}})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("redis__url", "http://host", "must start with redis://, rediss:// or sentinel://"),
        ("redis__url", "redis://", "HOST:PORT/DATABASE"),
        ("redis__url", "redis://host:port/0", "HOST:PORT/DATABASE"),
        ("redis__url", "redis://host:0/0", "HOST:PORT/DATABASE"),
        ("redis__url", "redis://host:6379/zero", "HOST:PORT/DATABASE"),
        ("redis__url", "redis://[::1/0", "HOST:PORT/DATABASE"),
        ("redis__connect_timeout_seconds", 0, "greater than 0"),
        ("engine__hang_timeout_seconds", 0, "greater than 0"),
        ("worker__lease_seconds", 0.5, "greater than or equal to 1"),
        ("worker__lease_seconds", 601, "less than or equal to 600"),
        ("worker__max_deliveries", 0, "greater than or equal to 1"),
        ("engine__kind", "tgi", "'vllm' or 'simulated'"),
        ("engine__options", 5, "must be a table"),
        ("engine__start_timeout_seconds", float("inf"), "finite"),
        ("engine__health_interval_seconds", 61, "less than or equal to 60"),
        ("worker__batch_max_jobs", 0, "greater than or equal to 1"),
        ("worker__batch_max_jobs", "many", "valid integer"),
        ("worker__batch_max_wait_ms", -1, "greater than or equal to 0"),
        ("worker__concurrency_headroom", 0.11, "less than or equal to 0.1"),
        ("worker__restart_backoff_max_seconds", 0.5, "must not be below worker.restart_backoff_initial_seconds (1)"),
        ("worker__max_failed_starts", 0, "greater than or equal to 1"),
        ("results__job_record_seconds", 60, "must not be below results.expires_seconds (86400)"),
        ("metrics__port", 65_536, "less than or equal to 65535"),
        ("flower__host", "", "at least 1 character"),
        ("flower__basic_auth", "ann", "must be USER:PASSWORD"),
        ("flower__basic_auth", "ann:a,bob", "must be USER:PASSWORD"),
        ("flower__basic_auth", "ann:h\u00fcsh", "must be ASCII"),
        ("flower__auth", ".*", "must be addresses"),
        ("flower__oauth2_redirect_uri", "flower.example.com/login", "ending in /login"),
        ("flower__url_prefix", "a b", "must be a path"),
        ("flower__cookie_secret", "short", "32 characters"),
        ("log__level", "LOUD", "'DEBUG', 'INFO'"),
    ],
)
def test_values_out_of_bounds_are_refused(name: str, value: object, message: str) -> None:
    """The error names the setting, who set it, and what is allowed."""
    with pytest.raises(SettingsError) as refusal:
        load(**{name: value})
    assert name.replace("__", ".") in str(refusal.value)
    assert "command line" in str(refusal.value)
    assert message in str(refusal.value)


def test_every_wrong_value_is_named_at_once() -> None:
    """Two wrong values make one message, so that nobody fixes them one by one."""
    with pytest.raises(SettingsError, match=r"(?s)worker\.batch_max_jobs.*; flower\.port") as refusal:
        load(worker__batch_max_jobs=0, flower__port=0)
    assert "\n" not in str(refusal.value)


def test_hard_time_limit_lies_above_the_soft_one() -> None:
    """A hard limit that ends a job before the soft one could is a mistake."""
    with pytest.raises(SettingsError, match=r"must be above worker\.soft_time_limit_seconds \(60\)"):
        load(worker__soft_time_limit_seconds=60, worker__time_limit_seconds=60)
    assert load(worker__soft_time_limit_seconds=60, worker__time_limit_seconds=61).worker.time_limit_seconds == 61


def test_word_none_takes_a_limit_away() -> None:
    """TOML and the environment have no null."""
    assert load(worker__time_limit_seconds="None").worker.time_limit_seconds is None


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        ("auto", "auto"),
        ("ALL", "all"),
        ("none", "none"),
        ("0", "0"),
        (0, "0"),
        ([0, 1], "0,1"),
        (" 0, 1 ,7", "0,1,7"),
        ("GPU-6f1a2b3c-0000-1111-2222-333344445555", "GPU-6f1a2b3c-0000-1111-2222-333344445555"),
        ("MIG-aa,MIG-bb", "MIG-aa,MIG-bb"),
    ],
)
def test_gpus_are_taken_as_people_write_them(given: object, parsed: str) -> None:
    """Words, numbers, lists and UUIDs end in one form."""
    assert load(worker__gpus=given).worker.gpus == parsed


@pytest.mark.parametrize("given", ["", "0,", "0,auto", "-1", "first", True, 1.5, {}])
def test_gpus_that_name_nothing_are_refused(given: object) -> None:
    """The error says what can be written."""
    with pytest.raises(SettingsError, match=r"worker\.gpus .*write auto, none, all, indices such as 0,1"):
        load(worker__gpus=given)


def test_one_gpu_is_not_named_twice() -> None:
    """Two engines on one GPU by accident would share its memory."""
    with pytest.raises(SettingsError, match="twice"):
        load(worker__gpus="1, 1")


@pytest.mark.parametrize(
    ("name", "served_as"),
    [
        ("", ""),
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ("/models/llama-8b", "llama-8b"),
        ("/models/llama-8b/", "llama-8b"),
        ("./llama-8b", "llama-8b"),
    ],
)
def test_served_name_follows_from_the_model(name: str, served_as: str) -> None:
    """A folder is served under its last component, a hub model under its own name."""
    assert ModelSettings(name=name).served_as == served_as


def test_existing_folder_is_served_under_its_last_component(tmp_path: Path) -> None:
    """A relative folder that is there is a folder, although it looks like a hub's name."""
    (tmp_path / "models" / "llama").mkdir(parents=True)
    assert ModelSettings(name="models/llama").served_as == "llama"


def test_served_name_that_is_set_wins() -> None:
    """Jobs use the name that the operator chose."""
    assert ModelSettings(name="/models/llama-8b", served_model_name="chat").served_as == "chat"


def test_home_in_the_models_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is read by no shell, so we expand the home folder ourselves."""
    monkeypatch.setenv("HOME", "/home/somebody")
    assert ModelSettings(name="~/models/x").name == "/home/somebody/models/x"


@pytest.mark.parametrize("option", ["model", "served_model_name", "revision"])
def test_engine_options_leave_out_what_has_its_own_setting(option: str) -> None:
    """One thing is said in one place; the error names it."""
    with pytest.raises(SettingsError, match=rf"'{option}' is not set here; set model\."):
        load(engine__options={option: "x"})


@pytest.mark.parametrize(
    "url",
    [
        "redis://:sesame@host:6379/0",
        "rediss://user:sesame@host:6379/0?ssl_cert_reqs=required",
        "redis://host:6379/0?password=sesame&client_name=x",
        "redis://host/1",
        "redis://[::1]:6379/0",
    ],
)
def test_printed_settings_show_no_password(url: str) -> None:
    """The text of the settings keeps the host and loses the password."""
    settings = Settings(redis=RedisSettings(url=url))
    assert settings.redis.url == url
    assert "sesame" not in repr(settings) + str(settings)
    assert "host" in repr(settings) or "[::1]" in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:ses/ame@host:6379/0",
        "redis://:ses#ame@host:6379/0",
        "redis://:ses?ame@host:6379/0",
        "redis://:sesame@host:port/0",
        "redis://:ses[ame@host:6379/0",
        "amqp://:sesame@host",
    ],
)
def test_refused_address_is_not_repeated(url: str) -> None:
    """An error about an address never shows a part of its password."""
    with pytest.raises(SettingsError) as refusal:
        load(redis__url=url)
    assert "redis.url (command line)" in str(refusal.value)
    assert not {"ses", "ame", "sesame"} & set(str(refusal.value).replace("/", " ").split())


def test_a_gateway_that_others_can_reach_asks_for_keys() -> None:
    """And one that nobody else can reach need not."""
    for host in ("127.0.0.1", "::1", "localhost"):
        assert not GatewaySettings(host=host).require_keys
    for host in ("0.0.0.0", "10.0.0.5", "gateway.example"):  # noqa: S104 - to be refused
        with pytest.raises(ValidationError, match="which others can reach"):
            GatewaySettings(host=host)
        assert GatewaySettings(host=host, require_keys=True).host == host


def test_flowers_users_are_never_shown() -> None:
    """Neither by ``fleet config show`` nor where settings are printed."""
    loaded = load_settings(config_file=None, environ={"FLEET_FLOWER__BASIC_AUTH": "ann:hush,bob:hush"}, overrides={})
    assert loaded.settings.flower.basic_auth == "ann:hush,bob:hush"
    assert "hush" not in repr(loaded.settings) + repr(loaded.shown())
