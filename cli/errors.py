"""Errors that a person is meant to read: each names the thing, the reason and what to do."""

from __future__ import annotations

FAILURE = 1
TERMINATED = 143
"""128 + SIGTERM."""
INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""


class CliError(Exception):
    """Ends the command with `message` on stderr and `exit_code`, without a traceback."""

    def __init__(self, message: str, *, exit_code: int = FAILURE) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


EXPECTED_ERRORS = frozenset(
    {
        "compose.local.errors.StackError",
        "db.alerts.AlertUnknown",
        "db.baselines.BaselineRefused",
        "db.broadcasters.ApiKeyUnknown",
        "db.broadcasters.BroadcasterNameMalformed",
        "db.broadcasters.BroadcasterUnknown",
        "db.broadcasters.WeightOutOfRange",
        "db.nights.NightRefused",
        "db.nights.ZoneUnknown",
        "db.settings.SettingMissing",
        "db.sql_users.SqlUserRefused",
        "speech.stored.CheckpointError",
        "training.tuning.errors.FinetuneError",
        "speech.errors.MediaError",
        "training.manifest.ManifestError",
    }
)
"""Errors of other rooms whose message is written for a person, subclasses included.

By name, so that knowing an error does not import its room (and torch or SQLAlchemy with it).
"""


def is_expected(error: BaseException) -> bool:
    """True when the error's message says all that the person needs."""
    if isinstance(error, CliError):
        return True
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
    return not names.isdisjoint(EXPECTED_ERRORS)
