"""The whole system as `fonoteca up` runs it: every service's real command, used through the command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
from sqlalchemy import text

from cli.stack import local_key
from compose.local.folders import temporary_home
from compose.local.services import SERVICES
from compose.local.spawn import is_running, wait_until
from compose.local.stack import Stack
from db.connect import make_engine
from db.settings import Settings

ARCHIVE = Path(__file__).parents[1] / "samples" / "archive"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A running stack with an API key in its stack file; afterwards none of its processes is left."""
    with pytest.MonkeyPatch.context() as patch, temporary_home("fonoteca-e2e-") as home:
        patch.setenv("FONOTECA_HOME", str(home))
        patch.setenv("OMP_NUM_THREADS", "1")
        with Stack(home, durable=False) as running:
            assert set(running.pids) == {"postgres", "valkey", *(spec.name for spec in SERVICES)}
            pids = list(running.pids.values())
            running.publish(api_key=local_key(home))
            yield running
        assert not [pid for pid in pids if is_running(pid)]


def fonoteca(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def write_silent_film(path: Path) -> None:
    """A video without sound."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_a_folder_with_good_and_bad_files(stack: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "fitas"
    (folder / "1994").mkdir(parents=True)
    shutil.copy(ARCHIVE / "rua-con-ruido.wav", folder / "1994" / "rúa.wav")
    shutil.copy(ARCHIVE / "cinta-danada.mp4", folder / "cinta.mp4")
    (folder / "carta.mp3").write_text("Estimada redacción: velaquí a carta que non é unha fita.\n" * 100)
    write_silent_film(folder / "mudo.mp4")

    submitted = fonoteca("submit", folder, "--json")
    assert submitted.returncode == 1, "not everything could be transcribed"
    document = json.loads(submitted.stdout)
    recordings = {r["name"]: r for r in document["recordings"]}
    assert {name: r["state"] for name, r in recordings.items()} == {
        "fitas/1994/rúa.wav": "completed",
        "fitas/cinta.mp4": "failed",
        "fitas/carta.mp3": "failed",
        "fitas/mudo.mp4": "failed",
    }
    codes = {name: (r["failure"] or {}).get("code") for name, r in recordings.items()}
    assert codes["fitas/cinta.mp4"] == "truncated_media"
    assert codes["fitas/carta.mp3"] == "not_media"
    assert codes["fitas/mudo.mp4"] == "no_audio_track"
    for name, recording in recordings.items():
        if recording["failure"]:
            assert recording["failure"]["reason"].startswith(f"{name}: ")
    coverage = recordings["fitas/1994/rúa.wav"]["coverage"]
    assert coverage["failed_s"] == 0
    assert sum(coverage.values()) == pytest.approx(recordings["fitas/1994/rúa.wav"]["duration_s"], abs=2e-3)

    again = fonoteca("submit", folder, "--json")
    assert json.loads(again.stdout)["batch"]["id"] == document["batch"]["id"], "submitted once, not twice"

    status = fonoteca("status", document["batch"]["id"])
    assert status.returncode == 0
    assert "cinta.mp4" in status.stdout
    assert "moov" in status.stdout

    exported = fonoteca("export", "--batch", document["batch"]["id"], "-f", "srt", "-o", tmp_path / "out")
    assert exported.returncode == 0, exported.stderr
    subtitles = (tmp_path / "out" / "fitas" / "1994" / "rúa.srt").read_text(encoding="utf-8")
    assert "demo model" in subtitles
    assert "00:00:0" in subtitles

    engine = make_engine(Settings(home=stack.home).require_database_url(), application_name="tests")
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT recording, is_demo_model, text FROM archive.segments WHERE broadcaster = 'local'")
        ).all()
    engine.dispose()
    assert {(row.recording, row.is_demo_model) for row in rows} == {("fitas/1994/rúa.wav", True)}
    assert not list((stack.home / "uploads").iterdir()), "nothing is left half-uploaded"


def test_an_empty_file_is_refused_before_anything_is_sent(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "vacío.mp3").touch()
    refused = fonoteca("submit", tmp_path / "vacío.mp3")
    assert refused.returncode == 1
    assert "vacío.mp3" in refused.stderr
    assert "empty" in refused.stderr


def test_an_unknown_key_is_refused_with_what_to_do(stack: Stack) -> None:
    refused = fonoteca(
        "submit",
        ARCHIVE / "rua-con-ruido.wav",
        FONOTECA_SERVER=stack.api_url,
        FONOTECA_API_KEY="fono_0000000000000000_unknown",
    )
    assert refused.returncode == 1
    assert "key" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_every_service_is_ready_and_measured(stack: Stack) -> None:
    assert httpx.get(f"{stack.api_url}/readyz").status_code == 200
    assert "fonoteca" in httpx.get(f"{stack.api_url}/metrics").text


def test_down_touches_nobody_else(tmp_path: Path) -> None:
    """A stack that was killed leaves its file, and its pid may be anybody's by now."""
    with subprocess.Popen(["sleep", "60"]) as bystander:
        stale = {"pid": bystander.pid, "api_url": "http://127.0.0.1:1", "api_key": "x"}
        (tmp_path / "stack.json").write_text(json.dumps(stale))
        ended = fonoteca("down", FONOTECA_HOME=str(tmp_path))
        assert ended.returncode == 0
        assert "no stack runs" in ended.stderr
        assert bystander.poll() is None
        bystander.terminate()


@pytest.fixture
def detached_home() -> Iterator[Path]:
    """A home for `fonoteca up -d`, whose stack is ended whatever the test came to."""
    with temporary_home("fonoteca-up-") as home:
        yield home
        fonoteca("down", FONOTECA_HOME=str(home))


def test_up_again_after_a_kill(detached_home: Path) -> None:
    """`up -d` waits for its own stack, whatever a killed one left behind; `down` ends it whole."""
    home = detached_home
    environment = {"FONOTECA_HOME": str(home), "OMP_NUM_THREADS": "1"}
    first = fonoteca("up", "--port", "0", "-d", **environment)
    assert first.returncode == 0, first.stderr
    killed = json.loads((home / "stack.json").read_text())
    os.kill(killed["pid"], signal.SIGKILL)
    assert wait_until(lambda: not any(map(is_running, killed["services"].values())), 30)
    again = fonoteca("up", "--port", "0", "-d", **environment)
    assert again.returncode == 0, again.stderr
    assert "Fonoteca is up" in again.stdout
    running = json.loads((home / "stack.json").read_text())
    assert running["pid"] != killed["pid"]
    assert (home / "logs" / "up.log").stat().st_mode & 0o077 == 0, "the key in it is nobody else's"
    assert fonoteca("status", **environment).returncode == 0
    refused = fonoteca("up", "--port", "0", "-d", **environment)
    assert (refused.returncode, "runs already" in refused.stderr) == (1, True)
    assert fonoteca("down", **environment).returncode == 0
    assert not any(map(is_running, [running["pid"], *running["services"].values()]))


def test_one_file_without_a_stack(tmp_path: Path) -> None:
    done = fonoteca("transcribe", ARCHIVE / "rua-con-ruido.wav", FONOTECA_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# Made by Fonoteca's demo model")
    damaged = fonoteca("transcribe", ARCHIVE / "cinta-danada.mp4", FONOTECA_HOME=str(tmp_path))
    assert damaged.returncode == 1
    assert damaged.stderr.startswith("fonoteca: cinta-danada.mp4: ")
    assert damaged.stdout == ""
