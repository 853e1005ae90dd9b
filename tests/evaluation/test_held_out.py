"""Held-out sets in every layout, and what is said of those that are wrong."""

from __future__ import annotations

import hashlib
import io
import json
import os
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from db.settings import Settings
from evaluation import held_out
from evaluation.held_out import (
    HeldOutError,
    HeldOutSet,
    find_sets,
    load_clip,
    read_nightly_sets,
    read_set,
)
from evaluation.held_out_audio import AudioChanged
from evaluation.manifests import Layout, Row, read_rows

LONG_AGO_NS = 10**18


def tone(n_samples: int, *, rate_hz: int = 16_000) -> bytes:
    """A wav file; another number of samples makes another file."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((8_000 * np.sin(np.arange(n_samples) / 9)).astype("<i2").tobytes())
    return content.getvalue()


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    """A set's folder with these files."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        os.utime(file, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return folder


def read(folder: Path) -> HeldOutSet:
    described = next(one for one in find_sets(folder.parent) if one.path == folder)
    return read_set(described, folder.parent.parent / "cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "datasets" / "conxunto"


def write_parquet(folder: Path, file: str, rows: dict[str, list[object]], *, group: int = 2) -> None:
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows), folder / file, row_group_size=group)


def parquet_layout(folder: Path) -> None:
    audio = [
        {"bytes": tone(3_200), "path": "a.wav"},
        {"bytes": tone(1_600), "path": "b.wav"},
        {"bytes": tone(4_800), "path": "c.wav"},
    ]
    write_parquet(
        folder,
        "data/test-00000-of-00001.parquet",
        {
            "id": [7, 7, 8],  # of the sentence, not of the utterance
            "audio": audio,
            "sentence": ["Ola.", "", "Ata mañá."],
            "speaker_id": [1, 2, 1],
            "domain": ["radio", "radio", None],
        },
    )
    write_parquet(folder, "data/train-00000.parquet", {"audio": audio, "sentence": ["x", "y", "z"]})


