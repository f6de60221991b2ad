"""Stage steady: the flow that the temporal net looks at, where the camera's motion is taken out of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from han_core.camera.steady import write_steady_flow
from han_core.clipfile.trailer import read_trailer
from han_core.clips import Clip, ClipTable, write_clips
from han_core.flow.flowfile import read_flow_levels
from pipeline import steady as stage
from pipeline.cubes import CubeSettings
from pipeline.execution.clip_tasks import clip_tasks
from pipeline.execution.contents import CONTENTS
from pipeline.execution.ledger import Failure, read_failures, write_failures
from pipeline.finetune import net_settings
from pipeline.params import load_params
from pipeline.paths import Paths
from tests.han_core.camera.test_steady import filmed, flow_file

CLIPS = tuple(Clip(name, f"wave/{name}.avi", "wave", 0, name, {1: "train"}, "0" * 64) for name in ("a", "b", "lost"))
FLOW, STEADY = Path("data/toy/flow"), Path("data/toy/steady")


@pytest.fixture
def project(repository, tmp_path, monkeypatch):
    """A folder as stage flow leaves it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HAN_CACHE", str(tmp_path / "cache"))
    params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    params["dataset"].update(name="toy", kind="folder", root="videos", generate=[], allowed_failures=1)
    params["synthetic"], params["cubes"]["nets"] = None, "toy"
    params["run"].update(workers=1)
    write_clips(ClipTable(CLIPS, ("wave",), (1,)), "data/toy/clips.csv")
    (FLOW / "wave").mkdir(parents=True)
    for number, name in enumerate("ab"):
        flow_file(FLOW / "wave" / f"{name}.h5", [filmed(shift=(3 + number, 1)), filmed(shift=(-2, number))])
    write_failures(FLOW, [Failure("wave", "lost", "the clip has one frame")])

    def run(camera, expected=0):
        params["camera"] = camera
        Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
        result = CliRunner().invoke(stage.main, [])
        assert result.exit_code == expected, (result.output, result.exception)
        return result.output

    return run


def test_each_clip_gets_its_file_and_a_lost_one_its_line(project):
    project("homography")
    for name in "ab":
        path = STEADY / "wave" / f"{name}.h5"
        write_steady_flow(
            FLOW / "wave" / f"{name}.h5", f"{name}.h5", clip=name, fingerprint="ef" * 32, camera="homography"
        )
        np.testing.assert_array_equal(read_flow_levels(path), read_flow_levels(f"{name}.h5"))
    assert read_failures(STEADY)["wave/lost"] == "no flow: the clip has one frame"


def test_none_leaves_a_note_and_no_file_of_an_earlier_choice(project):
    project("mean")
    assert "nothing to do" in project("none")
    assert {path.name for path in STEADY.iterdir()} == {stage.NOT_MADE, CONTENTS}
    assert "camera is none" in (STEADY / stage.NOT_MADE).read_text(encoding="utf-8")
    project("homography")
    assert not (STEADY / stage.NOT_MADE).exists()


def test_another_choice_is_another_file_and_going_back_computes_nothing(project):
    names = {}
    for camera in ("mean", "homography", "homography-still0.5", "homography-still1", "still1"):
        assert "computed: 2" in project(camera).replace("2 computed", "computed: 2")
        names[camera] = read_trailer(STEADY / "wave" / "a.h5").content
    assert len(set(names.values())) == len(names)
    again = project("mean")
    assert read_trailer(STEADY / "wave" / "a.h5").content == names["mean"]
    assert "2 reused" in again or "reused: 2" in again


def test_the_temporal_net_looks_at_it_and_nothing_else_does(project):
    project("homography")
    params = load_params()
    paths = Paths.of(params)
    assert paths.source("temporal") == (STEADY, "flow")
    assert paths.source("spatial") == (paths.frames, "frames")
    assert Paths.of(params.model_copy(update={"camera": "none"})).source("temporal") == (FLOW, "flow")
    settings = CubeSettings("n", "caffe", "temporal", 10, 5, "conv5_3", "fc7", 5, "float32")
    made = [
        clip_tasks(CLIPS[:1], [replace(paths, camera=camera).source("temporal")], settings.fingerprint)[0][0]
        for camera in ("none", "homography")
    ]
    assert made[0].fingerprint != made[1].fingerprint, "cubes of other flow are other cubes"


def test_a_net_says_what_it_was_trained_on(project):
    project("mean")
    params = load_params()
    assert params.finetune.temporal.iterations
    cpu = torch.device("cpu")
    settings = net_settings(params, "temporal", "caffe", ["wave"], cpu)
    assert settings["camera"] == "mean"
    assert "camera" not in net_settings(params, "spatial", "caffe", ["wave"], cpu)
    as_in_the_paper = params.model_copy(update={"camera": "none"})
    assert "camera" not in net_settings(as_in_the_paper, "temporal", "caffe", ["wave"], cpu)


def test_a_missing_file_is_told_with_the_stage_that_makes_it(project):
    project("mean")
    (STEADY / "wave" / "a.h5").unlink()
    _, _, faults = clip_tasks(CLIPS[:1], [(STEADY, "flow")], lambda content: content)
    assert "made by stage steady" in faults["wave/a"]
