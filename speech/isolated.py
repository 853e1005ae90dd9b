"""Decoding in a process of its own, with limits on memory, time and output: it may die, the caller goes on.

The decoder library is a million lines of C that read what strangers send. The child has none of this process's
environment (no passwords) and writes no files. A plain file is handed over open, for reading; of any other source it
asks for bytes by position through a pipe, so the object store's credentials and connections stay here. It answers with
audio. Nothing that it sends is unpickled.

    child -> parent   kind (1 byte), length (4 bytes), content
        R  position, count       wants bytes of the file; the parent answers length, bytes
        I  json                  MediaInfo, once
        B  16-bit samples        the next block, as the working copy will have it
        T  track, float32 samples  an excerpt of one of several tracks, before anything is told of the file
        C                        no more excerpts; the parent answers length, json: a track, or null
        F  json                  failed spans, once, after the last block
        E  json                  which error, and its words
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Self

import numpy as np

from speech import errors
from speech.audio import SAMPLE_RATE_HZ, Block, FailedSpan, MediaSource, Samples, open_source
from speech.containers import MAX_CREDIBLE_S, MediaInfo
from speech.errors import DecoderCrashed, DecoderOverrun, MediaError
from speech.mono import from_int16, to_int16
from speech.tracks import open_reader, probe_tracks

MAX_MESSAGE_BYTES = 4 << 20
MAX_READ_BYTES = 4 << 20
PIPE_BYTES = 1 << 20
"""Half a minute of audio: so much the child may be ahead, where the system lets a pipe hold it."""
MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(32 << 20), "MALLOC_MMAP_THRESHOLD_": str(8 << 20)}
"""Has glibc keep the blocks that it will be asked for again: else the child gives each second of audio back to the
system and gets it anew, with 110,000 page faults an hour of audio, a quarter of a second."""
_HEAD = struct.Struct("<cI")
_WANTED = struct.Struct("<QI")
_LENGTH = struct.Struct("<I")
PR_SET_PDEATHSIG = 1
"""prctl(2)."""
_TRACK = struct.Struct("<i")


TrackChooser = Callable[[Iterable[tuple[int, Samples]]], int | None]


@dataclass(frozen=True)
class DecodeLimits:
    """What one file's decoding may take."""

    memory_bytes: int = 1 << 30
    """Of address space. The libraries alone map about 250 MB, of which 45 MB are used."""
    cpu_s: int = 3600
    """Of computing; two days of audio take some minutes."""
    stall_s: float = 300.0
    """Without a word from the child. Waiting for the source does not count, unless it is a plain file."""
    output_s: int = MAX_CREDIBLE_S
    """Of audio."""


class IsolatedReader:
    """`speech.tracks.open_reader` in a process of its own: the same blocks (in 16 bits), holes and errors.

    A context manager.

    Raises, beside its errors, `DecoderOverrun` where a limit was reached and `DecoderCrashed` where the decoder died of
    the file; RuntimeError where the child was killed from outside, which says nothing of the file.
    """

    def __init__(
        self,
        source: MediaSource,
        *,
        name: str,
        audio_track: int | Literal["mix"] | None = None,
        choose: TrackChooser | None = None,
        limits: DecodeLimits = DecodeLimits(),
    ) -> None:
        """`choose` says which of several tracks is read, by excerpts of all; where it answers None, or the decoder dies
        of them, that is the container's best."""
        self._name = name
        self._limits = limits
        self._n_samples = 0
        self._failed: tuple[FailedSpan, ...] = ()
        self._closing = ExitStack()
        try:
            order: dict[str, object] = {"audio_track": audio_track}
            message: tuple[bytes, bytes] | None = None
            if choose is not None:
                self._decoder = self._closing.enter_context(
                    _Decoder(source, name, order | {"compare": True}, limits)
                )
                message = self._chosen(choose, self._decoder.next_message())
            if message is None:
                self._closing.close()
                self._decoder = self._closing.enter_context(_Decoder(source, name, order, limits))
                message = self._decoder.next_message()
            kind, content = message
            if kind != b"I":
                raise DecoderCrashed(name, "the decoder sent audio before it said what the file is")
            told = json.loads(content)
            self.info = MediaInfo(**(told | {"tracks_mixed": tuple(told["tracks_mixed"])}))
        except BaseException:
            self._closing.close()
            raise

    def _chosen(self, choose: TrackChooser, first: tuple[bytes, bytes]) -> tuple[bytes, bytes] | None:
        """What the decoder says once it knows the track; None where it died of comparing them."""
        if first[0] not in (b"T", b"C"):
            return first
        try:
            self._decoder.answer(json.dumps(choose(self._excerpts(first))).encode())
            return self._decoder.next_message()
        except MediaError:
            return None

    def _excerpts(self, message: tuple[bytes, bytes]) -> Iterator[tuple[int, Samples]]:
        """Of all tracks: see `speech.tracks.probe_tracks`."""
        n_samples = 0
        while message[0] != b"C":
            kind, content = message
            if kind != b"T" or len(content) < _TRACK.size or len(content) % 4:
                raise DecoderCrashed(self._name, "the decoder answered with nonsense")
            (track,) = _TRACK.unpack_from(content)
            samples = np.frombuffer(content, np.float32, offset=_TRACK.size)
            n_samples += len(samples)
            if n_samples > self._limits.output_s * SAMPLE_RATE_HZ:
                raise DecoderOverrun(self._name, f"it gives more than {self._limits.output_s} s of audio")
            yield track, samples
            message = self._decoder.next_message()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closing.close()

    @property
    def failed(self) -> tuple[FailedSpan, ...]:
        """Holes, in order; known once `blocks` is exhausted."""
        return self._failed

    @property
    def n_samples(self) -> int:
        """16 kHz samples given so far."""
        return self._n_samples

    def blocks(self) -> Iterator[Block]:
        """Blocks of 4 s, the last one shorter. May be called once."""
        while True:
            kind, content = self._decoder.next_message()
            if kind == b"F":
                self._failed = tuple(FailedSpan(*span) for span in json.loads(content))
                return
            if kind != b"B" or len(content) % 2:
                raise DecoderCrashed(self._name, "the decoder answered with nonsense")
            pcm = np.frombuffer(content, np.int16)
            block = Block(self._n_samples, from_int16(pcm), pcm)
            self._n_samples += len(block.samples)
            if self._n_samples > self._limits.output_s * SAMPLE_RATE_HZ:
                raise DecoderOverrun(self._name, f"it gives more than {self._limits.output_s} s of audio")
            yield block


