import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from activity import files
from activity.errors import ActivityError
from activity.files import (
    DIGESTS_NAME,
    LOCK_NAME,
    atomic_file,
    atomic_path,
    check_output,
    collected_digests,
    csv_rows,
    digest_of,
    digest_of_file,
    foreign_in,
    forget_digests,
    is_intact,
    is_result,
    lock_folder,
    note_digests,
    note_results,
    noted_results,
    of_system,
    read_csv,
    remove_leftovers,
    remove_stale_results,
    short_name,
    write_csv,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# === Files that appear whole or not at all ===


def test_a_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "a.json"
    with atomic_file(path, "w") as file:
        file.write("new")
        assert not path.exists()
    assert path.read_text() == "new" and names(tmp_path) == ["a.json"]


def test_the_old_file_stays_if_the_block_fails(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), atomic_file(path) as file:
        file.write(b"new")
        raise KeyError
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a.bin"]


def test_a_temporary_path_has_the_same_endings(tmp_path):
    with atomic_path(tmp_path / "latest.weights.h5") as temporary:
        assert temporary.parent == tmp_path and temporary.name.startswith(".")
        assert temporary.suffixes[-2:] == [".weights", ".h5"]
        temporary.write_bytes(b"weights")
    assert names(tmp_path) == ["latest.weights.h5"]


def test_a_folder_replaces_a_folder(tmp_path):
    path = tmp_path / "graph"
    for content in ("old", "new"):
        with atomic_path(path) as temporary:
            (temporary / "parts").mkdir(parents=True)
            (temporary / "parts" / content).write_text(content)
    assert names(tmp_path) == ["graph"] and names(path / "parts") == ["new"]
    with pytest.raises(KeyError), atomic_path(path) as temporary:
        temporary.mkdir()
        raise KeyError
    with pytest.raises(OSError, match="graph"), atomic_file(path):  # a file does not
        pass
    assert names(tmp_path) == ["graph"] and names(path / "parts") == ["new"]


def test_what_a_killed_process_left_is_no_obstacle(tmp_path):
    with atomic_path(tmp_path / "graph") as temporary:
        temporary.mkdir()
    (temporary / "half").mkdir(parents=True)
    with atomic_path(tmp_path / "graph") as temporary:
        temporary.mkdir()
    assert names(tmp_path) == ["graph"] and not names(tmp_path / "graph")


def test_errors_name_the_file_that_was_asked_for(tmp_path):
    path = tmp_path / "absent" / "a.txt"
    with pytest.raises(FileNotFoundError) as info, atomic_file(path):
        pass
    assert of_system(info.value) == f"No such file or directory: {path}"
    with pytest.raises(OSError) as info, atomic_file(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device")
    assert of_system(info.value) == f"No space left on device: {tmp_path / 'a.txt'}"
    with pytest.raises(OSError) as info, atomic_file(tmp_path / "a.txt"):
        raise OSError(13, "Permission denied", "other.txt")
    assert of_system(info.value) == "Permission denied: other.txt"


# === What may be replaced ===


def refusal(path, *, overwrite=False, ours=lambda path: path.read_text().startswith("ours")):
    def foreign(path):
        return None if ours(path) else path

    try:
        check_output(path, overwrite=overwrite, foreign=foreign, what="a report")
    except ActivityError as error:
        return str(error)


def test_what_we_did_not_write_is_never_replaced(tmp_path):
    precious, report, link = tmp_path / "precious.avi", tmp_path / "report", tmp_path / "link"
    precious.write_text("film")
    report.write_text("ours")
    link.symlink_to(tmp_path / "nowhere" / "file")
    foreign = f"{precious}: exists and is not a report of ours, so it is not replaced; choose another name"
    assert refusal(precious) == refusal(precious, overwrite=True) == foreign
    assert refusal(report) == f"{report}: exists, a report of ours; replace it with --overwrite, or choose another name"
    assert refusal(report, overwrite=True) is None
    assert "not a report of ours" in refusal(link, overwrite=True, ours=Path.is_file)


def test_what_holds_nothing_may_be_written(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "new", tmp_path / "empty", Path(os.devnull), tmp_path / "new" / "deeper", None):
        assert refusal(path, ours=lambda _: False) is None
    (tmp_path / "file").touch()
    assert "expected a folder" in refusal(tmp_path / "file" / "new")


def test_results_are_known_again_as_long_as_nobody_changes_them(tmp_path):
    folder = tmp_path / "report"
    (folder / "inner").mkdir(parents=True)
    files = [folder / "a.csv", folder / "inner" / "b.bin"]
    for file in files:
        file.write_text("ours")
    assert not is_result(folder) and not is_result(files[0])
    note_results([folder])
    assert is_result(folder) and all(map(is_result, files))
    (folder / "notes.txt").write_text("of the user")
    assert not is_result(folder) and is_result(files[0])
    (folder / "notes.txt").unlink()
    files[0].write_text("ours, corrected by the user")
    assert not is_result(folder) and not is_result(files[0]) and is_result(files[1])
    assert not is_result(tmp_path / "none") and not is_result(Path("/dev/null"))


def test_stale_results_go_and_what_the_user_has_stays(tmp_path):
    for name in ("new.png", "stale.png", "changed.png"):
        (tmp_path / name).write_text(name)
    note_results([tmp_path])
    (tmp_path / "changed.png").write_text("of the user")
    (tmp_path / "notes.txt").write_text("of the user")
    remove_stale_results(tmp_path, [tmp_path / "new.png"])
    assert names(tmp_path) == [".digests.txt", "changed.png", "new.png", "notes.txt"]


def test_a_device_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_csv(pipe, ["a"], [{"a": 1}])
    assert os.read(reader, 99) == b"a\n1\n" and names(tmp_path) == ["pipe"]
    os.close(reader)


# === Digests ===


def test_digests_are_those_of_earlier_versions():
    value = [{"a": 1}, None, "é"]
    assert digest_of(value, size=8) == hashlib.blake2b(json.dumps(value).encode(), digest_size=8).hexdigest()
    assert digest_of(b"ab", memoryview(b"c"), size=4) == hashlib.blake2b(b"abc", digest_size=4).hexdigest()


def test_the_digest_of_a_file_is_that_of_its_content(tmp_path):
    content = os.urandom((1 << 20) + 7)
    (tmp_path / "a").write_bytes(content)
    assert digest_of_file(tmp_path / "a") == digest_of(content, size=8)


def write(path, content, **options):
    with atomic_file(path, sync=False, **options) as file:
        file.write(content)


def damage(path, at=0):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_file_that_is_damaged_is_not_intact(tmp_path):
    for name in ("a.npy", "b.npy"):
        write(tmp_path / name, os.urandom(9000), digest=True)
    assert names(tmp_path) == ["a.npy", "b.npy", DIGESTS_NAME]
    assert is_intact(tmp_path / "a.npy") and is_intact(tmp_path / "b.npy")
    for spoil in (
        lambda p: damage(p, 5000),
        lambda p: p.write_bytes(p.read_bytes()[:-1]),
        lambda p: p.write_bytes(b""),
    ):
        spoil(tmp_path / "a.npy")
        assert not is_intact(tmp_path / "a.npy") and is_intact(tmp_path / "b.npy")
        write(tmp_path / "a.npy", os.urandom(9000), digest=True)
        assert is_intact(tmp_path / "a.npy")
    with pytest.raises(FileNotFoundError):
        is_intact(tmp_path / "c.npy")


def test_digests_that_another_process_is_to_note_are_collected(tmp_path):
    with collected_digests() as digests:
        write(tmp_path / "a.npy", b"content", digest=True)
    assert digests == {tmp_path / "a.npy": digest_of(b"content", size=8)} and names(tmp_path) == ["a.npy"]
    note_digests(digests)
    assert (tmp_path / "digests.txt").read_text() == f"{digest_of(b'content', size=8)}  a.npy\n"
    (tmp_path / "a.npy").write_bytes(b"damaged")
    assert not is_intact(tmp_path / "a.npy")
    write(tmp_path / "a.npy", b"other", digest=True)  # noted here again
    assert is_intact(tmp_path / "a.npy")


def test_a_file_of_an_earlier_version_is_accepted_and_given_a_digest(tmp_path):
    write(tmp_path / "old.npy", b"old")
    assert names(tmp_path) == ["old.npy"]
    assert is_intact(tmp_path / "old.npy")
    damage(tmp_path / "old.npy")
    assert not is_intact(tmp_path / "old.npy")


def test_a_kill_between_the_digest_and_the_file_is_no_damage(tmp_path, monkeypatch):
    path = tmp_path / "latest.h5"
    write(path, b"one", digest=True)

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill)
        with pytest.raises(KeyboardInterrupt):
            write(path, b"two", digest=True)
    assert path.read_bytes() == b"one" and is_intact(path)
    write(path, b"two", digest=True)
    assert is_intact(path)


def test_a_folder_is_intact_if_all_its_files_are(tmp_path):
    def make():
        with atomic_path(tmp_path / "graph", digest=True) as temporary:
            (temporary / "parts").mkdir(parents=True)
            (temporary / "about.json").write_text("{}")
            (temporary / "parts" / "weights.bin").write_bytes(os.urandom(99))

    make()
    folder, weights = tmp_path / "graph", tmp_path / "graph" / "parts" / "weights.bin"
    assert is_intact(folder)
    for spoil in (damage, Path.unlink):
        spoil(weights)
        assert not is_intact(folder)
        make()
        assert is_intact(folder)


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_line_that_was_cut_costs_only_itself(tmp_path, cut):
    for name in ("a", "b"):
        write(tmp_path / name, name.encode(), digest=True)
    table = tmp_path / DIGESTS_NAME
    table.write_bytes(table.read_bytes()[:-cut])
    write(tmp_path / "c", b"c", digest=True)
    assert all(is_intact(tmp_path / name) for name in "abc")
    for name in "ac":
        damage(tmp_path / name)
        assert not is_intact(tmp_path / name)


def test_other_programs_can_check_the_table(tmp_path):
    if not shutil.which("b2sum"):
        pytest.skip("there is no b2sum here")
    write(tmp_path / "a b.npy", b"content", digest=True)
    command = ["b2sum", "-l", "64", "-c", DIGESTS_NAME]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0
    damage(tmp_path / "a b.npy")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 1


def test_digests_of_files_that_are_gone_are_forgotten(tmp_path):
    for name in "bcab":
        write(tmp_path / name, name.encode(), digest=True)
    forget_digests(tmp_path, ["a", "b", "x"])
    lines = (tmp_path / DIGESTS_NAME).read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["a", "b"]
    assert is_intact(tmp_path / "a") and is_intact(tmp_path / "b")
    damage(tmp_path / "b")
    assert not is_intact(tmp_path / "b")


def test_a_folder_that_cannot_be_written_can_be_checked(tmp_path, monkeypatch):
    write(tmp_path / "old", b"old")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "_note_digests", refuse)
    assert is_intact(tmp_path / "old")
    with pytest.raises(PermissionError):
        write(tmp_path / "new", b"new", digest=True)
    assert names(tmp_path) == ["old"]


