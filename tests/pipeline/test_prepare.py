import hashlib
import os
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from han_core.clips import read_clips
from han_core.datasets.probing import Inspection
from han_core.flow.tvl1 import solver
from pipeline.decode import decode_work
from pipeline.execution.contents import CONTENTS
from pipeline.execution.ledger import LEDGER
from pipeline.params import Run, load_params
from pipeline.prepare import inspect_videos, main
from pipeline.settings.data import SMALLEST_SIDE
from tests.dvc_links import damaged, hold
from tests.make_videos import encode, moving_frames
from tests.only_han import only_han

CLIPS = Path("data/mine/clips.csv")


@pytest.fixture
def params(repository, tmp_path, monkeypatch):
    """Default params for a folder of videos that is still empty; stages run in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    params = only_han(yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8")))
    params["synthetic"] = None
    params["run"]["workers"] = 1
    params["dataset"].update(name="mine", kind="folder", root="videos", generate=[])
    params["dataset"]["folder"].update(group_pattern=r"_(p\d)", test_share=0.34)
    params["cubes"]["nets"] = "mine"
    Path("videos").mkdir()
    return params


def run(params):
    params["finetune"]["splits"] = params["splits"]
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    result = CliRunner().invoke(main, [])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def write_video(path, value=100):
    path = Path("videos") / path
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for i in range(3):
        writer.write(np.full((48, 64, 3), value + i, np.uint8))
    writer.release()
    return path


@pytest.fixture
def videos(params):
    """Two classes of three people."""
    names = [f"{c}/{c}_p{p}.avi" for c in ("bow", "sit") for p in range(3)]
    return [write_video(name, 10 * i) for i, name in enumerate(names)]


def test_a_table_that_dvc_holds_is_replaced_and_not_written_into(params, videos, tmp_path):
    run(params)
    held = hold(CLIPS.parent, tmp_path / "dvc")
    params["seed"] = 5
    params["splits"] = [1, 2]
    assert run(params).exit_code == 0
    assert CLIPS.read_bytes() not in held.values()
    assert damaged(held) == []


def test_a_sound_folder_becomes_a_table(params, videos):
    params["splits"] = [1, 2]
    result = run(params)
    assert result.exit_code == 0, result.output
    assert "6 clips, 2 classes, 3 groups" in result.output
    table = read_clips(CLIPS)
    assert table.classes == ("bow", "sit")
    assert [clip.path for clip in table.clips] == [f"{c}/{c}_p{p}.avi" for c in ("bow", "sit") for p in range(3)]
    for clip, video in zip(table.clips, videos, strict=True):
        assert clip.sha256 == hashlib.sha256(video.read_bytes()).hexdigest()
    for split in (1, 2):
        assert len(table.select(split, "train")) == 4
        assert len({clip.group for clip in table.select(split, "test")}) == 1


def test_the_same_videos_give_the_same_bytes_with_any_number_of_workers(params, videos):
    run(params)
    first = CLIPS.read_bytes()
    CLIPS.unlink()
    params["run"]["workers"] = 2
    run(params)
    assert CLIPS.read_bytes() == first


def test_all_problems_come_in_one_report_and_nothing_is_written(params, videos):
    write_video("bow/bow_p0.mkv")
    (Path("videos") / "nod").mkdir()
    Path("videos/bow/broken_p1.avi").write_text("no video")
    Path("videos/bow/readme.txt").write_text("hello")
    params["splits"] = [1, 3]
    params["dataset"]["folder"].update(split_by="fold", folds=2)
    result = run(params)
    assert result.exit_code == 1
    for words in (
        "error: class folders without a video",
        "error: splits that are not available; there are: 1, 2",
        "error: file stems that occur twice in a class",
        "error: videos that cannot be used",
        "bow/broken_p1.avi: ",
        "warning: files that are not videos",
        "Error: prepare: videos has the errors listed above",
    ):
        assert words in result.output
    assert not CLIPS.exists()
    assert "bow/broken_p1.avi" in Path("logs/mine/prepare.log").read_text()


def test_the_report_is_short_and_the_log_has_everything(params, videos):
    for i in range(15):
        Path(f"videos/bow/x{i}_p1.avi").write_bytes(bytes(i))
    result = run(params)
    assert "... and 5 more" in result.output
    assert "x9_p1.avi" not in result.output  # the last in the order of names
    log = Path("logs/mine/prepare.log").read_text()
    assert all(f"bow/x{i}_p1.avi" in log for i in range(15))


def test_allowed_failures_stay_in_the_table(params, videos):
    bad = Path("videos/bow/bow_p1.avi")
    bad.write_bytes(bad.read_bytes()[:500])
    assert run(params).exit_code == 1
    params["dataset"]["allowed_failures"] = 1
    result = run(params)
    assert result.exit_code == 0, result.output
    assert "warning: videos that cannot be used, within the 1" in result.output
    clip = next(clip for clip in read_clips(CLIPS).clips if clip.name == "bow_p1")
    assert clip.sha256 == hashlib.sha256(bad.read_bytes()).hexdigest()


def test_names_that_no_file_of_the_project_can_have_are_told_with_all_else(params, videos):
    names = ["bow/line\nbreak_p1.avi", "bow/a\\b_p1.avi", f"bow/{'x' * 201}_p1.avi", "cl\x1bass/1_p1.avi"]
    for number, name in enumerate(names):
        write_video(name, 200 + number)
    write_video("bow/bow_p0.mkv", 250)
    result = run(params)
    assert result.exit_code == 1
    assert "error: names that no clip or class can have; rename the files or their folders (4)" in result.output
    for line in (
        r"    bow/a\b_p1.avi: the name is not the name of one file or folder",
        r"    bow/line\nbreak_p1.avi: the name holds a control character, or one that no text has",
        r"    cl\x1bass/1_p1.avi: the class name holds a control character, or one that no text has",
        f"    bow/{'x' * 201}_p1.avi: the name is longer than 200 bytes",
    ):
        assert line in result.output.splitlines()
    assert "error: file stems that occur twice in a class" in result.output
    assert not CLIPS.exists()


@pytest.mark.parametrize(
    "line",
    ["../bow_p0.avi", "/etc/passwd", "bow/../../x.avi", "bow/..", "./bow_p0.avi", "bow/bow\0_p0.avi", "..\\x.avi"],
)
def test_lines_that_lead_outside_are_told_with_file_and_number(params, videos, line):
    Path("lists").mkdir()
    Path("lists/trainlist01.txt").write_text("bow/bow_p0.avi\nsit/sit_p0.avi\n")
    Path("lists/testlist01.txt").write_text(f"bow/bow_p1.avi\n{line}\nsit/sit_p1.avi\n")
    params["dataset"]["annotations"] = "lists"
    params["dataset"]["folder"]["split_by"] = "list"
    result = run(params)
    assert result.exit_code == 1
    assert "error: lines of a split file that are not <class>/<video> (1)" in result.output
    shown = line.replace("\0", r"\x00")
    assert f"    testlist01.txt line 2: {shown}" in result.output.splitlines()
    assert not CLIPS.exists()


@pytest.mark.parametrize("state", ["missing", "file"])
def test_a_missing_root_is_told_in_plain_words(params, state):
    Path("videos").rmdir()
    if state == "file":
        Path("videos").touch()
    result = run(params)
    assert result.exit_code == 1
    assert result.output.startswith("Error: dataset.root: videos " + ("is not" if state == "file" else "does not"))


def test_missing_annotations_are_told_in_plain_words(params):
    params["dataset"].update(kind="ucf101", annotations="lists")
    result = run(params)
    assert result.exit_code == 1
    assert "dataset.annotations: lists does not exist" in result.output


def test_folders_that_cannot_be_listed_are_told_in_plain_words(params, videos, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    result = run(params)
    assert result.exit_code == 1
    assert result.output.startswith("Error: prepare: videos: Permission denied: ask its owner")


def test_an_empty_root_is_told_in_plain_words(params):
    result = run(params)
    assert result.exit_code == 1
    assert "error: no clip" in result.output


def test_validation_share_holds_out_whole_groups(params, videos):
    for c in ("bow", "sit"):
        write_video(f"{c}/{c}_p3.avi", 200 + 10 * (c == "sit"))
    params["dataset"]["validation_share"] = 0.34
    assert run(params).exit_code == 0
    table = read_clips(CLIPS)
    groups = [{clip.group for clip in table.select(1, role)} for role in ("train", "validation", "test")]
    assert [len(g) for g in groups] == [2, 1, 1]
    assert len(set().union(*groups)) == 4


def test_synthetic_videos_need_no_pattern(params, repository):
    from pipeline.generate import main as generate

    default = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    params["synthetic"] = default["synthetic"] | {"groups": 3, "frames": 12, "width": 64, "height": 64}
    params["dataset"] = default["dataset"] | {"name": "mine", "root": "data/mine/raw"}
    Path("params.yaml").write_text(yaml.safe_dump(params | {"dataset": params["dataset"]}), encoding="utf-8")
    assert CliRunner().invoke(generate, []).exit_code == 0
    result = run(params)
    assert result.exit_code == 0, result.output
    assert "warning" not in result.output
    table = read_clips(CLIPS)
    assert len(table.select(1, "train")) == 16
    assert len(table.select(1, "test")) == 8


def test_ucf101_mini(params, shared_data):
    mini = shared_data / "ucf101_mini"
    params["dataset"].update(kind="ucf101", root=str(mini / "UCF-101"), annotations=str(mini / "ucfTrainTestlist"))
    params["splits"] = [1, 2, 3]
    params["run"]["workers"] = 2
    result = run(params)
    assert result.exit_code == 0, result.output
    table = read_clips(CLIPS)
    assert [(len(table.select(n, "train")), len(table.select(n, "test"))) for n in (1, 2, 3)] == [(108, 42)] * 3
    assert {clip.label for clip in table.clips} == {0, 1, 2}


def test_ut_interaction(params, shared_data):
    params["dataset"].update(kind="ut_interaction", root=str(shared_data / "ut_interaction" / "set1"))
    params["splits"] = list(range(1, 11))
    result = run(params)
    assert result.exit_code == 0, result.output
    table = read_clips(CLIPS)
    assert len(table.clips) == sum(len(table.select(n, "test")) for n in table.splits) == 60


def test_hmdb51_in_its_official_layout(params):
    Path("lists").mkdir()
    for c in ("wave", "run"):
        names = [f"film {i} #;(x)[y]!&_{c}_u_nm_np1_fr_goo_{i}.avi" for i in range(3)]
        for i, name in enumerate(names):
            write_video(f"{c}/{name}", 20 * i + len(c))
        flagged = zip(names, (1, 2, 0), strict=True)
        Path("lists", f"{c}_test_split1.txt").write_text("".join(f"{name} {flag} \n" for name, flag in flagged))
    params["dataset"].update(kind="hmdb51", annotations="lists")
    result = run(params)
    assert result.exit_code == 0, result.output
    table = read_clips(CLIPS)
    assert table.classes == ("run", "wave")
    assert [clip.roles[1] for clip in table.clips] == ["train", "test"] * 2
    assert table.clips[0].group == "film 0 #;(x)[y]!&"


def kill_or_name(path):
    """Stands in for a decoder that crashes on one file."""
    if path.name == "crash.avi":
        os.kill(os.getpid(), signal.SIGKILL)
    return Inspection(path.name)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_asked_and_each_is_counted(tmp_path, workers):
    names = ["b.avi", "c.avi", "a.avi"]
    counted = []
    run = Run(workers=workers)
    found = inspect_videos(tmp_path, names, run, advance=lambda: counted.append(1), inspect=kill_or_name)
    assert list(found.items()) == [(name, Inspection(name)) for name in names]
    assert len(counted) == 3


def test_a_file_that_kills_its_worker_is_a_finding_and_the_others_go_on(tmp_path):
    names = ["a.avi", "crash.avi", "b.avi", "c.avi"]
    found = inspect_videos(tmp_path, names, Run(workers=2), inspect=kill_or_name)
    assert found["crash.avi"].problem == "decoding it crashes the video library"
    assert [found[name] for name in ("a.avi", "b.avi", "c.avi")] == [Inspection(n) for n in ("a.avi", "b.avi", "c.avi")]


def test_videos_are_looked_at_by_the_workers_of_a_cluster(params, videos, monkeypatch):
    distributed = pytest.importorskip("distributed")
    assert run(params).exit_code == 0
    here = CLIPS.read_bytes()
    CLIPS.unlink()
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster:
        params["run"].update(executor="dask", scheduler=cluster.scheduler_address)
        monkeypatch.setattr("pipeline.prepare.with_processes", None)  # what would do it here
        assert run(params).exit_code == 0
        assert CLIPS.read_bytes() == here
        first = min(str(video.absolute()) for video in videos)
        monkeypatch.setattr("pipeline.prepare.files_in", lambda paths: tuple((str(path), 7) for path in paths))
        said = run(params)
    assert said.exit_code == 1
    assert f": it does not see {first} (it is another file there) as this machine does" in said.output


def test_a_list_of_videos_wherever_they_lie(params, videos, monkeypatch, tmp_path):
    """The list elsewhere, its videos below ~, one a link to a file outside: prepare and decode find the same files."""
    monkeypatch.setenv("HOME", str(tmp_path))
    other = tmp_path.parent / f"{tmp_path.name}-other.avi"
    videos[5].rename(other)
    videos[5].symlink_to(other)
    Path("lists").mkdir()
    lines = [f"~/{video};{video.parent.name};{video.stem[-2:]}" for video in videos]
    Path("lists/all.csv").write_text("\n".join(["path;class;group", *lines]), encoding="utf-8")
    params["dataset"].update(kind="list", root="lists/all.csv")
    params["dataset"]["folder"]["group_pattern"] = None
    result = run(params)
    assert f"set dataset.base to a folder that holds all, {tmp_path} (rel" in result.output
    assert "lists/all.csv has the errors listed above" in result.output
    params["dataset"]["base"] = "~"
    result = run(params)
    assert result.exit_code == 0, result.output
    assert "6 clips, 2 classes, 3 groups" in result.output
    table = read_clips(CLIPS)
    assert [clip.path for clip in table.clips] == [str(video) for video in videos]
    tasks = decode_work(load_params("params.yaml")).tasks
    assert [task.arguments.video for task in tasks] == [tmp_path / video for video in videos]
    params["dataset"].update(root="lists", base="~")
    assert "dataset.root: lists is not a file" in run(params).output


def test_frames_too_small_for_flow_are_told_unless_flow_has_a_size(params, videos):
    assert SMALLEST_SIDE == solver.SMALLEST_SIDE
    frames = moving_frames(3, width=2, seed=9)[..., ::-1]
    encode(Path("videos/bow/narrow_p1.mkv"), frames, codec="ffv1", pixels="bgr0")
    result = run(params)
    assert result.exit_code == 1
    assert "error: videos that cannot be used" in result.output
    assert "bow/narrow_p1.mkv: the frames are 2x48 pixels; flow needs 3 per side, or set flow.size" in result.output
    params["flow"]["size"] = [64, 48]
    assert run(params).exit_code == 0


def test_folders_of_a_split_behind_a_link_are_refused(params, videos, tmp_path):
    params["dataset"]["folder"]["group_pattern"] = None
    for side in ("train", "test"):
        for number, name in enumerate(("bow", "sit")):
            write_video(f"{side}/{name}/1.avi", 100 + 50 * number + 9 * (side == "test"))
    for name in ("bow", "sit"):
        shutil.rmtree(Path("videos", name))
    assert run(params).exit_code == 0
    Path("videos/train").rename(tmp_path / "outside")
    Path("videos/train").symlink_to(tmp_path / "outside")
    result = run(params)
    assert result.exit_code == 1
    assert "error: folders that are links: DVC does not see what changes behind them" in result.output
    assert "    train\n" in result.output


@pytest.mark.parametrize("name", [CONTENTS, LEDGER])
def test_a_class_of_the_name_of_a_file_of_the_stages_is_refused(params, videos, name):
    Path("videos/sit").rename(Path("videos", name))
    result = run(params)
    assert result.exit_code == 1
    assert f"    {name}/sit_p0.avi: the class name is that of a file that stages write beside" in result.output
