"""The model card of a run's result, from what the run wrote down: nothing in it that was not measured or set.

`README.md` in the model's folder, in the form the hub reads: a head with `model-index`, then text.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speech.checkpoint import read_card
from speech.prompt import prompt_of
from speech.stored import read_stored
from training.tuning.errors import FinetuneError
from training.tuning.measuring import ALL
from training.tuning.run_folder import RunFolder

SETTINGS_SHOWN = (
    "epochs", "max_steps", "learning_rate", "schedule", "warmup_steps", "batch_size", "accumulation", "precision",
    "gradient_checkpointing", "weight_decay", "adam_beta2", "max_grad_norm",
)  # fmt: skip
LIMITS = """\
- It was trained and measured on the data listed here. How good it is on other voices, dialects, programmes and
  recording conditions is not known until it is measured there.
- Test utterances come from the same corpora as the training data: expect more errors on other material.
- It writes Galician as in its training texts. Other languages come out wrong or as Galician.
- It writes no times of words, no speakers, and one clip of at most 40 s at a time; longer audio must be cut.
- On silence, noise and music it may invent text, and it may repeat itself. Fonoteca's guards flag much
  of that, not all.
- Names, figures and rare words need a person's check before they are published."""
DEMO_LIMIT = """\
- **It comes from a demo model**, trained on synthetic speech to show a system at work. It must not be used on real
  recordings."""


def write_card(run: RunFolder) -> Path:
    """Write the card into the run's model folder, and return its path.

    Raises:
        FinetuneError: the run has no result yet.
        CheckpointError: the result cannot be opened.
    """
    if not run.model.is_dir():
        raise FinetuneError(f"{run.folder}: has no result yet (model/): finish it with `--resume` first")
    content = run.read("run.json")
    tested = run.read("test.json") if (run.folder / "test.json").exists() else {}
    if run.curves.exists():
        shutil.copyfile(run.curves, run.model / run.curves.name)
    card = run.model / "README.md"
    card.write_text(card_text(run, content, tested), encoding="utf-8")
    return card


def card_text(run: RunFolder, content: Mapping[str, Any], tested: Mapping[str, Any]) -> str:
    """The card."""
    stored = read_stored(run.model)
    settings, inputs = content["settings"], content["decisive"]["inputs"]
    history = run.read("history.json")
    parts = [
        _head(stored.name, content, tested),
        f"# {stored.name}\n\n{_what(content, stored.is_demo, len(history) and history[-1]['step'])}",
    ]
    if settings["output"]["notes"]:
        parts.append(settings["output"]["notes"].strip())
    parts += [
        f"## What it cannot do\n\n{DEMO_LIMIT + chr(10) if stored.is_demo else ''}{LIMITS}",
        f"## How good it is\n\n{_figures(tested, settings)}",
        f"## Learning curves\n\n![Loss and error rates while training](curves.png)\n\n{_learning(history)}",
        f"## What it was trained on\n\n{_data(inputs)}",
        f"## How it was trained\n\n{_training(content)}",
        f"## How to use it\n\n{_use(prompt_of(stored.native_config()))}",
        f"## Where it comes from\n\n{_origin(run, content)}",
    ]
    return "\n\n".join(parts) + "\n"


def _head(name: str, content: Mapping[str, Any], tested: Mapping[str, Any]) -> str:
    """YAML, with every text as JSON writes it, which YAML reads alike."""
    settings = content["settings"]
    lines = [
        "---",
        "language:",
        "- gl",
        "library_name: transformers",
        "pipeline_tag: automatic-speech-recognition",
    ]
    if settings["output"]["license"]:
        lines.append(f"license: {_text(settings['output']['license'])}")
    lines += [
        f"base_model: {_text(content['decisive']['inputs']['base']['name'])}",
        "tags:",
        "- galician",
        "- phi-4-multimodal",
    ]
    lines += [
        "model-index:",
        f"- name: {_text(name)}",
        "  results:" + ("" if tested.get("result") else " []"),
    ]
    for dataset, rates in tested.get("result", {}).items():
        if dataset == ALL and len(tested["result"]) == 2:
            continue  # of one dataset, it would say the same twice
        lines += [
            "  - task:",
            "      type: automatic-speech-recognition",
            "      name: Automatic Speech Recognition",
            "    dataset:",
            f"      name: {_text(dataset if dataset != ALL else 'all test sets together')}",
            f"      type: {_text(dataset)}",
            f"      split: {_text(settings['data']['test_split'])}",
            "      args: gl",
            "    metrics:",
        ]
        for kind in ("wer", "cer"):
            lines += [
                f"    - type: {kind}",
                f"      value: {round(100 * rates[kind], 2)}",
                f"      name: Test {kind.upper()} (%)",
            ]
    return "\n".join([*lines, "---"])


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _what(content: Mapping[str, Any], is_demo: bool, n_steps: int) -> str:
    inputs = content["decisive"]["inputs"]
    return (
        f"A{' demo' if is_demo else ''} model that writes down Galician speech: `{inputs['base']['name']}`, of which "
        f"only the audio part (`audio_embed`) was trained, for {n_steps:,} steps on "
        f"{inputs['train']['hours']:.2f} hours of speech. All other tensors are the base's, bit for bit "
        f"({content.get('n_frozen_equal', 0)} compared). This page was written by the program that trained it, "
        f"from what it measured."
    )