# === Tables ===


def test_a_table_is_read_as_it_was_written(tmp_path):
    rows = [{"path": 'a,"b".avi', "label": "é\nx"}, {"path": "c.avi"}]
    write_csv(tmp_path / "t.csv", ["path", "label"], rows)
    assert read_csv(tmp_path / "t.csv") == [rows[0], {"path": "c.avi", "label": ""}]
    assert read_csv(tmp_path / "absent.csv") == []


@pytest.mark.parametrize("text", ["=1+1", "+cmd|x", "-x.avi", "@sum", "\tx", "'=x", "''@x"])
def test_text_that_a_spreadsheet_would_compute_is_only_text(tmp_path, text):
    write_csv(tmp_path / "t.csv", [text, "label"], [{text: "a", "label": text}])
    with csv_rows(tmp_path / "u.csv", "a") as write_row:
        write_row({"a": text})
    for name in ("t.csv", "u.csv"):
        for line in csv.reader((tmp_path / name).read_text().splitlines()):
            assert all(cell[0] not in "=+-@\t\r" for cell in line)
    assert read_csv(tmp_path / "t.csv") == [{text: "a", "label": text}]
    assert read_csv(tmp_path / "u.csv") == [{"a": text}]


@pytest.mark.parametrize("cell", [-1, -0.5, "-1.5", "+3", "-1e-9", "'quoted'", "a=b", "", None, Path("a")])
def test_numbers_and_other_text_are_written_as_they_are(tmp_path, cell):
    write_csv(tmp_path / "t.csv", ["a", "b"], [{"a": cell, "b": 1}])
    assert (tmp_path / "t.csv").read_text() == f"a,b\n{'' if cell is None else cell},1\n"


