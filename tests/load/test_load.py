"""What the load run's verdicts rest on: lines above INFO are found, growth is seen, the engine is called as ours is."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path

import numpy as np
import pytest

from speech.engine import Phi4Engine
from tests.load.logs import above_info
from tests.load.measure import MIB, Memory, Sample, growth_of, memory_of
from tests.load.null_engine import NullEngine, text_of

LOGS = {
    "api.log": (
        {"event": "http_request", "level": "info"},
        {"event": "http_request", "level": "error", "status": 500},
        {"event": "stream_broke_off", "level": "warning"},
    ),
    "gpu-worker.log": (
        " -------------- gpu@host v5.7.0 (collider)",
        "/lib/numpy/core.py:12: RuntimeWarning: invalid value encountered in divide",
        "Traceback (most recent call last):",
        "worker: Warm shutdown (MainProcess)",
    ),
    "postgres.log": (
        "2026-11-23 11:22:19.133 UTC [14594] LOG:  starting PostgreSQL 18.4",
        "2026-11-23 11:22:19.179 UTC [14613] FATAL:  the database system is starting up",
        '2026-11-23 11:22:20.000 UTC [14614] ERROR:  relation "kept" does not exist',
        '2026-11-23 11:22:20.000 UTC [14614] STATEMENT:  SELECT "ERROR" FROM kept',
    ),
    "valkey.log": (
        "14622:M 23 Nov 2026 11:22:19.985 * Ready to accept connections unix",
        "14622:M 23 Nov 2026 11:22:21.000 # Asynchronous AOF fsync is taking too long",
        "14622:M 23 Nov 2026 11:25:09.591 # Valkey is now ready to exit, bye bye...",
    ),
}


def test_lines_above_info_are_found_in_every_kind_of_log(tmp_path: Path) -> None:
    for name, lines in LOGS.items():
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        (tmp_path / name).write_text(text + "\n")
    found = above_info(sorted(tmp_path.iterdir()))
    assert [(line.part, line.level, line.event[:20]) for line in found if not line.reason] == [
        ("api", "error", "http_request"),
        ("api", "warning", "stream_broke_off"),
        ("gpu-worker", "warning", "RuntimeWarning: inva"),
        ("gpu-worker", "error", "traceback"),
        ("postgres", "fatal", "the database system "),
        ("postgres", "error", 'relation "kept" does'),
        ("valkey", "warning", "Asynchronous AOF fsy"),
    ]
    assert [line.part for line in found if line.reason] == ["valkey"]


def test_growth_is_that_of_a_warm_run() -> None:
    # a beginning that grows fast, then a leak of 1 MiB a sample in one part
    def at(number: int, at_s: float) -> Sample:
        steady = Memory(1, *(3 * [min(100, 20 * number) * MIB]))
        leaking = Memory(2, *(3 * [(100 + number) * MIB]))
        return Sample(at_s, {"api": steady, "gpu-worker": leaking}, 0, 0, 0, 0, 0, {})

    # of 1,000 s a quarter is left out, of 200 s half, of 40 s as much
    for sample_s, early, last in ((10, 137.5, 187.5), (2, 158.0, 192.0), (0.4, 158.0, 192.0)):
        api, worker = growth_of([at(number, number * sample_s) for number in range(101)])
        assert (api.part, api.percent) == ("api", 0)
        assert worker.pss_mib == (early, last)
        assert worker.percent == pytest.approx(100 * (last / early - 1))


def test_memory_is_that_of_a_process_and_all_below_it() -> None:
    ours = memory_of(os.getpid())
    assert ours is not None
    assert ours.rss_bytes >= ours.pss_bytes > 0
    assert ours.rss_bytes > ours.anonymous_bytes > 10 * MIB


def test_the_null_engine_is_called_as_the_real_one() -> None:
    for name in ("stream", "transcribe", "describe"):
        ours, real = (inspect.signature(getattr(one, name)) for one in (NullEngine, Phi4Engine))
        assert [(p.name, p.kind) for p in ours.parameters.values()] == [
            (p.name, p.kind) for p in real.parameters.values()
        ]


def test_the_null_engine_has_one_text_for_each_clip_and_takes_none_once_the_worker_stops() -> None:
    clips = [(number, np.zeros(16_000 + number, np.float32)) for number in range(100)]
    engine = NullEngine()
    found = dict(engine.stream(clips, window=8))
    assert list(found) == list(range(100))
    assert [found[number].text for number in (0, 1)] == [text_of(16_000), text_of(16_001)]  # type: ignore[union-attr]
    coming = iter(clips)
    written: list[int] = []
    for number, _ in engine.stream(coming, window=8, is_stopping=lambda: len(written) > 10):
        written.append(number)
    assert written == list(range(16))
    assert next(coming)[0] == 16  # left to who comes next
