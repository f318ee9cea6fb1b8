"""Diagnosis of a file by its own bytes: whether a decoder may see it, and why it gave no frames.

FFmpeg opens more than videos. Playlists and their like name other files and addresses, which it opens as well: whoever
hands us one could make it show a file of this machine. It knows them by their text, whatever the name of the file says.
"""

from __future__ import annotations

import re
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from activity.video.pyav import is_installed

EBML = b"\x1a\x45\xdf\xa3"  # how Matroska and WebM begin
INSTALL = "pip install '.[video]' in the project's folder"
REENCODE = "If other players show it, re-encode it: ffmpeg -i IN -c:v libx264 OUT.mp4"


_HEAD_BYTES = 4096
_PROBED_BYTES = 1 << 20  # so far FFmpeg looks for what a file is
_MOST_TAGS = 8  # FFmpeg skips one
_BLANK = b"\xef\xbb\xbf \t\r\n\v\f"  # a byte order mark, and white space


# What FFmpeg's probers look for, or did in some version; they see the text in front of the first NUL.
_PLAYLISTS = {
    "HLS": rb"\A#EXTM3U",
    "ffconcat": rb"\Affconcat",
    "SDP": rb"\Av=0\s|^\r?c=IN IP",
    "DASH": rb"<MPD",
    "IMF": rb"<CompositionPlaylist",
    "SMIL": rb"<smil",
    "ASX": rb"<asx|\A\[Reference\]",
    "RTSP": rb"\Artsptext",
}

_PLAYLIST_PATTERNS = {kind: re.compile(pattern, re.I | re.M) for kind, pattern in _PLAYLISTS.items()}


# FFmpeg takes such a name of an image for a sequence, and opens all files that match.
_SEQUENCE = re.compile(r"%(\d*d|[*?\[\]{}])")
_NOT_IMAGES = set(".avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv".split())


_NO_FILES = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def why_refused(path: Path, *, stream: bool = False) -> str | None:
    """One clause on why a decoder must not open a local path; `None` if it may, or if nothing can be read there.

    As a `stream` a pipe or a device will do as well. Nothing can be told of those: what is read is gone.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return "a folder that holds no videos"
        if not stat.S_ISREG(mode):  # to open it may already wait for ever
            kind = _NO_FILES.get(stat.S_IFMT(mode), "something else")
            return None if stream else f"{kind}, not a file; expected a video file, or --follow to read a stream"
        if _SEQUENCE.search(str(path.absolute())) and path.suffix.lower() not in _NOT_IMAGES:
            return "a name with % may stand for a sequence of images; rename it"
        with path.open("rb") as file:
            return _why_head_refused(file)
    except OSError:
        return None


def _why_head_refused(file: BinaryIO) -> str | None:
    head, start = file.read(_HEAD_BYTES), 0
    for _ in range(_MOST_TAGS):
        file.seek(start)
        probed = file.read(_HEAD_BYTES)
        if b"\0" not in probed:  # of videos, only raw ones with a line of text in front come so far
            probed += file.read(_PROBED_BYTES - _HEAD_BYTES)
        text = probed.partition(b"\0")[0].lstrip(_BLANK)
        for kind, pattern in _PLAYLIST_PATTERNS.items():
            if pattern.search(text):
                return f"this is a playlist ({kind}), which names other files; expected a video file"
        if sound := _sound_kind(probed):
            return f"a sound file ({sound}); a cover picture is no video"
        if probed[:3] != b"ID3" or len(probed) < 10:
            break
        # FFmpeg passes over a tag. Its size has seven bits a byte (ID3v2.4, 3.1), and a footer may follow.
        size = sum(byte << shift for byte, shift in zip(probed[6:10], (21, 14, 7, 0), strict=True))
        start += 10 + size + (10 if probed[5] & 0x10 else 0)
    if head and b"\0" not in head and _is_text(head) and not head.startswith(b"YUV4MPEG2 "):
        return "this is a text file, not a video"
    return None


def _sound_kind(head: bytes) -> str | None:
    """The kind of a sound file, of which FFmpeg would show the cover picture for as long as the sound lasts."""
    if head.startswith(b"OggS"):
        return None if re.search(rb"\x80theora|OVP80|BBCD\0|\x01video", head) else "Ogg"
    if head[:1] == b"\xff" and head[1:2] >= b"\xe0":  # MPEG audio, and AAC in ADTS, begin with a synchronisation
        return "MP3 or AAC"
    names = {b"fLaC": "FLAC", b"MAC ": "APE", b"RIFF": "WAV" if head[8:12] == b"WAVE" else None}
    brands = {b"ftypM4A ": "M4A", b"ftypM4B ": "M4B"}
    return names.get(head[:4]) or brands.get(head[4:12])


def _is_text(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4  # only the last character was cut
    return True


def why_mp4_unreadable(path: Path) -> str | None:
    """One clause on why an MP4 or MOV file gave no frames; `None` for other files."""
    with path.open("rb") as file:
        if file.read(8)[4:] != b"ftyp":
            return None
    index = _mp4_boxes(path).get("moov")
    if index is None:
        return "its index (the 'moov' box) is missing: the recording or the copy was cut off"
    if b"encv" in index:
        return "the video is encrypted (DRM)"
    if b"vide" not in index:
        return "it has no video track (audio only)"
    codec = next((c for c in (b"av01", b"hev1", b"hvc1", b"vp09", b"avc1", b"mp4v") if c in index), b"unknown")
    return f"opens, but no frame can be decoded (codec {codec.decode()}): damaged, or no decoder here. {remedy()}"


def remedy() -> str:
    """What to do about a video that has no decoder here."""
    return REENCODE if is_installed() else f"PyAV has more decoders: {INSTALL}. {REENCODE}"


class VideoTrack(NamedTuple):
    """What the header of a file claims of one of its video tracks; 0 where it does not say."""

    height: int = 0
    width: int = 0
    edited_seconds: float = 0.0  # that its edit list shows, of what the file may have more


def video_tracks(path: Path) -> list[VideoTrack]:
    """The video tracks of an MP4, MOV, Matroska or WebM file; none of others, or of what cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
            head += file.read(_PROBED_BYTES) if head.startswith(EBML) else b""
        if head.startswith(EBML):  # a track type of 1 is video (RFC 9559, 5.1.4.1.3)
            tracks = head.partition(b"\x16\x54\xae\x6b")[2].partition(b"\x1f\x43\xb6\x75")[0]
            return [VideoTrack()] * tracks.count(b"\x83\x81\x01")
        return list(_mp4_tracks(_mp4_boxes(path).get("moov", b""))) if head[4:8] == b"ftyp" else []
    except (OSError, struct.error):
        return []


