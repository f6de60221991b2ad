"""Slow Fusion's stages: from clip files to a net, to scores, to predictions, once each."""

import json

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from han_core.baselines.two_stream.scorefile import NOT_SCORED, read_scores
from han_core.cache.fingerprint import without_code
from han_core.clipfile.reader import ClipFile
from han_core.finetune.sgd import SGDSchedule
from han_core.images import reader as imagefile
from han_core.nets.sealed_net import read_metadata
from han_core.nets.slow_fusion.inputs import SquareViews
from han_core.nets.slow_fusion.net_file import read_net
from han_core.nets.slow_fusion.weights import initial_net
from han_core.predictions import probabilities_file, read_left_out, read_predictions
from han_core.runs.processes import Processes
from pipeline import finetune_slow_fusion, scores_slow_fusion, slow_fusion
from pipeline.adopt import main as adopt
from pipeline.curve import read_curve
from pipeline.execution.ledger import Failure, write_failures
from pipeline.params import SlowFusionRecipe
from tests.small_slow_fusion import SmallSlowFusion

STAGES = {"train": finetune_slow_fusion.main, "scores": scores_slow_fusion.main, "predict": slow_fusion.main}


class Project:
    """The stages of Slow Fusion in a project of six clips of three frames."""

    def __init__(self, nets):
        self.nets, self.folder, self.params = nets, nets.folder, nets.params
        self.recipe = self.params["slow_fusion"]["train"]
        self.params["slow_fusion"]["splits"] = self.params["splits"]
        self.recipe |= {"fc_size": 8, "iterations": 2, "batch": 4, "micro_batch": 2, "precision": "float32"}
        self.params["slow_fusion"]["scores"] |= {"windows": 3, "precision": "float32"}

    def run(self, stage, split=1):
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self.params), encoding="utf-8")
        return self.nets.runner.invoke(STAGES[stage], ["--split", str(split)])

    def ok(self, *stages, split=1):
        for stage in stages:
            result = self.run(stage, split)
            assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    def refused(self, stage, split=1):
        result = self.run(stage, split)
        assert result.exit_code == 1
        assert isinstance(result.exception, SystemExit), result.exception  # no traceback
        return result.output

    def net(self, split=1):
        return self.folder / f"models/toy/nets/slow_fusion-{split}.safetensors"

    @property
    def scores(self):
        return self.folder / "data/toy/scores/slow_fusion-1"

    @property
    def predictions(self):
        return self.folder / "data/toy/predictions/slow_fusion-1"

    def scored(self):
        return {path.stem: path.read_bytes() for path in self.scores.rglob("*.h5")}

    def made(self):
        """Name -> content of the net and its curve."""
        paths = [self.net(), *(self.folder / "plots/toy/finetune/slow_fusion-1").rglob("*")]
        return {path.name: path.read_bytes() for path in paths if path.is_file()}


@pytest.fixture
def project(nets_project, monkeypatch):
    from han_core.nets.slow_fusion import net_file, weights

    for module in (net_file, weights):
        monkeypatch.setattr(module, "empty_net", SmallSlowFusion)
    return Project(nets_project)


def test_the_whole_recipe_reaches_the_training_loop():
    recipe = SlowFusionRecipe(
        weights="net.safetensors",
        trained="top3",
        resize=222,
        flip=False,
        iterations=3,
        batch=5,
        micro_batch=2,
        learning_rate=0.3,
        steps=(2,),
        gamma=0.5,
        momentum=0.7,
        weight_decay=0.01,
        warmup=1,
        clip_gradient=9,
        validate_every=7,
    )
    found = finetune_slow_fusion.schedule(recipe, "bfloat16")
    of_the_net = {"weights", "trained", "fc_size", "dropout", "resize", "flip"}
    expected = recipe.model_dump(exclude=of_the_net) | {
        "precision": "bfloat16",
        "frozen": "conv5",
        "views": SquareViews(222, flip=False),
        "bias_rate": 1,
        "bias_decay": 1,
        "rates": {},
    }
    assert vars(found) == expected
    assert finetune_slow_fusion.schedule(SlowFusionRecipe(), "float32").frozen is None
    assert vars(found).keys() == SGDSchedule.__dataclass_fields__.keys()


def test_from_clips_to_predictions(project):
    said = project.ok("train")
    assert "2 iterations on 3 clips" in said
    assert "windows per clip: 3, on cpu in float32" in project.ok("scores")
    project.ok("predict")
    assert set(project.scored()) == {"a3", "b3"}  # test clips only: nothing is fitted to scores of others
    found = read_predictions(probabilities_file(project.predictions, "slow_fusion"), ("left", "right"))
    assert set(found) == {"left/a3", "right/b3"}
    for path in project.scores.rglob("*.h5"):
        with ClipFile(path) as file:
            assert (file.kind, file.attributes["stream"], file.attributes["window"]) == ("scores", "slow_fusion", 10)
            assert file.array("frames").tolist() == [0, 0, 0]
            assert file.array("probabilities").shape == (3, 2)
        np.testing.assert_allclose(found[f"{path.parent.name}/{path.stem}"], read_scores(path), rtol=1e-6)
    assert read_left_out(project.predictions) == {}


