"""How lines look, what is covered in them, and where they go."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from producer.errors import InvalidRequest
from producer.logs.covering import covered
from producer.logs.handlers import OwnFile, own_file
from producer.logs.lines import ConsoleLines, finished
from producer.logs.options import LogFormat, LogOptions
from tests.waiting import eventually
from workers.output import Output, output_of

SET_UP = """
import logging, sys, threading, warnings
from producer.logs.options import LogFormat, LogLevel, LogOptions
from producer.logs.setting_up import set_up_logging
set_up_logging(LogOptions(LogLevel.DEBUG, LogFormat.JSON), "gateway", file="gateway", model="m")
"""
SECRET_KEY = "fleet-" + "k" * 43


def said_by(code: str) -> list[dict[str, Any]]:
    """What a process that logs JSON writes to stderr while it runs this."""
    done = subprocess.run([sys.executable, "-c", SET_UP + code], capture_output=True, text=True, check=False)
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_a_line_has_the_fields_that_are_known_and_no_others() -> None:
    """Also a field of ours that is unknown is left out; one of a library's always."""
    ours, theirs = said_by(
        "fields = {'action': 'a', 'job_id': 'j', 'status': 0, 'prompt': 'p'}\n"
        "logging.getLogger('workers.x').info('one %s', 'two', extra=fields)\n"
        "logging.getLogger('celery.x').info('x', extra=fields | {'data': 'p'})\n"
    )
    assert list(ours.values())[1:5] == ["INFO", "workers.x", "a", "one two"]
    assert list(ours)[5:] == ["pid", "process", "model", "job_id", "status"]
    assert (theirs["action"], list(theirs)[5:]) == ("library", ["pid", "process", "model"])


def test_libraries_say_nothing_below_info() -> None:
    """Their DEBUG prints messages; Celery's INFO of arguments is held back too."""
    [line] = said_by(
        "for name in ('kombu.x', 'workers.x'): logging.getLogger(name).debug('x', extra={'action': 'a'})\n"
        "logging.getLogger('celery.app.trace').info('args')\n"
    )
    assert line["logger"] == "workers.x"


def test_what_gets_past_the_loggers_is_a_line_too() -> None:
    """Warnings, the end of a thread, an error in a finaliser, and the end of the process, tracebacks in one field."""
    lines = said_by(
        "warnings.warn('w')\n"
        "thread = threading.Thread(target=lambda: 1 / 0)\n"
        "thread.start(); thread.join()\n"
        "class Odd:\n"
        "    def __del__(self): raise KeyError('k')\n"
        "Odd()\n"
        "raise RuntimeError('redis://user:word@host/0')\n"
    )
    assert [line["action"] for line in lines] == ["warning", "thread_crashed", "error_ignored", "process_crashed"]
    assert "ZeroDivisionError" in lines[1]["traceback"]
    assert lines[3]["traceback"].endswith("RuntimeError: redis://user:***@host/0")


def test_a_line_that_cannot_be_made_says_so_without_its_arguments() -> None:
    """Python's own report of it prints them."""
    [line] = said_by("logging.getLogger('celery.x').info('%d', 'a prompt')\n")
    assert (line["action"], line["message"]) == ("line_lost", "a line of celery.x could not be written: TypeError")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("Connected to redis://:pass@h:1/0 and u@h", "Connected to redis://:***@h:1/0 and u@h"),
        ("sentinel://u:p@ss@a:1,b:2/m/0", "sentinel://u:***@a:1,b:2/m/0"),
        ("redis://host:6379/0 wants u@h", "redis://host:6379/0 wants u@h"),
        (f"key {SECRET_KEY}.", "key fleet-***."),
        ("fleet-worker.log, fleet-gateway", "fleet-worker.log, fleet-gateway"),
        ("whsec_c2VjcmV0/+=", "whsec_***"),
        ("'Authorization': 'Bearer abc', b", "'Authorization': 'Bearer ***', b"),
        ("[type=int, input_value='a, b', input_type=str]", "[type=int, input_value=***, input_type=str]"),
        ("Command # 1 (SET k (v)) of pipeline caused error: OOM", "Command # 1 *** of pipeline caused error: OOM"),
    ],
)
def test_what_is_covered(text: str, written: str) -> None:
    """And what is not."""
    assert covered(text) == written


def test_a_line_for_people_ends_with_its_fields() -> None:
    """Before a traceback, if there is one."""
    fields = {"name": "workers.x", "levelname": "INFO", "msg": "done", "action": "a", "job_id": "7", "status": 200}
    assert ConsoleLines().format(logging.makeLogRecord(fields)).endswith("INFO done action=a job_id=7")


def test_a_file_is_put_aside_when_it_is_full_and_the_oldest_is_removed(tmp_path: Path) -> None:
    """As many as are asked for."""
    handler = own_file(LogOptions(log_file=tmp_path / "new/fleet.log", log_max_bytes=1024, log_backups=2), "worker")
    assert isinstance(handler, OwnFile)
    handler.setFormatter(ConsoleLines())
    for number in range(40):
        handler.handle(finished(f"{number} " + "x" * 200))
    handler.close()
    names = ["fleet-worker.log", "fleet-worker.log.1", "fleet-worker.log.2"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == names
    assert "39 " in (tmp_path / "new/fleet-worker.log").read_text()


def test_a_file_has_one_writer(tmp_path: Path) -> None:
    """Another is refused, and told what to do; another kind of process has another file."""
    options = LogOptions(log_file=tmp_path / "fleet.log")
    first, other = own_file(options, "worker"), own_file(options, "gateway")
    with pytest.raises(InvalidRequest, match=r"another process writes .*fleet-worker\.log: name another"):
        own_file(options, "worker")
    for handler in (first, other):
        assert handler is not None
        handler.close()
    (tmp_path / "taken").touch()
    with pytest.raises(InvalidRequest, match="cannot be written"):
        own_file(LogOptions(log_file=tmp_path / "taken/fleet.log"), "worker")


def test_json_without_its_package_says_what_to_install() -> None:
    """A light install has none, and a gateway is none either."""
    code = "import sys; sys.modules['pythonjsonlogger.json'] = None" + SET_UP
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'inference-fleet-producer[gateway]'" in done.stderr


def test_what_processes_print_becomes_lines(caplog: pytest.LogCaptureFixture) -> None:
    """A line of ours as it is, anything else wrapped, also what no newline ended."""
    output = Output(is_json=True)
    mine = '{"timestamp": "now", "message": "m"}'
    with output.pipe("worker-0") as writing:
        os.write(writing, f'{mine}\n\nplain {SECRET_KEY}\n{{"other": 1}}\nthe end'.encode())
    output.close()
    eventually(lambda: len(caplog.records) == 4, what="all is read")
    assert getattr(caplog.records[0], "finished_line", None) == mine
    assert [record.getMessage() for record in caplog.records[1:]] == [f"plain {SECRET_KEY}", '{"other": 1}', "the end"]


def test_output_is_read_only_where_somebody_wants_it(tmp_path: Path) -> None:
    """For people on a terminal it goes where it always went."""
    assert output_of(LogOptions()) is None
    assert output_of(LogOptions(log_format=LogFormat.JSON)) is not None
    assert output_of(LogOptions(log_file=tmp_path / "a.log")) is not None