def _mp4_tracks(index: bytes) -> Iterator[VideoTrack]:
    """ISO/IEC 14496-12: sections 8.2.2 (movie header), 8.4.3 (handler), 8.5.2 (samples), 8.6.6 (edit list)."""
    movie = dict(_boxes(index))
    header = movie.get("mvhd", b"")
    (ticks_per_second,) = struct.unpack_from(">I", header, 20 if header[:1] == b"\1" else 12)
    for name, content in _boxes(index):
        track = dict(_boxes(content)) if name == "trak" else {}
        media = dict(_boxes(track.get("mdia", b"")))
        if media.get("hdlr", b"")[8:12] != b"vide":
            continue
        samples = dict(_boxes(dict(_boxes(media.get("minf", b""))).get("stbl", b""))).get("stsd", b"")
        width, height = struct.unpack_from(">HH", samples, 40) if len(samples) >= 44 else (0, 0)
        edits = dict(_boxes(track.get("edts", b""))).get("elst", b"")
        entry = ">QqI" if edits[:1] == b"\1" else ">IiI"
        shown = [ticks for ticks, start, _ in struct.iter_unpack(entry, _whole(edits[8:], entry)) if start >= 0]
        yield VideoTrack(height, width, sum(shown) / max(ticks_per_second, 1))


def _whole(content: bytes, entry: str) -> bytes:
    return content[: len(content) - len(content) % struct.calcsize(entry)]


def _boxes(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and content of the boxes in a box."""
    position = 0
    while position + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, position)
        yield name.decode("latin-1"), content[position + 8 : position + length]
        position += max(length, 8)


def _mp4_boxes(path: Path, limit: int = 64 << 20) -> dict[str, bytes]:
    """Top-level boxes of an MP4/MOV file, name -> content (of `moov` only; ISO/IEC 14496-12, section 4.2)."""
    boxes = {}
    end = path.stat().st_size
    with path.open("rb") as file:
        position = 0
        while position + 8 <= end:
            file.seek(position)
            length, name = int.from_bytes(file.read(4), "big"), file.read(4).decode("latin-1")
            if length == 1:
                length = int.from_bytes(file.read(8), "big")
            elif length == 0:
                length = end - position
            boxes[name] = file.read(min(length, limit)) if name == "moov" else b""
            if length < 8:
                break
            position += length
    return boxes
