"""Small corpora in the layouts in which Galician speech is published, out of the demo model's test sentences.

    python -m tests.training.made_corpora FOLDER

Each function makes one corpus in the folder that it is given. The column names of Transcrispeech and FalAI are made up,
since no public page tells them: they come with the mapping file that such a corpus needs.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import wave
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from av.audio.frame import AudioFrame

from tests.demo_speech import FOLDER, read_flac

RATE_HZ = 16_000
SENTENCES: list[dict[str, Any]] = [
    json.loads(line) for line in (FOLDER / "texts.jsonl").read_text(encoding="utf-8").splitlines()
]


def text_of(number: int) -> str:
    return str(SENTENCES[number]["text"])


@cache
def samples_of(number: int) -> np.ndarray:
    """int16, 16 kHz."""
    return np.rint(read_flac(FOLDER / SENTENCES[number]["file"]) * 32_768).astype("<i2")


def wav(samples: np.ndarray) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(samples.tobytes())
    return content.getvalue()


def wav_of(number: int) -> bytes:
    return wav(samples_of(number))


def mp3_of(number: int) -> bytes:
    content = io.BytesIO()
    with av.open(content, "w", format="mp3") as out:
        stream = out.add_stream("mp3", rate=RATE_HZ, layout="mono")
        frame = AudioFrame.from_ndarray(samples_of(number)[None], format="s16", layout="mono")
        frame.sample_rate = RATE_HZ
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return content.getvalue()


def write(file: Path, content: str | bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def write_lines(file: Path, lines: Sequence[Sequence[object]], *, delimiter: str = "\t") -> None:
    content = io.StringIO()
    csv.writer(content, delimiter=delimiter, lineterminator="\n").writerows(lines)
    write(file, content.getvalue())


def write_parquet(file: Path, columns: dict[str, list[Any]], *, group: int = 2) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file, row_group_size=group)


def common_voice(folder: Path) -> None:
    """Common Voice v23 gl: a table a split, never quoted, and `clips/`. `validated` repeats what is in the splits."""
    header = (
        "client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tdown_votes\tage\tgender\taccents\t"
        "variant\tlocale\tsegment"
    )
    numbers = {"train": (0, 1, 2), "dev": (3,), "test": (4, 5), "other": (6,), "invalidated": (7,)}
    numbers["validated"] = (*numbers["train"], 3, *numbers["test"], 8)
    for split, listed in numbers.items():
        lines = [
            f"{number // 2:0128x}\tcommon_voice_gl_{number}.mp3\t{number:064x}\t{text_of(number)}\t\t2\t0\t\t\t\t\tgl\t"
            for number in listed
        ]
        write(folder / f"{split}.tsv", "\n".join([header, *lines]) + "\n")
        for number in listed:
            write(folder / "clips" / f"common_voice_gl_{number}.mp3", mp3_of(number))
    write(folder / "clip_durations.tsv", "clip\tduration[ms]\n")


def fleurs(folder: Path) -> None:
    """FLEURS as Google publishes it: tables without a header, `audio/<split>/`."""
    for split, numbers in {"train": (10, 11), "dev": (12,), "test": (13, 14)}.items():
        lines = []
        for number in numbers:
            text = text_of(number)
            plain = text.lower().strip(".")
            spelled = " ".join(plain.replace(" ", "|"))
            n_samples = len(samples_of(number))
            lines.append((number, f"{number}.wav", text, plain, spelled, n_samples, "FEMALE"))
            write(folder / "audio" / split / f"{number}.wav", wav_of(number))
        write(folder / f"{split}.tsv", "".join("\t".join(map(str, line)) + "\n" for line in lines))


def fleurs_gl_en(folder: Path) -> None:
    """FLEURS GL-EN: parquet with the sound inside, Galician text and its English translation."""
    for split, numbers in {"train": (15, 16, 17), "validation": (18,), "test": (19,)}.items():
        write_parquet(
            folder / "data" / f"{split}-00000-of-00001.parquet",
            {
                "id": [number // 2 for number in numbers],  # of the sentence, which several speakers read
                "audio": [{"bytes": wav_of(number), "path": f"{number}.wav"} for number in numbers],
                "text_gl": [text_of(number) for number in numbers],
                "text_en": ["a translation" for _ in numbers],
            },
        )


def openslr(folder: Path) -> None:
    """OpenSLR 77: an index without a header and wav files, women and men apart. No split."""
    for sex, letter, numbers in (("female", "f", range(20, 26)), ("male", "m", range(26, 32))):
        lines = []
        for number in numbers:
            key = f"gl{letter}_{number // 2:05d}_{number:011d}"
            lines.append((key, text_of(number)))
            write(folder / f"gl_es_{sex}" / f"{key}.wav", wav_of(number))
        write_lines(folder / f"gl_es_{sex}" / "line_index.tsv", lines)


def telexornais(folder: Path) -> None:
    """Nos_Telexornais-GL: parquet, one folder a configuration."""
    numbers = iter(range(32, 44))
    for config in ("clean", "other"):
        for split, count in (("train", 3), ("dev", 1), ("test", 2)):
            listed = [next(numbers) for _ in range(count)]
            name = [f"TX_2020{number // 3:02d}01_{number}" for number in listed]
            write_parquet(
                folder / config / f"{split}-00000-of-00001.parquet",
                {
                    "filename": name,
                    "audio": [{"bytes": wav_of(n), "path": f"{n}.wav"} for n in listed],
                    "sentence": [text_of(number) for number in listed],
                },
            )


def transcrispeech(folder: Path) -> None:
    """Transcrispeech GL: an invented table with a column that names the split, and its mapping file."""
    rows = [
        (f"seg{n:04d}", f"entrevistas/e{n // 3}/seg{n:04d}", text_of(n), f"S{n // 2}", f"e{n // 3}", part)
        for n, part in zip(
            range(44, 50), ("treino", "treino", "treino", "treino", "desen", "proba"), strict=True
        )
    ]
    header = ("segmento", "ficheiro", "transcricion", "falante", "gravacion", "particion")
    write_lines(folder / "transcricions.csv", [header, *rows], delimiter=",")
    for number, row in zip(range(44, 50), rows, strict=True):
        write(folder / "wav" / f"{row[1]}.wav", wav_of(number))
    write(
        folder / "corpus.toml",
        'name = "Transcrispeech"\nmanifest = "transcricions.csv"\naudio_folder = "wav"\naudio_suffix = ".wav"\n'
        '[columns]\naudio = "ficheiro"\ntext = "transcricion"\nid = "segmento"\nspeaker = "falante"\n'
        'programme = "gravacion"\nsplit = "particion"\n'
        '[splits]\ntrain = "treino"\nvalidation = "desen"\ntest = ["proba"]\n',
    )


def falai(folder: Path, *, speakers: int = 12, prompts: int = 3) -> None:
    """FalAI: prompts that many speakers read, a column of validation, no split."""
    rows: list[tuple[object, ...]] = []
    for speaker in range(speakers):
        for prompt in range(prompts):
            number = 50 + prompt
            name = f"{speaker:03d}_{prompt}.wav"
            # another loudness is another recording
            write(folder / "audios" / name, wav((samples_of(number) * (1 - speaker / 40)).astype("<i2")))
            label = "correcto" if (speaker, prompt) != (0, 0) else "incorrecto"
            rows.append((name, text_of(number), f"usr{speaker}", label, "domotica", "acender"))
    header = ("audio", "frase", "usuario", "validacion", "dominio", "intencion")
    write_lines(folder / "metadatos.tsv", [header, *rows])
    write(
        folder.parent / f"{folder.name}.toml",
        f'folder = "{folder.name}"\nname = "FalAI"\nmanifest = "metadatos.tsv"\naudio_folder = "audios"\n'
        '[columns]\ntext = "frase"\nspeaker = "usuario"\n[only]\nvalidacion = ["correcto"]\n',
    )


def generic_jsonl(folder: Path) -> None:
    """Any audio, listed with the manifest's own names."""
    rows = [
        {
            "audio": f"son/{n}.flac",
            "text": text_of(n),
            "speaker": n % 2,
            "programme": "Diario",
            "split": split,
        }
        for n, split in ((53, "train"), (54, "train"), (55, "dev"), (56, "test"))
    ]
    for number in range(53, 57):
        write(folder / "son" / f"{number}.flac", (FOLDER / SENTENCES[number]["file"]).read_bytes())
    write(folder / "manifest.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def generic_csv(folder: Path) -> None:
    rows = [(f"{number}.wav", text_of(number), "train") for number in (57, 58)]
    write_lines(folder / "manifest.csv", [("audio", "text", "split"), *rows], delimiter=",")
    for number in (57, 58):
        write(folder / f"{number}.wav", wav_of(number))


CORPORA: dict[str, Callable[[Path], None]] = {
    "CommonVoice": common_voice,
    "FLEURS": fleurs,
    "FLEURS-GL-EN": fleurs_gl_en,
    "OpenSLR": openslr,
    "Nos_Telexornais-GL": telexornais,
    "Transcrispeech": transcrispeech,
    "falai": falai,
    "jsonl": generic_jsonl,
    "csv": generic_csv,
}


def argument(root: Path, name: str) -> str:
    """What `fonoteca train prepare` is given for a corpus made below `root`."""
    return str(root / "falai.toml" if name == "falai" else root / name)


def main() -> None:
    root = Path(sys.argv[1])
    for name, make in CORPORA.items():
        make(root / name)
        print(argument(root, name))


if __name__ == "__main__":
    main()
