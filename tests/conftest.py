"""Tiny truth: lossless videos whose frames say which they are; and the real clips, where they are at hand."""

import contextlib
import dataclasses
import http.server
import os
import random
import re
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from activity.config import ClipSpec, TrainConfig
from activity.datasets.dataset import Dataset, stack_path, stream_dir
from activity.datasets.samples import Sample
from activity.video.writer import write_video

# What even the machine of `.ci/run`, which sets ACTIVITY_CI, need not have. There any other skip is a failure: a
# browser, a codec library or an extra that could not be installed must not turn its tests off in silence.
_MAY_SKIP = re.compile(
    "ACTIVITY_TEST_DATA does not name"
    "|KERAS_HOME holds no weights|the weights are already here"
    "|there is a GPU here|there is no GPU|this CPU does not compute in bfloat16"
    "|this OpenCV has no decoder for av1|Python 3.10 has no TOML reader"
    "|this file system|not a git checkout"
)


def _fail_where_nothing_may_be_missing(report):
    if not os.environ.get("ACTIVITY_CI") or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2].removeprefix("Skipped: ")
    if not _MAY_SKIP.match(reason):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} would be skipped, which ACTIVITY_CI forbids: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    _fail_where_nothing_may_be_missing(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():  # of a module that skips itself
    report = yield
    _fail_where_nothing_may_be_missing(report)
    return report


@pytest.fixture(autouse=True)
def keep_global_random_state():
    """A test that seeds or draws must not change what the next one sees."""
    states = random.getstate(), np.random.get_state()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])


@pytest.fixture
def write_counting_video(tmp_path):
    """A function that writes a video of plain frames: red is the frame's index, green counts down, blue is 7."""

    def write(name, num_frames, *, height=16, width=16, frames_per_second=10.0):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colours = (np.array([index, 255 - index, 7], np.uint8) for index in range(num_frames))
        frames = (np.broadcast_to(colour, (height, width, 3)) for colour in colours)
        write_video(path, frames, frames_per_second=frames_per_second)
        return path

    return write


@pytest.fixture(scope="session")
def real_data():
    """The folder of real clips that `ACTIVITY_TEST_DATA` names."""
    folder = os.environ.get("ACTIVITY_TEST_DATA")
    if not folder:
        pytest.skip("ACTIVITY_TEST_DATA does not name a folder of real clips")
    return Path(folder)


NOISE_SPEC = ClipSpec(num_frames=4, height=16, width=16, frames_per_second=10, streams=("rgb", "motion"))
NOISE_LENGTHS = {"a": 5, "b": 40, "c": 32, "d": 1, "e": 70}  # batches of 32 frames end inside stacks and between them


@pytest.fixture
def dataset(tmp_path):
    """A data set folder of stacks of noise."""
    rng = np.random.default_rng(0)
    samples = []
    for stream in NOISE_SPEC.streams:
        stream_dir(tmp_path, stream).mkdir()
    for id_, length in NOISE_LENGTHS.items():
        for stream in NOISE_SPEC.streams:
            np.save(stack_path(tmp_path, id_, stream), rng.integers(0, 256, (length, 16, 16, 3), dtype=np.uint8))
        samples.append(Sample(sample_id=id_, path=f"{id_}.avi", label="run", group=id_, split="train"))
    return Dataset(tmp_path, tmp_path / "videos", NOISE_SPEC, samples, [])