TWO_CLIPS = {"a.wav": tone(3_200), "b.wav": tone(1_600), "c.wav": tone(4_800)}
LAYOUTS: dict[str, Callable[[Path], object]] = {
    "manifest.jsonl": lambda folder: write(
        folder,
        TWO_CLIPS
        | {
            "manifest.jsonl": '{"audio": "a.wav", "text": "Ola.", "speaker": 1, "kind": "radio"}\n\n'
            '{"audio": "./b.wav", "id": "b.wav", "text": "", "speaker": "2", "kind": "radio"}\n'
            '{"audio": "c.wav", "text": "Ata ma\u00f1\u00e1.", "speaker": "1", "kind": null}\n'
        },
    ),
    "manifest.csv": lambda folder: write(
        folder,
        TWO_CLIPS
        | {
            "manifest.csv": "\ufeffspeaker,audio,text,kind\r\n1,a.wav,Ola.,radio\r\n2,b.wav,,radio\r\n"
            '1,c.wav,"Ata mañá.",\r\n'
        },
    ),
    "manifest.tsv": lambda folder: write(
        folder,
        TWO_CLIPS
        | {
            "manifest.tsv": "audio\ttext\tspeaker\tkind\na.wav\tOla.\t1\tradio\nb.wav\t\t2\tradio\n"
            "c.wav\tAta mañá.\t1\t\n"
        },
    ),
    "audiofolder": lambda folder: write(
        folder,
        {f"test/{name}": content for name, content in TWO_CLIPS.items()}
        | {
            "test/metadata.csv": "file_name,transcription,speaker_id,type\na.wav,Ola.,1,radio\n"
            "b.wav,,2,radio\nc.wav,Ata mañá.,1,\n",
            "train/metadata.csv": "file_name,transcription\nd.wav,non\n",
        },
    ),
    "Common Voice": lambda folder: write(
        folder,
        {f"clips/{name}": content for name, content in TWO_CLIPS.items()}
        | {
            "test.tsv": "client_id\tpath\tsentence\tdomain\n1\ta.wav\tOla.\tradio\n2\tb.wav\t\tradio\n"
            "1\tc.wav\tAta mañá.\t\n",
            "train.tsv": "client_id\tpath\tsentence\n",
        },
    ),
    "parquet": parquet_layout,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_give_the_same_set(layout: str, folder: Path) -> None:
    LAYOUTS[layout](folder)
    found = read(folder)
    assert found.name == "conxunto"
    assert found.layout.startswith(layout.split(".")[0])
    rows = [(u.key, u.reference, u.duration_samples, u.speaker, u.kind) for u in found.utterances]
    assert rows == [
        ("a.wav", "Ola.", 3_200, "1", "radio"),
        ("b.wav", "", 1_600, "2", "radio"),
        ("c.wav", "Ata mañá.", 4_800, "1", None),
    ]
    assert found.utterances[1].audio_sha256 == hashlib.sha256(tone(1_600)).hexdigest()
    # the same content is the same set, however and wherever it lies
    assert found.content_sha256 == "7db652d88f0cfa12615773fc733142159eaa59867a1223c80667fcb236eaaedd"
    for utterance in found.utterances:
        clip = load_clip(folder.parent, utterance.audio, sha256=utterance.audio_sha256)
        assert clip.dtype == np.float32
        assert len(clip) == utterance.duration_samples


def test_openslr_tells_speakers_by_their_ids(folder: Path) -> None:
    write(
        folder,
        {
            "female/line_index.tsv": "gaf_00128_01\tHai  máis. \n",
            "female/gaf_00128_01.wav": tone(800),
            "male/line_index.tsv": "gam_7_02\t \tDúas\n",
            "male/wavs/gam_7_02.wav": tone(900),
        },
    )
    found = read(folder)
    assert [(u.key, u.reference, u.speaker, u.audio) for u in found.utterances] == [
        ("gaf_00128_01", "Hai  máis.", "gaf_00128", "conxunto/female/gaf_00128_01.wav"),
        ("gam_7_02", "Dúas", "gam_7", "conxunto/male/wavs/gam_7_02.wav"),
    ]


def test_fleurs_is_known_by_its_files(folder: Path) -> None:
    line = '12\t{}\tEn 1998, "foi".\ten 1998 foi\te n |\t800\tFEMALE\n'
    files = {"test.tsv": line.format("1.wav") + line.format("2.wav")}
    write(folder, files | {"audio/test/1.wav": tone(800), "audio/test/2.wav": tone(900)})
    found = read(folder)
    assert [(u.key, u.reference) for u in found.utterances] == [
        ("1.wav", 'En 1998, "foi".'),
        ("2.wav", 'En 1998, "foi".'),
    ]
    write(folder, {"set.toml": '[columns]\ntext = "transcription"\n'})
    assert read(folder).utterances[0].reference == "en 1998 foi"


def test_quotation_marks_of_common_voice_are_text(folder: Path) -> None:
    write(
        folder,
        {"clips/a.wav": tone(800), "clips/b.wav": tone(900)}
        | {"test.tsv": 'path\tsentence\na.wav\t"Ola\nb.wav\t"Si", dixo\n'},
    )
    assert [u.reference for u in read(folder).utterances] == ['"Ola', '"Si", dixo']


def test_set_toml_says_what_the_files_do_not(folder: Path) -> None:
    write(
        folder,
        {
            "listas/proba.tsv": "ficheiro\tdito\traw\na.wav\tOla\tx\n",
            "a.wav": tone(16_000),
            "set.toml": 'name = "Radio 1"\ndataset = "Transcrispeech"\nnightly = false\nkind = "radio"\n'
            'programme = "Diario"\nmanifest = "listas/proba.tsv"\n'
            '[columns]\naudio = "ficheiro"\ntext = "dito"\nid = "raw"\n',
        },
    )
    found = read(folder)
    assert (found.name, found.dataset, found.is_nightly) == ("Radio 1", "Transcrispeech", False)
    row = found.utterances[0]
    assert (row.key, row.reference, row.kind, row.programme) == ("x", "Ola", "radio", "Diario")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "no held-out set is found"),
        ({"manifest.jsonl": ""}, "no utterances"),
        ({"manifest.csv": ""}, "the file is empty"),
        ({"manifest.csv": "audio,text\n"}, "no utterances"),
        ({"manifest.csv": "audio,text\na.wav,x\n", "manifest.tsv": "x"}, "are both there"),
        ({"manifest.csv": "audio,text\na.wav,x,y\n"}, "line 2: 3 fields"),
        ({"manifest.csv": 'audio,text\na.wav,"x" y\n'}, "line 2"),
        ({"manifest.csv": 'audio,text\na.wav,"x\nb.wav,y\n'}, "line 3: unexpected end of data"),
        ({"manifest.csv": "audio,audio,text\na.wav,a,x\n"}, "`audio` is there twice"),
        ({"manifest.csv": "audio,words\na.wav,x\n"}, "line 2: there is no `text`"),
        ({"manifest.csv": "audio,text,sentence\na.wav,x,y\n"}, "both `text` and `sentence`"),
        ({"manifest.csv": "audio,text\n/a.wav,x\n"}, "line 2: '/a.wav' is an absolute path"),
        ({"manifest.csv": "audio,text\nx/../../a.wav,x\n"}, "line 2: 'x/../../a.wav' leads out"),
        ({"manifest.csv": "audio,text\n,x\n"}, "line 2: the audio's path is empty"),
        ({"manifest.csv": "audio,text\na.wav,x\nb.wav,y\nb2.wav,z\n"}, "line 3: b.wav: No such file"),
        ({"manifest.csv": "audio,text,id\na.wav,x,1\na.wav,y,1\n"}, "line 3: the id '1' was already in"),
        ({"manifest.csv": b"audio,text\na.wav,\xff\n"}, "line 2: not UTF-8"),
        ({"manifest.jsonl": '{"audio": "a.wav", "text": "x"}\n{"audio"\n'}, "line 2: not JSON"),
        ({"manifest.jsonl": "[" * 100_000}, "line 1: not JSON"),
        ({"manifest.jsonl": '["a.wav"]\n'}, "line 1: not an object"),
        ({"manifest.jsonl": '{"audio": "a.wav", "text": null}\n'}, "line 1: `text` must be a text"),
        ({"manifest.jsonl": '{"audio": "a.wav"}\n'}, "line 1: there is no `text`"),
        ({"manifest.jsonl": '{"audio": ["a.wav"], "text": ""}\n'}, "line 1: `audio` must be a text"),
        ({"manifest.jsonl": '{"audio": "a.wav", "text": "a\\u0000b"}\n'}, "line 1: `text` holds a sign"),
        ({"manifest.jsonl": '{"audio": "a.wav", "text": "\\ud800"}\n'}, "line 1: `text` holds a sign"),
        ({"manifest.jsonl": '{"audio": "a.wav", "text": "x", "speaker": [1]}\n'}, "`speaker` must be"),
        ({"line_index.tsv": "x_1 Ola\n"}, "line 1: not an id and a text"),
        ({"line_index.tsv": "x_1\tOla\n"}, "line 1: there is no x_1.wav"),
        ({"line_index.tsv": "x_1\tOla\n", "f/x_1.wav": "", "m/x_1.wav": ""}, "could both be"),
        ({"test.tsv": "1\ta.wav\tOla\n", "audio/test/a.wav": ""}, "line 1: 3 fields, and FLEURS has 7"),
        ({"x.parquet": "no"}, "not a readable parquet file"),
        ({"train-0.parquet": "no"}, "no parquet file of the split 'test'"),
        ({"set.toml": "name = "}, "set.toml: "),
        ({"set.toml": 'naem = "x"'}, "`naem` is no setting of a set"),
        ({"set.toml": "nightly = 1"}, "`nightly` must be true or false"),
        ({"set.toml": 'name = "a/b"'}, "cannot be a set's name"),
        ({"set.toml": 'manifest = "../x.csv"'}, "leads out of the set's folder"),
        ({"set.toml": 'manifest = "x.csv"'}, "x.csv: no such file"),
        ({"set.toml": '[columns]\nwords = "x"'}, "`words` is no column of ours"),
        (
            {"set.toml": '[columns]\ntext = "x"', "manifest.csv": "audio,text\na.wav,x\n"},
            "line 2: there is no `x`, which set.toml names for text",
        ),
    ],
)
def test_what_is_wrong_is_named(folder: Path, files: dict[str, str | bytes], reason: str) -> None:
    folder.mkdir(parents=True)
    write(folder, files | {"a.wav": tone(800)})
    with pytest.raises(HeldOutError) as error:
        read(folder)
    assert reason in str(error.value)
    assert "conxunto" in str(error.value)


