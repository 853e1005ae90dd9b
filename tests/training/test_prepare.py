"""Corpora as they are published become one manifest; what cannot be used is refused with its place and reason."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluation.held_out_audio import load_clip
from evaluation.training_manifests import read_training_manifest
from tests.training import made_corpora as made
from tests.training.ending_decoder import end_at_the_third
from training.corpora import audio_facts
from training.corpora.description import CorpusError, describe
from training.corpora.preparation import Preparation, PrepareSettings
from training.corpora.reading import Reason
from training.corpora.sharing import Leak
from training.corpora.splitting import NewSplit, SplitBy
from training.manifest import read_manifest
from training.prepare import prepare, read_corpora

ALONE = PrepareSettings(workers=1)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus in each published layout."""
    root = tmp_path_factory.mktemp("published")
    for name, make in made.CORPORA.items():
        make(root / name)
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "corpus"


def prepared(*given: str | Path, out: Path, settings: PrepareSettings = ALONE) -> Preparation:
    return prepare([describe(str(one)) for one in given], out, settings)


def refused(preparation: Preparation) -> dict[str, Reason]:
    """Where each refused row stands, and its reason."""
    return {one.where: one.reason for one in preparation.rejects}


def speech(seconds: float = 2.0) -> bytes:
    """A sound that passes for speech: no check listens to what is said."""
    n_samples = round(seconds * made.RATE_HZ)
    return made.wav((8_000 * np.sin(np.arange(n_samples) / 9)).astype("<i2"))


def listing(folder: Path, lines: str | bytes, *clips: str, seconds: float = 2.0) -> Path:
    """A corpus with a manifest.csv and clips of sound."""
    made.write(folder / "manifest.csv", lines)
    for number, clip in enumerate(clips):
        made.write(folder / clip, speech(seconds + number / 100))
    return folder


# --- published layouts -------------------------------------------------------------------------------------

EXPECTED = {
    "CommonVoice": ({"train": 3, "validation": 1, "test": 2}, range(6)),
    "FLEURS": ({"train": 2, "validation": 1, "test": 2}, range(10, 15)),
    "FLEURS-GL-EN": ({"train": 3, "validation": 1, "test": 1}, range(15, 20)),
    "OpenSLR": ({"train": 12}, range(20, 32)),
    "Nos_Telexornais-GL": ({"train": 6, "validation": 2, "test": 4}, range(32, 44)),
    "Transcrispeech": ({"train": 4, "validation": 1, "test": 1}, range(44, 50)),
    "FalAI": ({"train": 35}, range(50, 53)),
    "jsonl": ({"train": 2, "validation": 1, "test": 1}, range(53, 57)),
    "csv": ({"train": 2}, range(57, 59)),
}


def test_every_published_layout_becomes_one_manifest(published: Path, tmp_path: Path) -> None:
    preparation = prepared(*(made.argument(published, name) for name in made.CORPORA), out=tmp_path / "out")
    assert preparation.rejects == ()
    manifest = read_manifest(preparation.manifest)
    assert manifest.utterances == preparation.utterances
    assert manifest.sha256() == preparation.manifest_sha256
    assert len({one.id for one in manifest.utterances}) == len(manifest.utterances)
    for dataset, (splits, numbers) in EXPECTED.items():
        own = [one for one in manifest.utterances if one.dataset == dataset]
        assert {split: sum(one.split == split for one in own) for split in splits} == splits, dataset
        assert len(own) == sum(splits.values()), dataset
        assert {one.text for one in own} == {made.text_of(number) for number in numbers}, dataset
    for one in manifest.utterances:
        clip = load_clip(manifest.folders[one.dataset], one.audio, sha256=one.sha256)
        assert len(clip) == round(one.duration_s * made.RATE_HZ)
    by_dataset = {one.dataset: one for one in manifest.utterances}
    assert by_dataset["OpenSLR"].speaker == "glm_00015"
    assert by_dataset["FalAI"].speaker == "usr11"
    assert by_dataset["Transcrispeech"].programme == "e16"
    assert by_dataset["Nos_Telexornais-GL"].id == "Nos_Telexornais-GL/test/other/TX_20201401_43"
    assert by_dataset["FLEURS"].speaker is None


