"""Calls that travel from a stage, which is ``__main__``, to a worker, where it is a module."""

import pickle
import subprocess
import sys

from pipeline.execution.sent import Packing

STAGE = """
import pickle
import sys
from dataclasses import dataclass
from threading import Lock

from pipeline.execution.sent import Packing

OPEN = Lock()  # what must not travel


@dataclass(frozen=True)
class Job:
    step: int

    def __call__(self, task):
        with OPEN:
            return self.step + task.number


@dataclass(frozen=True)
class Task:
    number: int


if __name__ == "__main__":
    sys.stdout.buffer.write(pickle.dumps(Packing(Job(2))(Task(3))))
"""


def test_a_stage_is_found_by_its_name(tmp_path, monkeypatch, repository):
    (tmp_path / "odd_stage.py").write_text(STAGE)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{repository}")
    command = [sys.executable, "-m", "odd_stage"]
    sent = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    assert b"Lock" not in sent
    monkeypatch.syspath_prepend(tmp_path)
    assert pickle.loads(sent)() == 5
    assert sys.modules["odd_stage"].Job(1)(sys.modules["odd_stage"].Task(1)) == 2


def test_what_is_of_a_module_already_stays_what_it_is():
    assert pickle.loads(pickle.dumps(Packing(abs)(-3)))() == 3
