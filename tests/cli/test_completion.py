import shlex
import shutil
import subprocess
import sys

import pytest


class TestCompletion:
    @pytest.fixture(scope="class")
    @staticmethod
    def complete(tmp_path_factory):
        """What bash offers for a line that was begun."""
        if not shutil.which("bash"):
            pytest.skip("there is no bash")
        folder = tmp_path_factory.mktemp("completion")
        (folder / "clip one.mp4").touch()
        (folder / "model.keras").touch()
        script = subprocess.run(
            [sys.executable, "-m", "activity", "completion", "bash"], capture_output=True, text=True, check=True
        ).stdout

        def offer(line):
            words = line.split(" ")
            program = (
                f"{script}\nCOMP_WORDS=({' '.join(shlex.quote(word) for word in words)})\nCOMP_CWORD={len(words) - 1}\n"
                '_shtab_activity\nprintf "%s\\n" "${COMPREPLY[@]}"'
            )
            done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, cwd=folder, check=True)
            return done.stdout.splitlines()

        return offer

    def test_of_commands(self, complete):
        assert complete("activity cl") == ["classify"]

    def test_of_options(self, complete):
        assert complete("activity classify --ann") == ["--annotate"]

    def test_of_choices(self, complete):
        assert complete("activity train --head bi") == ["bidirectional"]
        assert complete("activity train --merge-mode x") == [""]

    def test_of_files(self, complete):
        assert complete("activity classify mod") == ["model.keras"]