@contextlib.contextmanager
def _jpeg_server(
    *connections, seconds_per_frame=0.02, level=lambda index: 10 + 5 * index % 240, damaged=lambda _: False
):
    """A camera as they hang in the street: one JPEG after the other by HTTP, so many to each who connects."""
    coming = iter(connections)

    class Camera(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            num_frames = next(coming, None)
            if num_frames is None:
                self.send_error(503)
                return
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for index in range(num_frames):
                image = np.full((48, 64, 3), level(index), np.uint8)
                jpeg = cv2.imencode(".jpg", image)[1].tobytes()
                jpeg = jpeg[:50] + bytes(len(jpeg) - 50) if damaged(index) else jpeg
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                try:
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                except OSError:
                    return
                time.sleep(seconds_per_frame)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://user:secret@127.0.0.1:{server.server_address[1]}/video"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def jpeg_server():
    """A function that serves images on loopback while its block lasts, and gives the URL."""
    return _jpeg_server


LABELS = ("brightens", "darkens")  # each is the other played backwards: only the order of frames tells them apart
SPEC = ClipSpec(num_frames=6, height=32, width=32, streams=("rgb", "motion"))


@pytest.fixture(scope="session")
def ramp_videos(tmp_path_factory):
    """A folder of 32 lossless videos that grow brighter or darker, 4 to 9 frames, by 8 people, with a manifest."""
    videos_dir = tmp_path_factory.mktemp("ramps")
    rows = ["path,label,group,camera"]
    rng = np.random.default_rng(0)
    for person in range(8):
        for take in range(2):
            for label in LABELS:
                ramp = np.linspace(40 + 5 * person, 200 - 5 * take, 4 + (person + take) % 6)
                ramp = ramp if label == "brightens" else ramp[::-1]
                noise = rng.integers(0, 20, (len(ramp), 24, 24, 3))
                frames = (ramp[:, None, None, None] + noise).astype(np.uint8)
                path = f"{label}/p{person}_{take}.avi"
                (videos_dir / label).mkdir(exist_ok=True)
                write_video(videos_dir / path, frames, frames_per_second=10)
                rows.append(f"{path},{label},person{person},{'left' if person < 4 else 'right'}")
    (videos_dir / "manifest.csv").write_text("\n".join(rows) + "\n")
    return videos_dir


@pytest.fixture(scope="session")
def ramp_dataset(ramp_videos, tmp_path_factory):
    """The data set of `ramp_videos`."""
    from activity.datasets.preprocessing import preprocess

    return preprocess(ramp_videos, tmp_path_factory.mktemp("ramp_dataset"), SPEC, num_workers=1)


@pytest.fixture(scope="session")
def cnn_weights(tmp_path_factory):
    """A weights file of `small_cnn` for 32x32: with it, the backbone counts as pretrained and stays frozen."""
    import keras

    from activity.models.backbones import build_backbone

    keras.utils.set_random_seed(1)
    path = tmp_path_factory.mktemp("weights") / "small_cnn.weights.h5"
    build_backbone("small_cnn", height=32, width=32, weights="none").save_weights(path)
    return path


@pytest.fixture(scope="session")
def frozen_config(cnn_weights):
    """A recipe that learns the ramps in seconds, on a frozen backbone; the val split stays one."""
    return TrainConfig(
        backbone="small_cnn",
        weights=str(cnn_weights),
        head="lstm",
        stack=False,
        val_split=True,
        units=16,
        members=1,
        dropout=0.1,
        epochs=20,
        learning_rate=1e-2,
    )


@pytest.fixture(scope="session")
def ramp_run(ramp_dataset, frozen_config, tmp_path_factory):
    """A finished training run on the ramps."""
    from activity.training.trainer import train

    return train(ramp_dataset, frozen_config, work_dir=tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def ramp_model(ramp_run, tmp_path_factory):
    """Its model file."""
    from activity.models.saving import save_model

    return save_model(ramp_run.classifier, tmp_path_factory.mktemp("model") / "ramps.keras")


@pytest.fixture(scope="session")
def ramp_features(ramp_dataset, tmp_path_factory):
    """A folder with a feature file for each video of the ramps: 5 numbers for each frame, made of its brightness."""
    features_dir = tmp_path_factory.mktemp("features")
    for sample in ramp_dataset.samples:
        levels = ramp_dataset.frames(sample).mean(axis=(1, 2, 3)) / 255  # (N,)
        path = (features_dir / sample.path).with_suffix(".npy")
        path.parent.mkdir(exist_ok=True)
        np.save(path, np.stack([levels**power for power in range(5)], axis=1).astype(np.float16))
    return features_dir


@pytest.fixture(scope="session")
def feature_config(frozen_config, ramp_features):
    """The same recipe on their feature files, which need no backbone."""
    return dataclasses.replace(frozen_config, features=str(ramp_features), backbone=TrainConfig.backbone, weights=None)


@pytest.fixture(scope="session")
def feature_run(ramp_dataset, feature_config, tmp_path_factory):
    """A finished training run on these feature files."""
    from activity.training.trainer import train

    return train(ramp_dataset, feature_config, work_dir=tmp_path_factory.mktemp("feature_run"))


@pytest.fixture(scope="session")
def feature_model(feature_run, tmp_path_factory):
    """Its model file."""
    from activity.models.saving import save_model

    return save_model(feature_run.classifier, tmp_path_factory.mktemp("feature_model") / "features.keras")


@pytest.fixture(scope="session")
def film_videos(tmp_path_factory):
    """A folder of 8 films of 4 people, each of 4 ramps of 0.9 to 1.4 s, and the manifest of these segments.

    0.2 s before the third ramp of each film are grey and have no label. Films 0 and 1 of a person are of one group.
    """
    videos_dir = tmp_path_factory.mktemp("films")
    rows = ["path,label,group,split,start_seconds,end_seconds"]
    rng = np.random.default_rng(0)
    for number in range(8):
        levels, split = [], "test" if number < 4 else "train"
        for part in range(4):
            label, ramp = LABELS[(number + part + part // 2) % 2], np.linspace(40, 200, rng.integers(9, 15))
            levels += [120.0] * (2 * (part == 2))
            start = len(levels)
            levels += [*(ramp if label == "brightens" else ramp[::-1])]
            rows.append(f"film_{number}.avi,{label},person{number // 2},{split},{start / 10},{len(levels) / 10}")
        noise = rng.integers(0, 20, (len(levels), 24, 24, 3))
        frames = (np.array(levels)[:, None, None, None] + noise).astype(np.uint8)
        write_video(videos_dir / f"film_{number}.avi", frames, frames_per_second=10)
    (videos_dir / "manifest.csv").write_text("\n".join(rows) + "\n")
    return videos_dir


@pytest.fixture(scope="session")
def film_dataset(film_videos, tmp_path_factory):
    """The data set of the segments of these films."""
    from activity.datasets.preprocessing import preprocess

    return preprocess(film_videos, tmp_path_factory.mktemp("film_dataset"), SPEC, num_workers=1)


CAPTIONS = {  # of the ramps: two references each
    "brightens": ("the room gets brighter", "it gets brighter"),
    "darkens": ("the room gets darker", "it gets darker"),
}


@pytest.fixture(scope="session")
def captioned_dataset(ramp_videos, tmp_path_factory):
    """The data set of the ramps with captions in place of labels."""
    from activity.datasets.preprocessing import preprocess

    rows = (ramp_videos / "manifest.csv").read_text().splitlines()[1:]
    fields = [row.split(",") for row in rows]
    lines = [f"{path},{group},{caption}" for path, label, group, _ in fields for caption in CAPTIONS[label]]
    manifest = ramp_videos / "captions.csv"
    manifest.write_text("\n".join(["path,group,caption", *lines, ""]))
    return preprocess(manifest, tmp_path_factory.mktemp("captioned_dataset"), SPEC, num_workers=1)


@pytest.fixture(scope="session")
def caption_config(cnn_weights):
    """A recipe that learns these captions in seconds, on a frozen backbone."""
    return TrainConfig(
        task="describe",
        backbone="small_cnn",
        weights=str(cnn_weights),
        units=16,
        members=1,
        dropout=0.1,
        decoder_units=24,
        max_words=6,
        epochs=40,
        learning_rate=1e-2,
    )


@pytest.fixture(scope="session")
def caption_run(captioned_dataset, caption_config, tmp_path_factory):
    """A finished training run on them."""
    from activity.training.captioning import train_captioner

    return train_captioner(captioned_dataset, caption_config, work_dir=tmp_path_factory.mktemp("caption_run"))


@pytest.fixture(scope="session")
def caption_model(caption_run, tmp_path_factory):
    """Its model file."""
    from activity.models.saving import save_model

    return save_model(caption_run.model, tmp_path_factory.mktemp("caption_model") / "captioner.keras")


LAMP_SPEC = ClipSpec(num_frames=8, height=32, width=32, frames_per_second=5.0, streams=("rgb",))


def draw_lamps(videos_dir, films):
    """Films of 10 frames a second in which a left and a right lamp are lit, and their manifest.

    `films` gives the rows `(label, start, end)` of each; a lamp is lit where its label is `left` or `right`.
    """
    videos_dir.mkdir(exist_ok=True)
    rng, lines = np.random.default_rng(0), ["path,label,group,split,start_seconds,end_seconds"]
    for number, (segments, seconds) in enumerate(films):
        frames = rng.integers(0, 40, (int(seconds * 10), 32, 32, 3)).astype(np.uint8)
        for label, start, end in segments:
            side = slice(0, 16) if label == "left" else slice(16, 32)
            if label:
                frames[int(start * 10) : int(end * 10), :, side] += np.uint8(180)
            split = "test" if number % 4 == 3 else "train"
            lines.append(f"film{number}.avi,{label},person{number},{split},{start},{end}")
        write_video(videos_dir / f"film{number}.avi", frames, frames_per_second=10)
    (videos_dir / "manifest.csv").write_text("\n".join(lines) + "\n")
    return videos_dir


@pytest.fixture(scope="session")
def lamp_videos(tmp_path_factory):
    """Eight films of lamps that are lit one after the other, with dark stretches between some."""
    rng, films = np.random.default_rng(1), []
    for _ in range(8):
        segments, time = [], 0.6
        for i in range(6):
            length = float(rng.integers(8, 16)) / 10
            segments.append((("left", "right")[i % 2], round(time, 1), round(time + length, 1)))
            time += length + float(rng.integers(0, 2)) * 1.2
        films.append((segments, round(time + 0.6, 1)))
    return draw_lamps(tmp_path_factory.mktemp("lamps"), films)


@pytest.fixture(scope="session")
def lamp_dataset(lamp_videos, tmp_path_factory):
    """The data set of `lamp_videos`."""
    from activity.datasets.preprocessing import preprocess

    return preprocess(lamp_videos, tmp_path_factory.mktemp("lamp_dataset"), LAMP_SPEC, num_workers=1)


@pytest.fixture(scope="session")
def step_config(frozen_config):
    """A recipe that learns the lamps in seconds, with the dark as background."""
    return dataclasses.replace(
        frozen_config, labels_per="step", background=True, head="lstm_forward", val_split=False, epochs=60
    )


@pytest.fixture(scope="session")
def lamp_run(lamp_dataset, step_config, tmp_path_factory):
    """A finished training run on them, of a model that carries its state on."""
    from activity.training.trainer import train

    return train(lamp_dataset, step_config, work_dir=tmp_path_factory.mktemp("lamp_run"))


@pytest.fixture(scope="session")
def lamp_model(lamp_run, tmp_path_factory):
    """Its model file."""
    from activity.models.saving import save_model

    return save_model(lamp_run.classifier, tmp_path_factory.mktemp("lamp_model") / "lamps.keras")
