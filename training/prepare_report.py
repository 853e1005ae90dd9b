"""What a person reads after corpora were prepared: `report.md`, beside the manifest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from evaluation.overlap import Shared
from training.corpora.description import SPLITS
from training.corpora.preparation import (
    DUPLICATES_FILE,
    LEAKS_FILE,
    MANIFEST_FILE,
    REJECTS_FILE,
    Preparation,
)
from training.corpora.reading import ReadCorpus, Reason
from training.corpora.sharing import MANY_SPEAKERS, Leak
from training.corpora.splitting import SplitBy
from training.manifest import Utterance

MANY_REJECTS = 0.05
"""Of a dataset's rows: from here on the report warns."""
EXAMPLES = 3

_LEAK_WORDS = {
    Leak.AUDIO: "the same sound",
    Leak.TEXT: "the same text",
    Leak.SPEAKER: "the same speaker",
    Leak.PROGRAMME: "the same programme",
}
_SHARED_WORDS = {
    Shared.AUDIO: "the same sound",
    Shared.TEXT: "the same text",
    Shared.SIMILAR_TEXT: "nearly the same text",
    Shared.SPEAKER: "the same speaker",
    Shared.PROGRAMME: "the same programme",
}


def write_report(preparation: Preparation) -> None:
    """Write `report.md`, whole or not at all."""
    file = preparation.report
    unfinished = file.with_name(file.name + ".unfinished")
    text = "\n".join(_lines(preparation)) + "\n"
    unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
    unfinished.replace(file)


def warnings(preparation: Preparation) -> list[str]:
    """What a person must know before training on the manifest, one sentence or two each."""
    found = [*_warnings_of_splits(preparation), *_warnings_of_prompts(preparation)]
    found += _warnings_of_leaks(preparation)
    if n_conflicts := preparation.duplicates.n_audio_conflicts:
        found.append(
            f"{n_conflicts:,} sounds are listed with different texts: at least one text of each is wrong "
            f"(`{DUPLICATES_FILE}`)."
        )
    for corpus in preparation.corpora:
        name = corpus.description.name
        n_rejects = sum(
            count
            for reason, count in preparation.rejects_by_reason(name).items()
            if reason not in (Reason.LISTED_TWICE, Reason.LEAK, Reason.DUPLICATE)
        )
        n_read = len(corpus.rows) + len(corpus.rejects)
        if n_rejects > MANY_REJECTS * n_read:
            reason = next(iter(preparation.rejects_by_reason(name))).value
            found.append(
                f"{name}: {n_rejects:,} of {n_read:,} rows were refused ({n_rejects / n_read:.0%}), most often as "
                f"`{reason}`. Perhaps the folder is not whole, or the columns are not what they seem."
            )
    return found


def _warnings_of_splits(preparation: Preparation) -> Iterator[str]:
    new = preparation.settings.new_split
    for name in preparation.newly_split:
        if new is None:
            yield (
                f"{name} comes without a split: all of it is in train, and nothing of it can be evaluated. "
                "`--held-out-share 0.05` splits it by speaker."
            )
            continue
        own = [one for one in preparation.utterances if one.dataset == name]
        apart = "no speaker" if new.by is SplitBy.SPEAKER else "no text"
        yield (
            f"{name} comes without a split, and was split here with seed {new.seed}, {apart} on both sides: its "
            "figures cannot be compared with those of others."
        )
        if n_unknown := sum(one.speaker is None for one in own) if new.by is SplitBy.SPEAKER else 0:
            yield f"{name}: of {_rows(n_unknown)} the speaker is not known; they were split by text instead."
        if missing := [split for split in SPLITS if not any(one.split == split for one in own)]:
            yield f"{name}: nothing went to {' and '.join(missing)}: there are too few groups to split."
    for split in ("train", "validation"):
        if not any(one.split == split for one in preparation.utterances):
            yield f"Nothing is in {split}."


