"""Decode and sample: 16 even frames at 224x224 RGB, this program against its peers, taking turns on the same files.

pip install '.[bench]' && python tests/benchmarks/bench_decode.py [--rounds 5] [--videos DIR]

The files are made first (some minutes, once, if DIR is kept). Each frame carries its number in a bar code, so "wrong"
counts frames that are not those asked for. torchcodec needs an FFmpeg of the system; it is
left out where it does not load.
"""

import argparse
import importlib.metadata
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import decord
import numpy as np

from activity.config import ClipSpec
from activity.video.clips import even_indices
from activity.video.sampling import read_stack

try:
    import torch
    from torchcodec.decoders import VideoDecoder
except (ImportError, OSError, RuntimeError):
    VideoDecoder = None

SIZE, NUM_FRAMES, BITS = 224, 16, 14
SPEC = ClipSpec(num_frames=NUM_FRAMES, height=SIZE, width=SIZE, streams=("rgb",))
X264 = {"preset": "veryfast", "bf": "3", "g": "250", "keyint_min": "250", "sc_threshold": "0"}
# name: width, height, frames, codec, its options, whether all frames last equally long
VIDEOS = {
    "short_240p.mp4": (320, 240, 250, "libx264", X264, True),
    "short_1080p.mp4": (1920, 1080, 250, "libx264", X264, True),
    "ten_minutes_720p.mp4": (1280, 720, 15_000, "libx264", X264, True),
    "short_mpeg4.avi": (640, 480, 250, "mpeg4", {"g": "12", "qscale": "4"}, True),
    "variable_rate_240p.mp4": (320, 240, 5000, "libx264", X264, False),
}


# === The files ===


def make_video(path, width, height, num_frames, codec, options, even=True, rate=25):
    """A textured scene that moves, sensor noise, and the number of the frame as a row of black and white blocks."""
    rng = np.random.default_rng(0)
    scene = cv2.GaussianBlur(rng.integers(0, 256, (2 * height, 2 * width, 3), dtype=np.uint8), (0, 0), 6)
    scene = cv2.normalize(scene, None, 30, 225, cv2.NORM_MINMAX)
    noise = [rng.integers(0, 8, (height, width, 3), dtype=np.uint8) for _ in range(5)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        shown = 0  # in ticks, one for each frame at a constant rate
        for index in range(num_frames):
            angle = 2 * np.pi * index / 200
            top, left = round(height / 2 * (1 + np.sin(angle))), round(width / 2 * (1 + np.cos(angle)))
            frame = scene[top : top + height, left : left + width] + noise[index % 5]
            bits = np.array([index >> bit & 1 for bit in range(BITS)], np.uint8) * 255
            frame[: height // 8] = np.repeat(bits, -(-width // BITS))[None, :width, None]
            image = av.VideoFrame.from_ndarray(frame, "rgb24")
            image.pts, image.time_base = shown, Fraction(1, rate)
            shown += 1 if even else int(rng.integers(1, 4))
            for packet in stream.encode(image):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def numbers_of(frames):
    """The numbers that `(N, 224, 224, 3)` frames carry."""
    centres = ((np.arange(BITS) + 0.5) * SIZE / BITS).astype(int)
    bits = frames[:, SIZE // 16, centres].mean(axis=-1) > 127  # (N, BITS)
    return bits @ (1 << np.arange(BITS))


# === The ways: path, indices -> (16, 224, 224, 3) uint8 RGB ===


def activity(path, _):
    return read_stack(path, SPEC, num_threads=0)[0][:, 0]


def decord_batch(path, indices):
    return decord.VideoReader(str(path), width=SIZE, height=SIZE).get_batch(indices).asnumpy()


def pyav_sequential(path, indices):
    wanted, frames = set(indices.tolist()), []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for index, frame in enumerate(container.decode(stream)):
            if index in wanted:
                frames.append(frame.reformat(SIZE, SIZE, "rgb24").to_ndarray())
    return np.stack(frames)


def torchcodec_frames(path, indices):
    decoder = VideoDecoder(str(path), num_ffmpeg_threads=0)
    frames = decoder.get_frames_at(indices.tolist()).data  # (N, 3, h, w)
    small = torch.nn.functional.interpolate(frames, (SIZE, SIZE), mode="bilinear", antialias=True)
    return small.permute(0, 2, 3, 1).numpy()


def opencv_small(frame):
    return cv2.cvtColor(cv2.resize(frame, (SIZE, SIZE), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)


def opencv_seek(path, indices):
    capture, frames = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    for index in indices.tolist():
        capture.set(cv2.CAP_PROP_POS_FRAMES, index)
        frames.append(opencv_small(capture.read()[1]))
    return np.stack(frames)


def opencv_read_all(path, indices):
    wanted, frames = set(indices.tolist()), []
    capture, index = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), 0
    while (read := capture.read())[0]:
        if index in wanted:
            frames.append(opencv_small(read[1]))
        index += 1
    return np.stack(frames)


WAYS = {
    "activity": activity,
    "decord get_batch": decord_batch,
    "PyAV sequential": pyav_sequential,
    **({"torchcodec": torchcodec_frames} if VideoDecoder else {}),
    "OpenCV seek per frame": opencv_seek,
    "OpenCV read all": opencv_read_all,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--videos", type=Path, help="keep the files here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.videos or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name, video in VIDEOS.items():
            if not (folder / name).exists():
                make_video(folder / name, *video)
            width, height, num_frames, *_ = video
            indices = even_indices(num_frames, NUM_FRAMES)
            times, wrong = {way: [] for way in WAYS}, {}
            for _ in range(arguments.rounds):
                for way, function in WAYS.items():
                    start = time.perf_counter()
                    frames = function(folder / name, indices)
                    times[way].append(time.perf_counter() - start)
                    wrong[way] = int((numbers_of(frames) != indices).sum())
            ours = statistics.median(times["activity"])
            print(f"\n{name} ({width}x{height}, {num_frames} frames)")
            for way, taken in times.items():
                median = statistics.median(taken)
                print(f"  {way:22} {1000 * median:8.0f} ms   {median / ours:5.2f} x ours   wrong frames: {wrong[way]}")
            peers = [way for way in WAYS if way != "activity" and not wrong[way]]
            fastest = min(peers, key=lambda way: statistics.median(times[way]))
            ratio = statistics.median(times[fastest]) / ours
            print(f"  to the fastest peer without wrong frames, {fastest}: {ratio:.2f} times as fast")
    packages = ["opencv-python-headless", "av", "decord", *(["torchcodec"] if VideoDecoder else [])]
    print("\n" + ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages))


if __name__ == "__main__":
    main()