def test_the_file_says_what_the_net_is(project):
    project.recipe |= {"resize": 210, "flip": False}
    project.ok("train")
    trained = read_net(project.net())
    assert trained.views == SquareViews(210, flip=False)
    metadata = trained.metadata
    assert (metadata["classifier"], metadata["stream"], metadata["seed"]) == ("trained", "slow_fusion", "1")
    assert json.loads(metadata["classes"]) == ["left", "right"]
    recipe = json.loads(metadata["recipe"])
    assert (recipe["iterations"], recipe["weights"], recipe["trained"]) == (2, "random: NumPy PCG64", "all")
    assert "data" in metadata
    (cached,) = [path for path in project.nets.cached("nets") if path.suffix == ".safetensors"]
    assert cached.name.startswith(metadata["fingerprint"])


def test_training_changes_all_layers_and_leaves_a_curve(project):
    project.recipe |= {"learning_rate": 0.01, "validate_every": 2}
    project.ok("train")
    before = initial_net("random", classes=2, fc_size=8, seed=1).state_dict()
    after = load_file(project.net())
    assert not any(torch.equal(before[name], after[name]) for name in before if name.endswith("weight"))
    curve = project.folder / "plots/toy/finetune/slow_fusion-1"
    assert read_curve(curve, "loss").keys() == {1, 2}
    assert read_curve(curve, "validation_top1").keys() == {2}  # the clip b2 is held out


def test_only_training_clips_of_the_split_are_opened(project, monkeypatch):
    opened, start = set(), imagefile.read_index

    def watched(path, *names):
        opened.add((path.stem, *names))
        return start(path, *names)

    monkeypatch.setattr(imagefile, "read_index", watched)
    project.recipe["validate_every"] = 0
    project.ok("train")
    assert opened == {("a1", "frames"), ("a2", "frames"), ("b1", "frames")}


def test_a_net_is_made_once_and_the_same_bytes_when_made_anew(project, monkeypatch):
    project.ok("train")
    expected = project.made()
    assert len(expected) == 6  # the net, the last figures, and four curves
    project.net().unlink()
    assert "reused" in project.ok("train")
    assert project.made() == expected
    monkeypatch.setenv("HAN_CACHE", "another")
    assert "2 iterations" in project.ok("train")
    assert project.made() == expected


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(project, monkeypatch):
    from han_core.finetune import loop

    project.params["run"]["checkpoint_seconds"] = 0
    project.recipe["iterations"] = 4
    project.ok("train")
    expected = project.made()
    monkeypatch.setenv("HAN_CACHE", "another")
    step, done = loop.train_step, []

    def killed(*arguments):
        done.append(1)
        if len(done) == 3:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(loop, "train_step", killed)
    assert project.run("train").exit_code != 0
    monkeypatch.setattr(loop, "train_step", step)
    assert "4 iterations on 3 clips" in project.ok("train")
    assert project.made() == expected
    log = (project.folder / "logs/toy/finetune-slow_fusion-1.log").read_text(encoding="utf-8")
    assert "resumes after iteration 2" in log
    assert "2 iterations in" in log


def fingerprint(project, split=1):
    project.ok("train", split=split)
    return read_metadata(project.net(split))["fingerprint"]


def test_what_a_net_was_made_from_is_in_its_fingerprint(project):
    first = fingerprint(project)
    project.params["slow_fusion"]["scores"]["windows"] = 4
    project.nets.write_clip("a3", 77)  # a test clip
    assert fingerprint(project) == first
    seen = {first, fingerprint(project, split=2)}
    for key, value in (("momentum", 0.8), ("flip", True), ("resize", 230), ("dropout", [0.1, 0.1])):
        project.recipe[key] = value
        seen.add(fingerprint(project))
    project.nets.write_clip("a2", 78)  # a training clip
    seen.add(fingerprint(project))
    project.params["seed"] = 2
    seen.add(fingerprint(project))
    assert len(seen) == 8


def test_a_clip_is_scored_again_only_if_it_its_net_or_the_protocol_changed(project):
    project.ok("train", "scores")
    first = project.scored()
    assert "2 reused, 0 computed" in project.ok("scores")
    project.nets.write_clip("a3", 77)
    assert "1 reused, 1 computed" in project.ok("train", "scores")
    assert {name for name, content in project.scored().items() if content != first[name]} == {"a3"}
    project.params["slow_fusion"]["scores"]["windows"] = 2
    assert "0 reused, 2 computed" in project.ok("scores")
    project.recipe["flip"] = True
    assert "mirrored too" in project.ok("train", "scores")


def test_windows_that_are_asked_for_twice_count_twice(project):
    """One window is all that three frames have, so three of it are the same; and the mean is one of them."""
    project.ok("train", "scores")
    (path,) = project.scores.rglob("a3.h5")
    with ClipFile(path) as file:
        rows = file.array("probabilities")
    assert np.array_equal(rows[0], rows[1])
    project.params["slow_fusion"]["scores"]["windows"] = 1
    project.ok("scores")
    np.testing.assert_allclose(read_scores(path), rows[0], rtol=1e-6)


