"""What the demo model's training is told and hears: pieces, targets, steps' items, augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from speech.prompt import DEFAULT_PROMPT, tokenize_prompt
from tests.training.made_speech import LETTER_MS, PAUSE_MS, made_corpus, spoken
from training.scratch.augment import augment_features, augment_samples
from training.scratch.batches import Loader, Plan
from training.scratch.settings import N_SHARDS, PHASES, Settings, Sizes
from training.scratch.targets import IGNORED, SILENCE, Inventory, Teller, letters, phoneme_slots
from training.scratch.vocabulary import ANSWER_END, AUDIO, SPECIAL, train_tokenizer

TEXTS = ["Boas tardes, son as nove e isto é a canle local.", "Choveu en Ourense; o río leva máis auga."] * 20


def test_the_prompt_is_few_tokens_and_text_comes_back_as_it_was(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, 420, tmp_path)
    prompt = tokenize_prompt(DEFAULT_PROMPT, tokenizer)
    assert len(prompt.before) + len(prompt.after) <= 12
    assert [tokenizer.convert_ids_to_tokens(number) for number in range(len(SPECIAL))] == list(SPECIAL)
    assert tokenizer.encode("<|audio|>", add_special_tokens=False) == [AUDIO]
    for text in (TEXTS[0], "Ñandú, 25 % — «xa non»", ""):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert not set(ids) & set(range(len(SPECIAL)))
        assert tokenizer.decode([*ids, *ANSWER_END], skip_special_tokens=True) == text
    assert len(tokenizer.encode(TEXTS[0], add_special_tokens=False)) < len(TEXTS[0]) / 2


def test_a_vocabulary_without_room_for_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="300 or more"):
        train_tokenizer(TEXTS, 200, tmp_path)


def teller(tmp_path: Path) -> tuple[Teller, Inventory]:
    clips = [spoken("mar sol terra")[0]] * 30
    tokenizer = train_tokenizer(["mar sol terra"] * 50, 330, tmp_path)
    inventory = Inventory.of(clips)
    return Teller(inventory, tokenizer), inventory


def test_each_token_is_placed_where_its_letters_are_said(tmp_path: Path) -> None:
    tell, _ = teller(tmp_path)
    clip, samples = spoken("mar sol")
    told = tell.tell([clip], [1.0], [len(samples) / 16_000])
    assert told.middles_s == tuple(sorted(told.middles_s))
    # the pause between the words belongs to neither
    first_word_ends = 1.0 + 3 * LETTER_MS / 1000
    second_starts = first_word_ends + PAUSE_MS / 1000
    assert all(not first_word_ends < middle < second_starts for middle in told.middles_s)
    assert any(middle > second_starts for middle in told.middles_s)


def test_the_phoneme_of_each_slot_is_the_one_that_sounds_after_stretching(tmp_path: Path) -> None:
    tell, inventory = teller(tmp_path)
    clip, samples = spoken("mar")
    told = tell.tell([clip], [0.5], [len(samples) / 16_000])
    slots = phoneme_slots(told, 2.0, 25, 4).flatten()
    sounds = [inventory.phonemes[one] for one in slots]
    assert sounds[:50] == ["sil"] * 50  # 0.5 s of nothing, stretched to one
    per_letter = round(2 * LETTER_MS / 20)
    assert sounds[50 : 50 + 3 * per_letter] == [one for one in "mar" for _ in range(per_letter)]
    assert set(sounds[50 + 3 * per_letter :]) == {"sil"}


def test_joined_clips_are_told_one_after_another(tmp_path: Path) -> None:
    tell, inventory = teller(tmp_path)
    first, second = spoken("mar")[0], spoken("sol")[0]
    told = tell.tell([first, second], [0.0, 1.0], [0.27, 0.27])
    assert "".join(inventory.characters[one] for one in told.characters) == "mar sol"
    assert max(told.middles_s) > 1.0 > min(told.middles_s)
    assert told.phonemes.count(SILENCE) == 1  # the gap
    assert len(told.phonemes) == len(told.ends_s) == 7


def test_a_rare_phoneme_is_not_told(tmp_path: Path) -> None:
    tell, _ = teller(tmp_path)
    assert IGNORED in tell.tell([spoken("xa")[0]], [0.0], [0.2]).phonemes


def test_letters_are_what_is_heard_of_a_text() -> None:
    assert letters("Á 1ª hora, «Ñ»: -non!") == "á 1ª hora ñ non"


SETTINGS = Settings(n_steps=40, step_audio_s=12.0, sizes=Sizes(vocabulary=320))


def test_a_step_is_a_function_of_seed_and_number() -> None:
    durations = [1.0 + 0.1 * (number % 30) for number in range(200)]
    one, two = (Plan(durations, range(200), SETTINGS) for _ in range(2))
    steps = [(step, shard) for step in (0, 7, 30, 39) for shard in range(N_SHARDS)]
    assert [one.items(*at) for at in steps] == [two.items(*at) for at in reversed(steps)][::-1]
    other = Plan(durations, range(200), Settings(n_steps=40, step_audio_s=12.0, seed=2))
    assert one.items(7, 0) != other.items(7, 0)
    assert one.items(7, 0) != one.items(7, 1)


def test_items_stay_below_the_phase_s_longest_and_steps_within_their_audio() -> None:
    durations = [1.0 + 0.1 * (number % 30) for number in range(200)]
    plan = Plan(durations, range(200), SETTINGS)
    longest = 0.0
    for step in range(SETTINGS.n_steps):
        phase, _ = SETTINGS.phase_at(step)
        for shard in range(N_SHARDS):
            lengths = [sum(durations[clip] for clip in item.clips) for item in plan.items(step, shard)]
            assert max(lengths) <= PHASES[phase].max_item_s
            assert len(lengths) == 1 or max(lengths) * len(lengths) <= SETTINGS.step_audio_s / N_SHARDS * 1.1
            longest = max(longest, *lengths)
    assert longest > 8.0  # clips of 4 s at most: they are joined


def test_every_clip_is_heard_and_no_other() -> None:
    durations = [2.0] * 50
    plan = Plan(durations, range(10, 40), SETTINGS)
    heard = {
        clip
        for step in range(40)
        for shard in range(N_SHARDS)
        for i in plan.items(step, shard)
        for clip in i.clips
    }
    assert heard == set(range(10, 40))


def test_a_corpus_without_training_clips_is_refused() -> None:
    with pytest.raises(ValueError, match="no clip to train on"):
        Plan([1.0, 2.0], [], SETTINGS)


def test_a_batch_is_the_same_alone_and_made_ahead(tmp_path: Path) -> None:
    corpus = made_corpus(tmp_path / "speech")
    tokenizer = train_tokenizer([clip.text for clip in corpus.clips], 320, tmp_path / "model")
    train = [number for number, clip in enumerate(corpus.clips) if clip.split == "train"]
    plan = Plan([clip.n_samples / 16_000 for clip in corpus.clips], train, SETTINGS)
    loader = Loader(
        corpus,
        Teller(Inventory.of(corpus.clips), tokenizer),
        plan,
        SETTINGS,
        mean=torch.full((80,), 5.0),
        vocabulary=len(tokenizer),
    )
    together = loader.batch(3, range(N_SHARDS))
    again = next(loader.batches(range(3, 4), range(N_SHARDS), n_workers=0))
    assert torch.equal(together.features, again.features)
    assert (together.answers, together.shown) == (again.answers, again.shown)
    # one process with both parts hears what two processes hear
    parts = [loader.batch(3, [shard]) for shard in range(N_SHARDS)]
    assert together.answers == tuple(answer for part in parts for answer in part.answers)
    assert together.n_frames == tuple(n for part in parts for n in part.n_frames)


def test_silence_stays_silent_and_length_follows_the_tempo() -> None:
    rng = np.random.default_rng(1)
    mean = torch.zeros(80)
    features, stretch = augment_features(torch.zeros(200, 80), mean, rng)
    assert not features.any()
    assert len(features) == pytest.approx(200 * stretch, abs=1)
    assert augment_samples(np.zeros(1600, np.float32), None, rng).any() == np.False_


def test_augmented_audio_is_never_out_of_range_and_differs_each_time() -> None:
    tone = np.sin(np.arange(16_000) / 8).astype(np.float32)
    made = [augment_samples(tone, tone[::-1].copy(), np.random.default_rng(seed)) for seed in range(20)]
    assert all(one.dtype == np.float32 and np.abs(one).max() <= 1.0 for one in made)
    assert len({one.tobytes() for one in made}) == 20
    assert made[3].tobytes() == augment_samples(tone, tone[::-1].copy(), np.random.default_rng(3)).tobytes()
