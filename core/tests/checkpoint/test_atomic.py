"""Directories and files that are complete or absent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from anyblock.checkpoint import atomic_directory, write_bytes_atomic, write_json_atomic
from anyblock.checkpoint.space import readable, require_space
from anyblock.checkpoint.tempfiles import lock, temporary_name
from anyblock.errors import ExecutionError, InputError, OutputExistsError


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


class TestDirectory:
    def test_appears_at_the_end(self, tmp_path: Path) -> None:
        target = tmp_path / "new" / "out"
        with atomic_directory(target) as work:
            assert work.parent == target.parent
            assert work.name.startswith(f".out.tmp-{os.getpid()}-")
            (work / "sub").mkdir()
            (work / "sub" / "a").write_text("a")
            assert not target.exists()
        assert names(target.parent) == ["out"]
        assert (target / "sub" / "a").read_text() == "a"

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
    def test_nothing_remains_after_an_error(self, tmp_path: Path, error: type[BaseException]) -> None:
        def fail() -> None:
            with atomic_directory(tmp_path / "out") as work:
                (work / "a").write_text("a")
                raise error

        with pytest.raises(error):
            fail()
        assert names(tmp_path) == []

    def test_an_existing_one_is_kept(self, tmp_path: Path) -> None:
        target = tmp_path / "out"
        target.mkdir()
        (target / "old").write_text("old")
        entered = False
        with pytest.raises(OutputExistsError, match="overwrite"), atomic_directory(target):
            entered = True
        assert not entered
        assert names(target) == ["old"]

    def test_overwriting_replaces_it_at_the_end(self, tmp_path: Path) -> None:
        target = tmp_path / "out"
        target.mkdir()
        (target / "old").write_text("old")
        with atomic_directory(target, overwrite=True) as work:
            (work / "new").write_text("new")
            assert names(target) == ["old"]
        assert names(target) == ["new"]
        assert names(tmp_path) == ["out"]

    def test_overwriting_keeps_the_old_one_after_an_error(self, tmp_path: Path) -> None:
        target = tmp_path / "out"
        target.mkdir()
        (target / "old").write_text("old")
        with pytest.raises(ValueError), atomic_directory(target, overwrite=True):
            raise ValueError
        assert names(target) == ["old"]
        assert names(tmp_path) == ["out"]

    def test_one_that_appears_meanwhile_is_kept(self, tmp_path: Path) -> None:
        target = tmp_path / "out"

        def be_late() -> None:
            with atomic_directory(target):
                target.mkdir()
                (target / "theirs").write_text("x")

        with pytest.raises(OutputExistsError, match="appeared"):
            be_late()
        assert names(target) == ["theirs"]
        assert names(tmp_path) == ["out"]

    def test_a_file_is_not_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("x")
        for overwrite in (False, True):
            with pytest.raises(OutputExistsError, match="not a directory"):  # noqa: SIM117
                with atomic_directory(tmp_path / "out", overwrite=overwrite):
                    pass

    def test_inputs_are_safe(self, tmp_path: Path) -> None:
        source = tmp_path / "model"
        (source / "sub").mkdir(parents=True)
        (tmp_path / "link").symlink_to(source)
        for name in ("model", "model/out", "model/sub/out", "", "link", "link/x"):
            target = tmp_path / name
            with pytest.raises(InputError, match="overlaps the input"):  # noqa: SIM117
                with atomic_directory(target, overwrite=True, sources=[source]):
                    pass
        assert names(tmp_path) == ["link", "model"]

    def test_home_and_current_directory_are_safe(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("home", "work"):
            (tmp_path / name / "sub").mkdir(parents=True)
        monkeypatch.setenv("HOME", str(tmp_path / "home" / "sub"))
        monkeypatch.chdir(tmp_path / "work")
        for target in (tmp_path / "home", tmp_path / "home" / "sub", tmp_path / "work", Path(), Path("/")):
            with pytest.raises(InputError), atomic_directory(target, overwrite=True):
                pass
        assert (tmp_path / "home" / "sub").is_dir()

    def test_links_are_followed(self, tmp_path: Path) -> None:
        (tmp_path / "disk").mkdir()
        (tmp_path / "out").symlink_to("disk/real")
        with atomic_directory(tmp_path / "out") as work:
            (work / "a").write_text("a")
        assert names(tmp_path / "disk") == ["real"]
        assert (tmp_path / "out").is_symlink()

    def test_what_dead_processes_left_is_removed(self, tmp_path: Path) -> None:
        pid = dead_pid()
        left = [tmp_path / f".out.tmp-{pid}-6700000001234567", tmp_path / f".out.tmp-{os.getpid()}-6700000001234567"]
        kept = [tmp_path / ".out.tmp-x", tmp_path / f".other.tmp-{pid}-6700000001234567", tmp_path / "out.tmp"]
        for folder in (*left, *kept):
            (folder / "sub").mkdir(parents=True)
            (folder / "sub" / "a").write_text("a")
        with atomic_directory(tmp_path / "out"):
            pass
        assert names(tmp_path) == sorted(["out", *(folder.name for folder in kept)])

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_what_living_processes_write_is_kept(self, tmp_path: Path, overwrite: bool) -> None:
        other = tmp_path / temporary_name("out")
        other.mkdir()
        held = lock(other)
        with pytest.raises(OutputExistsError, match=rf"being written by process {os.getpid()}, for 0\.. minutes"):  # noqa: SIM117
            with atomic_directory(tmp_path / "out", overwrite=overwrite):
                pass
        assert names(tmp_path) == [other.name]
        os.close(held)

    def test_nesting(self, tmp_path: Path) -> None:
        with atomic_directory(tmp_path / "out") as work:
            write_json_atomic(work / "a.json", 1)
            with atomic_directory(work / "sub") as inner:
                write_json_atomic(inner / "b.json", 2)
                code = "import sys; from anyblock.checkpoint import write_json_atomic as w; w(sys.argv[1], 3)"
                subprocess.run([sys.executable, "-c", code, str(inner / "c.json")], check=True, timeout=120)
        assert names(tmp_path / "out") == ["a.json", "sub"]
        assert names(tmp_path / "out" / "sub") == ["b.json", "c.json"]

    def test_one_that_is_being_created_is_kept(self, tmp_path: Path) -> None:
        fresh = tmp_path / f".out.new-{os.getpid()}-6700000001234567"
        left = tmp_path / f".out.new-{dead_pid()}-6700000001234567"
        fresh.mkdir()
        left.mkdir()
        with atomic_directory(tmp_path / "out"):
            pass
        assert names(tmp_path) == [fresh.name, "out"]

    def test_an_interrupted_replacement_is_undone(self, tmp_path: Path) -> None:
        old = tmp_path / f".out.old-{dead_pid()}-6700000001234567"
        old.mkdir()
        (old / "a").write_text("old")
        with pytest.raises(OutputExistsError), atomic_directory(tmp_path / "out"):
            pass
        assert names(tmp_path) == ["out"]
        assert (tmp_path / "out" / "a").read_text() == "old"

    def test_the_remains_of_a_finished_replacement_are_removed(self, tmp_path: Path) -> None:
        (tmp_path / f".out.old-{dead_pid()}-6700000001234567" / "sub").mkdir(parents=True)
        (tmp_path / "out").mkdir()
        with atomic_directory(tmp_path / "out", overwrite=True) as work:
            (work / "a").write_text("new")
        assert names(tmp_path) == ["out"]

    def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        for target in (tmp_path / "file" / "out", tmp_path / ("x" * 250)):
            with pytest.raises(ExecutionError, match="was not written"), atomic_directory(target):
                pass
        with pytest.raises(ExecutionError, match="was not written"), atomic_directory("/proc/anyblock"):
            pass

    def test_a_full_disk_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ExecutionError, match="No space left on device"), atomic_directory(tmp_path / "out"):  # noqa: SIM117
            with open("/dev/full", "w") as stream:  # noqa: PTH123
                stream.write("x")
        assert names(tmp_path) == []

    def test_writers_of_one_target_do_not_disturb_each_other(self, tmp_path: Path) -> None:
        errors: list[OutputExistsError] = []

        def write(number: int) -> None:
            try:
                with atomic_directory(tmp_path / "out") as work:
                    (work / "a").write_text(str(number))
                    (work / "b").write_text(str(number))
            except OutputExistsError as error:
                errors.append(error)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(errors) == 7
        assert (tmp_path / "out" / "a").read_text() == (tmp_path / "out" / "b").read_text()
        assert names(tmp_path) == ["out"]

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_many_writers_at_once(self, tmp_path: Path, overwrite: bool) -> None:
        def write(number: int) -> None:
            for _ in range(6):
                with suppress(OutputExistsError), atomic_directory(tmp_path / "out", overwrite=overwrite) as work:
                    (work / "a").write_text(str(number))
                    (work / "b").write_text(str(number))

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(write, range(6)))
        assert (tmp_path / "out" / "a").read_text() == (tmp_path / "out" / "b").read_text()
        with atomic_directory(tmp_path / "out", overwrite=True):
            pass
        assert names(tmp_path) == ["out"]


class TestFile:
    def test_replaces_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "a.json"
        write_json_atomic(file, {"b": [1, 2.5, None], "ü": "ü"})
        assert json.loads(file.read_text()) == {"b": [1, 2.5, None], "ü": "ü"}
        write_bytes_atomic(file, b"x")
        assert file.read_bytes() == b"x"
        assert names(tmp_path) == ["a.json"]

    def test_keeps_the_old_content_when_the_new_is_no_json(self, tmp_path: Path) -> None:
        file = tmp_path / "a.json"
        write_json_atomic(file, 1)
        with pytest.raises(TypeError):
            write_json_atomic(file, {"a": object()})
        assert file.read_text() == "1\n"
        assert names(tmp_path) == ["a.json"]

    def test_removes_what_a_dead_process_left(self, tmp_path: Path) -> None:
        (tmp_path / f".a.json.tmp-{dead_pid()}-6700000001234567").write_text("x")
        write_json_atomic(tmp_path / "a.json", 1)
        assert names(tmp_path) == ["a.json"]

    def test_names_the_place(self, tmp_path: Path) -> None:
        with pytest.raises(ExecutionError, match=r"absent/a\.json was not written"):
            write_json_atomic(tmp_path / "absent" / "a.json", 1)
        (tmp_path / "folder").mkdir()
        with pytest.raises(ExecutionError, match="folder was not written"):
            write_json_atomic(tmp_path / "folder", 1)
        assert names(tmp_path) == ["folder"]

    def test_a_reader_sees_whole_files_only(self, tmp_path: Path) -> None:
        file = tmp_path / "a.json"
        contents = [bytes([letter]) * 100_000 for letter in b"abcd"]
        write_bytes_atomic(file, contents[0])
        done = threading.Event()
        seen: set[bytes] = set()

        def read() -> None:
            while not done.is_set():
                seen.add(file.read_bytes())

        reader = threading.Thread(target=read)
        reader.start()
        writers = [threading.Thread(target=write_bytes_atomic, args=(file, content)) for content in contents * 3]
        for thread in writers:
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        reader.join()
        assert seen <= set(contents)
        assert names(tmp_path) == ["a.json"]


def test_space(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "yet", 1)
    with pytest.raises(ExecutionError, match="free") as raised:
        require_space(tmp_path / "not" / "yet", 1 << 60)
    assert "1152921.5 TB for" in str(raised.value)
    assert [readable(size) for size in (0, 999, 1500, 2_000_000, 3.25e9, 7e12)] == [
        "0 bytes",
        "999 bytes",
        "1.5 kB",
        "2.0 MB",
        "3.2 GB",
        "7.0 TB",
    ]