def test_the_report_says_what_was_found_and_what_to_look_at(published: Path, tmp_path: Path) -> None:
    names = ("Transcrispeech", "falai", "OpenSLR")
    preparation = prepared(*(made.argument(published, name) for name in names), out=tmp_path / "out")
    report = preparation.report.read_text(encoding="utf-8")
    assert "`ficheiro` = audio, `transcricion` = text, `segmento` = id, `falante` = speaker" in report
    assert "`usuario` = speaker, `validacion` = filter. Not read: `dominio`, `intencion`" in report
    assert "Left out, as asked: 1 row with `validacion = incorrecto`" in report
    assert "OpenSLR comes without a split" in report
    assert "| FalAI | train | 35 |" in report
    assert "FalAI: its 35 rows have 3 different texts, and 100% of the rows are prompts" in report
    assert preparation.manifest_sha256 in report


def test_evaluation_reads_the_manifest_to_look_for_overlap(published: Path, tmp_path: Path) -> None:
    preparation = prepared(published / "jsonl", out=tmp_path / "out")
    rows = list(read_training_manifest(preparation.manifest))
    assert [(row.text, row.sha256, row.split) for row in rows] == [
        (one.text, one.sha256, one.split) for one in preparation.utterances
    ]
    made.write(tmp_path / "no.parquet", "no parquet")
    with pytest.raises(ValueError, match=r"no\.parquet: not a readable parquet file"):
        list(read_training_manifest(tmp_path / "no.parquet"))


def test_common_voice_may_train_on_all_validated_clips_but_those_held_out(
    published: Path, tmp_path: Path
) -> None:
    mapping = tmp_path / "cv.toml"
    made.write(
        mapping,
        f'folder = "{published / "CommonVoice"}"\n[splits]\ntrain = "validated"\nvalidation = "dev"\ntest = "test"\n',
    )
    preparation = prepared(mapping, out=tmp_path / "out")
    splits = [(one.split, one.audio.removeprefix("clips/common_voice_gl_")) for one in preparation.utterances]
    assert splits == [
        *(("train", f"{number}.mp3") for number in (0, 1, 2, 8)),
        ("validation", "3.mp3"),
        ("test", "4.mp3"),
        ("test", "5.mp3"),
    ]
    assert set(refused(preparation).values()) == {Reason.LISTED_TWICE}
    assert len(preparation.rejects) == 3


def test_texts_are_nfc_with_single_spaces_and_otherwise_as_they_were(folder: Path, tmp_path: Path) -> None:
    lines = 'audio,text\na.wav," Ola,\u00a0 man\u0303a\u0301:\n«QUÉ»…  1.234 €  "\nb.wav,Xa está\n'
    preparation = prepared(listing(folder, lines, "a.wav", "b.wav"), out=tmp_path / "out")
    assert [one.text for one in preparation.utterances] == ["Ola, mañá: «QUÉ»… 1.234 €", "Xa está"]
    assert preparation.corpora[0].n_cleaned == 1


def test_the_raw_transcription_of_fleurs_is_taken_in_parquet_too(folder: Path, tmp_path: Path) -> None:
    made.write_parquet(
        folder / "gl_es" / "train" / "0000.parquet",
        {
            "id": [1, 1],
            "audio": [{"bytes": made.wav_of(0), "path": "a"}, {"bytes": made.wav_of(1), "path": "b"}],
            "transcription": ["ola", "si"],
            "raw_transcription": ["Ola a todos!", "Si, ho!"],
        },
    )
    preparation = prepared(folder, out=tmp_path / "out")
    assert [(one.id, one.text, one.split) for one in preparation.utterances] == [
        ("corpus/train/gl_es/a", "Ola a todos!", "train"),
        ("corpus/train/gl_es/b", "Si, ho!", "train"),
    ]