def _figures(tested: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    if not tested.get("result"):
        return "Not measured on test data."
    split = settings["data"]["test_split"]
    has_base = "base" in tested
    lines = [
        f"Word and character error rates (WER, CER) on the `{split}` split of the manifest, by greedy generation with "
        f"Fonoteca's engine, both texts normalised by `BasicTextNormalizer`; 95 % intervals over speakers where "
        "several are known, else over utterances.",
        "",
        "| dataset | utterances | words | WER | 95 % interval | CER |"
        + (" WER of the base |" if has_base else ""),
        "|---|---|---|---|---|---|" + ("---|" if has_base else ""),
    ]
    for dataset, rates in tested["result"].items():
        row = (
            f"| {dataset} | {rates['n_utterances']:,} | {rates['n_words']:,} | {_percent(rates['wer'])} | "
            f"{_percent(rates['wer_low'])} to {_percent(rates['wer_high'])} | {_percent(rates['cer'])} |"
        )
        lines.append(row + (f" {_percent(tested['base'][dataset]['wer'])} |" if has_base else ""))
    n_failed = tested["result"][ALL]["n_failed"]
    if n_failed:
        lines += ["", f"{n_failed} utterances failed in generation and count as empty texts."]
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %" if share == share and share != float("inf") else "–"


def _learning(history: list[dict[str, Any]]) -> str:
    losses = [line["loss"] for line in history if "loss" in line]
    rates = [line for line in history if "eval_wer" in line]
    told = []
    if losses:
        told.append(f"Loss per token: {losses[0]:.3f} at first, {losses[-1]:.3f} at the end.")
    if rates:
        told.append(
            f"WER on the validation sample: {_percent(rates[0]['eval_wer'])} at step {rates[0]['step']}, "
            f"{_percent(rates[-1]['eval_wer'])} at step {rates[-1]['step']}."
        )
    logged = [line for line in history if "skipped_steps" in line]
    if logged:
        last = logged[-1]
        n_memory, n_nan = int(last["skipped_out_of_memory"]), int(last["skipped_not_finite"])
        told.append(
            f"Left out: {n_memory} batches for lack of memory, {n_nan} whose loss was not finite, and "
            f"{int(last['skipped_steps'])} optimizer steps whose gradients were not finite."
        )
    return " ".join(told)


def _data(inputs: Mapping[str, Any]) -> str:
    lines = ["| used for | dataset | utterances | hours |", "|---|---|---|---|"]
    for use in ("train", "validation"):
        for name, counted in inputs[use]["datasets"].items():
            lines.append(f"| {use} | {name} | {counted['n_utterances']:,} | {counted['hours']:.2f} |")
    n_too_long = inputs["train"]["n_too_long"]
    if n_too_long:
        lines += ["", f"{n_too_long} utterances were too long and were left out."]
    lines += [
        "",
        f"SHA-256 over ids, texts and audio: train `{inputs['train']['sha256']}`, "
        f"validation `{inputs['validation']['sha256']}`.",
    ]
    return "\n".join(lines)


def _training(content: Mapping[str, Any]) -> str:
    settings = content["settings"]
    lines = ["| setting | value |", "|---|---|"]
    lines += [f"| {name} | {settings['training'][name]} |" for name in SETTINGS_SHOWN]
    lines.append(f"| seed | {settings['seed']} |")
    lines.append(f"| processes | {content['decisive']['inputs']['n_processes']} |")
    n_sessions = len(content["sessions"])
    lines += [
        "",
        f"Loss on the answer alone. Begun {content['begun_at']}, ended {content.get('ended_at', 'not yet')}"
        + (f", in {n_sessions} sessions, each going on from a checkpoint" if n_sessions > 1 else "")
        + ". Versions: "
        + ", ".join(f"{name} {number}" for name, number in content["versions"].items())
        + ".",
    ]
    return "\n".join(lines)


def _use(prompt: str) -> str:
    return f"""\
```python
from speech.checkpoint import open_checkpoint
from speech.engine import Phi4Engine

engine = Phi4Engine(*open_checkpoint("this folder"))
print(engine.transcribe([samples])[0].text)  # float32, 16 kHz, mono
```

or `fonoteca transcribe --model FOLDER recording.mp3`. Prompt: `{prompt}`"""


def _origin(run: RunFolder, content: Mapping[str, Any]) -> str:
    base = content["decisive"]["inputs"]["base"]
    weights = read_card(run.model).weights_sha256
    return (
        f"Base: `{base['name']}` ({base['layout']} layout), weights' SHA-256 `{base['weights_sha256']}`. "
        f"This model's: `{weights}`."
    )
