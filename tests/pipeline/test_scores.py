"""Stage scores: what it writes, what it computes again, and when it leaves a net unscored."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from han_core.baselines.two_stream.scorefile import NOT_SCORED, read_scores
from han_core.clipfile.reader import ClipFile
from han_core.clips import ClipTable, read_clips, write_clips
from han_core.nets.stream_net import NetSource
from pipeline import scores
from pipeline.execution.contents import CONTENTS
from pipeline.execution.jobs import ClipTask
from pipeline.execution.ledger import Failure, write_failures
from pipeline.execution.opened import Opened
from pipeline.params import load_params
from pipeline.paths import clip_file
from pipeline.scores import Plan, ScoreClip

pytestmark = pytest.mark.usefixtures("small_training_images", "small_nets")


@pytest.fixture
def trained(nets_project):
    """Both nets of split 1 after one iteration."""
    for stream in ("spatial", "temporal"):
        nets_project.params["finetune"][stream] |= {"iterations": 1, "learning_rate": 0.01}
        nets_project.ok("finetune", stream)
    return nets_project


def folder(project, stream="spatial"):
    return project.folder / f"data/toy/scores/{stream}-1"


def found(project, stream="spatial"):
    return {path.stem: path.read_bytes() for path in folder(project, stream).rglob("*.h5")}


@pytest.mark.parametrize("stream", ["spatial", "temporal"])
def test_training_and_test_clips_have_probabilities(trained, stream):
    assert "5 computed, 0 failed" in trained.ok("scores", stream)
    assert set(found(trained, stream)) == {"a1", "a2", "a3", "b1", "b3"}  # b2 is held out
    for path in folder(trained, stream).rglob("*.h5"):
        with ClipFile(path) as file:
            assert (file.kind, file.attributes["crops"], file.attributes["stream"]) == ("scores", 5, stream)
            assert file.array("frames").tolist() == [0, 2]
            probabilities = file.array("probabilities")
        assert probabilities.shape == (2, 2)
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
        np.testing.assert_allclose(read_scores(path), probabilities.mean(0))


class Numbers(nullcontext):
    """A net whose scores tell the images apart, which those of a small random one do not."""

    def __enter__(self):
        return self

    def probabilities(self, images):
        return np.arange(2 * len(images), dtype=np.float32).reshape(-1, 2)


def test_frames_that_are_asked_for_twice_are_computed_once_and_count_twice(trained, tmp_path, monkeypatch):
    plan = Plan("n" * 64, "caffe", "spatial", stack=0, frames=5, crops=5, batch=5, precision="float32")
    (clip,) = (clip for clip in read_clips(trained.folder / "data/toy/clips.csv").clips if clip.name == "a1")
    task = ClipTask(clip, "f" * 64, clip_file(trained.folder / "data/toy/frames", clip.class_name, clip.name))
    score = ScoreClip(NetSource(Path("none"), "spatial", 0), plan, "frames", "cpu")
    monkeypatch.setattr(scores, "NETS", Opened(lambda score: Numbers()))
    score(task, tmp_path / "a1.h5")
    with ClipFile(tmp_path / "a1.h5") as file:  # a clip of three frames
        assert file.array("frames").tolist() == [0, 1, 1, 2, 2]
        assert file.array("probabilities").tolist() == [[0, 1], [2, 3], [2, 3], [4, 5], [4, 5]]


def test_a_clip_is_scored_again_only_if_it_its_net_or_the_protocol_changed(trained):
    trained.ok("scores")
    first = found(trained)
    assert "5 reused, 0 computed" in trained.ok("scores")
    trained.write_clip("a3", 77)  # a test clip: the net stays
    trained.ok("finetune")
    assert "4 reused, 1 computed" in trained.ok("scores")
    changed = {name for name, content in found(trained).items() if content != first[name]}
    assert changed == {"a3"}
    trained.params["scores"]["crops"] = 1
    assert "0 reused, 5 computed" in trained.ok("scores")
    trained.params["finetune"]["spatial"]["momentum"] = 0.8
    trained.ok("finetune")
    assert "0 reused, 5 computed" in trained.ok("scores")


def test_nets_of_another_dataset_serve_by_one_param_and_their_fingerprint_follows(trained):
    """cubes.nets: other; the nets lie under models/other. Other nets give other scores, the same ones are reused."""
    trained.ok("scores")
    first = found(trained)
    other = trained.folder / "models/other/nets"
    other.mkdir(parents=True)
    trained.params["cubes"]["nets"] = "other"
    trained.params["finetune"]["splits"] = []
    assert "models/other/nets/spatial-1.safetensors: is missing" in trained.refused("scores")
    (other / "spatial-1.safetensors").write_bytes(trained.net().read_bytes())
    assert "5 reused" in trained.ok("scores")
    assert found(trained) == first
    trained.params["cubes"]["nets"] = "toy"
    trained.params["finetune"]["splits"] = [1, 2]
    trained.params["seed"] = 2
    trained.ok("finetune")
    (other / "spatial-1.safetensors").write_bytes(trained.net().read_bytes())
    trained.params["cubes"]["nets"] = "other"
    trained.params["finetune"]["splits"] = []
    assert "5 computed" in trained.ok("scores")
    assert found(trained) != first


def test_a_net_with_a_random_last_layer_is_left_out(nets_project):
    nets_project.ok("finetune")
    assert "not scored" in nets_project.ok("scores")
    assert "its last layer is random" in (folder(nets_project) / NOT_SCORED).read_text()
    assert not found(nets_project)


def test_a_trained_net_used_as_it_is_keeps_its_last_layer(trained):
    """iterations: 0 on a file that learnt the same classes is not a random net."""
    start = trained.folder / "start.safetensors"
    start.write_bytes(trained.net().read_bytes())
    trained.params["finetune"]["spatial"] |= {"iterations": 0, "weights": str(start)}
    trained.ok("finetune")
    assert "5 computed" in trained.ok("scores")


def test_a_net_that_knows_other_classes_is_left_out(trained):
    path = trained.folder / "data/toy/clips.csv"
    table = read_clips(path)
    clips = [replace(clip, class_name="wave") if clip.class_name == "right" else clip for clip in table.clips]
    write_clips(ClipTable(tuple(clips), ("left", "wave"), table.splits), path)
    for kind in ("frames", "flow"):
        (trained.folder / f"data/toy/{kind}/right").rename(trained.folder / f"data/toy/{kind}/wave")
    assert "it knows other classes (2, left, right, ..) than the dataset (2)" in trained.ok("scores")
    assert (folder(trained) / NOT_SCORED).exists()


def test_switched_off_and_on_again(trained):
    trained.ok("scores")
    before = found(trained)
    trained.params["scores"]["enabled"] = False
    assert "scores.enabled is false" in trained.ok("scores")
    assert {path.name for path in folder(trained).iterdir()} == {NOT_SCORED, CONTENTS}
    trained.params["scores"]["enabled"] = True
    assert "5 reused" in trained.ok("scores")
    assert found(trained) == before
    assert not (folder(trained) / NOT_SCORED).exists()


def test_clips_that_failed_before_are_rows_of_the_ledger(trained):
    trained.clip_path("frames", "a3").unlink()
    write_failures(trained.folder / "data/toy/frames", [Failure("left", "a3", "no frames")])
    trained.params["dataset"]["allowed_failures"] = 1
    assert "1 clip: no frames: no frames (left/a3)" in trained.ok("scores")
    assert "a3" not in found(trained)


def test_both_weights_of_the_mean_cannot_be_0(trained):
    trained.params["evaluate"]["fusion"] = [0, 0]
    assert "evaluate.fusion: one of the two weights" in trained.refused("scores")


def test_presets_score_as_the_two_stream_nets_were_scored(repository):
    for name in ("ucf101", "ut_interaction", "folder"):
        scores = load_params(repository / "presets" / f"{name}.yaml").scores
        assert (scores.enabled, scores.frames, scores.crops) == (True, 25, 10)
    assert not load_params(repository / "presets" / "hmdb51.yaml").scores.enabled
