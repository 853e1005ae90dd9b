"""`fonoteca submit`, `status` and `export` against the real API, its connections cut where it hurts."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from cli.client import ApiClient
from cli.follow import follow_batch
from cli.upload import CHUNK_BYTES
from tests.cli.conftest import Ended, Wire, start_fonoteca
from tests.conftest import Said, store_transcript

UNKNOWN_KEY = "fono_" + "0" * 16 + "_" + "0" * 64


@pytest.fixture
def tapes(tmp_path: Path) -> Path:
    """A folder of three small recordings."""
    folder = tmp_path / "fitas"
    for name in ("01/noticias.wav", "01/deportes.mp3", "02/tempo.ogg"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(5000))
    return folder


@pytest.fixture
def long_tape(tmp_path: Path) -> Path:
    """A recording of three chunks."""
    path = tmp_path / "longa.wav"
    path.write_bytes(os.urandom(2 * CHUNK_BYTES + 4 * 2**20))
    return path


def rows(engine: Engine, query: str) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text(query)))


def states(engine: Engine) -> dict[str, str]:
    return {row.name: row.state for row in rows(engine, "SELECT name, state FROM recordings")}


@contextmanager
def workers(engine: Engine, *outcomes: list[Said]) -> Iterator[None]:
    """Transcribe recordings as they are received, in the order of their arrival."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for said in outcomes:
                deadline = time.monotonic() + 30
                while not rows(engine, "SELECT 1 FROM recordings WHERE state = 'received'"):
                    assert time.monotonic() < deadline, "no recording was received"
                    time.sleep(0.02)
                store_transcript(engine, said, 10.0, is_demo=True)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()
    assert not errors, errors


GOOD = [Said(0.5, 4.0, "Boas noites.")]
BAD = [Said(0.5, 4.0, "Boas noites."), Said(5.0, 8.0, None)]


@pytest.mark.usefixtures("api")
def test_a_folder_is_submitted_whole(fonoteca: Callable[..., Ended], engine: Engine, tapes: Path) -> None:
    facts = ("--programme", "Telexornal", "--programme-kind", "television", "--broadcast-on", "1987-11-21")
    facts += ("--audio-track", "mix")
    ended = fonoteca("submit", tapes, "--no-wait", *facts, "--priority", "urgent")
    assert ended.code == 0, ended.err
    assert states(engine) == dict.fromkeys(
        ["fitas/01/noticias.wav", "fitas/01/deportes.mp3", "fitas/02/tempo.ogg"], "received"
    )
    assert rows(engine, "SELECT name, priority FROM batches") == [("fitas", "urgent")]
    stored = rows(engine, "SELECT programme, programme_kind, broadcast_on::text, audio_track FROM recordings")
    assert set(stored) == {("Telexornal", "television", "1987-11-21", "mix")}
    digests = {row.name: row.sha256 for row in rows(engine, "SELECT name, sha256 FROM recordings")}
    assert (
        bytes(digests["fitas/02/tempo.ogg"]) == hashlib.sha256((tapes / "02/tempo.ogg").read_bytes()).digest()
    )


@pytest.mark.usefixtures("api")
def test_the_same_command_twice_makes_one_batch(
    fonoteca: Callable[..., Ended], engine: Engine, tapes: Path
) -> None:
    first = fonoteca("submit", tapes, "--no-wait", "--json")
    again = fonoteca("submit", tapes, "--no-wait", "--json")
    assert (first.code, again.code) == (0, 0)
    assert json.loads(first.out)["batch"]["id"] == json.loads(again.out)["batch"]["id"]
    assert "continuing batch" in again.err
    assert "3 there already" in again.err
    assert len(rows(engine, "SELECT id FROM batches")) == 1
    assert len(rows(engine, "SELECT id FROM recordings")) == 3

    other = fonoteca("submit", tapes, "--no-wait", "--priority", "urgent")
    assert other.code == 1
    assert "--priority" in other.err
    assert fonoteca("submit", tapes, "--no-wait", "--name", "again").code == 0
    assert len(rows(engine, "SELECT id FROM batches")) == 2


