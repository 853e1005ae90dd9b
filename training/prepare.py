"""Corpora as they are published into one manifest, with everything that was left out and why.

    read -> look at the audio -> check -> split where there is no split -> compare -> write

Reads from local folders only, writes only into the folder it is given, and gives the same files for the same corpora
and settings, however many processes decode.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from training.corpora.audio_facts import AudioFacts, AudioMemory, Decoders, look_at
from training.corpora.checks import find_fault
from training.corpora.description import CorpusError, Description
from training.corpora.preparation import (
    DUPLICATES_FILE,
    LEAKS_FILE,
    MANIFEST_FILE,
    MEMORY_FILE,
    REJECTS_FILE,
    Preparation,
    PrepareSettings,
)
from training.corpora.reading import ListedRow, ReadCorpus, Reason, Reject, read_corpus
from training.corpora.sharing import (
    Duplicates,
    Leak,
    Leaks,
    Prepared,
    find_duplicates,
    find_leaks,
    find_prompts,
    text_key,
)
from training.corpora.splitting import split_rows
from training.manifest import Utterance, read_manifest, write_manifest
from training.prepare_report import write_report

OnProgress = Callable[[str, int, int], None]
"""Hears (dataset, clips that are known, clips in all)."""


def read_corpora(descriptions: Sequence[Description]) -> tuple[ReadCorpus, ...]:
    """Read what the corpora list, without their audio.

    Raises:
        CorpusError: corpora that cannot be read at all, each with its reason, or two of one name.
    """
    names = Counter(described.name for described in descriptions)
    if twice := [name for name, count in names.items() if count > 1]:
        raise CorpusError(f"two corpora are called {twice[0]!r}: name one of them with NAME=FOLDER")
    read, problems = [], []
    for described in descriptions:
        try:
            read.append(read_corpus(described))
        except CorpusError as error:
            problems.append(str(error))
    if problems:
        raise CorpusError("\n".join(problems))
    return tuple(read)


def prepare(
    descriptions: Sequence[Description],
    out: Path,
    settings: PrepareSettings | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> Preparation:
    """Make `manifest.parquet` of corpora in `out`, and beside it a report, the rejects, duplicates and leaks.

    Audio that was decoded for `out` before and did not change is not decoded again.

    Raises:
        CorpusError: a corpus cannot be read at all, or not one of the rows can be used.
    """
    settings = settings or PrepareSettings()
    corpora = read_corpora(descriptions)
    out.mkdir(parents=True, exist_ok=True)
    rejects = [reject for corpus in corpora for reject in corpus.rejects]
    rows: list[Prepared] = []
    where: dict[str, ListedRow] = {}
    with AudioMemory(out / MEMORY_FILE) as memory, Decoders(settings.workers) as decoders:
        for corpus in corpora:
            good, refused = _checked(corpus, memory, decoders, settings, on_progress)
            rejects += refused
            for row, facts in good:
                made = _prepared(row, facts)
                rows.append(made)
                where[made.utterance.id] = row
    if not rows:
        write_csv(out / REJECTS_FILE, REJECT_COLUMNS, _reject_lines(rejects))
        raise CorpusError(
            f"none of the {len(rejects):,} rows can be used: {out / REJECTS_FILE} says why of each. An earlier "
            "manifest, if there is one, was left as it was"
        )
    duplicates, prompts, leaks = find_duplicates(rows), find_prompts(rows), find_leaks(rows)
    kept, dropped = _without_dropped(rows, where, duplicates, leaks, settings)
    rejects += dropped
    utterances = tuple(row.utterance for row in kept)
    folders = {corpus.description.name: corpus.description.folder for corpus in corpora}
    write_manifest(out / MANIFEST_FILE, utterances, folders)
    write_csv(out / REJECTS_FILE, REJECT_COLUMNS, _reject_lines(rejects))
    write_csv(out / DUPLICATES_FILE, ("shares", "group", "id", "text"), _duplicate_lines(duplicates))
    write_csv(
        out / LEAKS_FILE,
        ("id", "shares"),
        ((id_, " ".join(kind for kind in Leak if kind in shared)) for id_, shared in leaks.by_row.items()),
    )
    preparation = Preparation(
        out=out,
        settings=settings,
        corpora=corpora,
        utterances=utterances,
        rejects=tuple(rejects),
        newly_split=tuple(one.description.name for one in corpora if one.rows and not one.is_split),
        duplicates=duplicates,
        prompts=prompts,
        leaks=leaks,
        manifest_sha256=read_manifest(out / MANIFEST_FILE).sha256(),
    )
    write_report(preparation)
    return preparation


def _checked(
    corpus: ReadCorpus,
    memory: AudioMemory,
    decoders: Decoders,
    settings: PrepareSettings,
    on_progress: OnProgress | None,
) -> tuple[list[tuple[ListedRow, AudioFacts]], list[Reject]]:
    """The rows that are fit to train on, each in a split, and those that are not."""
    name = corpus.description.name
    facts = look_at(
        corpus.description.folder,
        [row.audio for row in corpus.rows],
        memory,
        decoders,
        on_progress=None if on_progress is None else lambda done, total: on_progress(name, done, total),
    )
    rows, rejects = [], []
    for row in corpus.rows:
        fault = find_fault(
            row, facts[row.audio], settings.limits, may_be_empty=corpus.description.allow_empty_text
        )
        if fault is None:
            rows.append(row)
        else:
            rejects.append(fault)
    if rows and not corpus.is_split:
        if settings.new_split is None:
            rows = [replace(row, split="train") for row in rows]
        else:
            rows = split_rows(rows, settings.new_split, key_of_text=text_key)
    return [(row, facts[row.audio]) for row in rows], rejects


def _prepared(row: ListedRow, facts: AudioFacts) -> Prepared:
    assert row.split is not None
    return Prepared(
        Utterance(
            id=f"{row.dataset}/{row.split}/{row.key}",
            audio=row.audio,
            text=row.text,
            duration_s=facts.duration_s,
            dataset=row.dataset,
            split=row.split,
            speaker=row.speaker,
            programme=row.programme,
            sha256=facts.sha256,
        ),
        facts.samples_sha256,
        text_key(row.text),
    )


def _without_dropped(
    rows: Sequence[Prepared],
    where: Mapping[str, ListedRow],
    duplicates: Duplicates,
    leaks: Leaks,
    settings: PrepareSettings,
) -> tuple[list[Prepared], list[Reject]]:
    """What stays when leaks and duplicates of train go that the person does not want."""
    rejects: dict[str, Reject] = {}
    for id_, shared in leaks.by_row.items():
        if unwanted := [kind.value for kind in Leak if kind in shared & settings.drop_leaks]:
            detail = f"shares its {' and '.join(unwanted)} with a held-out split"
            rejects[id_] = where[id_].reject(Reason.LEAK, detail)
    for group in duplicates.audio_groups if settings.drop_duplicates else ():
        in_train = [row.utterance.id for row in group if row.utterance.split == "train"]
        staying = [id_ for id_ in in_train if id_ not in rejects]
        for id_ in staying[1:]:
            rejects[id_] = where[id_].reject(Reason.DUPLICATE, f"the same sound as {staying[0]}")
    return [row for row in rows if row.utterance.id not in rejects], list(rejects.values())


REJECT_COLUMNS = ("dataset", "where", "id", "reason", "detail")


def _reject_lines(rejects: Iterable[Reject]) -> Iterable[Sequence[object]]:
    for one in rejects:
        yield one.dataset, one.where, one.key, one.reason.value, one.detail


def _duplicate_lines(duplicates: Duplicates) -> Iterable[Sequence[object]]:
    kinds = {"audio": duplicates.audio_groups, "speaker and text": duplicates.text_groups}
    for shares, groups in kinds.items():
        for number, group in enumerate(groups, start=1):
            for row in group:
                yield shares, number, row.utterance.id, row.utterance.text


def write_csv(file: Path, header: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Write a table, whole or not at all. Bytes that are no text become escapes."""
    unfinished = file.with_name(file.name + ".unfinished")
    with unfinished.open("w", encoding="utf-8", errors="backslashreplace", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)
    unfinished.replace(file)