def test_a_parquet_row_without_audio_is_named(folder: Path) -> None:
    write_parquet(
        folder,
        "test.parquet",
        {"audio": [{"bytes": tone(800), "path": "a"}, {"bytes": None, "path": "b"}], "text": ["a", "b"]},
    )
    with pytest.raises(HeldOutError, match=r"test\.parquet, row 1: it holds no audio bytes"):
        read(folder)
    write_parquet(folder, "test.parquet", {"audio": ["a.wav"], "text": ["a"]})
    with pytest.raises(HeldOutError, match="must be a struct"):
        read(folder)


def test_audio_that_cannot_be_decoded_is_kept_for_its_prediction_to_say(folder: Path) -> None:
    write(folder, {"manifest.csv": "audio,text\na.wav,x\n", "a.wav": "no sound"})
    assert read(folder).utterances[0].duration_samples == 0


def test_only_what_changed_is_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, {"manifest.csv": "audio,text\na.wav,x\nb.wav,y\n", "a.wav": tone(800), "b.wav": tone(900)})
    monkeypatch.setattr("evaluation.held_out_audio.FRESH_NS", 0)
    first = read(folder)
    looked_at: list[str] = []
    original = Path.read_bytes

    def noted(path: Path) -> bytes:
        looked_at.append(path.name)
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", noted)
    assert read(folder) == first
    assert looked_at == ["manifest.csv"]
    # the same size and time of change, other bytes
    write(folder, {"b.wav": tone(900)[::-1]})
    looked_at.clear()
    changed = read(folder)
    assert looked_at == ["manifest.csv", "b.wav"]
    assert changed.content_sha256 != first.content_sha256
    with pytest.raises(AudioChanged, match=r"conxunto/b\.wav: its audio changed"):
        load_clip(folder.parent, first.utterances[1].audio, sha256=first.utterances[1].audio_sha256)


