"""The command ``fleet config``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from config.names import VARIABLE_PREFIX, setting_names
from config.profile_files import profile_names
from workers.commands.config import register


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """The command line with only this group, in an empty folder and without the developer's own settings."""
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith(VARIABLE_PREFIX)]:
        monkeypatch.delenv(variable)
    app = typer.Typer()
    register(app)
    return app


def run(app: typer.Typer, *arguments: str, **environ: str) -> Result:
    """``fleet config`` with these arguments and variables."""
    return CliRunner().invoke(app, ["config", *arguments], env=environ)


def test_show_lists_every_setting_with_its_source(app: typer.Typer) -> None:
    """One plain line each when the output is no terminal, in the order of the documentation."""
    result = run(app, "show", "--profile", "latency", FLEET_MODEL="a/b")
    lines = {line.split()[0]: line for line in result.output.splitlines()}
    assert result.exit_code == 0
    assert set(setting_names()) - {"engine.options"} <= set(lines)
    assert lines["profile"].split() == ["profile", "latency", "command", "line"]
    assert lines["model.name"].split() == ["model.name", "a/b", "environment", "FLEET_MODEL"]
    assert lines["engine.options.max_num_seqs"].split()[1:] == ["32", "profile", "latency"]
    assert lines["worker.time_limit_seconds"].split()[1:] == ["none", "default"]


def test_show_for_programs_is_json(app: typer.Typer) -> None:
    """Values keep their types."""
    result = run(app, "show", "--json", FLEET_WORKER__BATCH_MAX_JOBS="3")
    shown = json.loads(result.stdout)
    assert shown["worker.batch_max_jobs"] == {"value": 3, "source": "environment FLEET_WORKER__BATCH_MAX_JOBS"}
    assert shown["worker.soft_time_limit_seconds"] == {"value": None, "source": "default"}


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_show_masks_secrets(app: typer.Typer, form: tuple[str, ...]) -> None:
    """Passwords and tokens, wherever they lie; token counts are no secrets."""
    Path("fleet.toml").write_text(
        "[redis]\nurl = 'redis://user:sesame@host:6379/0?client_name=x'\n"
        "[engine.options]\nhf_token = 'sesame'\nmax_num_batched_tokens = 4096\n"
        "kv_transfer_config = { extra = [{ api_key = 'sesame', url = 'http://u:sesame@h/' }] }\n",
        encoding="utf-8",
    )
    result = run(app, "show", *form)
    assert result.exit_code == 0
    assert "sesame" not in result.output
    assert "redis://user:***@host:6379/0?client_name=x" in result.output
    assert "4096" in result.output


def test_show_reads_the_named_file(app: typer.Typer) -> None:
    """The source shows the path as it was given."""
    Path("other.toml").write_text("[log]\nlevel = 'debug'", encoding="utf-8")
    shown = json.loads(run(app, "show", "--config", "other.toml", "--json").stdout)
    assert shown["log.level"] == {"value": "DEBUG", "source": "file other.toml"}


@pytest.mark.parametrize(
    ("arguments", "environ", "message"),
    [
        (("--config", "none.toml"), {}, "fleet: file none.toml: cannot be read: No such file or directory"),
        (("--profile", "smal"), {}, "fleet: unknown profile 'smal': did you mean 'small'?"),
        ((), {"FLEET_LOG_LEVEL": "INFO"}, "did you mean 'FLEET_LOG__LEVEL'?"),
    ],
)
def test_wrong_settings_end_in_one_line_and_exit_code_2(
    app: typer.Typer, arguments: tuple[str, ...], environ: dict[str, str], message: str
) -> None:
    """On standard error; nothing on standard output."""
    result = run(app, "show", *arguments, **environ)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_profiles_are_listed_with_one_line_each(app: typer.Typer) -> None:
    """Name and purpose."""
    lines = run(app, "profiles").output.splitlines()
    assert [line.split()[0] for line in lines] == list(profile_names())
    assert all(len(line.split()) > 3 for line in lines)


def test_config_command_needs_no_engine() -> None:
    """It answers at once: neither celery, vllm nor torch is imported."""
    code = (
        "import sys, workers.commands.config\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'celery', 'kombu', 'vllm', 'torch'}))"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert shown.stdout == "[]\n"
