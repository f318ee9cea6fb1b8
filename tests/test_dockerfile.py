"""What must hold of the Dockerfile, read as text: there is no need for Docker to find a missing file or a root user."""

import fnmatch
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def _instructions() -> list[tuple[str, str]]:
    """`(INSTRUCTION, rest)` in order, comments dropped and continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    parts = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(part[0], " ".join(part[1].split())) for part in parts]


INSTRUCTIONS = _instructions()
NAMES = [name for name, _ in INSTRUCTIONS]


def _all(wanted: str) -> list[str]:
    return [rest for name, rest in INSTRUCTIONS if name == wanted]


def _environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in _all("ENV") for pair in shlex.split(rest))


def _copied() -> list[str]:
    return [source for rest in _all("COPY") for source in rest.split()[:-1]]


def _allowed_by_dockerignore(path: str) -> bool:
    allowed = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            if fnmatch.fnmatch(path, pattern.removeprefix("!")):
                allowed = pattern.startswith("!")  # the last line that matches decides
    return allowed


def test_base_image_is_a_slim_python_that_the_project_supports():
    (base,) = _all("FROM")
    minor = re.fullmatch(r"python:3\.(\d+)-slim", base)
    assert minor and 10 <= int(minor[1]) <= 13


def test_copied_files_exist_and_are_not_ignored():
    assert _copied() == ["pyproject.toml", "README.md", "LICENSE", "activity"]
    for source in _copied():
        assert (ROOT / source).exists(), f"{source} is copied into the image, but the project has no such file"
        assert _allowed_by_dockerignore(source), f".dockerignore hides {source}"


@pytest.mark.parametrize("path", [".git", "data", "tests", "notebooks", "videos", "model.keras", ".venv"])
def test_nothing_else_is_sent_to_the_build(path):
    assert not _allowed_by_dockerignore(path)


def test_the_extra_is_the_gpu_one_and_exists():
    assert _all("ARG") == ["EXTRA=gpu"]
    assert 'pip install ".${EXTRA:+[$EXTRA]}"' in " ".join(_all("RUN"))
    extras = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    assert 'gpu = ["tensorflow[and-cuda]' in extras


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a POSIX shell")
@pytest.mark.parametrize(("extra", "expected"), [("gpu", ".[gpu]"), ("", ".")])
def test_the_shell_makes_of_the_extra_what_pip_understands(extra, expected):
    command = ["sh", "-c", 'printf %s ".${EXTRA:+[$EXTRA]}"']
    assert subprocess.run(command, env={"EXTRA": extra}, capture_output=True, text=True).stdout == expected


def test_dependencies_are_installed_before_the_source_is_copied():
    install = next(i for i, (_, rest) in enumerate(INSTRUCTIONS) if "pip install" in rest)
    source = INSTRUCTIONS.index(("COPY", "activity activity"))
    assert install < source
    assert [rest for name, rest in INSTRUCTIONS[:install] if name == "COPY"] == ["pyproject.toml ./"]
    assert "--no-deps" in INSTRUCTIONS[source + 1][1]  # the second install must not fetch them again


def test_it_runs_as_a_numbered_user_who_is_not_root():
    (user,) = _all("USER")
    uid, _, gid = user.partition(":")
    assert int(uid) > 0 and int(gid) > 0
    assert f"useradd --uid {uid} " in " ".join(_all("RUN"))
    assert NAMES.index("USER") < NAMES.index("ENTRYPOINT")


def test_what_any_user_must_write_to_is_open():
    opened = re.search(r"chmod 1777 ([^&]*)", " ".join(_all("RUN")))
    assert opened is not None
    environment, folders = _environment(), opened[1].split()
    (volumes,) = map(json.loads, _all("VOLUME"))
    assert {*volumes, environment["HOME"], environment["KERAS_HOME"]} <= set(folders)
    assert environment["KERAS_HOME"] in volumes  # weights outlive the container
    assert environment["MPLCONFIGDIR"].startswith("/tmp/")
    assert _all("WORKDIR")[-1] in volumes


def test_the_container_is_the_command():
    assert [json.loads(rest) for rest in _all("ENTRYPOINT")] == [["activity"]]
    assert [json.loads(rest) for rest in _all("CMD")] == [["--help"]]
    assert 'activity = "activity.__main__:' in (ROOT / "pyproject.toml").read_text()


def test_cuda_wheels_are_known_to_the_loader():
    register = next(rest for rest in _all("RUN") if "ldconfig" in rest)
    assert "'*-packages/nvidia/*/lib'" in register and "> /etc/ld.so.conf.d/" in register
    assert NAMES.index("USER") > INSTRUCTIONS.index(("RUN", register))


def test_gpu_is_asked_for_also_where_only_the_environment_says_so():
    environment = _environment()
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert set(environment["NVIDIA_DRIVER_CAPABILITIES"].split(",")) == {"compute", "utility"}


def test_the_build_ends_with_a_check_as_the_final_user_that_leaves_nothing():
    check = next(rest for rest in _all("RUN") if "activity doctor" in rest)
    assert INSTRUCTIONS.index(("RUN", check)) > NAMES.index("USER")
    assert check.endswith("&& rm -rf /tmp/check")
