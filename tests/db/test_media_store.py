"""The object store keeps, gives ranges of, and forgets: the same in a folder and in a bucket."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
import pytest

from db.media_store import MediaMissing, MediaStore
from speech.split import DecodeLimits, split_media
from speech.working_copy import read_spans

RECORDING = Path(__file__).parents[2] / "samples" / "archive" / "rua-con-ruido.wav"

# moto and the libraries under it are a stand-in server here, not ours to keep free of warnings
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(params=["folder", "bucket"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MediaStore]:
    """A folder whose name needs quoting, and a bucket of a real HTTP server that speaks S3."""
    if request.param == "folder":
        yield MediaStore((tmp_path / "os arquivos").as_uri())
        return
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    httpx.put(f"http://{host}:{port}/archive").raise_for_status()
    yield MediaStore("s3://archive/some/prefix")
    server.stop()


def test_bytes_come_back_whole_and_in_ranges(store: MediaStore, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(7_000_000)  # more than one part of a multipart upload
    file = tmp_path / "file"
    file.write_bytes(content)
    store.check()
    store.put_file("1/a/original", file)
    with closing(store.open("1/a/original")) as reader:
        reader.seek(5_000_000)
        assert bytes(reader.read(1_000)) == content[5_000_000:5_001_000]
        reader.seek(0)
        assert bytes(reader.read()) == content


def test_what_is_not_there_says_so(store: MediaStore, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"audio")
    store.put_file("1/a/original", file)
    store.delete("1/a/original")
    store.delete("1/a/original")
    with pytest.raises(MediaMissing, match="1/a/original is not in the object store"):
        store.open("1/a/original")


def test_media_is_split_and_its_copy_read_from_the_store(store: MediaStore, tmp_path: Path) -> None:
    store.put_file("1/a/original", RECORDING)
    copy = tmp_path / "working.flac"
    with closing(store.open("1/a/original")) as original:
        found = split_media(original, name="rúa.wav", working_copy=copy, limits=DecodeLimits())
    store.put_file("1/a/working-1.flac", copy)
    with closing(store.open("1/a/working-1.flac")) as kept:
        from_store = list(read_spans(kept, found.segments))
    assert len(from_store) == len(found.segments) > 0
    for got, wanted in zip(from_store, read_spans(copy, found.segments), strict=True):
        assert np.array_equal(got, wanted)