def test_a_net_with_a_random_last_layer_is_left_out(project):
    project.recipe["iterations"] = 0
    for split in (1, 2):
        project.ok("train", split=split)
    assert project.net(1).samefile(project.net(2))
    assert "not scored: models/toy/nets/slow_fusion-1.safetensors: its last layer is random" in project.ok("scores")
    assert (project.scores / NOT_SCORED).exists()
    assert "no row" in project.ok("predict")
    assert "its last layer is random" in read_left_out(project.predictions)["slow_fusion"]
    project.recipe["iterations"] = 1
    project.ok("train", "scores", "predict")
    assert not (project.scores / NOT_SCORED).exists()
    assert read_left_out(project.predictions) == {}


def test_pre_trained_weights_come_from_a_file_and_the_lower_layers_stay(project):
    project.ok("train")
    start = project.folder / "start.safetensors"
    start.write_bytes(project.net().read_bytes())
    project.recipe |= {"weights": str(start), "trained": "top3", "learning_rate": 0.01}
    project.ok("train")
    given, found = load_file(start), load_file(project.net())
    moved = {name.split(".")[0] for name in given if not torch.equal(given[name], found[name])}
    assert moved == {"fc6", "fc7", "fc8"}
    project.recipe["trained"] = "top"
    project.ok("train")
    found = load_file(project.net())
    assert {name.split(".")[0] for name in given if not torch.equal(given[name], found[name])} == {"fc8"}
    project.recipe |= {"iterations": 0}
    project.ok("train")  # as it is: it knows the classes
    assert read_metadata(project.net())["classifier"] == "trained"
    assert "2 computed" in project.ok("scores")


def test_clips_that_failed_before_are_rows_of_the_ledger(project):
    project.nets.clip_path("frames", "a3").unlink()
    write_failures(project.folder / "data/toy/frames", [Failure("left", "a3", "no frames")])
    project.params["dataset"]["allowed_failures"] = 1
    project.ok("train")
    assert "1 clip: no frames: no frames (left/a3)" in project.ok("scores")
    project.ok("predict")
    found = read_predictions(probabilities_file(project.predictions, "slow_fusion"), ("left", "right"))
    assert set(found) == {"right/b3"}


@pytest.mark.usefixtures("small_training_images", "small_nets")
def test_plain_errors(project):
    assert "split 3 is not in the clips table" in project.refused("train", split=3)
    assert "slow_fusion-1.safetensors: is missing; make it with stage finetune-slow-fusion" in project.refused("scores")
    assert "a3.h5: cannot be opened" in project.refused("predict")
    project.recipe["weights"] = "nowhere.safetensors"
    assert "nowhere.safetensors: cannot be read" in project.refused("train")
    project.recipe |= {"weights": "random", "trained": "top"}
    assert "slow_fusion.train: trained: top would leave random layers" in project.refused("train")
    project.recipe |= {"trained": "all", "learning_rate": 1e9, "iterations": 9}
    assert "lower learning_rate" in project.refused("train")
    assert not project.net().exists()
    project.net().parent.mkdir(parents=True, exist_ok=True)
    project.net().write_bytes(b"not a net")
    assert "is not a safetensors file" in project.refused("scores")
    project.nets.ok("finetune")  # a VGG-16
    project.net().write_bytes(project.nets.net().read_bytes())
    assert "its last layer is random" in project.ok("scores")
    project.params["finetune"]["spatial"] |= {"iterations": 1, "batch": 1, "micro_batch": 1}
    project.nets.ok("finetune")
    project.net().write_bytes(project.nets.net().read_bytes())
    assert "does not say that it is a slow fusion net" in project.refused("scores")


def test_several_processes_are_started_as_asked(project, monkeypatch):
    asked = []

    def relaunched(run, module, arguments):
        asked.append((run.processes, module, arguments))
        return run.processes > 1

    monkeypatch.setattr(finetune_slow_fusion, "relaunched", relaunched)
    project.params["run"]["processes"] = 2
    project.ok("train")
    assert asked == [(2, "pipeline.finetune_slow_fusion", ["--split", "1", "--params", "params.yaml"])]
    assert not project.net().exists()


def test_only_the_main_process_prints_and_writes(project, monkeypatch):
    monkeypatch.setattr(Processes, "main", property(lambda self: False))
    assert project.ok("train") == ""
    assert not project.net().exists()
    assert not list(project.folder.glob("logs/toy/*"))
    assert not project.nets.cached("nets")


def test_scores_can_be_adopted(project):
    project.ok("train", "scores")
    first = project.scored()
    for path in project.nets.cached("scores"):  # as if the code before had made them
        path.rename(path.with_name(f"{without_code(path.stem)}-0123456789abcdef.h5"))
    result = project.nets.runner.invoke(adopt, ["scores-slow-fusion@1"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert "2 clips made again, all equal; 2 of 2 files adopted" in result.output
    assert "2 reused, 0 computed" in project.ok("scores")
    assert project.scored() == first
