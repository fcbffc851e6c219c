"""Files are whole or not there, whoever else writes them, and a lock is held by one process."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest

from llmcrs_utils.files.atomic import file_hash, read_json_or_none, replacing, write_atomically, write_json
from llmcrs_utils.files.locks import Busy, held
from llmcrs_utils.files.parquet import read_parquet, write_parquet

ROOT = Path(__file__).parents[1]


def test_writers_of_one_file_do_not_meet(tmp_path):
    """Each writes under a name of its own: with a shared one, the second to rename it finds nothing."""
    file, errors = tmp_path / "table.csv", []
    texts = [str(number) * 20_000 for number in range(4)]

    def write(text: str) -> None:
        try:
            for _ in range(50):
                write_atomically(file, text)
        except OSError as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=[text]) for text in texts]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert not file.exists() or file.read_text() in texts
    assert errors == [] and file.read_text() in texts and list(tmp_path.iterdir()) == [file]


def test_tables_too_are_written_by_several_at_once(tmp_path):
    frames = [pd.DataFrame({"number": [number] * 1000}) for number in range(3)]
    writers = [threading.Thread(target=lambda f=frame: [write_parquet(f, tmp_path / "t.parquet") for _ in range(20)]) for frame in frames]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert read_parquet(tmp_path / "t.parquet")["number"].nunique() == 1 and len(list(tmp_path.iterdir())) == 1


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "a.txt"
    write_atomically(file, "old")
    with pytest.raises(ZeroDivisionError), replacing(file) as temporary:
        temporary.write_text("half")
        1 / 0
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_files_may_be_read_by_whom_the_umask_lets(tmp_path):
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", {"b": 1})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o640


def test_only_the_first_of_several_processes_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    write_json(tmp_path / "a.json", 1)
    write_parquet(pd.DataFrame({"a": [1]}), tmp_path / "a.parquet")
    assert not list(tmp_path.iterdir())


def test_json_that_is_missing_or_cut_short_is_none(tmp_path):
    (tmp_path / "cut.json").write_text('{"a": ')
    assert read_json_or_none(tmp_path / "cut.json") is None is read_json_or_none(tmp_path / "none.json")


def test_a_hash_is_of_the_content(tmp_path):
    for name, content in (("a", b"x"), ("b", b"x"), ("c", b"y")):
        (tmp_path / name).write_bytes(content)
    assert file_hash(tmp_path / "a") == file_hash(tmp_path / "b") != file_hash(tmp_path / "c")


def test_a_lock_keeps_others_out_until_its_holder_is_gone(tmp_path):
    program = f"from llmcrs_utils.files.locks import held\nimport time\nwith held({str(tmp_path / 'lock')!r}, 'x'):\n    print(1, flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert holder.stdout.readline() == b"1\n"
    with pytest.raises(Busy, match="^the figures are being made by another process; wait until it ends, or stop it$"), held(tmp_path / "lock", "the figures are being made"):
        pass
    holder.kill()
    holder.wait()
    with held(tmp_path / "lock", "x"):
        pass
