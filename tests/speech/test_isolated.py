"""Decoding in a process of its own: the same audio and errors, and a death that stays there."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from speech.audio import MediaReader, MediaSource
from speech.errors import DecoderCrashed, DecoderOverrun, EmptyMedia, MediaError, NotMedia, TruncatedMedia
from speech.isolated import DecodeLimits, IsolatedReader
from speech.mono import from_int16, to_int16
from tests.speech.format_matrix import Format, by_id, made, make
from tests.speech.media_files import encoded, sweep, wav


@pytest.fixture(scope="module")
def long_wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 h 40 min of silence that take no disk: an RF64 with a hole for its data."""
    head = bytearray(make(Format("wav", "pcm_s16le", options=(("rf64", "always"),)), sweep(1)))
    data_at, at = head.index(b"data") + 8, head.index(b"ds64") + 16
    n_bytes = 192_000 * 24_000
    head[at : at + 8] = n_bytes.to_bytes(8, "little")
    path = tmp_path_factory.mktemp("long") / "longa.wav"
    with path.open("wb") as file:
        file.write(head[:data_at])
        file.truncate(data_at + n_bytes)
    return path


@pytest.mark.parametrize("as_file", [False, True], ids=["stream", "file"])
@pytest.mark.parametrize("broken", [False, True])
def test_it_gives_what_the_reader_gives(broken: bool, as_file: bool, tmp_path: Path) -> None:
    content = encoded(sweep(20), container="mp3", codec="libmp3lame", tags={"title": "Serán"})
    if broken:
        content = content[: len(content) // 2] + bytes(5000) + content[len(content) // 2 + 5000 :]
    with MediaReader(io.BytesIO(content), name="fita") as here:
        wanted = np.concatenate([block.samples for block in here.blocks()])
    (tmp_path / "fita").write_bytes(content)
    with ExitStack() as closing:
        source: MediaSource = io.BytesIO(content)
        if as_file:  # another's reader, somewhere in the midst of the file, and left there
            source = closing.enter_context((tmp_path / "fita").open("rb"))
            source.seek(1234)
        there = closing.enter_context(IsolatedReader(source, name="fita"))
        found = np.concatenate([block.samples for block in there.blocks()])
    np.testing.assert_array_equal(found, from_int16(to_int16(wanted)))
    assert (there.info, there.failed, there.n_samples) == (here.info, here.failed, here.n_samples)
    assert bool(there.failed) is broken


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", EmptyMedia), (b"texto " * 99, NotMedia), (made(by_id("m4a"))[:9000], TruncatedMedia)],
    ids=["empty", "text", "mp4"],
)
def test_errors_are_the_readers(content: bytes, error: type[MediaError]) -> None:
    with pytest.raises(error, match="fita: ") as caught, IsolatedReader(io.BytesIO(content), name="fita"):
        pass
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (signal.SIGSEGV, DecoderCrashed, "SIGSEGV"),
        (signal.SIGABRT, DecoderCrashed, "SIGABRT"),
        (signal.SIGKILL, RuntimeError, "killed from outside"),
    ],
)
def test_a_decoder_that_dies_is_an_error_like_others(
    number: signal.Signals, error: type[Exception], words: str, long_wav: Path
) -> None:
    with pytest.raises(error, match=words), IsolatedReader(long_wav, name="fita") as media:  # noqa: PT012
        for n_read, _ in enumerate(media.blocks()):
            if n_read == 3:
                os.kill(media._decoder._child.pid, number)
    assert media._decoder._child.returncode == -number


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (DecodeLimits(cpu_s=1), "more than 1 s"),
        (DecodeLimits(output_s=30), "more than 30 s of audio"),
        (DecodeLimits(memory_bytes=64 << 20), "more than 64 MB of memory"),
    ],
    ids=["time", "output", "memory"],
)
def test_limits_are_kept_and_named(limits: DecodeLimits, words: str, long_wav: Path) -> None:
    with (
        pytest.raises(DecoderOverrun, match=words),
        IsolatedReader(long_wav, name="fita", limits=limits) as media,
    ):
        for _ in media.blocks():
            pass


def test_a_decoder_that_stands_still_is_given_up(long_wav: Path) -> None:
    limits = DecodeLimits(stall_s=0.5)
    with pytest.raises(DecoderOverrun, match=r"stood still for 0\.5 s"):  # noqa: PT012, SIM117
        with IsolatedReader(long_wav, name="fita", limits=DecodeLimits()) as media:
            media._decoder._limits = limits
            for n_read, _ in enumerate(media.blocks()):
                if n_read == 1:
                    os.kill(media._decoder._child.pid, signal.SIGSTOP)
    assert media._decoder._child.returncode == -signal.SIGKILL


def test_the_child_knows_no_secrets_and_ends_with_its_reader(
    long_wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FONOTECA_DATABASE_URL", "postgresql://secret")
    with IsolatedReader(long_wav, name="fita") as media:
        next(media.blocks())
        child = Path(f"/proc/{media._decoder._child.pid}")
        assert b"secret" not in (child / "environ").read_bytes()
        files = {fd.name for fd in (child / "fd").iterdir() if fd.readlink() == long_wav}
        assert len(files) == 1
        (flags,) = re.findall(r"^flags:\s*(\d+)", (child / "fdinfo" / files.pop()).read_text(), re.MULTILINE)
        assert int(flags, 8) & os.O_ACCMODE == os.O_RDONLY
        maps = (child / "maps").read_text()
        assert "libtorch" not in maps, "the child starts in a second because it loads no torch"
    assert not child.exists()


READS_AND_WAITS = """
import os, signal, sys
from speech.isolated import IsolatedReader
with IsolatedReader(sys.argv[1], name="fita") as media:
    next(media.blocks())
    os.kill(media._decoder._child.pid, signal.SIGSTOP)
    print(media._decoder._child.pid, flush=True)
    signal.pause()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's doing")
def test_a_decoder_that_stands_still_does_not_outlive_a_killed_worker(long_wav: Path) -> None:
    command = [sys.executable, "-c", READS_AND_WAITS, str(long_wav)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        child = psutil.Process(int(worker.stdout.readline()))
        worker.kill()
    deadline = time.monotonic() + 30
    with suppress(psutil.NoSuchProcess):
        while child.status() != psutil.STATUS_ZOMBIE:  # nobody may be there to reap it
            assert time.monotonic() < deadline, "the decoder still stands there"
            time.sleep(0.02)


def test_errors_of_the_source_pass_through() -> None:
    class LostConnection(io.BytesIO):
        n_reads = 0

        def read(self, n_bytes: int | None = -1, /) -> bytes:
            self.n_reads += 1
            if self.n_reads > 4:
                raise ConnectionResetError("the store hung up")
            return super().read(n_bytes)

    with (
        pytest.raises(ConnectionResetError),
        IsolatedReader(LostConnection(wav(sweep(60))), name="fita") as media,
    ):
        list(media.blocks())
