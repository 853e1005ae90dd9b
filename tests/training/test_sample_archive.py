"""The sample archive is what its README says, and the script makes it again."""

import json
from pathlib import Path

import pytest

from speech.audio import MediaReader
from training.sample_archive import REPOSITORY, make_archive

SPEECH = REPOSITORY / "tests" / "data" / "demo-speech"
KEPT = REPOSITORY / "samples"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("samples")
    make_archive(SPEECH, out)
    return out


@pytest.mark.slow
def test_made_again_it_is_the_kept_one(made: Path) -> None:
    assert (made / "references.json").read_text() == (KEPT / "references.json").read_text()
    for kept in sorted((KEPT / "archive").iterdir()):
        again = made / "archive" / kept.name
        assert again.stat().st_size == pytest.approx(kept.stat().st_size, rel=0.05)
        if kept.suffix == ".wav":
            assert again.read_bytes()[-800_000:] == kept.read_bytes()[-800_000:]


def test_references_lie_within_their_recordings() -> None:
    texts = {
        row["text"]: row
        for row in map(json.loads, (SPEECH / "texts.jsonl").read_text(encoding="utf-8").splitlines())
    }
    for recording in json.loads((KEPT / "references.json").read_text(encoding="utf-8")):
        assert recording["readable"] == bool(recording["sentences"])
        at = 0.0
        for said in recording["sentences"]:
            row = texts[said["text"]]
            assert row["voice"] == said["voice"]
            assert said["end_s"] - said["start_s"] == pytest.approx(row["duration_s"], abs=0.01)
            assert said["start_s"] >= at + 0.35
            at = said["end_s"]
        assert at < recording["duration_s"]


def test_sizes_and_kinds() -> None:
    assert sum(path.stat().st_size for path in (KEPT / "archive").iterdir()) < 5_000_000
    with MediaReader(KEPT / "archive" / "entrevista-a-debate.mp4", name="entrevista") as media:
        assert (media.info.codec, media.info.programme, media.info.date) == ("aac", "A debate", "2026-11-18")
    with MediaReader(KEPT / "archive" / "noticias-2026-11-20.mp3", name="noticias") as media:
        assert media.info.declared_duration_s == pytest.approx(180, abs=10)