def test_a_file_that_changed_just_now_is_not_remembered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, {"manifest.csv": "audio,text\na.wav,x\n", "a.wav": tone(800)})
    monkeypatch.setattr("evaluation.held_out_audio.FRESH_NS", 10**12)
    read(folder)
    cached = next((folder.parent.parent / "cache").iterdir())
    assert json.loads(cached.read_text())["files"]["a.wav"]["stamp"] is None


def test_a_damaged_cache_is_only_forgotten(folder: Path) -> None:
    write(folder, {"manifest.csv": "audio,text\na.wav,x\n", "a.wav": tone(800)})
    first = read(folder)
    cached = next((folder.parent.parent / "cache").iterdir())
    for damage in ("", "[]", '{"version": 1}', '{"version": 1, "files": {"a.wav": {"stamp": 3}}}', "\0"):
        cached.write_text(damage)
        assert read(folder) == first


def test_the_sets_of_the_night(tmp_path: Path, folder: Path) -> None:
    good = {"manifest.csv": "audio,text\na.wav,x\n", "a.wav": tone(800)}
    datasets = folder.parent
    write(datasets / "b", good)
    write(datasets / "a", good | {"set.toml": "nightly = false"})
    write(datasets / "c", good | {"set.toml": 'name = "b"'})
    write(datasets / ".hidden", good)
    (datasets / "lost+found").mkdir()
    settings = Settings(datasets=datasets, home=tmp_path / "home")
    read_sets, unreadable = read_nightly_sets(settings)
    assert [one.name for one in read_sets] == ["b"]
    assert [(one.name, "is in" in one.reason) for one in unreadable] == [("b", True)]
    named = settings.model_copy(update={"nightly_sets": "a, zz"})
    read_sets, unreadable = read_nightly_sets(named)
    assert [one.name for one in read_sets] == ["a"]
    assert [one.name for one in unreadable] == ["zz"]
    assert read_nightly_sets(settings.model_copy(update={"datasets": None})) == ([], [])
    gone = settings.model_copy(update={"datasets": tmp_path / "nowhere"})
    assert "cannot be read" in read_nightly_sets(gone)[1][0].reason


