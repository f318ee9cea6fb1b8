import builtins
import ctypes
import shutil
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import keras
import numpy as np
import pytest
from packaging.requirements import Requirement

from activity._version import __version__
from activity.apps import doctor
from activity.apps.doctor import Check, examine, format_checks
from activity.errors import VideoError
from activity.models.backbones import BACKBONES, weights_dir
from activity.video.decoder import read_frames

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def checks() -> dict[str, Check]:
    found = examine()
    assert len({check.name for check in found}) == len(found)
    return {check.name: check for check in found}


def test_nothing_required_fails_here(checks):
    assert [str(check) for check in checks.values() if check.required and not check.ok] == []


def test_every_failed_check_has_a_remedy_of_one_line(checks):
    for check in checks.values():
        assert "\n" not in str(check)
        assert check.ok or check.remedy


def test_versions_are_those_installed(checks):
    assert checks["numpy"].found == np.__version__
    assert checks["keras"].found == keras.__version__
    assert checks["activity"].found.startswith(__version__)
    assert checks["backend of keras"].found == keras.backend.backend()


def test_codecs_that_every_installation_must_have(checks):
    for name in ("read h264", "read mpeg4", "write mp4v", "write FFV1"):
        assert checks[name].ok and checks[name].found == "4 of 4 frames"
    assert checks["read h264"].required and checks["read mpeg4"].required
    assert not checks["read av1"].required


# === Samples ===


@pytest.mark.parametrize("name", doctor.SAMPLES)
def test_samples_show_a_white_bar_that_steps_to_the_right(name):
    path = doctor.SAMPLES_DIR / name
    assert path.stat().st_size < 5000
    try:
        frames = read_frames(path).astype(int)
    except VideoError:
        if name.startswith(("h264", "mpeg4")):
            raise
        pytest.skip(f"this OpenCV has no decoder for {name}")
    assert frames.shape == (4, 48, 64, 3)
    for index, frame in enumerate(frames):
        green = frame[4:-4, :, 1].mean(0)  # (64,), only white has much of it
        bar = slice(16 * index, 16 * index + 8)
        assert green[bar].mean() > 200 and np.delete(green, bar).mean() < 60
    red, _, blue = frames[3, 24, 4]
    assert red > 180 and blue < 80  # RGB, not BGR


def test_all_samples_are_listed_and_explained():
    files = {path.name for path in doctor.SAMPLES_DIR.iterdir()}
    assert files == {*doctor.SAMPLES, "README.txt"}
    text = (doctor.SAMPLES_DIR / "README.txt").read_text()
    assert all(f"    {name} " in text for name in doctor.SAMPLES)


def test_a_damaged_h264_decoder_is_a_failure_and_a_missing_av1_decoder_a_note(tmp_path):
    for name in doctor.SAMPLES:
        shutil.copy(doctor.SAMPLES_DIR / name, tmp_path)
    for name in ("h264.mp4", "av1.mp4"):
        (tmp_path / name).write_bytes(b"no video")
    found = {check.name: str(check) for check in doctor.check_videos(samples_dir=tmp_path)}
    remedy = "0 of 4 frames -> re-encode such videos: ffmpeg -i IN -c:v libx264 OUT.mp4"
    assert found["read h264"].startswith("FAIL ") and found["read h264"].endswith(remedy)
    assert found["read av1"].startswith("note ") and found["read av1"].endswith(remedy)
    assert found["read mpeg4"].startswith("ok ")


def test_without_pyav_the_remedy_is_to_install_it(tmp_path, monkeypatch):
    for name in doctor.SAMPLES:
        (tmp_path / name).write_bytes(b"no video")
    monkeypatch.setattr("activity.video.pyav.is_installed", lambda: False)
    found = {check.name: str(check) for check in doctor.check_videos(samples_dir=tmp_path)}
    assert "pip install '.[video]' in the project's folder, or re-encode" in found["read av1"]


def test_a_missing_encoder_is_a_note():
    found = {check.name: str(check) for check in doctor.check_videos(writers={"FFV1": ".avi", "XXXX": ".mp4"})}
    assert found["write FFV1"].startswith("ok ")
    assert found["write XXXX"].startswith("note ") and "0 of 4 frames -> do not write .mp4" in found["write XXXX"]


