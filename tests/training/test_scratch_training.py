"""The demo model's network and its training: what is trained is what the engine runs, and a kill loses nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from speech.checkpoint import open_checkpoint, read_card
from speech.encoder import encode_audio
from speech.engine import Phi4Engine
from speech.inspection import inspect_checkpoint
from speech.prompt import DEFAULT_PROMPT, tokenize_prompt
from speech.prompting import Prompter
from tests.training.made_speech import made_corpus
from training.scratch.batches import as_float, features_of
from training.scratch.card import CardFacts, write_card
from training.scratch.export import ExportError, export
from training.scratch.loop import (
    CHECKPOINT,
    LOSSES,
    TrainingFailed,
    rate_at,
    read_losses,
    weights_at,
)
from training.scratch.measure import Measured, measure_texts, worse_on
from training.scratch.network import Batch, Network, native_config, new_model
from training.scratch.processes import Job, run
from training.scratch.settings import Settings, Sizes
from training.scratch.vocabulary import END, END_OF_TEXT, train_tokenizer

SIZES = Sizes(
    audio_hidden=16,
    audio_blocks=2,
    audio_heads=2,
    audio_feed_forward=16,
    conv_channels=4,
    hidden=16,
    layers=2,
    heads=2,
    feed_forward=16,
    vocabulary=320,
)
SETTINGS = Settings(n_steps=12, sizes=SIZES, step_audio_s=10.0, n_checkpoints=3, n_looks=1)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    made_corpus(folder)
    return folder


def job(speech: Path, folder: Path, **changed: object) -> Job:
    return replace(Job(SETTINGS, speech, folder, dtype="float32", device="cpu", n_processes=1), **changed)


def batch_of(clips: list[torch.Tensor], answers: list[tuple[int, ...]]) -> Batch:
    """Clips' features side by side, with answers that are shown as they are."""
    widest = max(map(len, clips))
    features = torch.stack([torch.cat([clip, torch.zeros(widest - len(clip), 80)]) for clip in clips])
    n_tokens = -(-widest // 8)
    return Batch(
        features=features,
        n_frames=tuple(map(len, clips)),
        phonemes=torch.zeros(len(clips), n_tokens, 4, dtype=torch.long),
        characters=tuple((1,) * min(3, len(answer)) for answer in answers),
        answers=tuple(answers),
        shown=tuple(answers),
        places=tuple(tuple(float(at) for at in range(len(answer))) for answer in answers),
    )


def test_what_is_trained_is_what_the_engine_runs(tmp_path: Path) -> None:
    corpus = made_corpus(tmp_path / "speech", n_clips=6)
    tokenizer = train_tokenizer([clip.text for clip in corpus.clips], 320, tmp_path / "model")
    prompt = tokenize_prompt(DEFAULT_PROMPT, tokenizer)
    model = new_model(native_config(SIZES, len(tokenizer)), seed=3)
    network = Network(model, prompt, 5, 7)
    samples = sorted((as_float(corpus.samples(number)) for number in range(3)), key=len)
    answers = [tuple(tokenizer.encode(text, add_special_tokens=False)) for text in ("mar", "sol e ceo", "")]
    outputs = network(batch_of([features_of(one) for one in samples], answers))
    prompter = Prompter(model, prompt, max_frames=4000, fixed_shapes=False)
    at = 0
    for clip, answer in zip(samples, answers, strict=True):
        (alone,) = prompter.embed([clip])
        rest = model.model.embed_tokens(torch.tensor([*answer, END]))
        scores = model(inputs_embeds=torch.cat([alone, rest])[None]).logits[0, len(alone) - 1 :]
        # the answer's tokens and its two ends, each told by the token before it
        mine = outputs.text[at : at + len(answer) + 2]
        torch.testing.assert_close(mine, scores, rtol=1e-4, atol=1e-4)
        assert outputs.text_labels[at : at + len(answer) + 2].tolist() == [*answer, END, END_OF_TEXT]
        at += len(answer) + 2
    assert at == len(outputs.text)


def test_guided_attention_moves_to_where_the_words_are_said(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["mar sol ceo"] * 20, 320, tmp_path)
    network = Network(
        new_model(native_config(SIZES, len(tokenizer)), seed=1),
        tokenize_prompt(DEFAULT_PROMPT, tokenizer),
        5,
        7,
    )
    features = torch.randn(1, 320, 80, generator=torch.Generator().manual_seed(1)) + 8
    batch = replace(batch_of([features[0]], [(300, 301, 302, 303)]), places=((4.0, 14.0, 24.0, 34.0),))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    penalties = []
    for _ in range(25):
        optimizer.zero_grad()
        guide = network(batch).guide
        penalties.append(guide.item())
        torch.autograd.backward(guide)
        optimizer.step()
    assert penalties[0] > 1.5  # nearly even: e to the minus that lies on the word
    assert penalties[-1] < 0.9 * penalties[0]


def test_a_stopped_training_goes_on_as_an_unbroken_one(speech: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(job(speech, whole))
    run(job(speech, broken, until=8))
    # what a kill leaves: steps done after the checkpoint, a checkpoint half written
    with (broken / LOSSES).open("a") as file:
        file.write(
            json.dumps(vars(read_losses(broken / LOSSES)[-1]) | {"step": 9, "total": 7.0}) + '\n{"step": 1'
        )
    (broken / f"{CHECKPOINT}.unfinished").write_bytes(b"half")
    run(job(speech, broken))
    assert read_losses(broken / LOSSES) == read_losses(whole / LOSSES)
    assert [one.step for one in read_losses(whole / LOSSES)] == list(range(1, SETTINGS.n_steps + 1))
    mine, theirs = (torch.load(folder / CHECKPOINT, weights_only=True)["flat"] for folder in (broken, whole))
    assert torch.equal(mine["masters"], theirs["masters"])
    assert torch.equal(mine["averaged"], theirs["averaged"])


def test_a_checkpoint_of_other_settings_is_refused(speech: Path, tmp_path: Path) -> None:
    run(job(speech, tmp_path, until=1))
    with pytest.raises(TrainingFailed, match="other settings"):
        run(job(speech, tmp_path, settings=replace(SETTINGS, peak_rate=1e-4)))


def test_a_training_that_goes_too_slowly_is_shortened(speech: Path, tmp_path: Path) -> None:
    run(job(speech, tmp_path / "late", until=4))
    shorter = replace(SETTINGS, shortened=(4, 8))
    run(job(speech, tmp_path / "late", settings=shorter))
    run(job(speech, tmp_path / "at once", settings=shorter))
    late, at_once = (read_losses(tmp_path / name / LOSSES) for name in ("late", "at once"))
    assert len(late) == shorter.end == 8
    assert late == at_once
    # what was done after the step from which it is to be shorter cannot be undone
    run(job(speech, tmp_path / "too late", until=8))
    with pytest.raises(TrainingFailed, match="other settings"):
        run(job(speech, tmp_path / "too late", settings=shorter))


def test_a_shortened_schedule_ends_where_the_whole_one_does() -> None:
    whole = Settings(n_steps=1000)
    shorter = replace(whole, shortened=(300, 500))
    assert [shorter.phase_at(step) for step in range(300)] == [whole.phase_at(step) for step in range(300)]
    assert shorter.phase_at(499)[0] == len(whole.phases) - 1
    assert rate_at(shorter, 499) == pytest.approx(whole.final_rate, rel=0.05)
    bounds = shorter.phase_bounds()
    assert bounds[-1][1] == 500
    for step in range(500):
        assert bounds[shorter.phase_at(step)[0]][0] <= step
    with pytest.raises(ValueError, match="FIRST < END"):
        replace(whole, shortened=(500, 300))


@pytest.mark.slow
def test_two_processes_learn_what_one_does(speech: Path, tmp_path: Path) -> None:
    run(job(speech, tmp_path / "one", until=3))
    run(job(speech, tmp_path / "two", until=3, n_processes=2))
    one, two = (
        torch.load(tmp_path / name / CHECKPOINT, weights_only=True)["flat"]["masters"]
        for name in ("one", "two")
    )
    start = torch.load(tmp_path / "one" / CHECKPOINT, weights_only=True)
    assert start["step"] == 3
    # a mean of two means is not the mean over all, where the parts differ in size; nearly
    assert torch.nn.functional.cosine_similarity(one, two, dim=0) > 0.999


def test_a_new_network_keeps_apart_what_is_heard_at_different_moments() -> None:
    """With random weights in the branches six blocks smeared each sound over the others, and nothing was learned."""
    model = new_model(native_config(Sizes(vocabulary=64), 64), 1)
    audio = model.model.embed_tokens_extend.audio_embed
    torch.manual_seed(2)
    heard = torch.randn(1, 400, 80)
    other = heard.clone()
    other[:, 200:208] = torch.randn(1, 8, 80)
    with torch.no_grad():
        change = (encode_audio(audio, heard, (400,)) - encode_audio(audio, other, (400,))).abs().amax(-1)[0]
    changed = change.nonzero().flatten()
    assert 25 in changed  # the audio token of 80 ms that holds those frames
    assert (changed - 25).abs().max() <= 2


def test_losses_fall(speech: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, n_steps=40, n_looks=0, n_checkpoints=1, peak_rate=5e-3)
    run(job(speech, tmp_path, settings=settings))
    losses = read_losses(tmp_path / LOSSES)
    assert losses[-1].phonemes < 0.9 * losses[0].phonemes
    assert losses[-1].ctc < 0.8 * losses[0].ctc
    with_text = [one.text for one in losses if one.text]
    assert with_text[-1] < 0.8 * with_text[0]


def test_the_exported_model_is_one_like_any_other(speech: Path, tmp_path: Path) -> None:
    folder = run(job(speech, tmp_path))
    assert inspect_checkpoint(folder).problems == {}
    card = read_card(folder)
    assert (card.name, card.is_demo) == ("fonoteca-demo", True)
    model, tokenizer = open_checkpoint(folder, device="cpu")
    engine = Phi4Engine(model, tokenizer)
    assert engine.prompt == DEFAULT_PROMPT
    assert len(engine.transcribe([torch.randn(16_000).numpy() * 0.01])) == 1
    averaged = torch.load(tmp_path / CHECKPOINT, weights_only=True)["flat"]
    n = sum(parameter.numel() for name, parameter in model.named_parameters() if "vision_speech" not in name)
    assert n < len(averaged["averaged"])  # the heads are left out
    names = {file.name for file in folder.iterdir()}
    assert names == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_weights_that_16_bits_cannot_hold_are_not_written(tmp_path: Path) -> None:
    model = new_model(native_config(SIZES, 320), seed=1)
    name = "model.model.norm.weight"
    with pytest.raises(ExportError, match=r"model\.norm\.weight"):
        export(model, {name: torch.full((16,), 1e6)}, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_the_default_sizes_fit_the_repository() -> None:
    with torch.device("meta"):
        model = new_model(native_config(Sizes(), Sizes().vocabulary), seed=1)
    assert sum(parameter.numel() for parameter in model.parameters()) * 2 < 25_000_000


def test_rate_and_weights_move_without_leaps_within_a_phase() -> None:
    settings = Settings(n_steps=1000)
    rates = [rate_at(settings, step) for step in range(1000)]
    assert max(rates) == pytest.approx(settings.peak_rate, rel=0.01)
    assert rates[0] < 0.1 * settings.peak_rate
    assert rates[-1] == pytest.approx(settings.final_rate, rel=0.05)
    assert weights_at(settings, 0).text == 0.0
    assert weights_at(settings, 999).ctc == pytest.approx(settings.phases[-1].last.ctc, abs=0.01)
    bounds = settings.phase_bounds()
    assert (bounds[0][0], bounds[-1][1]) == (0, 1000)
    assert all(end == start for (_, end), (start, _) in pairwise(bounds))


def test_text_for_nothing_said_is_counted_apart() -> None:
    found = measure_texts(["Bo día.", "", ""], ["bo día", "", "ola"])
    assert (found.wer, found.n_invented, found.n_clips) == (0.0, 1, 3)
    only = measure_texts(["", ""], ["", "si"])
    assert (only.wer, only.n_invented) == (None, 1)


def test_a_model_that_is_worse_anywhere_is_told_where() -> None:
    def one(wer: float | None, n_invented: int = 0) -> Measured:
        return Measured(10, wer, wer, wer, wer, n_invented)

    better = {"news": one(0.03), "nothing": one(None)}
    assert worse_on(better, {"news": one(0.05), "nothing": one(None, 2)}) == []
    (worse,) = worse_on({"news": one(0.05), "nothing": one(None)}, better)
    assert worse.startswith("news: WER 5.00%")
    (worse,) = worse_on({"news": one(0.03), "nothing": one(None, 1)}, better)
    assert "without speech" in worse


def test_the_card_says_what_was_measured_and_what_it_cannot_do() -> None:
    facts = CardFacts(
        n_parameters=11_000_000,
        n_bytes=22_000_000,
        weights_sha256="ab" * 32,
        hours=30.0,
        n_steps=3800,
        settings=Settings(),
        measured={
            1: {
                "news": Measured(40, 0.0312, 0.02, 0.04, 0.01, 0),
                "nothing": Measured(9, None, None, None, None, 1),
            },
            2: {"news": Measured(40, 0.0345, 0.02, 0.04, 0.01, 0)},
        },
    )
    card = write_card(facts)
    assert "| news | 40 | 3.1% | 2.0% to 4.0% | 1.0% | 3.5% | 0 |" in card
    assert "| nothing | 9 |  |  |  |  | 1 |" in card
    assert "Human speech" in card
    assert "value: 0.0312" in card
    assert "Nothing yet." in write_card(replace(facts, measured={}))