def test_one_bad_set_keeps_no_other_from_the_night(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = {"manifest.csv": "audio,text\na.wav,x\n", "a.wav": tone(800)}
    datasets = folder.parent
    write(datasets / "good", good)
    write(datasets / os.fsdecode(b"m\xe1"), good)
    digits = '{"audio": "a.wav", "text": "x", "id": ' + "7" * 5_000 + "}\n"
    write(datasets / "digits", {"manifest.jsonl": digits, "a.wav": tone(800)})
    write(datasets / "deep", {"manifest.jsonl": "[" * 100_000, "a.wav": tone(800)})
    write(datasets / "toml", good | {"set.toml": "nightly = " + "7" * 5_000})
    write(datasets / "broken", good)
    inner = folder.parent / "inner"
    write(inner, {"line_index.tsv": "a\tx\n", "a.wav": tone(800)})
    write(inner, {os.fsdecode(b"m\xe1/a.wav"): tone(800)})
    outer = {"line_index.tsv": "a\tx\n", os.fsdecode(b"m\xe1/a.wav"): tone(800)}
    write(datasets / "outer", outer)
    write(datasets / "nul", good | {"set.toml": 'programme = "a\\u0000"'})
    read_really = read_rows

    def read_or_break(layout: Layout) -> list[Row]:
        if layout.folder.name == "broken":
            raise KeyError("something that nobody thought of")
        return read_really(layout)

    monkeypatch.setattr(held_out, "read_rows", read_or_break)
    with capture_logs() as logs:
        read_sets, unreadable = read_nightly_sets(Settings(datasets=datasets, home=tmp_path / "home"))
    assert [one.name for one in read_sets] == ["good"]
    reasons = {one.name: one.reason for one in unreadable}
    assert reasons.keys() == {"m\\udce1", "digits", "deep", "toml", "broken", "inner", "outer", "nul"}
    assert "the folder's name is not UTF-8" in reasons["m\\udce1"]
    assert "line_index.tsv, line 1: `'m\\udce1/a.wav'` holds a sign that is no text" in reasons["outer"]
    assert "`programme` holds a sign that is no text" in reasons["nul"]
    assert "manifest.jsonl, line 1: not JSON that can be read" in reasons["digits"]
    assert "manifest.jsonl, line 1: not JSON that can be read" in reasons["deep"]
    assert "set.toml: " in reasons["toml"]
    assert "KeyError: 'something that nobody thought of'" in reasons["broken"]
    "".join(reasons.values()).encode()  # the database and the mail take them
    assert [(entry["event"], entry["set"]) for entry in logs] == [("held_out_set_unreadable", "broken")]