def test_programmes_and_speakers_can_be_told_from_ids(published: Path, tmp_path: Path) -> None:
    mapping = tmp_path / "tx.toml"
    made.write(
        mapping,
        f'folder = "{published / "Nos_Telexornais-GL" / "clean"}"\nname = "TX"\n'
        '[patterns]\nprogramme = "^(TX_[0-9]{8})_"\n',
    )
    preparation = prepared(mapping, out=tmp_path / "out")
    assert [one.programme for one in preparation.utterances] == [
        "TX_20201001",
        "TX_20201101",
        "TX_20201101",
        "TX_20201101",
        "TX_20201201",
        "TX_20201201",
    ]


# --- what is refused ---------------------------------------------------------------------------------------


def broken_common_voice(folder: Path) -> dict[str, Reason]:
    """Makes a corpus of which every row but the first is broken; where each stands, and why it is refused."""
    good = "Unha frase abondo longa"
    rows: list[tuple[bytes, bytes | None, Reason | None]] = [
        (f"s\tgood.mp3\t{good}".encode(), made.mp3_of(0), None),
        (f"s\tgone.mp3\t{good}".encode(), None, Reason.MISSING_AUDIO),
        (f"s\tnoise.mp3\t{good}".encode(), b"this is no sound" * 99, Reason.UNDECODABLE),
        (f"s\tempty.mp3\t{good}".encode(), b"", Reason.UNDECODABLE),
        (f"s\tcut.wav\t{good}".encode(), speech()[:40_000], Reason.DAMAGED),
        (b"s\tshort.wav\tSi", speech(0.2), Reason.TOO_SHORT),
        (f"s\tlong.wav\t{good * 5}".encode(), speech(40.5), Reason.TOO_LONG),
        (f"s\thours.wav\t{good * 5}".encode(), speech(200), Reason.TOO_LONG),
        (b"s\tblank.wav\t   ", speech(2.1), Reason.EMPTY_TEXT),
        (f"s\tsilent.wav\t{good}".encode(), made.wav(np.zeros(32_000, "<i2")), Reason.SILENT),
        (f"s\tfast.wav\t{good * 4}".encode(), speech(2.2), Reason.TOO_FAST),
        (b"s\tslow.wav\tSi", speech(20), Reason.TOO_SLOW),
        (f"s\tfields.wav\t{good}\tmore".encode(), None, Reason.BAD_ROW),
        (b"s\tbytes.wav\tun\xffha", speech(2.3), Reason.BAD_ROW),
        (f"s\t../../etc/passwd\t{good}".encode(), None, Reason.BAD_ROW),
        (f"s\tgood.mp3\t{good}".encode(), None, Reason.LISTED_TWICE),
    ]
    for row, content, _ in rows:
        if content is not None:
            made.write(folder / "clips" / row.split(b"\t")[1].decode(), content)
    made.write(folder / "train.tsv", b"client_id\tpath\tsentence\n" + b"\n".join(row for row, *_ in rows))
    return {f"train.tsv, line {line}": why for line, (*_, why) in enumerate(rows, start=2) if why}


def test_broken_rows_are_refused_and_the_rest_is_read(folder: Path, tmp_path: Path) -> None:
    expected = broken_common_voice(folder)
    preparation = prepared(folder, out=tmp_path / "out")
    assert refused(preparation) == expected
    assert [one.audio for one in preparation.utterances] == ["clips/good.mp3"]
    with (tmp_path / "out" / "rejects.csv").open(encoding="utf-8", newline="") as file:
        listed = {row["where"]: row for row in csv.DictReader(file)}
    assert {where: row["reason"] for where, row in listed.items()} == expected
    assert listed["train.tsv, line 3"]["id"] == "gone.mp3"
    assert listed["train.tsv, line 3"]["detail"] == "clips/gone.mp3: No such file or directory"
    assert listed["train.tsv, line 14"]["detail"] == "4 fields, and the header has 3"
    assert listed["train.tsv, line 7"]["detail"] == "0.20 s; at least 0.3 s"
    report = preparation.report.read_text(encoding="utf-8")
    assert "| corpus | `bad_row` | 3 |" in report
    assert "14 of 16 rows were refused" in report