# === Packages ===


def test_python_is_that_of_the_project():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.10,<3.14"  # what the first check says


def test_all_that_is_required_is_checked(checks):
    required = map(Requirement, metadata.requires("activity"))
    assert {requirement.name for requirement in required if requirement.marker is None} <= set(checks)


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        ("numpy>=1,<99", Check("numpy", True, np.__version__, "pip install 'numpy<99,>=1'")),
        ("numpy<1", Check("numpy", False, f"{np.__version__}, expected <1", "pip install 'numpy<1'")),
        ("no-such-thing>=2", Check("no-such-thing", False, "not installed", "pip install 'no-such-thing>=2'")),
    ],
)
def test_package(requirement, expected):
    assert doctor.check_package(Requirement(requirement)) == expected


def test_a_package_that_cannot_be_imported_is_named_with_its_reason(monkeypatch):
    def cannot_load(name):
        raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr(doctor.importlib, "import_module", cannot_load)
    check = doctor.check_package(Requirement("opencv-python-headless"))
    assert not check.ok and "cannot be imported: ImportError: libGL.so.1" in check.found
    assert check.remedy.startswith("install what it names")


def test_ranges_come_from_the_installed_metadata(monkeypatch):
    monkeypatch.setattr(metadata, "distributions", lambda name: [name])
    monkeypatch.setattr(metadata, "requires", lambda name: ["numpy<1", 'pytest<1; extra == "test"'])
    found = {check.name: check for check in doctor.check_packages()}
    assert found["activity"].found == __version__
    assert found["numpy"].found == f"{np.__version__}, expected <1"
    assert "pytest" not in found


def test_a_runtime_that_is_not_installed_is_a_note():
    found = {check.name: check for check in doctor.check_packages(runtimes=["no-such-runtime"])}
    assert str(found["no-such-runtime"]).startswith("note  no-such-runtime")
    assert "not installed -> pip install 'no-such-runtime'" in str(found["no-such-runtime"])


def test_source_folder_that_is_not_installed_is_a_note(monkeypatch):
    monkeypatch.setattr(metadata, "distributions", lambda name: [])
    found = {check.name: check for check in doctor.check_packages()}
    assert str(found["activity"]).startswith("note  activity") and "not installed" in found["activity"].found
    assert "numpy" not in found and "openvino" in found


def test_a_library_that_cannot_be_imported_does_not_end_the_examination(monkeypatch):
    real_import = builtins.__import__

    def without_cv2(name, *args, **kwargs):
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open\nshared object file")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_cv2)
    found = {check.name: check for check in examine()}
    assert found["opencv"].found == "ImportError: libGL.so.1: cannot open shared object file"
    assert found["opencv"].required and not found["opencv"].ok and found["opencv"].remedy
    assert "weights" in found and "disk here" in found


# === GPU ===


def gpu_check(expect_gpu: bool, **options) -> Check:
    return list(doctor.check_gpu(expect_gpu, **options))[-1]


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr("activity.models.devices.gpu_names", lambda: [])


@pytest.fixture
def with_driver(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_missing_gpu_fails_only_where_one_was_expected(no_gpu):
    note, failure = gpu_check(False), gpu_check(True)
    assert str(note).startswith("note  gpu ") and str(failure).startswith("FAIL  gpu ")
    assert note.found == failure.found and note.found.startswith("none, the CPU computes: ")
    assert any(check.required and not check.ok for check in examine(expect_gpu=True))


def test_no_gpu_because_there_is_no_driver(no_gpu, monkeypatch):
    def no_driver(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", no_driver)
    check = gpu_check(True)
    assert "no NVIDIA driver" in check.found and "docker run --gpus all" in check.remedy


@pytest.mark.parametrize("value", ["", "-1"])
def test_no_gpu_because_it_is_hidden(no_gpu, with_driver, monkeypatch, value):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert gpu_check(True).remedy == "unset CUDA_VISIBLE_DEVICES"


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="asks TensorFlow how it was built")
@pytest.mark.parametrize(("built", "cause"), [(False, "built without CUDA"), (True, "no CUDA libraries that fit")])
def test_no_gpu_because_tensorflow_lacks_cuda(no_gpu, with_driver, monkeypatch, built, cause):
    import tensorflow as tf

    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: built)
    check = gpu_check(True)
    assert cause in check.found and "pip install '.[gpu]' in the project's folder" in check.remedy


