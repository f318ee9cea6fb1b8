import os
import socket

import cv2
import numpy as np
import pytest

from activity.errors import VideoError
from activity.video.decoder import LiveReader, index_frames, name_for_decoder, read_frames, why_unreadable
from activity.video.diagnosis import why_refused
from activity.video.images import probe
from activity.video.writer import write_video

HLS = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2.0,\n/etc/passwd\n#EXT-X-ENDLIST\n"
SDP = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 45678 RTP/AVP 96\n"
MPD = b'<MPD profiles="urn:mpeg:dash:profile:isoff-live:2011"><BaseURL>http://127.0.0.1/a.mp4</BaseURL></MPD>'
JUNK = bytes(range(0x80, 0x100)) * 40  # neither text nor a NUL, 5 kB
TAG = b"ID3\4\0\0\0\0\1\0" + 128 * b"t"
PLAYLISTS = {
    "HLS": ("HLS", HLS),
    "HLS after a byte order mark": ("HLS", b"\xef\xbb\xbf" + HLS),
    "HLS after blanks": ("HLS", b" \r\n\n" + HLS),
    "HLS and bytes": ("HLS", HLS + bytes(99)),
    "HLS after a tag": ("HLS", TAG + HLS),
    "HLS after two tags": ("HLS", TAG + TAG + HLS),
    "ffconcat": ("ffconcat", b"ffconcat version 1.0\nfile /etc/passwd\n"),
    "SDP": ("SDP", SDP),
    "SDP after junk": ("SDP", JUNK + b"\nc=IN IP4 127.0.0.1\n"),
    "SDP after a tag of junk": ("SDP", b"ID3\4\0\0\0\0\x48\0" + 9216 * b"t" + JUNK + b"\n\rc=IN IP4 127.0.0.1\n"),
    "DASH": ("DASH", b'<?xml version="1.0"?>\n' + MPD),
    "DASH after junk": ("DASH", JUNK + MPD.lower() + bytes(9)),
    "IMF": ("IMF", b"<?xml?><CompositionPlaylist><ContentTitle>x</ContentTitle>"),
    "SMIL": ("SMIL", b'<?xml version="1.0"?><smil><body><video src="http://127.0.0.1/x"/></body></smil>'),
    "ASX": ("ASX", b'<ASX version="3.0"><entry><ref href="http://127.0.0.1/x"/></entry></ASX>'),
    "reference": ("ASX", b"[Reference]\r\nRef1=http://127.0.0.1/ref?MSWMExt=.asf\r\n"),
    "RTSP": ("RTSP", b"rtsptextrtsp://127.0.0.1/x"),
}


@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8", "a"])
@pytest.mark.parametrize("case", PLAYLISTS)
def test_what_names_other_files_is_refused_whatever_its_name(tmp_path, case, name):
    kind, content = PLAYLISTS[case]
    path = tmp_path / name
    path.write_bytes(content)
    reason = f"this is a playlist ({kind}), which names other files; expected a video file"
    assert why_refused(path) == why_refused(path, stream=True) == why_unreadable(path) == reason
    assert index_frames(path) is None
    for use in (probe, read_frames, name_for_decoder, lambda path: LiveReader(str(path), 1.0)):
        with pytest.raises(VideoError) as caught:
            use(path)
        assert str(caught.value) == f"{path}: {reason}"


def test_a_file_of_this_machine_is_not_shown_by_another(tmp_path):
    write_video(tmp_path / "secret.mkv", [np.full((32, 32, 3), 200, np.uint8)] * 5, frames_per_second=10)
    (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile secret.mkv\n")
    with pytest.raises(VideoError, match="playlist"):
        read_frames(tmp_path / "a.mp4")


def test_a_name_of_an_image_is_not_a_sequence(tmp_path):
    for number in (1, 2, 3):
        cv2.imwrite(str(tmp_path / f"a{number:03}.png"), np.full((32, 32, 3), 50 * number, np.uint8))
    image = (tmp_path / "a001.png").read_bytes()
    for name in ("a%03d.png", "a%*.png"):
        (tmp_path / name).write_bytes(image)
        with pytest.raises(VideoError, match=r"a name with % may stand for a sequence of images; rename it"):
            read_frames(tmp_path / name)
    (tmp_path / "50%.png").write_bytes(image)
    assert len(read_frames(tmp_path / "50%.png")) == 1


def test_raw_video_with_a_line_of_text_in_front_is_a_video(tmp_path):
    frame = b"FRAME\n" + 64 * 64 * b"A" + 2 * 32 * 32 * b"A"
    (tmp_path / "a.y4m").write_bytes(b"YUV4MPEG2 W64 H64 F25:1 Ip A1:1 C420\n" + 3 * frame)
    assert len(read_frames(tmp_path / "a.y4m")) == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with a name here")
def test_what_is_no_file_is_refused_before_it_is_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    os.mkfifo("pipe")  # nobody writes: to open it would take for ever
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for name, kind in {"pipe": "a pipe", "socket": "a socket", "/dev/null": "a device"}.items():
            message = f"^{name}: {kind}, not a file; expected a video file, or --follow to read a stream$"
            for use in (probe, read_frames):
                with pytest.raises(VideoError, match=message):
                    use(name)
    assert why_refused(tmp_path / "pipe", stream=True) is None


@pytest.mark.real
def test_real_attacks_are_refused_and_real_videos_are_not(real_data):
    hostile = real_data / "cases" / "attack" / "hostile"
    refused = {path.name for path in hostile.iterdir() if why_refused(path)}
    assert refused == {path.name for path in hostile.iterdir()} - {"sibling.mp4", "sibling.ts"}
    torture = sorted((real_data / "videos" / "torture").iterdir())
    reasons = {path.name: why_refused(path) for path in torture}
    assert len(reasons) > 50
    text = "this is a text file, not a video"
    assert {name: reason for name, reason in reasons.items() if reason} == {"expected.csv": text, "syn_text.mp4": text}
