"""What a worker of a cluster is asked, and for which answers it gets no work."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from han_core import devices
from pipeline.execution.code import CodeChanged, stage_code
from pipeline.execution.fitness import Question, computes, files_in, look, why_unfit
from pipeline.execution.places import _alone, _question
from pipeline.params import Run
from tests.pipeline.execution.test_runner import tasks_of, work_of


@pytest.fixture
def question(tmp_path):
    """As it is asked of workers that see the cache and a video."""
    (tmp_path / "cache/tmp").mkdir(parents=True)
    (tmp_path / "cache/tmp/note").write_text("here")
    (tmp_path / "a.avi").write_bytes(b"four")
    files = ((str(tmp_path / "a.avi"), 4),)
    return Question(files, str(tmp_path / "cache/tmp/note"), "here", "decode", "cpu", "float32")


def test_a_worker_that_has_all_is_fit(question):
    answer = look(question)
    assert answer.code == stage_code("decode")
    assert why_unfit(answer, answer, question) == ""


def test_a_worker_without_the_disk_or_the_videos_is_not(question, tmp_path):
    here = look(question)
    seen_by = {
        "cache": look(replace(question, note="/elsewhere/tmp/note")),
        "another disk": look(replace(question, written="of another")),
        "video": look(replace(question, files=((str(tmp_path / "b.avi"), 4),))),
        "another video": look(replace(question, files=((str(tmp_path / "a.avi"), 5),))),
    }
    said = {name: why_unfit(answer, here, question) for name, answer in seen_by.items()}
    assert said["cache"].startswith(
        f"it does not see {tmp_path}/cache as this machine does (No such file or directory)"
    )
    assert "does (it is another file there); the cache must be on a disk that all share" in said["another disk"]
    assert said["video"].startswith(f"it does not see {tmp_path}/b.avi (No such file or directory) as this machine")
    assert said["another video"].startswith(f"it does not see {tmp_path}/a.avi (it is another file there)")


def test_other_versions_and_other_code_are_not(question):
    here = look(question)
    other = replace(here, versions={**here.versions, "numpy": "1.0"})
    assert f"numpy is 1.0 there and {here.versions['numpy']} here; install the same" in why_unfit(other, here, question)
    assert "it has other code of stage decode" in why_unfit(replace(here, code="c0de"), here, question)
    assert "it has not got this project (no pipeline)" in why_unfit(ModuleNotFoundError("no pipeline"), here, question)
    assert "files of the project were changed" in why_unfit(CodeChanged("decode.py"), here, question)
    assert "another version of this project" in why_unfit(AttributeError("no look"), here, question)
    assert why_unfit(ValueError("odd"), here, question) == "ValueError: odd"


def with_gpus(monkeypatch, count, *, bfloat16=True):
    monkeypatch.setattr(devices, "gpus", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0) if bfloat16 else (7, 0))
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)


@pytest.mark.parametrize(
    ("gpus", "bfloat16", "choice", "precision", "found"),
    [
        (0, True, "cuda", "float32", "no GPU"),
        (0, True, "auto", "float32", "cpu"),
        (0, True, "auto", "bfloat16", "cpu without bfloat16"),
        (1, True, "auto", "bfloat16", "cuda"),
        (1, True, "cpu", "float32", "cpu"),
        (1, False, "auto", "bfloat16", "cuda without bfloat16"),
        (1, False, "cuda", "tf32", "cuda without tf32"),
        (1, False, "cuda", "float16", "cuda"),
    ],
)
def test_what_a_worker_computes_with(monkeypatch, gpus, bfloat16, choice, precision, found):
    with_gpus(monkeypatch, gpus, bfloat16=bfloat16)
    assert computes(choice, precision) == found


def test_a_worker_without_a_gpu_does_not_do_what_is_for_gpus(question, monkeypatch):
    asked = replace(question, device="cuda")
    without = look(asked)
    with_gpus(monkeypatch, 1)
    said = why_unfit(without, look(asked), asked)
    assert said.startswith("it would compute on no GPU, and this machine on cuda; name what both have in run.device")


def test_the_question_is_that_of_the_work(tmp_path):
    @dataclass(frozen=True)
    class Job:
        net: Path

    (tmp_path / "net").touch()
    (tmp_path / "clip").write_bytes(b"123")
    tasks = tasks_of("c1", "c2", argument={"frames": tmp_path / "clip", "odd": (Path("clip"), tmp_path / "missing")})
    work = replace(work_of(tasks), function=Job(tmp_path / "net"), stage="flow")
    files = ((str(tmp_path / "net"), 0), (str(tmp_path / "clip"), 3))
    assert files_in(work.function, tasks[0].arguments) == files
    assert _question(work, Run()) == Question(files, stage="flow"), "what computes with no net does it anywhere alike"
    on_gpus = replace(work, gpus=1)
    assert (_question(on_gpus, Run()).device, _alone(on_gpus)) == ("cuda", True)
    net = replace(work, gpus=1, net=True, precision="bfloat16")
    assert (_question(net, Run()).device, _question(net, Run()).precision, _alone(net)) == ("auto", "bfloat16", False)
