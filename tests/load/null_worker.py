"""A GPU worker whose engine writes at once: everything but the model runs as in earnest.

`celery -A tests.load.null_worker worker ...`: the application of `workers.app` itself, its tasks, claims, reading of
audio and storing; only what opens a model puts a `NullEngine` in its place.
"""

from __future__ import annotations

from typing import Any

from db.connect import transaction
from db.work import ModelBinding
from speech.checkpoint import read_card
from tests.load.null_engine import NullEngine
from workers import serving
from workers.app import app
from workers.transcribe import Transcriber, register_model

__all__ = ["app"]


class NullServing(serving.Serving):
    """Follows deployments as ever; what it opens is no model."""

    def _open(self, target: Any) -> Transcriber:
        card = read_card(target.location, base=target.base)
        with transaction(self._context.engine) as tx:
            model_id = register_model(tx.connection, card, location=target.location, base=target.base)
        engine = NullEngine()
        transcriber = Transcriber(engine, ModelBinding(model_id, engine.prompt, engine.describe()))  # type: ignore[arg-type]
        self._transcriber, self._target = transcriber, target
        self._note_open(model_id)
        return transcriber


# `workers.app` imports it by this name when the worker opens its model
serving.Serving = NullServing  # type: ignore[misc]
