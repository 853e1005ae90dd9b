"""Files are matched by id or by line, and what is wrong with one is named with its file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.confusions import Confusion, confusions
from evaluation.utterance_files import UtteranceFileError, match, read_utterances


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_rows_are_matched_by_id_across_forms(tmp_path: Path) -> None:
    refs = read_utterances(write(tmp_path, "r.jsonl", '{"id": 1, "text": "á"}\n\n{"id": "b", "text": ""}\n'))
    hyps = read_utterances(
        write(tmp_path, "h.csv", '\ufeffid,text,speaker\nb,"dúas, liñas\ne máis",x\n1,a,y\n')
    )
    assert refs.values == ("á", "")
    assert match(refs, hyps) == ["a", "dúas, liñas\ne máis"]
    tabs = read_utterances(write(tmp_path, "h.tsv", "text\tid\nvento\tb\nnorte\t1\n"))
    assert match(refs, tabs) == ["norte", "vento"]


def test_lines_are_matched_in_order_and_empty_lines_are_utterances(tmp_path: Path) -> None:
    refs = read_utterances(write(tmp_path, "r.txt", "o vento\n\nchoveu\u2028moito\r\n"))
    assert refs.values == ("o vento", "", "choveu\u2028moito")
    assert match(refs, read_utterances(write(tmp_path, "h.txt", "a\nb\nc"))) == ["a", "b", "c"]


def test_clusters_are_a_column_like_text(tmp_path: Path) -> None:
    refs = read_utterances(write(tmp_path, "r.csv", "id,text\n1,a\n2,b\n"))
    assert match(
        refs, read_utterances(write(tmp_path, "c.csv", "id,cluster\n2,ana\n1,xan\n"), "cluster")
    ) == ["xan", "ana"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("f.jsonl", '{"id": 1, "text": "a"}\n{oops\n', r"f.jsonl, line 2: not JSON"),
        (
            "f.jsonl",
            '{"id": ' + "7" * 5_000 + ', "text": "a"}\n',
            r"f.jsonl, line 1: not JSON that can be read",
        ),
        ("f.jsonl", '{"id": 1, "text": ' + "[" * 100_000, r"f.jsonl, line 1: not JSON that can be read"),
        ("f.csv", f"id,text\n1,a\n2,{'b' * 1_000_001}\n3,c\n", r"f.csv, line 3: field larger"),
        ("f.csv", f'id,text\n1,"a\na"\n2,"b\n{"b" * 1_000_001}"\n', r"f.csv, line 4: field larger"),
        ("f.csv", f"id,{'t' * 1_000_001}\n1,a\n", r"f.csv, line 1: field larger"),
        ("f.jsonl", "[1]\n", r"f.jsonl, line 1: not an object with `id` and `text`"),
        ("f.jsonl", '{"text": "a"}\n', r"line 1: `id` must be"),
        ("f.jsonl", '{"id": true, "text": "a"}\n', r"line 1: `id` must be"),
        ("f.jsonl", '{"id": 1, "text": null}\n', r"line 1: `text` must be a text; write an empty text"),
        (
            "f.jsonl",
            '{"id": 1, "text": "a"}\n\n{"id": "1", "text": ""}',
            r"line 3: id '1' was already on line 1",
        ),
        ("f.jsonl", "\n", r"f.jsonl: no utterances"),
        ("f.csv", "id,texto\n1,a\n", r"line 1: the header lacks `text` \(it has: id, texto\)"),
        ("f.csv", "", r"line 1: the header lacks `id` and `text` \(it has: nothing\)"),
        ("f.csv", "id,text\n1,a\n2\n", r"line 3: not as many fields"),
        ("f.csv", "id,text\n1,a,b\n", r"line 2: not as many fields"),
        ("f.tsv", "id\ttext\n1\ta\n1\tb\n", r"line 3: id '1' was already on line 2"),
        ("f.txt", b"boa\nma\xf1\xe1\n", r"f.txt, line 2: not UTF-8"),
        ("f.txt", "", r"f.txt: the file is empty"),
        ("f.json", "[]", r"name the file .jsonl"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(
    tmp_path: Path, name: str, content: str | bytes, reason: str
) -> None:
    with pytest.raises(UtteranceFileError, match=reason):
        read_utterances(write(tmp_path, name, content))


def test_a_long_recording_is_one_field(tmp_path: Path) -> None:
    text = "palabra " * 40_000
    assert read_utterances(write(tmp_path, "r.csv", f"id,text\n1,{text}\n")).values == (text,)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UtteranceFileError, match=r"none.txt: No such file"):
        read_utterances(tmp_path / "none.txt")


def test_files_of_other_utterances_are_refused_by_name(tmp_path: Path) -> None:
    refs = read_utterances(write(tmp_path, "r.csv", "id,text\n" + "".join(f"{n},a\n" for n in range(8))))
    few = read_utterances(write(tmp_path, "few.csv", "id,text\n7,a\nx,b\n"))
    with pytest.raises(
        UtteranceFileError, match=r"few.csv lacks 7 ids, '0', '1', '2', '3', '4' and 2 more of .*r.csv"
    ):
        match(refs, few)
    with pytest.raises(UtteranceFileError, match=r"and has id 'x' that .*r.csv lacks"):
        match(refs, few)
    lines = read_utterances(write(tmp_path, "l.txt", "a\n"))
    with pytest.raises(UtteranceFileError, match=r"r.csv has ids and .*l.txt has none"):
        match(refs, lines)
    with pytest.raises(UtteranceFileError, match=r"has 1 lines and .*two.txt has 2"):
        match(lines, read_utterances(write(tmp_path, "two.txt", "a\nb\n")))


def test_confusions_are_counted_and_ordered() -> None:
    found = confusions(["o vento do norte", "o vento", "e a"], ["o tempo do norte norte", "o tempo", "a"])
    assert found == (
        Confusion("vento", "tempo", 2),
        Confusion("", "norte", 1),
        Confusion("e", "", 1),
    )
    assert confusions(["a b"], ["x y"], 1) == (Confusion("a", "x", 1),)
