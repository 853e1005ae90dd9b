"""Open and convert a checkpoint of the published size, and check how much memory each step takes.

    python -m tests.benchmarks.full_size [--size full|small|tiny] [--keep DIR] [--json PATH]

Every step runs in a process of its own, on the CPU, and reports its peak resident memory (VmHWM, mapped pages
included). Bounds: opening takes the model in its type + the largest shard + 2 GiB, everything that only streams
takes the largest shard + 2 GiB. The exit code is 1 where a bound is broken, or where the converted checkpoint's
logits, over random sound and a random prompt, are not those of its source, bit for bit.

`full` needs 22 GB of disk and 12 GB of memory, and takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

GIB = 2**30
SPARE_BYTES = 2 * GIB
SHARDS = 4
SHARD_GB = 4.0


@dataclass(frozen=True)
class Step:
    """One row of the result."""

    step: str
    seconds: float
    """Of the step itself, without starting Python."""
    peak_gib: float
    bound_gib: float
    ok: bool


def peak_bytes() -> int:
    """The most memory this process has had resident."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell VmHWM")


def write(folder: Path, size: str) -> dict[str, Any]:
    from tests.benchmarks.random_checkpoint import write_checkpoint

    write_checkpoint(folder / "remote", size=size, layout="remote", shards=SHARDS)
    return {}


def inspect(folder: Path, size: str) -> dict[str, Any]:
    from speech.inspection import inspect_checkpoint

    found = inspect_checkpoint(folder / "remote")
    assert not found.problems, found.problems
    return {"parameters": found.n_parameters, "opened": found.n_parameters_opened}


def convert(folder: Path, size: str) -> dict[str, Any]:
    from speech.convert import convert_checkpoint

    # in several shards at any size
    shard_bytes = SHARD_GB * 10**9 if size == "full" else 10**6
    done = convert_checkpoint(folder / "remote", folder / "converted", shard_bytes=int(shard_bytes))
    return {"files": len(done.files), "bytes": done.n_bytes}


def open_remote(folder: Path, size: str) -> dict[str, Any]:
    return _open(folder / "remote", folder / "remote.logits")


def open_converted(folder: Path, size: str) -> dict[str, Any]:
    return _open(folder / "converted", folder / "converted.logits")


def _open(checkpoint: Path, logits_file: Path) -> dict[str, Any]:
    import torch

    from speech.checkpoint import open_checkpoint

    began = time.monotonic()
    model, _ = open_checkpoint(checkpoint, device="cpu", dtype=torch.bfloat16)
    report = {
        "seconds": time.monotonic() - began,
        "peak_bytes": peak_bytes(),
        "model_bytes": sum(tensor.numel() * tensor.element_size() for tensor in model.parameters()),
    }
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        audio_embed = model.model.embed_tokens_extend.audio_embed
        sound = torch.randn(1, 160, 80, generator=generator).to(torch.bfloat16)
        heard = torch.nn.functional.gelu(audio_embed.up_proj_for_speech(audio_embed.encoder(sound, None)))
        ids = torch.randint(model.config.vocab_size, (1, 8), generator=generator)
        prompt = torch.cat([audio_embed.down_proj_for_speech(heard), model.model.embed_tokens(ids)], dim=1)
        logits = model(inputs_embeds=prompt).logits
    torch.save(logits, logits_file)
    return report


STEPS: dict[str, Callable[[Path, str], dict[str, Any]]] = {
    "write": write,
    "inspect": inspect,
    "open": open_remote,
    "convert": convert,
    "reopen": open_converted,
}


def in_child(step: str, folder: Path, size: str) -> dict[str, Any]:
    """What `step` reported from a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.full_size", "--size", size, "--step", step]
    done = subprocess.run([*command, "--keep", str(folder)], stdout=subprocess.PIPE, text=True, check=True)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def largest_shard(folder: Path) -> int:
    return max((file.stat().st_size for file in folder.glob("*.safetensors")), default=0)


def measure(folder: Path, size: str) -> tuple[list[Step], dict[str, Any]]:
    """Every step in turn, and what else was found."""
    import torch

    rows = []
    facts: dict[str, Any] = {"size": size}
    for step in STEPS:
        report = in_child(step, folder, size)
        shard = max(largest_shard(folder / "remote"), largest_shard(folder / "converted"))
        bound = report.pop("model_bytes", 0) + shard + SPARE_BYTES
        peak = report.pop("peak_bytes")
        rows.append(Step(step, round(report.pop("seconds"), 1), peak / GIB, bound / GIB, peak <= bound))
        facts |= report
        print(f"{step}: {rows[-1].seconds:.1f} s, peak {peak / GIB:.2f} GiB", file=sys.stderr)
    before, after = (torch.load(folder / f"{name}.logits") for name in ("remote", "converted"))
    facts["logits_finite"] = bool(torch.isfinite(before).all())
    facts["logits_equal"] = torch.equal(before, after)
    facts["largest_logit"] = before.abs().max().item()
    return rows, facts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", choices=("tiny", "small", "full"), default="full")
    parser.add_argument("--keep", type=Path, help="folder to work in, kept; unset: a temporary one")
    parser.add_argument("--json", type=Path, help="file to write the result to")
    parser.add_argument("--step", choices=sorted(STEPS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        began = time.monotonic()
        report = STEPS[arguments.step](arguments.keep, arguments.size)
        print(json.dumps({"seconds": time.monotonic() - began, "peak_bytes": peak_bytes(), **report}))
        return 0
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="fonoteca-full-size-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        rows, facts = measure(folder, arguments.size)
    finally:
        if arguments.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    ok = all(row.ok for row in rows) and facts["logits_equal"] and facts["logits_finite"]
    print(f"{'step':<10}{'seconds':>9}{'peak GiB':>10}{'bound GiB':>11}  ok")
    for row in rows:
        print(
            f"{row.step:<10}{row.seconds:>9.1f}{row.peak_gib:>10.2f}{row.bound_gib:>11.2f}  "
            f"{'yes' if row.ok else 'NO'}"
        )
    for name, value in facts.items():
        print(f"{name}: {value}")
    if arguments.json:
        content = {"steps": [asdict(row) for row in rows], **facts, "ok": ok}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
