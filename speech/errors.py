"""What can be wrong with a media file, one class per fact.

Messages are read by the person who sent the file: they name the file as that person knows it (`name`, never a
path of the machine that worked on it), say what is wrong and what to do. `code` is for programs and never changes.
"""

from typing import ClassVar


class MediaError(Exception):
    """A media file that cannot be turned into audio at all. Damage within a file is a failed span instead."""

    code: ClassVar[str] = "media_error"
    remedy: ClassVar[str] = "Check the file in a media player and send it again."

    def __init__(self, name: str, reason: str) -> None:
        """`name` is the file's name as its owner knows it; `reason` completes the sentence '<name> ...'."""
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}. {self.remedy}"


class EmptyMedia(MediaError):
    """The file has no bytes."""

    code = "empty_file"
    remedy = "The upload or the copy probably broke off; send the file again."

    def __init__(self, name: str) -> None:
        super().__init__(name, "the file is empty (0 bytes)")

    def __reduce__(self) -> tuple[type["EmptyMedia"], tuple[str]]:
        return type(self), (self.name,)


class NotMedia(MediaError):
    """The bytes are no sound or video format that we read, whatever the file's name says."""

    code = "not_media"
    remedy = "Send the original recording; renaming a file does not convert it."


class PlaylistRefused(NotMedia):
    """A playlist or script naming other files or addresses. Reading it would open them, so it never is."""

    code = "playlist_refused"
    remedy = "Send the recordings that it lists instead."


class NoAudioTrack(MediaError):
    """A good container in which no track is sound."""

    code = "no_audio_track"
    remedy = "Export it again with its sound, or leave it out."


class NoSuchTrack(MediaError):
    """The audio track asked for is not in the file."""

    code = "no_such_track"
    remedy = "Choose one of its tracks, counted from 0, or leave the choice out."


class TracksApart(MediaError):
    """Sound tracks to be mixed lie behind one another in the file, not side by side."""

    code = "tracks_apart"
    remedy = "Choose one of its tracks by number, or write the file anew with a media tool and send that."


class UnsupportedCodec(MediaError):
    """The sound is in a codec for which there is no decoder."""

    code = "unsupported_codec"
    remedy = "Convert it to wav, flac, mp3 or m4a and send that."


class NoAudioSamples(MediaError):
    """A sound track that holds no samples."""

    code = "no_audio_samples"
    remedy = "Check that the recording was exported in full and send it again."


class DamagedMedia(MediaError):
    """A format we know, too damaged to give any audio."""

    code = "damaged_media"
    remedy = "Send an intact copy, or repair it with a media tool first."


class TruncatedMedia(DamagedMedia):
    """A file cut before the part without which nothing in it can be read."""

    code = "truncated_media"
    remedy = "The copy probably broke off; send the whole file again."


class DecoderOverrun(MediaError):
    """Decoding took more memory, time or audio than one file may."""

    code = "decoder_limit"
    remedy = "Check the file in a media player; if it is good, convert it to wav or flac and send that."


class DecoderCrashed(MediaError):
    """The decoder's process died of the file. Nobody else's work was lost."""

    code = "decoder_crashed"
    remedy = "Convert it to wav or flac with a media tool and send that."