@pytest.mark.usefixtures("api")
def test_bad_files_are_all_named_and_nothing_is_sent(
    fonoteca: Callable[..., Ended], engine: Engine, tapes: Path, tmp_path: Path
) -> None:
    sums = tmp_path / "SHA256SUMS"
    good = hashlib.sha256((tapes / "01/deportes.mp3").read_bytes()).hexdigest()
    sums.write_text(
        f"{'0' * 64}  fitas/01/noticias.wav\n{good}  fitas/01/deportes.mp3\n{good}  fitas/lost.wav\n"
    )
    (tapes / "empty.wav").touch()
    ended = fonoteca("submit", tapes, "--checksums", sums, "--json")
    assert (ended.code, ended.out) == (1, "")
    assert "4 files cannot be submitted" in ended.err
    lines = {line.partition(": ")[0].strip(): line for line in ended.err.splitlines()}
    assert "differs from" in lines[str(tapes / "01/noticias.wav")]
    assert "is not listed" in lines[str(tapes / "02/tempo.ogg")]
    assert "is empty" in lines[str(tapes / "empty.wav")]
    assert "does not exist" in lines[str(tapes.resolve() / "lost.wav")]
    assert not rows(engine, "SELECT id FROM batches")


@pytest.mark.usefixtures("api")
def test_unreadable_files_are_named(
    fonoteca: Callable[..., Ended], engine: Engine, tapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "tempo.ogg":
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)  # root, who may run this test, can read everything
    ended = fonoteca("submit", tapes)
    assert ended.code == 1
    assert f"{tapes / '02/tempo.ogg'}: cannot be read: permission denied" in ended.err
    assert not rows(engine, "SELECT id FROM batches")


@pytest.mark.usefixtures("api")
def test_an_unknown_key_is_told(
    fonoteca: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, tapes: Path
) -> None:
    monkeypatch.setenv("FONOTECA_API_KEY", UNKNOWN_KEY)
    for arguments in (["submit", tapes], ["status"], ["export", "--all"]):
        ended = fonoteca(*arguments)
        assert ended.code == 1
        assert "key" in ended.err
        assert UNKNOWN_KEY not in ended.err


def test_a_dropped_connection_is_taken_up_again(
    fonoteca: Callable[..., Ended], engine: Engine, wire: Wire, long_tape: Path
) -> None:
    wire.cut_after = [3 * 2**20, CHUNK_BYTES + 2**20]
    ended = fonoteca("submit", long_tape, "--no-wait")
    assert ended.code == 0, ended.err
    assert wire.n_cut == 2
    assert states(engine) == {"longa.wav": "received"}
    # a cut costs at most the chunk that was under way
    assert wire.n_sent < long_tape.stat().st_size + 2 * (CHUNK_BYTES + 2**20)