def test_a_name_that_is_too_long_is_shortened(tmp_path):
    assert short_name("a" * 200) == "a" * 200
    names = [short_name(f"{'ä' * 150}{i}{'.' * 99}.weights.h5") for i in range(2)]
    assert names[0] != names[1] and all(len(name.encode()) <= 200 and name.endswith(".weights.h5") for name in names)
    write_csv(tmp_path / f"{'x' * 250}.csv", ["a"], [{"a": 1}])
    with atomic_path(tmp_path / ("y" * 255)) as temporary:
        temporary.mkdir()
    with atomic_path(tmp_path / ("y" * 255)) as temporary:
        temporary.mkdir()


def test_a_row_is_there_as_soon_as_it_is_written(tmp_path):
    with csv_rows(tmp_path / "t.csv", "a,b") as write_row:
        write_row({"a": 1, "more": 2})
        assert (tmp_path / "t.csv").read_text() == "a,b\n1,\n"
    with csv_rows(None, "a,b") as write_row:
        write_row({"a": 1})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here is always full")
def test_where_no_row_can_be_written_the_work_is_done_and_the_file_is_named(caplog):
    done = []
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"), csv_rows(Path("/dev/full"), "a") as add:
        for i in range(3):
            add({"a": i})
            done.append(i)
    assert done == [0, 1, 2] and caplog.text.count("/dev/full") == 1


