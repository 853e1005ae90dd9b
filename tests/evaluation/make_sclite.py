"""Record what NIST's sclite and sc_stats say about made-up and awkward texts, as tests/data/sclite/recorded.json.

    apt-get install sctk
    python -m tests.evaluation.make_sclite

Needed only to record anew: the tests read the recording. For each system `sclite -s -e utf-8 -i spu_id -o sgml`
aligns every utterance; for each pair of systems `sc_stats -p -t mapsswe -v` runs the matched-pairs test.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import subprocess
import tempfile
from pathlib import Path

DATA = Path(__file__).parents[1] / "data"
RECORDING = DATA / "sclite" / "recorded.json"
TOOLS = Path("/usr/lib/sctk/bin")
N_AWKWARD = 560


def references(generator: random.Random) -> list[str]:
    """The test sentences without punctuation, then awkward texts: empty, of few words, repeating, long, accented."""
    rows = (DATA / "demo-speech" / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [re.sub(r"[^\w\s]", " ", json.loads(row)["text"].lower()) for row in rows]
    texts = [" ".join(text.split()) for text in texts]
    vocabulary = sorted({word for text in texts for word in text.split()})
    for index in range(N_AWKWARD):
        kind = index % 8
        if kind == 0:
            words = []
        elif kind in (1, 2):
            words = generator.choices("ab" if kind == 1 else "abc", k=generator.randint(1, 14))
        elif kind == 3:
            words = [generator.choice(vocabulary)] * generator.randint(1, 12)
        elif kind == 4:
            words = generator.choices(vocabulary, k=generator.randint(60, 160 if index % 80 else 700))
        elif kind == 5:
            words = generator.choices(["á", "a", "o", "ó", "ñu", "nu", "crònica", "cronica", "ü"], k=9)
        else:
            words = generator.choices(vocabulary, k=generator.randint(1, 25))
        texts.append(" ".join(words))
    return texts


def misheard(text: str, rate: float, vocabulary: list[str], generator: random.Random) -> str:
    """`text` with words changed, dropped, added and repeated, at `rate` a word."""
    words = []
    for word in text.split():
        kind = generator.random() / rate
        if kind < 0.5:
            words.append(generator.choice(vocabulary))
        elif kind >= 0.7:
            words.append(word)
        if 0.8 <= kind < 1:
            words += [word] * generator.randint(1, 3)
        elif 0.7 <= kind < 0.8:
            words += generator.choices(vocabulary, k=generator.randint(1, 6))
    return " ".join(words)


def systems(refs: list[str], generator: random.Random) -> dict[str, list[str]]:
    """Systems that err rarely, often, alike, on silence, by shifted words, or not at all."""
    vocabulary = sorted({word for text in refs for word in text.split()})
    small = ["a", "b", "c", "á", "o"]
    good = [misheard(text, 0.08, vocabulary, generator) for text in refs]
    worse = [misheard(text, 0.03, vocabulary, generator) for text in good]
    noisy = [
        misheard(text, 0.5, small if len(text) < 40 else vocabulary, generator)
        or " ".join(generator.choices(small, k=generator.randint(0, 3)))
        for text in refs
    ]
    shifted = []
    for text in refs:
        words = text.split()
        turn = generator.randint(0, 4)
        shifted.append(" ".join(words[turn:] + generator.choices(vocabulary, k=turn) if words else words))
    return {"good": good, "worse": worse, "noisy": noisy, "shifted": shifted, "perfect": list(refs)}


def write_trn(path: Path, texts: list[str]) -> None:
    path.write_text(
        "".join(f"{text} (spk_{index:04d})\n" for index, text in enumerate(texts)), encoding="utf-8"
    )


def sgml(folder: Path, name: str) -> str:
    """sclite's alignments of one system."""
    command = [TOOLS / "sclite", "-s", "-e", "utf-8", "-i", "spu_id", "-f", "0", "-o", "sgml", "stdout"]
    command += ["-r", folder / "ref.trn", "trn", "-h", folder / f"{name}.trn", "trn", name]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout


def steps_of(text: str, n: int) -> list[str]:
    """Each utterance's alignment as letters C, S, D, I."""
    steps = [""] * n
    for identity, body in re.findall(r'<PATH id="\(spk_(\d+)\)"[^>]*>\n(.*?)</PATH>', text, flags=re.DOTALL):
        steps[int(identity)] = "".join(re.findall(r"(?:^|:)([CSDI]),", body.strip()))
    return steps


def matched_pairs(first: str, second: str) -> dict[str, float | str]:
    """The figures of sc_stats's line of results and of its table of totals."""
    output = subprocess.run(
        [TOOLS / "sc_stats", "-p", "-t", "mapsswe", "-v", "-n", "-"],
        input=first + second,
        check=True,
        capture_output=True,
        encoding="utf-8",
    ).stdout
    number = r"\s*(-?[\d.]+)"
    line = re.search(
        rf"# segs:{number}\) \(Seg per Sent:{number}\) \(% Error:{number}{number}\) \(mean:{number}\) "
        rf"\(std dev:{number}\) \(Z Stat:{number}\) \(Stat Diff: (\w+)\)",
        output,
    )
    totals = re.search(rf"Totals{number}{number}{number}", output)
    assert line is not None
    assert totals is not None
    return {
        "n_segments": int(line[1]),
        "n_words": int(totals[1]),
        "errors_a": int(totals[2]),
        "errors_b": int(totals[3]),
        "mean": float(line[5]),
        "standard_deviation": float(line[6]),
        "z": float(line[7]),
        "different_at_95": line[8],
    }


def main() -> None:
    generator = random.Random(4)
    refs = references(generator)
    hyps = systems(refs, generator)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_trn(folder / "ref.trn", refs)
        for system, texts in hyps.items():
            write_trn(folder / f"{system}.trn", texts)
        aligned = {system: sgml(folder, system) for system in hyps}
    recording = {
        "made_by": "sctk 2.4.10-20151007-1312Z (Debian), python -m tests.evaluation.make_sclite",
        "refs": refs,
        "systems": {
            system: {"hyps": texts, "steps": steps_of(aligned[system], len(refs))}
            for system, texts in hyps.items()
        },
        "matched_pairs": [
            {"a": a, "b": b, **matched_pairs(aligned[a], aligned[b])}
            for a, b in itertools.combinations(hyps, 2)
        ],
    }
    RECORDING.parent.mkdir(exist_ok=True)
    RECORDING.write_text(json.dumps(recording, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