def _warnings_of_prompts(preparation: Preparation) -> Iterator[str]:
    for one in preparation.prompts:
        if one.is_prompted:
            who = "speakers" if one.knows_speakers else "readings (its speakers are not known)"
            yield (
                f"{one.dataset}: its {one.n_rows:,} rows have {one.n_texts:,} different texts, and "
                f"{one.n_rows_of_many / one.n_rows:.0%} of the rows are prompts that {MANY_SPEAKERS} or more {who} "
                f"share; one has {one.most_speakers:,}. A split by speaker leaves the same prompts on both sides: an "
                "error rate there tells how well prompts are remembered, not how well speech is recognised. "
                "Split it by text (`--split-by text`), or report it apart."
            )


def _warnings_of_leaks(preparation: Preparation) -> Iterator[str]:
    dropped = preparation.settings.drop_leaks
    for count in preparation.leaks.counts:
        what = f"{count.dataset}: {_rows(count.n_rows)} of train ({count.duration_s / 3600:.2f} h) with "
        what += f"{_LEAK_WORDS[count.kind]} as one of a held-out split"
        yield (
            f"{what}: left out." if count.kind in dropped else f"{what} (`--drop-leaks {count.kind.value}`)."
        )


def _lines(preparation: Preparation) -> Iterator[str]:
    yield "# Speech corpora, prepared for training"
    yield ""
    yield (
        f"`{MANIFEST_FILE}`: {len(preparation.utterances):,} utterances, "
        f"{_hours(preparation.utterances):.2f} hours; content {preparation.manifest_sha256}."
    )
    yield ""
    yield "## What to look at first"
    yield ""
    yield from (f"- {one}" for one in warnings(preparation) or ["Nothing stood out."])
    yield ""
    yield "## What is in it"
    yield ""
    yield from _table(
        ("dataset", "split", "utterances", "hours", "mean s", "speakers", "programmes", "characters/s"),
        _size_rows(preparation),
    )
    yield from _found(preparation)
    yield from _rejects(preparation)
    yield from _duplicates(preparation)
    yield from _prompts(preparation)
    yield from _leaks(preparation)


def _size_rows(preparation: Preparation) -> Iterator[Sequence[object]]:
    for corpus in preparation.corpora:
        for split in SPLITS:
            own = [
                one
                for one in preparation.utterances
                if one.dataset == corpus.description.name and one.split == split
            ]
            if own:
                yield corpus.description.name, split, *_size(own)
    for split in SPLITS:
        own = [one for one in preparation.utterances if one.split == split]
        if own:
            yield "**all**", split, *_size(own)


def _size(own: Sequence[Utterance]) -> tuple[object, ...]:
    seconds = sum(one.duration_s for one in own)
    speakers = {(one.dataset, one.speaker) for one in own if one.speaker}
    programmes = {(one.dataset, one.programme) for one in own if one.programme}
    n_characters = sum(len(one.text) for one in own)
    return (
        f"{len(own):,}",
        f"{seconds / 3600:.2f}",
        f"{seconds / len(own):.1f}",
        f"{len(speakers):,}" if speakers else "not known",
        f"{len(programmes):,}" if programmes else "not known",
        f"{n_characters / seconds:.1f}",
    )


def _found(preparation: Preparation) -> Iterator[str]:
    yield "## What was found in the folders"
    for corpus in preparation.corpora:
        yield ""
        yield f"### {corpus.description.name}"
        yield ""
        yield f"`{corpus.description.folder}`"
        yield ""
        yield from found_lines(corpus)
        yield from (
            f"- Left out, as asked: {_rows(count)} with `{what}`" for what, count in corpus.left_out.items()
        )
        if corpus.n_cleaned:
            yield f"- In {corpus.n_cleaned:,} texts spaces were changed. All are NFC; nothing else was done."
        yield from (f"- {note}" for note in corpus.notes)
    yield ""


def found_lines(corpus: ReadCorpus) -> Iterator[str]:
    """Which files, and what each column became."""
    for files in corpus.found:
        split = f" -> {files.split}" if files.split else ""
        became = ", ".join(f"`{column}` = {ours}" for column, ours in files.became.items())
        ignored = ", ".join(f"`{column}`" for column in files.ignored) or "none"
        yield f"- {files.layout}{split}: {_rows(files.n_rows)}. Read: {became or 'nothing'}. Not read: {ignored}"


