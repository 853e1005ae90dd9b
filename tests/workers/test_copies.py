"""Working copies and peaks, from the split that makes them to the sweep that removes them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from db.media_store import peaks_key, working_copy_key
from workers.context import WorkerContext
from workers.split import split_one

ARCHIVE = Path(__file__).parents[2] / "samples/archive"
Make = Callable[..., Any]
Query = Callable[..., list[Any]]


def stored(context: WorkerContext) -> set[str]:
    """Names of what the object store holds of the one recording."""
    folder = Path(context.store.url.removeprefix("file://"))
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_peaks_come_with_the_working_copy_and_go_with_it(
    context: WorkerContext, make_recording: Make, query: Query, tmp_path: Path
) -> None:
    made = make_recording(media=ARCHIVE / "rua-con-ruido.wav")
    # what an attempt left whose worker died
    (tmp_path / "left").write_bytes(b"left")
    dead = working_copy_key(made.owner.id, made.id, 1)
    for key in (dead, peaks_key(dead)):
        context.store.put_file(key, tmp_path / "left")
    query_all = "SELECT working_copy_key, duration_samples FROM recordings"
    with context.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE recordings SET attempt = 1")
    assert split_one(context)
    ((key, duration_samples),) = query(query_all)
    assert stored(context) == {"original", "working-2.flac", "working-2.dat"}
    header = context.store.open(peaks_key(key)).read(24)
    assert struct.unpack("<iIiiIi", bytes(header)) == (2, 1, 16_000, 320, -(-duration_samples // 320), 1)