BROKEN: dict[str, tuple[Callable[[Path], object], dict[str, Reason]]] = {
    "jsonl": (
        lambda folder: made.write(
            folder / "manifest.jsonl",
            '{"audio": "a.wav", "text": "Boas tardes"}\n{"audio": \n["b.wav"]\n{"audio": "b.wav"}\n'
            '{"audio": "b.wav", "text": "a\\u0000b"}\n{"audio": "c.wav", "text": "Boas", "split": "xx"}\n',
        ),
        {
            **{f"manifest.jsonl, line {line}": Reason.BAD_ROW for line in (2, 3, 4, 5)},
            "manifest.jsonl, line 1": Reason.UNKNOWN_SPLIT,
            "manifest.jsonl, line 6": Reason.UNKNOWN_SPLIT,
        },
    ),
    "csv": (
        lambda folder: made.write(
            folder / "manifest.csv", 'audio,text\na.wav,Boas tardes\nb.wav,"Boas" noites\nc.wav,"Boas\nx,y\n'
        ),
        {f"manifest.csv, line {line}": Reason.BAD_ROW for line in (3, 4)},
    ),
    "FLEURS": (
        lambda folder: [
            made.write(folder / "train.tsv", "1\ta.wav\tBoas tardes\tboas\tb\t1\tMALE\n2\tb.wav\tBoas\n"),
            made.write(folder / "audio" / "train" / "a.wav", speech()),
        ],
        {"train.tsv, line 2": Reason.BAD_ROW},
    ),
    "OpenSLR": (
        lambda folder: made.write(folder / "line_index.tsv", "a\tBoas tardes\nb_2\tBoas noites\nc\n"),
        {f"line_index.tsv, line {line}": Reason.BAD_ROW for line in (2, 3)},
    ),
    "parquet": (
        lambda folder: [
            made.write(folder / "train-0.parquet", "broken"),
            made.write_parquet(
                folder / "train-1.parquet",
                {
                    "audio": [
                        {"bytes": speech(), "path": "a"},
                        {"bytes": None, "path": "b"},
                        {"bytes": b"noise", "path": "c"},
                        {"bytes": speech(), "path": "d"},
                    ],
                    "sentence": ["Boas tardes", "Boas", "Boas", None],
                },
            ),
        ],
        {
            "train-0.parquet": Reason.BAD_ROW,
            "train-1.parquet, row 1": Reason.MISSING_AUDIO,
            "train-1.parquet, row 2": Reason.UNDECODABLE,
            "train-1.parquet, row 3": Reason.BAD_ROW,
        },
    ),
}


@pytest.mark.parametrize("layout", BROKEN)
def test_broken_rows_of_every_layout(layout: str, folder: Path, tmp_path: Path) -> None:
    make, expected = BROKEN[layout]
    make(folder)
    made.write(folder / "a.wav", speech())
    if Reason.UNKNOWN_SPLIT in expected.values():
        with pytest.raises(CorpusError, match=r"none of the 6 rows can be used: .*rejects\.csv"):
            prepared(folder, out=tmp_path / "out")
        with (tmp_path / "out" / "rejects.csv").open(encoding="utf-8", newline="") as file:
            assert {row["where"]: row["reason"] for row in csv.DictReader(file)} == expected
        return
    preparation = prepared(folder, out=tmp_path / "out")
    assert refused(preparation) == expected
    assert [one.text for one in preparation.utterances] == ["Boas tardes"]


