"""The demo model's card: what it is, how it was made, what was measured, what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from speech.prompt import DEFAULT_PROMPT
from training.scratch.measure import Measured
from training.scratch.settings import Settings

MEANINGS = {
    "domain": "sentences of the templates that were never trained on, voices that were",
    "unseen_voices": "the same kind of sentences by voices never trained on",
    "degraded": "the same kind with noise, room, music, telephone or codec, mixed",
    "long": "10 to 25 s: several sentences by one voice",
    "news": "handwritten news, outside the templates",
    "interface": "what a screen says",
    "nothing": "silence, noise, music and tones: the right text is empty",
    "first_trial": "the sentences that the first trial was measured on, `tests/data/demo-speech`",
}
"""What the test sets are, by their names (`training.synthetic.test_sets`)."""


@dataclass(frozen=True)
class CardFacts:
    """What a card tells."""

    n_parameters: int
    n_bytes: int
    """Of the weights."""
    weights_sha256: str
    hours: float
    """Of synthetic speech trained on, before any augmentation."""
    n_steps: int
    settings: Settings
    measured: Mapping[int, Mapping[str, Measured]]
    """By seed; the first is the model's own. Others are of models built the same way, to show the spread."""


def write_card(facts: CardFacts) -> str:
    """The card in Markdown."""
    return "\n".join(
        [*_front(facts), "", *_head(facts), "", *_made(facts), "", *_figures(facts), "", *_LIMITS, ""]
    )


def _front(facts: CardFacts) -> list[str]:
    own = next(iter(facts.measured.values()), {})
    results = [
        line
        for name, one in own.items()
        if one.wer is not None
        for line in (
            "      - task: {type: automatic-speech-recognition}",
            f"        dataset: {{type: synthetic, name: '{name}'}}",
            f"        metrics: [{{type: wer, value: {one.wer:.4f}}}, {{type: cer, value: {one.cer:.4f}}}]",
        )
    ]
    index = ["model-index:", "  - name: fonoteca-demo", "    results:", *results] if results else []
    return [
        "---",
        "language: gl",
        "license: apache-2.0",
        "library_name: transformers",
        "pipeline_tag: automatic-speech-recognition",
        "tags: [synthetic-speech, demonstration]",
        *index,
        "---",
    ]


def _head(facts: CardFacts) -> list[str]:
    return [
        "# fonoteca-demo: a small Phi-4-multimodal for synthetic Galician broadcast speech",
        "",
        f"A `Phi4MultimodalForCausalLM` of {facts.n_parameters / 1e6:.1f} M parameters ({facts.n_bytes / 1e6:.1f} MB "
        "of fp16 weights), trained from random weights on the voice of a speech synthesiser. It shows the system at "
        "work on a laptop, with the class, the prompt and the engine of the real model. **It is no recogniser of "
        "human speech.**",
        "",
        f"Prompt: `{DEFAULT_PROMPT}`. Weights' SHA-256: `{facts.weights_sha256}`.",
    ]


def _made(facts: CardFacts) -> list[str]:
    settings = facts.settings
    return [
        "## How it was made",
        "",
        f"By `make demo-model`, seed {settings.seed}: {facts.hours:.1f} h of speech by espeak-ng with a Galician "
        "pronunciation (`docs/synthetic-speech.md` says what is said in it, by which voices and from which texts), "
        f"{facts.n_steps:,} steps of about {settings.step_audio_s:.0f} s of audio. Phonemes in each 20 ms first; then "
        "the answer's cross-entropy with CTC and guided attention beside it, whose heads are not in the weights "
        "(`docs/demo-model.md`). The weights are an exponential moving average.",
    ]


def _figures(facts: CardFacts) -> list[str]:
    if not facts.measured:
        return ["## Measured", "", "Nothing yet."]
    seeds = list(facts.measured)
    own = facts.measured[seeds[0]]
    others = "".join(f" WER, seed {seed} |" for seed in seeds[1:])
    lines = [
        "## Measured",
        "",
        "Greedy, one pass through the production engine, the model card's normaliser (`BasicTextNormalizer`); "
        "95 % intervals over clips. The test sets were made once and never trained or tuned on.",
        "",
        f"| test set | clips | WER (seed {seeds[0]}) | 95 % | CER |{others} text without speech |",
        "|---|---|---|---|---|" + "---|" * (len(seeds) - 1) + "---|",
    ]
    for name, one in own.items():
        more = "".join(f" {_rate(facts.measured[seed].get(name))} |" for seed in seeds[1:])
        interval = (
            "" if one.wer_low is None or one.wer_high is None else f"{one.wer_low:.1%} to {one.wer_high:.1%}"
        )
        cer = "" if one.cer is None else f"{one.cer:.1%}"
        lines.append(
            f"| {name} | {one.n_clips} | {_rate(one)} | {interval} | {cer} |{more} {one.n_invented} |"
        )
    meanings = [f"- `{name}`: {MEANINGS[name]}" for name in own if name in MEANINGS]
    return [*lines, "", *meanings] if meanings else lines


def _rate(one: Measured | None) -> str:
    return "" if one is None or one.wer is None else f"{one.wer:.1%}"


_LIMITS = (
    "## What it cannot do",
    "",
    "- **Human speech.** It heard one synthesiser, never a person: on a person's voice it writes fluent text that "
    "was not said. Never measure a broadcaster's archive with it.",
    "- **Words and names it has not met** are often replaced by similar ones that it knows; it is best at sentences "
    "like those of its templates, and the figure for handwritten news says how much worse it is outside them.",
    "- **Other languages, dialects and spontaneous talk** (hesitations, corrections, two speakers at once).",
    "- **Noise, music and telephone lines** only as far as they were synthesised; singing is nothing it knows.",
    "- **Its confidence** is that of a model that knows nothing else: high on speech unlike its own, too.",
    "",
    "Its texts are marked as a demonstration wherever Fonoteca shows them.",
)