# === One command at a time ===

_HOLD = """
import sys
from pathlib import Path
from activity.files import lock_folder
with lock_folder(Path(sys.argv[1]), "preprocess"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def hold():
    """Hold the lock of a folder in another process."""
    processes = []

    def start(folder):
        command = [sys.executable, "-c", _HOLD, str(folder)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_the_second_command_is_told_who_writes_the_folder(tmp_path, hold):
    folder = tmp_path / "dataset"
    process = hold(folder)
    message = rf"dataset: in use by another command \(preprocess, process {process.pid}\); wait until it ends"
    for _ in range(2):
        with pytest.raises(ActivityError, match=message), lock_folder(folder, "train"):
            pass
    process.communicate("\n")
    assert not folder.exists()  # nothing was written there
    with lock_folder(folder, "train"):
        assert names(folder) == [LOCK_NAME]
        (folder / "a").touch()
    assert names(folder) == ["a"]


def test_a_killed_command_holds_nothing(tmp_path, hold):
    process = hold(tmp_path)
    process.kill()
    process.wait()
    assert names(tmp_path) == [LOCK_NAME]
    with lock_folder(tmp_path, "preprocess"):
        assert str(os.getpid()) in (tmp_path / LOCK_NAME).read_text()
    assert names(tmp_path) == []


def test_one_process_cannot_lock_a_folder_twice(tmp_path):
    with (
        lock_folder(tmp_path, "train"),
        pytest.raises(ActivityError, match="in use by another command"),
        lock_folder(tmp_path, "tune"),
    ):
        pass


def test_a_lock_holds_on_a_full_disk_too(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", fail)
    with lock_folder(tmp_path / "new", "train"), pytest.raises(ActivityError), lock_folder(tmp_path / "new", "train"):
        pass
    assert names(tmp_path) == []


def test_an_error_ends_the_lock(tmp_path):
    with pytest.raises(KeyError), lock_folder(tmp_path, "train"):
        raise KeyError
    assert names(tmp_path) == []


def test_where_no_lock_is_possible_the_block_runs_without(tmp_path):
    (tmp_path / "file").write_text("")
    with lock_folder(tmp_path / "file", "train"):
        pass
    if Path("/sys/kernel").is_dir():  # where not even root can make a file
        with lock_folder(Path("/sys/kernel"), "train"):
            assert not Path("/sys/kernel", LOCK_NAME).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be asked for there")
def test_temporary_files_of_killed_processes_are_removed_and_others_stay(tmp_path):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    killed = tmp_path / f".tmp-{done.stdout.strip()}-a.csv"
    stay = [tmp_path / f".tmp-{os.getpid()}-a.csv", tmp_path / ".tmp-of-the-user", tmp_path / "a.csv"]
    for path in (killed, *stay):
        path.touch()
    killed_folder = tmp_path / f".tmp-{done.stdout.strip()}-made"
    killed_folder.mkdir()
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(stay)


def test_a_table_that_could_not_be_finished_is_known_by_its_first_line(tmp_path, monkeypatch):
    table = tmp_path / "a.csv"
    with monkeypatch.context() as killed:
        killed.setattr("activity.files.note_results", lambda _: None)
        with csv_rows(table, "source,label") as write_row:
            write_row({"source": "a.avi", "label": "run"})
    assert is_result(table)
    table.write_text("of the user\n")
    assert not is_result(table)
    with csv_rows(table, "source,label"):
        pass
    table.write_text("source,label\ncorrected,by the user\n")
    with csv_rows(tmp_path / "b.csv", "source,label") as write_row:
        write_row({"source": "a.avi", "label": "run"})
    assert is_result(tmp_path / "b.csv")
    (tmp_path / "b.csv").write_text("source,label\ncorrected,by the user\n")
    assert not is_result(tmp_path / "b.csv")


def test_where_a_whole_folder_is_replaced_hidden_files_and_empty_folders_count(tmp_path):
    with noted_results(), atomic_path(tmp_path / "saved") as temporary:
        (temporary / "assets").mkdir(parents=True)
        (temporary / "graph.pb").write_text("ours")
    saved = tmp_path / "saved"
    (saved / ".lock").touch()
    assert foreign_in(saved, hidden=True) is None
    for mine in (saved / ".env", saved / "assets" / "mine.txt"):
        mine.touch()
        assert foreign_in(saved, hidden=True) == mine
        mine.unlink()
    (saved / "empty").mkdir()
    assert foreign_in(saved, hidden=True) == saved / "empty" and foreign_in(saved) is None