@pytest.fixture
def one_gpu(monkeypatch):
    monkeypatch.setattr("activity.models.devices.gpu_names", lambda: ["Pretend GPU"])


def test_a_gpu_that_computes(one_gpu):
    assert gpu_check(True, compute=lambda device: "GPU:0") == Check(
        "gpu", True, "Pretend GPU, a convolution ran on GPU:0", doctor.CUDA_REMEDY
    )


def test_a_gpu_that_fails_is_a_failure_even_where_none_was_expected(one_gpu):
    def fail(device):
        raise RuntimeError("DNN library initialization failed.\nLook above")

    check = gpu_check(False, compute=fail)
    assert check.required and not check.ok
    assert check.found == "Pretend GPU, but it fails: RuntimeError: DNN library initialization failed. Look above"


def test_a_computation_that_falls_back_to_the_cpu_is_a_failure(one_gpu):
    check = gpu_check(False, compute=lambda device: doctor.convolve("cpu:0"))
    assert check.required and not check.ok and "ran on" in check.found and "cpu" in check.found.lower()


def test_a_wrong_result_is_noticed(monkeypatch):
    monkeypatch.setattr(keras.ops, "conv", lambda frames, kernel, **_: keras.ops.zeros((1, 14, 14, 8)))
    with pytest.raises(ArithmeticError, match="came out wrong"):
        doctor.convolve("cpu:0")


# === Files ===


def test_downloaded_weights_are_told_from_those_to_download(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    weights = next(check for check in doctor.check_files() if check.name == "weights")
    assert str(weights).startswith("note") and "none; downloaded on first use: vgg16, " in weights.found
    assert "--weights PATH" in weights.remedy and "--weights none" in weights.remedy
    weights_dir().mkdir()
    (weights_dir() / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_160_no_top.h5").touch()
    (weights_dir() / "mobilenet_2_5_224_tf_no_top.h5").touch()  # of another width
    weights = next(check for check in doctor.check_files() if check.name == "weights")
    assert weights.ok and f"in {weights_dir()}: mobilenet_v2; downloaded on first use: vgg16, " in weights.found


_QUICK_TO_BUILD = ("vgg16", "vgg19", "mobilenet", "mobilenet_v2", "mobilenet_v2_035")


@pytest.mark.parametrize(
    "name",
    [
        name if name in _QUICK_TO_BUILD else pytest.param(name, marks=pytest.mark.slow)
        for name, backbone in BACKBONES.items()
        if backbone.weights_file
    ],
)
def test_file_names_are_those_that_keras_downloads(name, monkeypatch):
    class Asked(Exception):
        pass

    def get_file(fname, *args, **kwargs):
        raise Asked(fname)

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", get_file)
    with pytest.raises(Asked) as asked:
        BACKBONES[name].build(keras.Input((224, 224, 3), dtype="uint8"), "imagenet")
    assert Path(str(asked.value)).match(BACKBONES[name].weights_file)


def test_little_room_is_a_note(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "not" / "made" / "yet"))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1.5e9))
    check = next(check for check in doctor.check_files() if check.name == "disk of the weights")
    assert str(check).startswith("note") and "1.5 GB free" in check.found and "2 GB or more" in check.remedy


def test_a_folder_that_cannot_be_written_to_is_a_note(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    check = next(check for check in doctor.check_files() if check.name == "disk here")
    assert str(check).startswith("note") and "cannot be written to" in check.found


# === The table ===


def test_format():
    table = format_checks(
        [
            Check("read h264", True, "4 of 4 frames", "not shown"),
            Check("read av1", False, "0 of 4 frames", "re-encode", required=False),
            Check("gpu", False, "none", "install the driver"),
        ]
    )
    assert table.splitlines() == [
        "ok    read h264  4 of 4 frames",
        "note  read av1   0 of 4 frames -> re-encode",
        "FAIL  gpu        none -> install the driver",
    ]


def test_importing_the_module_imports_nothing_heavy():
    heavy = {"keras", "cv2", "numpy", "tensorflow"}
    code = f"import sys, activity.apps.doctor; print(sorted({heavy} & set(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert output.stdout == "[]\n"