class _Decoder:
    """The child with one order. A context manager: the child is dead when it is left."""

    def __init__(
        self, source: MediaSource, name: str, order: dict[str, object], limits: DecodeLimits
    ) -> None:
        self._name = name
        self._limits = limits
        self._closing = ExitStack()
        try:
            self._reader = open_source(source, self._closing)
            descriptor = self._reader.descriptor
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "speech.isolated"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"} | MALLOC,
                pass_fds=() if descriptor is None else (descriptor,),
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )
            self._closing.callback(self._end)
            assert self._child.stdin is not None
            assert self._child.stdout is not None
            self._to_child, self._from_child = self._child.stdin, self._child.stdout
            os.set_blocking(self._to_child.fileno(), False)
            if sys.platform == "linux":
                with suppress(OSError):  # this user's pipes are as large as they may be
                    fcntl.fcntl(self._from_child, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            order = order | {
                "name": name,
                "size_bytes": self._reader.size_bytes,
                "descriptor": descriptor,
                "parent_pid": os.getpid(),
                "limits": asdict(limits),
            }
            self.answer(json.dumps(order).encode())
        except BaseException:
            self._closing.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closing.close()

    def next_message(self) -> tuple[bytes, bytes]:
        """The next message that is not for the source."""
        while True:
            kind, n_bytes = _HEAD.unpack(self._receive(_HEAD.size))
            if n_bytes > MAX_MESSAGE_BYTES:
                raise DecoderCrashed(self._name, "the decoder answered with nonsense")
            content = self._receive(n_bytes)
            if kind == b"R":
                position, n_wanted = _WANTED.unpack(content)
                self._reader.seek(position)
                self.answer(self._reader.read(min(n_wanted, MAX_READ_BYTES)))
            elif kind == b"E":
                raise self._error(json.loads(content))
            else:
                return kind, content

    def _error(self, told: dict[str, str]) -> Exception:
        if told["kind"] == "internal":
            return RuntimeError(f"decoding {self._name} failed by our own fault: {told['reason']}")
        if told["kind"] == "memory":
            megabytes = self._limits.memory_bytes >> 20
            return DecoderOverrun(self._name, f"decoding it takes more than {megabytes} MB of memory")
        known = getattr(errors, told["kind"], None)
        if not (isinstance(known, type) and issubclass(known, MediaError)):
            return DecoderCrashed(self._name, "the decoder answered with nonsense")
        return known(self._name) if known is errors.EmptyMedia else known(self._name, told["reason"])

    def answer(self, content: bytes) -> None:
        """Send what the child waits for."""
        rest = memoryview(_LENGTH.pack(len(content)) + content)
        descriptor = self._to_child.fileno()
        deadline = time.monotonic() + self._limits.stall_s
        with suppress(
            BrokenPipeError
        ):  # the child is gone: what it said before, or how it died, is read next
            while rest:
                self._wait(deadline, write=descriptor)
                rest = rest[os.write(descriptor, rest) :]

    def _receive(self, n_bytes: int) -> bytes:
        parts: list[bytes] = []
        descriptor = self._from_child.fileno()
        deadline = time.monotonic() + self._limits.stall_s
        while n_bytes:
            self._wait(deadline, read=descriptor)
            part = os.read(descriptor, min(n_bytes, 1 << 20))
            if not part:
                raise self._death()
            parts.append(part)
            n_bytes -= len(part)
        return b"".join(parts)

    def _wait(self, deadline: float, *, read: int | None = None, write: int | None = None) -> None:
        """Until the child's pipe can be read, or written (it never blocks: a child that stands still reads nothing)."""
        reads, writes = ([] if end is None else [end] for end in (read, write))
        if not any(select.select(reads, writes, [], max(0.0, deadline - time.monotonic()))):
            raise DecoderOverrun(self._name, f"its decoder stood still for {self._limits.stall_s:g} s")

    def _death(self) -> Exception:
        """Why the child is gone."""
        code = self._child.wait(timeout=60)
        if code == -signal.SIGXCPU:
            return DecoderOverrun(self._name, f"decoding it takes more than {self._limits.cpu_s} s")
        if code in (-signal.SIGKILL, -signal.SIGTERM):
            return RuntimeError(f"the decoder of {self._name} was killed from outside (signal {-code})")
        if code < 0:
            return DecoderCrashed(self._name, f"the decoder died of it ({signal.Signals(-code).name})")
        return RuntimeError(f"the decoder of {self._name} ended without a word (status {code})")

    def _end(self) -> None:
        self._child.kill()
        self._child.wait()
        self._from_child.close()
        with suppress(BrokenPipeError):
            self._to_child.close()


class _Source(ABC):
    """The media file, as the child sees it."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._at = 0

    @abstractmethod
    def _read(self, position: int, n_bytes: int) -> bytes: ...

    def read(self, n_bytes: int, /) -> bytes:
        content = self._read(self._at, min(n_bytes, MAX_READ_BYTES))
        self._at += len(content)
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at


class _PipeSource(_Source):
    """One that the parent reads."""

    def __init__(self, to_parent: BinaryIO, from_parent: BinaryIO, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self._to_parent = to_parent
        self._from_parent = from_parent

    def _read(self, position: int, n_bytes: int) -> bytes:
        _tell(self._to_parent, b"R", _WANTED.pack(position, n_bytes))
        return _heard(self._from_parent)


class _FileSource(_Source):
    """A plain file, open. Its own position is not used: the parent has it too."""

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self._descriptor = descriptor

    def _read(self, position: int, n_bytes: int) -> bytes:
        return os.pread(self._descriptor, n_bytes, position)


def _tell(to_parent: BinaryIO, kind: bytes, content: bytes) -> None:
    to_parent.write(_HEAD.pack(kind, len(content)) + content)
    to_parent.flush()


def _heard(from_parent: BinaryIO) -> bytes:
    head = from_parent.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        os._exit(0)  # the parent is gone, or wants no more
    return from_parent.read(_LENGTH.unpack(head)[0])


def _limit(limits: DecodeLimits) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s + 5))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _die_with(parent_pid: int) -> None:
    """Have the kernel (Linux) kill this process when its parent is gone, however: one that was stopped, or computes for
    an hour, would not look at its pipes and stay behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:
            os._exit(0)


def decode_for_parent() -> None:
    """The child: take the order from standard input, write messages to standard output."""
    to_parent, from_parent = sys.stdout.buffer, sys.stdin.buffer
    order = json.loads(_heard(from_parent))
    _die_with(order["parent_pid"])
    limits = DecodeLimits(**order["limits"])
    _limit(limits)
    source: _Source
    if order["descriptor"] is None:
        source = _PipeSource(to_parent, from_parent, order["size_bytes"])
    else:
        source = _FileSource(order["descriptor"], order["size_bytes"])
    try:
        name = order["name"]
        with ExitStack() as closing:
            media = closing.enter_context(open_reader(source, name=name, audio_track=order["audio_track"]))
            if order.get("compare") and media.info.n_audio_tracks > 1:
                closing.close()
                for track, samples in probe_tracks(source, name=name):
                    _tell(to_parent, b"T", _TRACK.pack(track) + samples.tobytes())
                _tell(to_parent, b"C", b"")
                chosen = json.loads(_heard(from_parent))
                media = closing.enter_context(open_reader(source, name=name, audio_track=chosen))
            _tell(to_parent, b"I", json.dumps(asdict(media.info)).encode())
            for block in media.blocks():
                _tell(to_parent, b"B", to_int16(block.samples).tobytes())
            spans = [(span.start_sample, span.end_sample, span.reason) for span in media.failed]
            _tell(to_parent, b"F", json.dumps(spans).encode())
    except BrokenPipeError:
        os._exit(0)
    except MediaError as error:
        told = {"kind": type(error).__name__, "reason": error.reason}
        _tell(to_parent, b"E", json.dumps(told).encode())
    except MemoryError:
        _tell(to_parent, b"E", b'{"kind": "memory", "reason": ""}')
    except Exception:
        told = {"kind": "internal", "reason": traceback.format_exc()[-2000:]}
        _tell(to_parent, b"E", json.dumps(told).encode())


if __name__ == "__main__":
    decode_for_parent()
