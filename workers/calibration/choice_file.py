"""The file that keeps a choice: one per model, engine options, vLLM and device."""

import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from workers.calibration.choice import Choice, Record

log = logging.getLogger(__name__)


class Subject(Record):
    """What a choice holds for; anything else is calibrated again."""

    engine: str
    model: str
    revision: str
    config_digest: str
    """SHA-256 of the model folder's ``config.json``; empty for a name of the model hub."""
    options: Mapping[str, Any]
    """Engine options, without secrets."""
    refill_jobs: int
    refill_max_wait_ms: int
    vllm_version: str
    device: str
    """The GPU's name, or the CPU."""
    device_memory_bytes: int | None
    cores: int
    """Cores that the engines' processes share."""

    def file_name(self) -> str:
        """A name that tells people the model, and is another one for any other subject."""
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", Path(self.model).name)[:48]
        return f"engines-per-gpu-{slug}-{hashlib.sha256(self.text().encode()).hexdigest()[:16]}.json"

    def text(self) -> str:
        """The same text for the same subject."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, default=str)


class Kept(Record):
    """The content of a file."""

    subject: Subject
    choice: Choice


def config_digest(model: str) -> str:
    """See :attr:`Subject.config_digest`."""
    file = Path(model) / "config.json"
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def default_folder(environ: Mapping[str, str]) -> Path:
    """Where choices are kept unless a setting says otherwise."""
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "inference-fleet"


def kept_choice(folder: Path, subject: Subject) -> Choice | None:
    """The choice on file; None where there is none, or none that can be read, which is logged."""
    path = folder / subject.file_name()
    try:
        kept = Kept.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        said = f"{error.error_count()} errors" if isinstance(error, ValidationError) else str(error)
        log.warning(
            "%s cannot be read (%s): calibrating again", path, said, extra={"action": "calibration_file_unreadable"}
        )
        return None
    return kept.choice


def keep(folder: Path, subject: Subject, choice: Choice) -> Path:
    """Write the choice, whole or not at all; its file.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / subject.file_name()
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".part", encoding="utf-8", delete=False) as part:
        part.write(Kept(subject=subject, choice=choice).model_dump_json(indent=1) + "\n")
    os.replace(part.name, path)  # noqa: PTH105 - Path has the same, and NamedTemporaryFile gives a str
    return path
