"""A playlist, or a file that refers to another, never makes the reader open a file or an address.

Opens are seen by the kernel's inotify, connections by a server that counts them; both are shown to notice.
"""

from __future__ import annotations

import ctypes
import io
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import pytest

from speech.audio import MediaReader
from speech.errors import MediaError, PlaylistRefused
from tests.speech.format_matrix import by_id, made
from tests.speech.media_files import sweep, wav

IN_OPEN = 0x20


@dataclass
class Watch:
    """A file and a server that no reader may touch."""

    canary: Path
    inotify: int
    port: int
    n_connections: int = 0

    def n_opens(self) -> int:
        n_opens = 0
        while select.select([self.inotify], [], [], 0)[0]:
            n_opens += len(os.read(self.inotify, 4096)) // 16
        return n_opens


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    canary = tmp_path / "canary.wav"
    canary.write_bytes(wav(sweep(1)))
    libc = ctypes.CDLL(None, use_errno=True)
    inotify = libc.inotify_init()
    assert libc.inotify_add_watch(inotify, os.fsencode(canary), IN_OPEN) >= 0
    server = socket.create_server(("127.0.0.1", 0))
    watched = Watch(canary, inotify, server.getsockname()[1])

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            watched.n_connections += 1
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield watched
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()
    os.close(inotify)


def external_mov(url: str) -> bytes:
    """A mov whose sound lies in another file: its data reference (`dref`) is a `url ` that is not the file itself."""
    content = bytearray(made(by_id("mov")))
    at = content.index(b"dref", content.index(b"smhd")) + 12  # past version, flags and the count of entries
    entry = struct.pack(">I4sI", 12 + len(url) + 1, b"url ", 0) + url.encode() + b"\0"
    grown = len(entry) - struct.unpack(">I", content[at : at + 4])[0]
    content[at : at + struct.unpack(">I", content[at : at + 4])[0]] = entry
    end = at
    for box in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        end = content.rindex(box, 0, end) - 4
        size = struct.unpack(">I", content[end : end + 4])[0]
        content[end : end + 4] = struct.pack(">I", size + grown)
    return bytes(content)


REFERRING = {
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{url}\n#EXT-X-ENDLIST\n",
    "m3u8-key": '#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF:3,\n{url}\n',
    "ffconcat": "ffconcat version 1.0\nfile '{url}'\nduration 5\n",
    "concat": "file '{url}'\nduration 5\n",
    "mpd": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT5S"><Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" '
    'bandwidth="1"><BaseURL>{url}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP/TCP 0\n",
    "pls": "[playlist]\nFile1={url}\nLength1=5\n",
    "asx": '<ASX version="3.0"><Entry><Ref href="{url}"/></Entry></ASX>',
    "smil": '<smil><body><audio src="{url}"/></body></smil>',
    "redirector": "[Reference]\r\nRef1={url}\r\n",
    "m3u": "{url}\n",
}


def targets(watch: Watch) -> list[str]:
    http = f"http://127.0.0.1:{watch.port}/a.ts"
    path = str(watch.canary)
    return [
        http,
        f"tcp://127.0.0.1:{watch.port}",
        path,
        f"file:{path}",
        f"concat:{path}|{path}",
        f"subfile,,start,0,end,0,,:{path}",
    ]


def test_the_watch_notices(watch: Watch) -> None:
    watch.canary.read_bytes()
    assert watch.n_opens() == 1
    with pytest.raises(av.error.FFmpegError):
        av.open(f"http://127.0.0.1:{watch.port}/a.ts")
    assert watch.n_connections >= 1
    playlist = watch.canary.with_suffix(".ffconcat")
    playlist.write_text(REFERRING["ffconcat"].format(url=watch.canary, port=0))
    with av.open(str(playlist), options={"safe": "0"}) as opened:  # what an unguarded reader does
        next(opened.decode(audio=0))
    assert watch.n_opens() >= 1


@pytest.mark.parametrize("kind", REFERRING)
@pytest.mark.parametrize("disguise", ["plain", "bom", "named", "tagged"])
def test_playlists_are_refused_unopened(kind: str, disguise: str, watch: Watch) -> None:
    for url in targets(watch):
        content = REFERRING[kind].format(url=url, port=watch.port).encode()
        if disguise == "bom":
            content = b"\xef\xbb\xbf" + content
        elif disguise == "tagged":
            content = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + content
        source: io.BytesIO | Path = io.BytesIO(content)
        if disguise == "named":
            source = watch.canary.parent / f"fita.{kind}"
            source.write_bytes(content)
        with pytest.raises(MediaError) as caught, MediaReader(source, name="fita.mp3") as media:
            list(media.blocks())
        if disguise == "plain" and kind not in {"concat", "sdp", "m3u"}:  # which look like any text
            assert type(caught.value) is PlaylistRefused
    assert (watch.n_opens(), watch.n_connections) == (0, 0)


def test_a_mov_that_points_elsewhere_gives_its_own_bytes_or_none(watch: Watch) -> None:
    for url in targets(watch):
        try:
            with MediaReader(io.BytesIO(external_mov(url)), name="fita.mov") as media:
                list(media.blocks())
        except MediaError:
            pass
    assert (watch.n_opens(), watch.n_connections) == (0, 0)
