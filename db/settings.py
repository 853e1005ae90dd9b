"""Settings of every service, read from `FONOTECA_*` environment variables.

Unset addresses mean the embedded stack: `fonoteca up` writes the addresses of its servers to
`<home>/stack.json`, and any command started with the same `FONOTECA_HOME` finds them there.
"""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT_ROOT = Path(__file__).resolve().parent.parent
STACK_FILE_NAME = "stack.json"


class SettingMissing(Exception):
    """A command needs an address that is neither set nor found in a running embedded stack."""


def default_home() -> Path:
    """Where the embedded stack keeps its data.

    root gets /var/lib/fonoteca, because PostgreSQL refuses to run as root and the unprivileged user it
    runs as cannot reach folders under /root.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/fonoteca")
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "fonoteca"


class Settings(BaseSettings):
    """One field per `FONOTECA_<NAME>` variable."""

    model_config = SettingsConfigDict(env_prefix="FONOTECA_", extra="ignore", env_ignore_empty=True)

    home: Path = Field(default_factory=default_home)
    """Folder of the embedded stack: its databases, media and log files."""

    database_url: str | None = None
    """PostgreSQL address, e.g. postgresql://user:password@host/fonoteca. Unset: the embedded server's."""

    redis_url: str | None = None
    """Redis or Valkey address: redis://, rediss:// or unix://. Unset: the embedded server's."""

    storage_url: str | None = None
    """Object store for media: file:///folder or s3://bucket/prefix. Unset: a folder of the embedded stack."""

    upload_dir: Path | None = None
    """Folder where the API gathers unfinished uploads. Unset: `uploads` under `home`.
    Several API hosts must share it."""

    api_host: str = "127.0.0.1"
    """Address that the API listens on; 0.0.0.0 for every interface."""

    api_port: int = Field(default=8000, ge=0, le=65535)
    """Port that the API listens on; 0 takes a free one, which its log names."""

    fallback_model: str = str(PROJECT_ROOT / "models" / "demo")
    """Folder of the checkpoint that is opened while neither `model` is set nor a model is deployed. Unset: the demo
    model."""

    model: str = Field(default_factory=lambda known: str(known["fallback_model"]))
    """Folder of the checkpoint that GPU workers open, whatever is deployed. Unset: the newest deployment
    (`fonoteca model promote`)."""

    model_base: Path | None = None
    """Whole checkpoint under `model`, where that folder holds `audio_embed` alone. Unset: the one it names."""

    model_name: str | None = None
    """Name that transcripts give the model. Unset: the checkpoint's own, or its folder's name."""

    device: str = "auto"
    """Where the model runs: cpu, cuda, cuda:1 ... `auto` takes CUDA where there is one."""

    dtype: str = "auto"
    """Weights' type: float32, bfloat16, float16. `auto`: bfloat16 on CUDA, float32 on a CPU."""

    gpu_slots: int | None = Field(default=None, ge=1, le=1024)
    """Most segments decoded together. Unset: 128 on CUDA, 32 on a CPU; fewer where the memory, measured when the
    worker starts, says so."""

    gpu_batch_segments: int | None = Field(default=None, ge=1, le=1024)
    """Most segments that one claim of a GPU worker takes; besides what it decodes it holds two claims, whose audio
    is read meanwhile. Unset: as many as it has slots."""

    lease_s: float = Field(default=60.0, gt=0)
    """A worker that has not renewed its lease for so long counts as dead, and its claims go back."""

    claim_limit_s: float = Field(default=3600.0, gt=0)
    """Longest that one claim may run; past it the worker stops renewing its lease."""

    max_attempts: int = Field(default=3, ge=1)
    """Times that a recording is split, or a segment transcribed, before it fails for good."""

    retry_after_s: float = Field(default=10.0, ge=0)
    """What failed and may succeed another time (the object store was away) waits so long before it is tried again,
    and four times as long each time after."""

    sweep_interval_s: float = Field(default=15.0, gt=0)
    """Seconds between two sweeps (dead claims, lost wake-ups, expired uploads)."""

    upload_expiry_h: float = Field(default=72.0, gt=0)
    """Hours without a new byte after which an unfinished upload is removed."""

    clip_max_s: float = Field(default=300.0, gt=0, le=3600)
    """Longest clip that the API cuts out of a recording, in seconds: it is made in memory."""

    working_copy_expiry_days: float | None = Field(default=None, gt=0)
    """Days after a recording was finished until its working copy and peaks are removed: it is then heard no more, and
    transcribing it again reads the original anew. Unset: they are kept for ever."""

    datasets: Path | None = None
    """Folder of the held-out sets, one folder each. Unset: no nightly measuring of fixed sets."""

    nightly_sets: str | None = None
    """Held-out sets measured every night, separated by commas. Unset: all of them but those that say otherwise
    (`nightly = false` in their `set.toml`)."""

    night_time: str = Field(default="02:30", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    """When a night is due, as HH:MM in `night_zone`."""

    night_zone: str = "Europe/Madrid"
    """Time zone of `night_time`, as the IANA database names it."""

    night_patience_h: float = Field(default=6.0, ge=0)
    """Hours that a night's generation waits while normal work goes first; after them it takes turns with it.
    Urgent work always goes first, archive work always second."""

    night_deadline_h: float = Field(default=18.0, gt=0)
    """Hours after which a night is settled with what was measured."""

    drift_window_days: int = Field(default=28, ge=1)
    """Days of corrections that a report shows as the present."""

    drift_reference_segments: int = Field(default=2000, ge=50)
    """Corrected segments of a model from which on the first ones become its reference window by themselves."""

    alert_webhook_url: str | None = None
    """Address that alerts are posted to as JSON. Unset: none."""

    alert_webhook_secret: SecretStr | None = None
    """Signs what is posted: header `X-Fonoteca-Signature: sha256=<HMAC of the body>`."""

    smtp_url: SecretStr | None = None
    """Mail server: smtp://user:password@host:587 (STARTTLS where offered) or smtps://host:465. Unset: no mail."""

    mail_from: str = "fonoteca@localhost"
    """Sender of mails."""

    alert_mail_to: str | None = None
    """Addresses that alerts go to, separated by commas."""

    report_mail_to: str | None = None
    """Addresses that the nightly report goes to, separated by commas."""

    report_language: Literal["gl", "es", "en"] = "gl"
    """Language of mails, and the one that `fonoteca report` opens."""

    max_upload_bytes: int = Field(default=200 * 2**30, gt=0)
    """Largest media file accepted."""

    free_disk_min_bytes: int = Field(default=2**30, ge=0)
    """Free space that is kept on the disks of unfinished uploads, of a local object store and of the workers' scratch
    folders: what would use it up waits. 0: the disks may be filled."""

    incoming_quota_bytes: int | None = Field(default=None, gt=0)
    """Most bytes that one broadcaster may have in unfinished uploads and in recordings that wait to be split. Unset:
    no bound but the disk."""

    split_ahead_h: float = Field(default=100.0, gt=0)
    """Hours of a broadcaster's segments of one class that may wait for a GPU before no more of its recordings are
    split: their working copies would only fill the disk."""

    @property
    def is_model_pinned(self) -> bool:
        """Whether `model` was set by somebody: workers then open it and follow no deployment."""
        return "model" in self.model_fields_set

    @cached_property
    def stack(self) -> dict[str, Any]:
        """What a running embedded stack wrote about itself; empty where there is none."""
        try:
            content: dict[str, Any] = json.loads((self.home / STACK_FILE_NAME).read_text())
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return {}
        return content

    def _address(self, name: str) -> str:
        value = getattr(self, name) or self.stack.get(name)
        if not value:
            raise SettingMissing(
                f"FONOTECA_{name.upper()} is not set and no embedded stack runs in {self.home}: "
                f"set it, or start one with `fonoteca up`"
            )
        return str(value)

    def require_database_url(self) -> str:
        """Address of PostgreSQL as SQLAlchemy reads it (driver psycopg 3).

        Raises:
            SettingMissing: neither the variable nor a running embedded stack.
        """
        url = self._address("database_url")
        for prefix in ("postgresql://", "postgres://"):
            if url.startswith(prefix):
                return "postgresql+psycopg://" + url.removeprefix(prefix)
        return url

    def require_redis_url(self) -> str:
        """Address of Redis as redis-py reads it. Raises SettingMissing as above."""
        return self._address("redis_url")

    def require_storage_url(self) -> str:
        """Address of the object store. Raises SettingMissing as above."""
        return self._address("storage_url")

    def require_upload_dir(self) -> Path:
        """The folder for unfinished uploads, made where it is missing."""
        folder = Path(self.upload_dir or self.stack.get("upload_dir") or self.home / "uploads")
        folder.mkdir(parents=True, exist_ok=True)
        return folder
