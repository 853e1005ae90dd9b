"""The API starts in a second on a machine without a GPU: it loads nothing of the models."""

from __future__ import annotations

import subprocess
import sys

from db.settings import PROJECT_ROOT

HEAVY = (
    "torch",
    "transformers",
    "numpy",
    "pyarrow",
    "pandas",
    "scipy",
    "av",
    "speech",
    "evaluation",
    "training",
    "migrations",
)


def test_the_api_loads_no_model_library() -> None:
    script = f"import api.app, api.serve, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT_ROOT, check=True
    )
    assert result.stdout.strip() == "[]"


def test_a_clip_needs_no_torch() -> None:
    """What the API loads for the first clip is installed with it, and that is without extra `worker`."""
    heavy = ("torch", "scipy", "transformers")
    script = f"import speech.clip, sys; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT_ROOT, check=True
    )
    assert result.stdout.strip() == "[]"