def _rejects(preparation: Preparation) -> Iterator[str]:
    limits = preparation.settings.limits
    yield "## What was refused"
    yield ""
    yield (
        f"Each in `{REJECTS_FILE}` with file, line and reason. A clip has {limits.min_s:g} to {limits.max_s:g} s, and "
        f"{limits.min_characters_per_s:g} to {limits.max_characters_per_s:g} characters a second of its length (with "
        f"{limits.spare_characters} to spare at the upper end)."
    )
    yield ""
    rows = [
        (corpus.description.name, f"`{reason.value}`", f"{count:,}")
        for corpus in preparation.corpora
        for reason, count in preparation.rejects_by_reason(corpus.description.name).items()
    ]
    yield from _table(("dataset", "reason", "rows"), rows)


def _duplicates(preparation: Preparation) -> Iterator[str]:
    found = preparation.duplicates
    n_audio = sum(len(group) for group in found.audio_groups)
    n_text = sum(len(group) for group in found.text_groups)
    yield "## Duplicates"
    yield ""
    yield f"- {n_audio:,} rows have the same sound as another ({len(found.audio_groups):,} sounds)."
    yield f"- {n_text:,} rows are one speaker reading one text again ({len(found.text_groups):,} texts)."
    yield f"- Each is in `{DUPLICATES_FILE}`. " + (
        "Of the same sound in train only the first was kept."
        if preparation.settings.drop_duplicates
        else "All were kept (`--drop-duplicates` keeps one of each sound in train)."
    )
    yield ""


def _prompts(preparation: Preparation) -> Iterator[str]:
    yield "## How often texts are read"
    yield ""
    yield from _table(
        ("dataset", "rows", "different texts", "most for one text", f"rows whose text has {MANY_SPEAKERS}+"),
        [
            (
                one.dataset,
                f"{one.n_rows:,}",
                f"{one.n_texts:,}",
                f"{one.most_speakers:,} {'speakers' if one.knows_speakers else 'readings'}",
                f"{one.n_rows_of_many:,} ({one.n_rows_of_many / one.n_rows:.0%})",
            )
            for one in preparation.prompts
        ],
    )


def _leaks(preparation: Preparation) -> Iterator[str]:
    yield "## What train and held-out splits share"
    yield ""
    yield (
        "Only what is shared is listed. Sounds and texts are compared across datasets, speakers and programmes within "
        "each. Texts are compared as they are scored (`basic`); nearly the same are those with 0.8 of their word "
        "trigrams in common. Seen from the held-out splits, before anything was left out; each leaking row of train is "
        f"in `{LEAKS_FILE}`."
    )
    yield ""
    rows = [
        (
            overlap.dataset,
            split,
            _SHARED_WORDS[overlap.kind],
            f"{overlap.n_utterances:,} of {overlap.n_known:,} ({overlap.share:.1%})",
            f"{overlap.duration_s / 3600:.2f}",
            "; ".join(
                f"{example.held_out.audio} = {example.training.dataset}: {example.training.audio}"
                for example in overlap.examples[:EXAMPLES]
            ),
        )
        for split, overlaps in preparation.leaks.held_out.items()
        for overlap in overlaps
        if overlap.n_utterances
    ]
    yield from _table(("dataset", "split", "shares with train", "utterances", "hours", "for example"), rows)
    unknown: dict[str, dict[str, None]] = {}
    for overlaps in preparation.leaks.held_out.values():
        for overlap in overlaps:
            if not overlap.n_known and overlap.kind in (Shared.SPEAKER, Shared.PROGRAMME):
                unknown.setdefault(overlap.kind.value, {})[overlap.dataset] = None
    for kind, which in unknown.items():
        yield f"Nothing is known of the {kind}s of {', '.join(which)}: they were not compared."
        yield ""


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _hours(utterances: Iterable[Utterance]) -> float:
    return sum(one.duration_s for one in utterances) / 3600


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    listed = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    if not listed:
        yield "None."
        yield ""
        return
    yield f"| {' | '.join(header)} |"
    yield "|" + "---|" * len(header)
    yield from (f"| {' | '.join(row)} |" for row in listed)
    yield ""