def test_silence_without_words_is_taken_where_it_is_meant(folder: Path, tmp_path: Path) -> None:
    listing(folder, "audio,text\na.wav,\nb.wav,Boas tardes\n", "b.wav")
    made.write(folder / "a.wav", made.wav(np.zeros(32_000, "<i2")))
    made.write(folder / "corpus.toml", "allow_empty_text = true\n")
    assert [one.text for one in prepared(folder, out=tmp_path / "out").utterances] == ["", "Boas tardes"]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "no speech corpus is found in it"),
        ({"manifest.csv": "audio,text\n"}, "hold no utterances"),
        ({"manifest.csv": "a,b\nx,y\n"}, "there is no `audio` (it has: a, b)"),
        ({"manifest.csv": "audio,text,sentence\nx,y,z\n"}, "both `text` and `sentence` could be the text"),
        ({"manifest.csv": "audio,text\nx,y\n", "manifest.tsv": ""}, "are both there"),
        ({"corpus.toml": "manifest = 'x.csv'"}, "x.csv: no such file"),
        ({"corpus.toml": "naem = 'x'"}, "`naem` is no setting of a corpus"),
        ({"corpus.toml": "folder = 'x'"}, "take `folder` out"),
        ({"corpus.toml": "name = 'a/b'"}, "cannot be a dataset's name"),
        ({"corpus.toml": "name = 3"}, "`name` must be a text"),
        ({"corpus.toml": "columns = 'x'"}, "`columns` must be a table"),
        ({"corpus.toml": "[columns]\nsound = 'x'"}, "[columns] has no `sound`"),
        ({"corpus.toml": "[splits]\ndev = 'x'"}, "[splits] has no `dev`"),
        ({"corpus.toml": "[only]\nx = 3"}, "[only] `x` must be a text"),
        ({"corpus.toml": "[patterns]\nspeaker = '('"}, "is no regular expression"),
        ({"corpus.toml": "[patterns]\nspeaker = 'x'"}, "must have one group"),
        ({"corpus.toml": "x ="}, "corpus.toml"),
        (
            {"corpus.toml": "[columns]\nspeaker = 'who'", "manifest.csv": "audio,text\nx,y\n"},
            "there is no `who`, which",
        ),
        ({"corpus.toml": "[only]\nok = 'x'", "manifest.csv": "audio,text\nx,y\n"}, "there is no `ok`"),
        ({"corpus.toml": "[columns]\nsplit = 'p'", "manifest.csv": "audio,text\nx,y\n"}, "there is no `p`"),
    ],
)
def test_a_corpus_that_cannot_be_read_is_told_before_any_audio(
    files: dict[str, str], reason: str, folder: Path, tmp_path: Path
) -> None:
    folder.mkdir()
    for name, content in files.items():
        made.write(folder / name, content)
    with pytest.raises(CorpusError) as error:
        prepared(folder, out=tmp_path / "out")
    assert reason in str(error.value)
    assert str(folder) in str(error.value)
    assert "set.toml" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_all_corpora_that_cannot_be_read_are_told_at_once(published: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with pytest.raises(CorpusError, match=r"one: no speech corpus[^\n]*\n[^\n]*two: no speech corpus"):
        read_corpora([describe(str(tmp_path / "one")), describe(str(tmp_path / "two"))])
    twice = [describe(f"A={published / 'csv'}"), describe(f"A={published / 'jsonl'}")]
    with pytest.raises(CorpusError, match="two corpora are called 'A'"):
        read_corpora(twice)
    with pytest.raises(CorpusError, match="no such folder"):
        describe(str(tmp_path / "three"))


# --- running it again --------------------------------------------------------------------------------------


def test_the_result_does_not_depend_on_how_many_processes_decode(published: Path, tmp_path: Path) -> None:
    given = [made.argument(published, name) for name in ("CommonVoice", "FLEURS-GL-EN", "falai")]
    alone = prepared(*given, out=tmp_path / "alone")
    together = prepared(*given, out=tmp_path / "together", settings=PrepareSettings(workers=2))
    for name in ("manifest.parquet", "rejects.csv", "duplicates.csv", "leaks.csv", "report.md"):
        assert (alone.out / name).read_bytes() == (together.out / name).read_bytes(), name


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is decoded in this process. Files that were made just now are remembered, too."""
    names: list[str] = []

    class Noted(audio_facts.MediaReader):
        def __init__(self, source: audio_facts.MediaSource, *, name: str) -> None:
            names.append(name)
            super().__init__(source, name=name)

    monkeypatch.setattr(audio_facts, "MediaReader", Noted)
    monkeypatch.setattr(audio_facts, "FRESH_NS", -(10**12))
    return names


def test_audio_that_did_not_change_is_not_decoded_again(
    folder: Path, tmp_path: Path, decoded: list[str]
) -> None:
    lines = "audio,text\na.wav,Boas tardes\nb.wav,Boas noites\nc.wav,Ola a todos\n"
    listing(folder, lines, "a.wav", "b.wav")
    made.write(folder / "c.wav", "no sound")
    first = prepared(folder, out=tmp_path / "out")
    assert decoded == ["a.wav", "b.wav", "c.wav"]
    decoded.clear()
    assert prepared(folder, out=tmp_path / "out").utterances == first.utterances
    assert decoded == []
    status = (folder / "b.wav").stat()
    made.write(folder / "b.wav", speech(2.01)[:-2] + b"\1\1")  # of the same size
    os.utime(folder / "b.wav", ns=(status.st_atime_ns, status.st_mtime_ns))
    made.write(folder / "c.wav", speech(3))
    second = prepared(folder, out=tmp_path / "out")
    assert decoded == ["b.wav", "c.wav"]
    assert second.utterances[0] == first.utterances[0]
    assert second.utterances[1].sha256 != first.utterances[1].sha256
    assert len(second.utterances) == 3


def test_a_clip_made_just_now_is_not_remembered(
    folder: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio_facts, "FRESH_NS", 10**12)
    listing(folder, "audio,text\na.wav,Boas tardes\n", "a.wav")
    prepared(folder, out=tmp_path / "out")
    prepared(folder, out=tmp_path / "out")
    assert decoded == ["a.wav", "a.wav"]


def test_an_interrupted_run_goes_on_where_it_was(folder: Path, tmp_path: Path, decoded: list[str]) -> None:
    n_clips = 3 * audio_facts.FILES_A_TASK
    clips = [f"{number:02d}.wav" for number in range(n_clips)]
    listing(folder, "audio,text\n" + "".join(f"{clip},Boas tardes\n" for clip in clips), *clips)

    def interrupt(dataset: str, n_known: int, n_wanted: int) -> None:
        if n_known >= audio_facts.FILES_A_TASK:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([describe(str(folder))], tmp_path / "out", ALONE, on_progress=interrupt)
    assert not (tmp_path / "out" / "manifest.parquet").exists()
    n_first = len(decoded)
    assert n_first < n_clips
    assert len(prepared(folder, out=tmp_path / "out").utterances) == n_clips
    assert sorted(decoded) == clips


def test_a_damaged_memory_is_begun_anew(folder: Path, tmp_path: Path, decoded: list[str]) -> None:
    listing(folder, "audio,text\na.wav,Boas tardes\n", "a.wav")
    first = prepared(folder, out=tmp_path / "out")
    made.write(tmp_path / "out" / "audio.sqlite", "no database" * 99)
    assert prepared(folder, out=tmp_path / "out").utterances == first.utterances
    assert decoded == ["a.wav", "a.wav"]
    prepared(folder, out=tmp_path / "out")
    assert decoded == ["a.wav", "a.wav"]


def test_a_file_that_ends_the_process_costs_only_itself(folder: Path) -> None:
    clips = [f"{number}.wav" for number in range(3 * audio_facts.FILES_A_TASK)]
    listing(folder, "", *clips, seconds=0.5)
    with (
        audio_facts.AudioMemory(None) as memory,
        audio_facts.Decoders(2, end_at_the_third) as decoders,
    ):
        found = audio_facts.look_at(folder, clips, memory, decoders)
    assert {clip for clip, facts in found.items() if facts.problem} == {"2.wav"}
    assert found["2.wav"].problem == "decoding it ended the process"
    assert len({facts.samples_sha256 for facts in found.values() if not facts.problem}) == len(clips) - 1


# --- splits and what they share ----------------------------------------------------------------------------


def test_a_split_made_here_is_seeded_and_keeps_speakers_apart(published: Path, tmp_path: Path) -> None:
    given = made.argument(published, "falai")
    settings = PrepareSettings(new_split=NewSplit(0.2, seed=3), workers=1)
    one = prepared(given, out=tmp_path / "one", settings=settings)
    sides = {
        split: {row.speaker for row in one.utterances if row.split == split}
        for split in ("train", "validation", "test")
    }
    assert all(sides.values())
    assert sum(len(side) for side in sides.values()) == 12
    again = prepared(given, out=tmp_path / "again", settings=settings)
    assert again.manifest.read_bytes() == one.manifest.read_bytes()
    other = PrepareSettings(new_split=NewSplit(0.2, seed=4), workers=1)
    assert prepared(given, out=tmp_path / "other", settings=other).utterances != one.utterances
    report = one.report.read_text(encoding="utf-8")
    assert "was split here with seed 3, no speaker on both sides" in report
    n_train = sum(row.split == "train" for row in one.utterances)
    assert f"FalAI: {n_train} rows of train" in report
    by_text = PrepareSettings(new_split=NewSplit(0.2, by=SplitBy.TEXT), workers=1)
    texts = prepared(given, out=tmp_path / "texts", settings=by_text)
    assert not any(Leak.TEXT in shared for shared in texts.leaks.by_row.values())


def shared_things(folder: Path) -> Path:
    """A train split that shares a sound (in another container), a text, a speaker and a programme with test."""
    flac = (made.FOLDER / made.SENTENCES[1]["file"]).read_bytes()
    clips = {"t.wav": made.wav_of(1), "same.flac": flac, "a.wav": speech(2.5), "b.wav": speech(2.6)}
    clips |= {"c.wav": speech(2.7), "d.wav": speech(2.8), "e.wav": speech(2.8), "f.wav": speech(2.9)}
    for name, content in clips.items():
        made.write(folder / name, content)
    rows = [
        ("t.wav", "Boas tardes a todos", "Ana", "Diario", "test"),
        ("same.flac", "Moi boas noites a todas", "Eva", "A", "train"),
        ("a.wav", "boas tardes, a todos!", "Eva", "B", "train"),
        ("b.wav", "Hoxe choveu en Lugo", "Ana", "C", "train"),
        ("c.wav", "Mañá haberá sol en Vigo", "Eva", "Diario", "train"),
        ("d.wav", "Nada que ver co outro", "Eva", "D", "train"),
        ("e.wav", "Nada que ver co outro", "Eva", "D", "train"),
        ("f.wav", "Nada que ver co outro", "Eva", "D", "train"),
    ]
    header = ("audio", "text", "speaker", "programme", "split")
    made.write_lines(folder / "manifest.csv", [header, *rows], delimiter=",")
    return folder


def test_leaks_and_duplicates_are_found_and_told(folder: Path, tmp_path: Path) -> None:
    preparation = prepared(shared_things(folder), out=tmp_path / "out")
    assert {
        id_.removeprefix("corpus/train/"): set(shared) for id_, shared in preparation.leaks.by_row.items()
    } == {
        "same.flac": {Leak.AUDIO},
        "a.wav": {Leak.TEXT},
        "b.wav": {Leak.SPEAKER},
        "c.wav": {Leak.PROGRAMME},
    }
    found = preparation.duplicates
    assert [[row.utterance.audio for row in group] for group in found.audio_groups] == [
        ["same.flac", "t.wav"],
        ["d.wav", "e.wav"],
    ]
    assert found.n_audio_conflicts == 1
    assert [[row.utterance.audio for row in group] for group in found.text_groups] == [
        ["d.wav", "e.wav", "f.wav"]
    ]
    assert len(preparation.utterances) == 8
    report = preparation.report.read_text(encoding="utf-8")
    assert "| corpus | test | the same sound | 1 of 1 (100.0%) |" in report
    assert "1 sounds are listed with different texts" in report
    leaks = (tmp_path / "out" / "leaks.csv").read_text(encoding="utf-8")
    assert "corpus/train/same.flac,audio\n" in leaks
    duplicates = (tmp_path / "out" / "duplicates.csv").read_text(encoding="utf-8")
    assert "speaker and text,1,corpus/train/f.wav,Nada que ver co outro\n" in duplicates


def test_leaks_and_duplicates_can_be_left_out_of_train(folder: Path, tmp_path: Path) -> None:
    settings = PrepareSettings(
        drop_leaks=frozenset({Leak.AUDIO, Leak.SPEAKER}), drop_duplicates=True, workers=1
    )
    preparation = prepared(shared_things(folder), out=tmp_path / "out", settings=settings)
    assert {(one.key, one.reason) for one in preparation.rejects} == {
        ("same.flac", Reason.LEAK),
        ("b.wav", Reason.LEAK),
        ("e.wav", Reason.DUPLICATE),
    }
    kept = [one.audio for one in read_manifest(preparation.manifest).utterances]
    assert kept == ["a.wav", "c.wav", "d.wav", "f.wav", "t.wav"]
    assert "the same speaker as one of a held-out split: left out." in preparation.report.read_text()


def test_speakers_of_two_datasets_are_not_the_same_person(published: Path, tmp_path: Path) -> None:
    for name, split in (("one", "train"), ("two", "test")):
        listing(tmp_path / name, f"audio,text,speaker,split\na.wav,Boas {name},Ana,{split}\n", "a.wav")
        made.write(tmp_path / name / "a.wav", speech(2 if name == "one" else 3))
    preparation = prepared(tmp_path / "one", tmp_path / "two", out=tmp_path / "out")
    assert preparation.leaks.by_row == {}


def test_rows_of_one_parquet_file_in_many_groups(folder: Path, tmp_path: Path, decoded: list[str]) -> None:
    audio = [{"bytes": speech(1 + number / 10), "path": f"{number}"} for number in range(7)]
    texts = [f"Frase número {number}" for number in range(7)]
    made.write_parquet(folder / "train.parquet", {"audio": audio, "text": texts}, group=3)

    def interrupt(dataset: str, n_known: int, n_wanted: int) -> None:
        if n_known == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([describe(str(folder))], tmp_path / "out", ALONE, on_progress=interrupt)
    preparation = prepared(folder, out=tmp_path / "out")
    assert len(decoded) == 7  # the first group was remembered
    assert [one.duration_s for one in preparation.utterances] == [1 + number / 10 for number in range(7)]
    assert [one.audio for one in preparation.utterances] == [f"train.parquet#{number}" for number in range(7)]
    decoded.clear()
    prepared(folder, out=tmp_path / "out")
    assert decoded == []


def test_ids_that_are_not_unique_give_way_to_paths(folder: Path, tmp_path: Path) -> None:
    listing(folder, "audio,text,id\na.wav,Boas tardes,1\nb.wav,Boas noites,1\n", "a.wav", "b.wav")
    preparation = prepared(folder, out=tmp_path / "out")
    assert [one.id for one in preparation.utterances] == ["corpus/train/a.wav", "corpus/train/b.wav"]
    assert "Its ids are not unique" in preparation.report.read_text(encoding="utf-8")


def test_columns_of_parquet_may_be_of_any_type(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    audio = pa.array([{"bytes": speech(), "path": "a", "sampling_rate": 16_000}])
    table = pa.table({"audio": audio, "text": ["Boas tardes"], "speaker_id": [7], "duration": [2.0]})
    pq.write_table(table, folder / "train.parquet")
    preparation = prepared(folder, out=tmp_path / "out")
    assert [one.speaker for one in preparation.utterances] == ["7"]
    assert preparation.corpora[0].found[0].ignored == ("duration",)


# --- on the command line -----------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    from cli.main import main

    with pytest.raises(SystemExit) as ended:
        main(["train", "prepare", *map(str, arguments)])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_the_command_prepares_looks_and_says_what_is_wrong(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    falai, cv = made.argument(published, "falai"), f"CV={published / 'CommonVoice'}"
    code, out, err = run(
        capsys, falai, cv, "--out", tmp_path / "out", "--workers", 1, "--held-out-share", 0.1,
        "--drop-leaks", "text", "--drop-leaks", "speaker", "--json",
    )  # fmt: skip
    assert code == 0, err
    told = json.loads(out)
    assert told["utterances"] == len(read_manifest(tmp_path / "out" / "manifest.parquet").utterances)
    assert told["refused"] == {"leak": 25}
    assert "FalAI: 35 of 35 clips looked at" in err
    code, out, err = run(capsys, falai, "--look")
    assert code == 0
    assert "`frase` = text" in out
    code, out, err = run(capsys, cv, "--look", "--json")
    assert [files["split"] for files in json.loads(out)[0]["files"]] == ["train", "validation", "test"]
    code, _, err = run(capsys, falai)
    assert code == 1
    assert "Give --out DIR" in err
    code, _, err = run(capsys, tmp_path / "nowhere", "--out", tmp_path / "out")
    assert code == 1
    assert "nowhere: no such folder" in err
