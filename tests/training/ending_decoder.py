"""A decoder that one file makes end its process. By itself, so that processes load nothing else."""

from __future__ import annotations

import os

from training.corpora.audio_facts import AudioFacts, Task, check_audio


def end_at_the_third(task: Task) -> list[AudioFacts]:
    if "2.wav" in task.names:
        os._exit(11)
    return check_audio(task)
