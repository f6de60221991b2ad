"""``han predict`` on a dataset that went through the stages: it must say what the pipeline says."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

import han_core
from han_core.cli.main import main as han
from han_core.clips import read_clips
from han_core.cubes.store import CubeStore
from han_core.han.model_file import load_model
from han_core.video import encode as encode_module
from han_core.video.decode import probe
from pipeline import cubes, decode, finetune, flow, prepare, train
from tests.checkout import CLASSES, write_video
from tests.make_videos import encode, moving_frames

STREAMS = ("spatial", "temporal")


@pytest.fixture(scope="module")
def project(repository, tmp_path_factory):
    """Four videos of 14 frames through all stages up to train."""
    folder = tmp_path_factory.mktemp("predict")
    params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    params |= {"synthetic": None, "models": ["han"], "stack": 4}
    params["dataset"].update(name="tiny", kind="folder", root="videos", generate=[])
    params["dataset"]["folder"].update(split_by="fraction", test_share=0.4, group_pattern=r"g\d")
    params["run"]["workers"] = 1
    params["decode"].update(short_side=40, quality=80)
    params["flow"].update(size=[48, 36], codec="jpeg", quality=70, bound=8)
    params["flow"]["tvl1"].update(scales=2, warps=2, iterations=20)
    for stream in STREAMS:
        params["finetune"][stream].update(fc_size=16, iterations=0)
    params["cubes"].update(nets="tiny", frames=2, precision="float32")
    params["train"].update(lstm_size=8, epochs=3)
    for class_name, speed in CLASSES.items():
        for n in range(2):
            write_video(folder / "videos" / class_name / f"{class_name}_g{n}.avi", speed, n)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("HAN_CACHE", raising=False)
        for stage, *arguments in (
            (prepare,),
            (decode,),
            (flow,),
            *((finetune, "--stream", stream, "--split", "1") for stream in STREAMS),
            *((cubes, "--stream", stream, "--split", "1") for stream in STREAMS),
            (train, "--model", "han", "--split", "1", "--seed", "1"),
        ):
            result = CliRunner().invoke(stage.main, arguments)
            assert result.exit_code == 0, (stage, result.output, result.exception)
    return folder


@pytest.fixture
def run(project, monkeypatch):
    monkeypatch.chdir(project)

    def invoke(*arguments, expected=0):
        result = CliRunner().invoke(han, ["predict", "--device", "cpu", *map(str, arguments)])
        assert result.exit_code == expected, (result.output, result.exception)
        assert "Traceback" not in result.output
        return [json.loads(line) for line in result.stdout.splitlines()], result.stderr

    return invoke


def test_it_says_what_the_pipeline_says_of_the_same_clip(project, run):
    clips = read_clips(project / "data/tiny/clips.csv").select(1, "test")
    found, _ = run(*(project / "videos" / clip.path for clip in clips), "--no-video")
    store = CubeStore({stream: project / f"data/tiny/cubes/{stream}-1" for stream in STREAMS}, clips)
    trained = load_model(project / "models/tiny/han/han-1-seed1.safetensors")
    with torch.no_grad():
        expected = torch.softmax(trained.model(store.batch(range(len(clips)))).logits, dim=1).numpy()
    assert np.ptp(expected[:, 0]) > 1e-4, "clips that all look alike would prove nothing"
    for line, row in zip(found, expected, strict=True):
        chances = {entry["label"]: entry["probability"] for entry in line["top"]}
        assert [chances[name] for name in trained.classes] == pytest.approx(row.tolist(), abs=1e-5)
        assert (line["frames"], line["fps"]) == (14, 25.0)
        assert "timeline" not in line


def test_the_annotated_video_has_every_frame(project, run, tmp_path):
    video = project / "videos/left/left_g0.avi"
    (line,), _ = run(video, "--out", tmp_path / "out")
    assert line["annotated"] == str(tmp_path / "out" / "left_g0.predict.mp4")
    capture = cv2.VideoCapture(line["annotated"])
    frames = []
    while (got := capture.read())[0]:
        frames.append(got[1])
    assert len(frames) == 14
    assert frames[0].shape == (240 + 36, 320, 3)
    assert capture.get(cv2.CAP_PROP_FPS) == 25
    assert probe(line["annotated"]).codec == "h264"


def test_the_readmes_python_runs(repository, project, monkeypatch, capsys):
    readme = (repository / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"<!-- python -->\n```python\n(.*?)```", readme, re.DOTALL)
    monkeypatch.chdir(project)
    shutil.copy(project / "videos/left/left_g0.avi", project / "clip.avi")
    names: dict = {}
    exec(compile(example.replace("synthetic", "tiny").replace("frames=4", "frames=2"), "README.md", "exec"), names)
    label = names["label"]
    assert capsys.readouterr().out.strip() == f"{label} {label.top}"
    assert (label.name, label.probability) == label.top[0]
    assert names["frames"].shape == (14, 48, 64, 3)
    assert names["flow"].shape == (13, 2, 48, 64)
    cube, number = names["store"][0]
    assert tuple(cube.shape) == names["cube"].shape == (2, 512, 14, 14)
    assert names["store"].classes[number] in ("left", "right")


def test_a_label_from_python_is_that_of_the_command_and_a_cube_that_of_the_stage(project, run, monkeypatch, tmp_path):
    monkeypatch.chdir(project)
    video = project / "videos/left/left_g0.avi"
    (line,), _ = run(video, "--out", tmp_path)
    with han_core.load_model(str(next(Path("models").glob("*/han/*.safetensors")))) as model:
        label = model.predict(str(video))
    assert [name for name, _ in label.top] == [top["label"] for top in line["top"]]
    np.testing.assert_allclose([p for _, p in label.top], [top["probability"] for top in line["top"]], atol=1e-6)


def test_a_long_video_has_a_timeline(project, run, tmp_path):
    (line,), _ = run(project / "videos/left/left_g0.avi", "--window", "5", "--out", tmp_path)
    assert line["windows"] > 1
    assert line["timeline"][0]["start"] == 0
    assert line["timeline"][-1]["end"] == 14
    assert line["timeline"][-1]["seconds"][1] == pytest.approx(14 / 25)
    for before, after in zip(line["timeline"], line["timeline"][1:], strict=False):
        assert before["end"] == after["start"]
        assert before["label"] != after["label"]


def test_a_folder_is_read_without_what_is_hidden_or_was_written_here(project, run, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(project / "videos/left/left_g0.avi", folder / "a.avi")
    (folder / "._a.avi").write_bytes(b"resource fork")
    (folder / ".hidden").mkdir()
    shutil.copy(folder / "a.avi", folder / ".hidden/b.avi")
    for _ in range(2):
        found, _ = run(folder, "--out", folder / "out")
        assert [line["video"] for line in found] == [str(folder / "a.avi")]
    assert [path.name for path in (folder / "out").iterdir()] == ["a.predict.mp4"]
    (folder / "out/a.predict.mp4").rename(folder / "a.predict.mp4")
    assert len(run(folder, "--out", folder / "out")[0]) == 1


def test_seconds_are_those_of_the_time_stamps_and_uneven_ones_are_said(project, run, tmp_path):
    frames = np.stack([frame[..., ::-1] for frame in moving_frames(30)])
    stamps = [n / 10 for n in range(15)] + [1.5 + n / 50 for n in range(15)]
    path = encode(tmp_path / "a.mp4", frames, stamps=stamps, bf="0")
    (line,), _ = run(path, "--window", "5", "--out", tmp_path / "out")
    assert line["uneven"]
    assert line["timeline"][-1]["seconds"][1] == pytest.approx(stamps[-1], abs=0.1)
    for segment in line["timeline"]:
        assert segment["seconds"][0] == pytest.approx(stamps[segment["start"]], abs=0.01)
    capture = cv2.VideoCapture(line["annotated"])
    lasts = capture.get(cv2.CAP_PROP_FRAME_COUNT) / capture.get(cv2.CAP_PROP_FPS)
    assert lasts == pytest.approx(stamps[-1] * 30 / 29, rel=0.02), "the copy lasts as long as the video"


def test_what_cannot_be_read_is_told_and_the_others_go_on(project, run, tmp_path):
    good = project / "videos/right/right_g1.avi"
    (tmp_path / "text.avi").write_text("no video")
    (tmp_path / "cut.avi").write_bytes(good.read_bytes()[:3000])
    one = tmp_path / "one frame.avi"
    writer = cv2.VideoWriter(str(one), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    (tmp_path / "nothing").mkdir()
    missing = tmp_path / "missing.mp4"
    found, messages = run(
        tmp_path / "text.avi", tmp_path / "cut.avi", one, missing, tmp_path / "nothing", good, "--no-video", expected=1
    )
    assert [line.get("error", "") for line in found] == [
        "the file is not a video that can be decoded",
        found[1]["error"],
        "the video has one frame; flow needs two",
        "the video file is missing",
        "is a folder without a video",
        "",
    ]
    assert "cut off" in found[1]["error"]
    assert "5 of 6 videos could not be labelled" in messages
    assert found[-1]["top"][0]["probability"] > 0


def test_a_folder_gives_all_its_videos_and_names_that_do_not_clash(project, run, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(project / "videos/left/left_g0.avi", tmp_path / name / "same.avi")
    (tmp_path / "a" / "note.txt").write_text("no video")
    found, _ = run(tmp_path, "--out", tmp_path / "out")
    assert [line["video"] for line in found] == [str(tmp_path / name / "same.avi") for name in ("a", "b")]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["same-2.predict.mp4", "same.predict.mp4"]


def test_videos_of_a_list_start_from_its_folder(project, run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(project))
    (tmp_path / "list.csv").write_text(
        "class;path\nleft;~/videos/left/left_g0.avi\n?;a/gone.avi\n", encoding="utf-8-sig"
    )
    found, _ = run("--list", tmp_path / "list.csv", "--no-video", expected=1)
    assert [line["video"] for line in found] == [f"{project}/videos/left/left_g0.avi", f"{tmp_path}/a/gone.avi"]
    assert "top" in found[0]
    assert found[1]["error"] == "the video file is missing"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\n\n", "list.csv: holds no path"),
        (b"path,class\n\xff,a", "list.csv: line 2: is not UTF-8"),
        (
            b"path,class\n,a\nx,b,c",
            "line 3: 3 values for 2 columns; is one with a comma unquoted?\n  line 2: has no path",
        ),
        (None, "list.csv: cannot be read (No such file or directory)"),
    ],
)
def test_a_list_that_is_none_is_told_before_any_model_is_looked_for(tmp_path, monkeypatch, raw, message):
    monkeypatch.chdir(tmp_path)
    if raw is not None:
        Path("list.csv").write_bytes(raw)
    result = CliRunner().invoke(han, ["predict", "--list", "list.csv"])
    assert result.exit_code == 1
    assert message in result.output
    if raw is not None:
        assert (
            message.replace("list.csv", "standard input")
            in CliRunner().invoke(han, ["predict", "--list", "-"], input=raw).output
        )
    assert "Missing argument" in CliRunner().invoke(han, ["predict"]).output


def test_without_an_encoder_no_video_is_begun(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(encode_module, "ENCODERS", ("no_such_encoder",))
    assert "or take --no-video" in CliRunner().invoke(han, ["predict", "x.avi"]).output
    assert "holds no trained model" in CliRunner().invoke(han, ["predict", "x.avi", "--no-video"]).output


def test_it_needs_no_workspace_where_model_and_nets_are_named(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--model", project / "models/tiny/han/han-1-seed1.safetensors", "--no-video", "--device", "cpu"]
    for stream in STREAMS:
        arguments += [f"--{stream}-net", project / f"models/tiny/nets/{stream}-1.safetensors"]
    result = CliRunner().invoke(han, ["predict", *map(str, arguments), str(project / "videos/left/left_g0.avi")])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(han, ["predict", "x.avi"])
    assert result.exit_code == 1
    assert "holds no trained model" in result.stderr