def test_a_line_that_is_cut_again_and_again_still_carries_the_file(
    fonoteca: Callable[..., Ended],
    engine: Engine,
    wire: Wire,
    long_tape: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No connection lasts for a whole chunk, so chunks must get smaller."""
    monkeypatch.setattr("cli.upload.FIRST_WAIT_S", 0.01)
    wire.cut_after = [3 * 2**20] * 200
    ended = fonoteca("submit", long_tape, "--no-wait", "--retry-for", "5")
    assert ended.code == 0, ended.err
    assert wire.n_cut > 5
    assert states(engine) == {"longa.wav": "received"}


def test_a_killed_upload_goes_on_in_a_new_process(
    fonoteca: Callable[..., Ended], engine: Engine, wire: Wire, api: str, long_tape: Path
) -> None:
    wire.stall_after = CHUNK_BYTES + 2**20
    process = start_fonoteca("submit", long_tape, "--no-wait")
    assert wire.stalled.wait(30)
    process.kill()
    process.communicate()
    assert [row.offset_bytes for row in rows(engine, "SELECT offset_bytes FROM uploads")] == [CHUNK_BYTES]
    wire.closing.set()  # the dead client's connection ends, as the kernel would see to over a real network

    ended = fonoteca("submit", long_tape, "--no-wait", "--server", api)
    assert ended.code == 0, ended.err
    assert "continuing longa.wav at 8.0 MiB" in ended.err
    assert states(engine) == {"longa.wav": "received"}
    assert len(rows(engine, "SELECT id FROM batches")) == 1


def test_ctrl_c_says_how_to_go_on(wire: Wire, engine: Engine, long_tape: Path) -> None:
    wire.stall_after = CHUNK_BYTES + 2**20
    process = start_fonoteca("submit", long_tape, "--no-wait")
    assert wire.stalled.wait(30)
    process.send_signal(signal.SIGINT)
    # although its connection hangs
    out, err = process.communicate(timeout=40)
    assert process.returncode == 130, err
    assert "run the same command again" in err
    assert "Traceback" not in err
    assert out == ""
    assert states(engine) == {"longa.wav": "awaiting_media"}


def test_a_server_that_stays_away_ends_the_command(
    fonoteca: Callable[..., Ended], wire: Wire, long_tape: Path
) -> None:
    wire.cut_after = [2**20] * 50
    ended = fonoteca("submit", long_tape, "--no-wait", "--retry-for", "1")
    assert ended.code == 1
    assert "run the same command again to continue" in ended.err
    assert wire.url in ended.err


@pytest.mark.usefixtures("api")
def test_a_file_that_changes_under_way_is_refused_alone(
    fonoteca: Callable[..., Ended], engine: Engine, tapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = ApiClient.create_batch

    def create_then_change(*arguments: Any, **options: Any) -> Any:
        (tapes / "02/tempo.ogg").write_bytes(b"still being recorded")
        return create(*arguments, **options)

    monkeypatch.setattr(ApiClient, "create_batch", create_then_change)
    ended = fonoteca("submit", tapes, "--json")
    assert ended.code == 1
    assert [failure["name"] for failure in json.loads(ended.out)["upload_failures"]] == ["fitas/02/tempo.ogg"]
    assert "changed while" in ended.err
    assert sorted(states(engine).values()) == ["awaiting_media", "received", "received"]


@pytest.mark.usefixtures("api")
def test_following_to_a_good_end(fonoteca: Callable[..., Ended], engine: Engine, tapes: Path) -> None:
    with workers(engine, GOOD):
        ended = fonoteca("submit", tapes / "02/tempo.ogg", "--name", "follow")
    assert ended.code == 0, ended.err
    assert "completed        0:00:10  tempo.ogg\n" in ended.out
    assert "1 recording, 0:00:10 of audio: all complete" in ended.out
    assert "closing this terminal loses nothing" in ended.err
    assert "1 completed" in ended.err


@pytest.mark.usefixtures("api")
def test_a_partial_recording_ends_with_1(
    fonoteca: Callable[..., Ended], engine: Engine, tapes: Path, tmp_path: Path
) -> None:
    with workers(engine, GOOD, BAD):
        ended = fonoteca("submit", tapes / "01", "--json")
    assert ended.code == 1
    content = json.loads(ended.out)
    assert content["batch"]["finished"] is True
    assert sorted(item["state"] for item in content["recordings"]) == ["completed", "partial"]
    # several are uploaded at once: whichever arrived second is the one that the workers below spoil
    partial = next(item for item in content["recordings"] if item["state"] == "partial")
    assert f"{partial['name']}: 3.00 s could not be transcribed" in ended.err
    batch_id = content["batch"]["id"]

    listed = fonoteca("status", "--json")
    assert [batch["id"] for batch in json.loads(listed.out)] == [batch_id]
    assert "01: 1 completed, 1 partial" in fonoteca("status").out
    one = fonoteca("status", batch_id, "--watch")
    assert one.code == 0
    assert "could not be transcribed" in one.out
    assert json.loads(fonoteca("status", batch_id, "--json").out)["batch"]["id"] == batch_id
    shown = fonoteca("status", partial["id"])
    assert "reason: 3.00 s" in shown.out
    assert json.loads(fonoteca("status", partial["id"], "--json", "--watch").out)["id"] == partial["id"]

    folder = tmp_path / "texts"
    written = fonoteca("export", "--batch", batch_id, "--output", folder)
    assert written.code == 0, written.err
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.txt")) == [
        "01/deportes.txt",
        "01/noticias.txt",
    ]
    assert "Boas noites." in (folder / "01/noticias.txt").read_text()
    refused = fonoteca("export", "--batch", batch_id, "--output", folder)
    assert refused.code == 1
    assert "--force" in refused.err
    forced = fonoteca("export", "--batch", batch_id, "--output", folder, "--force", "--json")
    assert len(json.loads(forced.out)["written"]) == 2
    everything = fonoteca("export", "--all", "--format", "vtt", "--output", folder)
    assert everything.code == 0
    assert (folder / f"01 {batch_id}" / "01" / "deportes.vtt").read_text().startswith("WEBVTT")


@pytest.mark.usefixtures("api")
def test_exporting_one_to_stdout(
    fonoteca: Callable[..., Ended], make_transcript: Callable[..., Any], make_recording: Callable[..., Any]
) -> None:
    made = make_transcript()
    ended = fonoteca("export", made.id, "--format", "json", "--output", "-")
    assert json.loads(ended.out)["recording_id"] == str(made.id)
    waiting = make_recording()
    unready = fonoteca("export", waiting.id, "--output", "-")
    assert unready.code == 1
    assert waiting.name in unready.err
    assert "received" in unready.err


@pytest.mark.usefixtures("api")
def test_ids_that_are_none(fonoteca: Callable[..., Ended]) -> None:
    assert "is not the id" in fonoteca("status", "tempo.ogg").err
    missing = "01890000-0000-7000-8000-000000000000"
    for arguments in (["status", missing], ["export", missing], ["export", "--batch", missing]):
        ended = fonoteca(*arguments)
        assert ended.code == 1
        assert missing in ended.err


def test_following_survives_a_silent_server(
    fonoteca: Callable[..., Ended], engine: Engine, wire: Wire, tapes: Path
) -> None:
    submitted = fonoteca("submit", tapes / "02", "--no-wait", "--json")
    batch_id = json.loads(submitted.out)["batch"]["id"]
    with ApiClient.connect() as client:
        wire.cut_after = [0, 0]
        with workers(engine, GOOD):
            batch = follow_batch(client, batch_id, poll_s=0.05)
    assert batch["finished"]
    assert wire.n_cut == 2


def test_bars_on_a_terminal(api: str, engine: Engine, tapes: Path) -> None:
    """The bars are drawn by rich in a real terminal; the results stand below them as plain lines."""
    near, far = pty.openpty()
    name = "02 [bold]tempo.ogg"  # must not be read as rich's markup
    (tapes / "02/tempo.ogg").rename(tapes / name)
    process = start_fonoteca(
        "submit", tapes / name, stdout=far, stderr=far, env=os.environ | {"TERM": "xterm"}
    )
    os.close(far)
    shown = b""
    with workers(engine, GOOD):
        while True:
            try:
                piece = os.read(near, 2**16)
            except OSError:  # EIO: the last writer closed the terminal
                break
            shown += piece
    os.close(near)
    assert process.wait(timeout=30) == 0, shown.decode()
    text_shown = shown.decode()
    assert "━" in text_shown
    assert f"completed        0:00:10  {name}" in text_shown
    assert "all complete" in text_shown
