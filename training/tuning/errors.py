"""The one error of fine-tuning that a person is meant to read."""

from __future__ import annotations


class FinetuneError(Exception):
    """Fine-tuning cannot begin or go on. Names the thing, the reason and what to do."""
