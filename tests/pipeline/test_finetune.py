"""Stage finetune: from clip files to a net and its curve, once each."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file

from han_core.cache import housekeeping
from han_core.cache.store import ClipCache
from han_core.images import reader as imagefile
from han_core.nets.net_file import read_net
from han_core.nets.sealed_net import read_metadata
from han_core.nets.weights import initial_net
from han_core.runs.processes import Processes
from pipeline import finetune as stage
from pipeline.curve import draw_record, read_curve
from pipeline.execution.ledger import Failure, write_failures
from pipeline.params import Recipe

# Nets and images are small: nothing here depends on the size but the time.
pytestmark = pytest.mark.usefixtures("small_training_images", "small_nets")


def train(project, stream="spatial", **recipe):
    project.params["finetune"][stream] |= {"iterations": 2, **recipe}


def test_the_whole_recipe_reaches_the_training_loop():
    """A setting that is read from the params file and then forgotten is worse than none."""
    recipe = Recipe(
        iterations=3,
        batch=5,
        micro_batch=2,
        learning_rate=0.3,
        steps=(2,),
        gamma=0.5,
        rates={"conv": 0.1},
        bias_rate=3,
        momentum=0.7,
        weight_decay=0.01,
        bias_decay=0.2,
        warmup=1,
        clip_gradient=9,
        frozen="pool1",
        validate_every=7,
        scales=(0.9, 0.8, 0.7),
        max_distort=1,
        corner_crops=False,
        flip=False,
    )
    found = stage.schedule(recipe, "bfloat16")
    of_the_net = {"weights", "input", "fc_size", "dropout"}
    of_the_views = {"scales", "max_distort", "corner_crops", "flip"}
    expected = recipe.model_dump(exclude=of_the_net | of_the_views) | {"precision": "bfloat16"}
    assert {name: value for name, value in vars(found).items() if name != "views"} == expected
    assert vars(found.views) == recipe.model_dump(include=of_the_views)


def test_without_iterations_the_initial_net_is_one_file_for_all_splits(nets_project):
    for split in (1, 2):
        nets_project.ok("finetune", split=split)
    assert nets_project.net(split=1).samefile(nets_project.net(split=2))
    assert json.loads((nets_project.curve() / "metrics.json").read_text()) == {}
    assert [path.name for path in (nets_project.curve() / "plots/metrics").iterdir()] == ["not_trained.tsv"]
    expected = initial_net("random", classes=2, fc_size=8, seed=1).state_dict()
    found = load_file(nets_project.net())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_file_says_what_the_net_is(nets_project):
    nets_project.ok("finetune", "temporal")
    net, metadata = read_net(nets_project.net("temporal"))
    assert net.in_channels == 4
    assert metadata["stream"] == "temporal"
    assert metadata["stack"] == "2"
    assert metadata["input"] == "torchvision"
    assert json.loads(metadata["classes"]) == ["left", "right"]
    assert json.loads(metadata["recipe"])["iterations"] == 0
    assert metadata["classifier"] == "random"
    assert "data" not in metadata
    (cached,) = [path for path in nets_project.cached("nets") if path.suffix == ".safetensors"]
    assert cached.name.startswith(metadata["fingerprint"])


@pytest.mark.parametrize("stream", ["spatial", "temporal"])
def test_training_changes_the_net_and_leaves_a_curve(nets_project, stream):
    train(nets_project, stream, learning_rate=0.01)
    nets_project.ok("finetune", stream)
    channels = 3 if stream == "spatial" else 4
    before = initial_net("random", classes=2, fc_size=8, in_channels=channels, seed=1).state_dict()
    after = load_file(nets_project.net(stream))
    assert not any(torch.equal(before[name], after[name]) for name in before if name.endswith("weight"))
    loss, rate, top1 = (read_curve(nets_project.curve(stream), name) for name in ("loss", "learning_rate", "top1"))
    assert rate == {1: 0.01, 2: 0.01}
    assert loss.keys() == top1.keys() == {1, 2}
    assert all(0 < value < 20 for value in loss.values())
    assert all(0 <= value <= 1 for value in top1.values())
    last = json.loads((nets_project.curve(stream) / "metrics.json").read_text())
    assert last == {"loss": loss[2], "learning_rate": 0.01, "top1": top1[2], "validation_top1": 0, "step": 2}


def test_only_training_clips_of_the_split_are_opened(nets_project, monkeypatch):
    opened = set()
    start = imagefile.read_index

    def watched(path, *names):
        opened.add(path.stem)
        return start(path, *names)

    monkeypatch.setattr(imagefile, "read_index", watched)
    train(nets_project, validate_every=0)
    nets_project.ok("finetune")
    assert opened == {"a1", "a2", "b1"}
    opened.clear()
    nets_project.ok("finetune", split=2)
    assert opened == {"a2", "a3", "b2"}


def test_a_net_is_made_once_and_the_same_bytes_when_made_anew(nets_project, monkeypatch):
    train(nets_project)
    assert "2 iterations on 3 clips" in nets_project.ok("finetune")
    expected = nets_project.made()
    assert len(expected) == 6  # the net, the last figures, and four curves
    nets_project.forget()
    assert "reused" in nets_project.ok("finetune")
    assert nets_project.made() == expected
    monkeypatch.setenv("HAN_CACHE", "another")
    assert "2 iterations" in nets_project.ok("finetune")
    assert nets_project.made() == expected


def test_the_curve_can_be_looked_at_while_the_net_trains(nets_project, monkeypatch):
    seen = []

    def advance(self, steps=1, note=""):
        seen.append(list(read_curve(nets_project.curve(), "loss")))

    monkeypatch.setattr("han_core.runs.progress.Progress.advance", advance)
    train(nets_project)
    nets_project.ok("finetune")
    assert seen == [[1], [1, 2]]


@pytest.mark.parametrize(("iterations", "points"), [(0, []), (3, [1, 2, 3]), (999, [4, 5, 8, 996, 999])])
def test_a_long_curve_is_thinned_but_for_its_validation(tmp_path, iterations, points):
    rows = (f"{n},1.5,0.1,0.25,{0.5 if n == 5 else ''}" for n in range(1, iterations + 1))
    (tmp_path / "record.csv").write_text("\n".join(["iteration,loss,learning_rate,top1,validation_top1", *rows]))
    draw_record(tmp_path / "record.csv", tmp_path / "curve", iterations)
    shown = read_curve(tmp_path / "curve", "loss")
    assert [*shown][:3] + [*shown][3:][-2:] == points
    assert len(shown) < 260
    assert read_curve(tmp_path / "curve", "validation_top1") == ({5: 0.5} if iterations > 5 else {})


def test_a_kill_between_curve_and_net_makes_both_again(nets_project):
    nets_project.ok("finetune")
    (cached,) = [path for path in nets_project.cached("nets") if path.suffix == ".safetensors"]
    cached.unlink()
    assert "reused" not in nets_project.ok("finetune")
    assert nets_project.net().exists()


def test_a_trained_net_names_its_recipe_and_its_data(nets_project):
    train(nets_project, iterations=1, batch=1, micro_batch=1, precision="auto")
    data = []
    for split, changed in ((1, None), (1, "a3"), (1, "a2"), (2, None)):  # a3 is a test clip of split 1
        if changed:
            nets_project.write_clip(changed, 90)
        nets_project.ok("finetune", split=split)
        metadata = read_metadata(nets_project.net(split=split))
        data.append(metadata["data"])
    assert data[0] == data[1]
    assert len(set(data)) == 3
    assert metadata["classifier"] == "trained"
    recipe = json.loads(metadata["recipe"])
    assert (recipe["iterations"], recipe["momentum"], recipe["weights"]) == (1, 0.9, "random: He, NumPy PCG64")
    assert recipe["precision"] in ("float32", "bfloat16")  # what auto came to


def fingerprint(project, stream="spatial", split=1):
    project.ok("finetune", stream, split)
    return read_metadata(project.net(stream, split))["fingerprint"]


def test_what_a_net_was_made_from_is_in_its_fingerprint(nets_project):
    train(nets_project, iterations=1, batch=1, micro_batch=1)
    first = fingerprint(nets_project)
    seen = {first, fingerprint(nets_project, split=2)}
    assert len(seen) == 2
    nets_project.write_clip("a3", 77)  # a test clip
    assert fingerprint(nets_project) == first
    nets_project.write_clip("a2", 78)  # a training clip
    seen.add(fingerprint(nets_project))
    nets_project.params["seed"] = 2
    seen.add(fingerprint(nets_project))
    train(nets_project, iterations=1, momentum=0.8)
    seen.add(fingerprint(nets_project))
    assert len(seen) == 5


def test_settings_of_the_schedule_do_not_matter_without_iterations(nets_project):
    first = fingerprint(nets_project)
    train(nets_project, iterations=0, momentum=0.8, dropout=[0.1, 0.1])
    nets_project.write_clip("a2", 78)
    assert fingerprint(nets_project) == first
    nets_project.params["finetune"]["spatial"]["fc_size"] = 9
    assert fingerprint(nets_project) != first
    assert fingerprint(nets_project, "temporal") != first


def test_clips_that_failed_before_are_left_out(nets_project):
    train(nets_project)
    nets_project.clip_path("frames", "a1").unlink()
    assert "a1.h5: cannot be opened" in nets_project.refused("finetune")
    write_failures(nets_project.folder / "data/toy/frames", [Failure("left", "a1", "no frames")])
    assert "on 2 clips" in nets_project.ok("finetune")


def test_weights_come_from_a_file_with_its_convention(nets_project, shared_data, monkeypatch):
    monkeypatch.undo()  # a file of weights is that of a whole VGG-16
    monkeypatch.chdir(nets_project.folder)
    weights = shared_data / "weights" / "vgg16_imagenet_features.safetensors"
    nets_project.params["finetune"]["temporal"]["weights"] = str(weights)
    nets_project.ok("finetune", "temporal")
    given, found = load_file(weights), load_file(nets_project.net("temporal"))
    assert read_metadata(nets_project.net("temporal"))["input"] == "caffe"
    torch.testing.assert_close(found["features.0.weight"][:, 3], given["features.0.weight"].mean(1))
    assert torch.equal(found["features.28.weight"], given["features.28.weight"])


def test_plain_errors(nets_project):
    assert "split 3 is not in the clips table, which has 1, 2" in nets_project.refused("finetune", split=3)
    nets_project.params["finetune"]["spatial"]["weights"] = "nowhere.safetensors"
    assert "nowhere.safetensors: cannot be read" in nets_project.refused("finetune")
    nets_project.params["finetune"]["spatial"] |= {"weights": "random"}
    train(nets_project, learning_rate=1e9, iterations=9)
    assert "lower learning_rate" in nets_project.refused("finetune")
    assert not nets_project.net().exists()
    assert not list(housekeeping.entries(ClipCache.from_environment(), ["nets"]))


# Several processes


def test_a_net_that_is_trained_starts_the_processes_it_is_given(nets_project, monkeypatch):
    asked = []

    def relaunched(run, module, arguments):
        asked.append((run.processes, module, arguments))
        return run.processes > 1

    monkeypatch.setattr(stage, "relaunched", relaunched)
    nets_project.params["run"]["processes"] = 2
    nets_project.ok("finetune")
    assert asked == []  # nothing to train, nothing to share
    train(nets_project)
    nets_project.net().unlink()
    nets_project.ok("finetune")
    arguments = ["--stream", "spatial", "--split", "1", "--params", "params.yaml"]
    assert asked == [(2, "pipeline.finetune", arguments)]
    assert not nets_project.net().exists()  # it is the processes that make it


def test_only_the_main_process_prints_and_writes(nets_project, monkeypatch):
    monkeypatch.setattr(Processes, "main", property(lambda self: False))
    train(nets_project)
    assert nets_project.ok("finetune") == ""
    assert not nets_project.net().exists()
    assert not list(nets_project.folder.glob("logs/toy/*"))
    assert not nets_project.cached("nets")


# Killed and resumed

DRIVER = """
import sys
from han_core.finetune import batches
from han_core.nets import net_file, weights
from tests.small_net import SmallVGG16

whole = batches.apply_views
batches.apply_views = lambda *args, **options: whole(*args, **options, size=32)
net_file.empty_net = weights.empty_net = SmallVGG16
import runpy
runpy.run_module("pipeline.finetune", run_name="__main__")  # as `python -m pipeline.finetune` does
"""


def start(project, repository, cache: str) -> subprocess.Popen:
    (project.folder / "params.yaml").write_text(yaml.safe_dump(project.params), encoding="utf-8")
    command = [sys.executable, "-c", DRIVER, "--stream", "spatial", "--split", "1"]
    environment = os.environ | {"HAN_CACHE": cache, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}
    return subprocess.Popen(command, cwd=project.folder, env=environment, stderr=subprocess.PIPE, text=True)


def test_the_state_of_a_run_that_was_killed_after_its_net_was_published_goes_with_the_next(nets_project):
    train(nets_project, iterations=1)
    nets_project.ok("finetune")
    (net,) = (path for path in nets_project.cached("nets") if path.suffix == ".safetensors")
    left = nets_project.folder / ".han_cache/checkpoints" / f"{net.name.split('.')[0]}.safetensors"
    left.write_bytes(b"the last state")
    assert "reused" in nets_project.ok("finetune")
    assert not left.exists()


@pytest.mark.long
def test_kill_9_and_again_gives_the_bytes_of_an_uninterrupted_run(nets_project, repository):
    nets_project.params["run"]["checkpoint_seconds"] = 0
    train(nets_project, iterations=100, learning_rate=0.01, precision="float32", batch=2, micro_batch=1)
    nets_project.ok("finetune")
    expected = nets_project.made()
    nets_project.forget()
    log = nets_project.folder / "logs/toy/finetune-spatial-1.log"
    log.unlink()

    killed = start(nets_project, repository, "other")
    checkpoints = nets_project.folder / "other" / "checkpoints"
    deadline = time.monotonic() + 60
    while not list(checkpoints.glob("*.safetensors")):
        assert killed.poll() is None, killed.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(60) == -signal.SIGKILL
    assert not nets_project.net().exists()

    again = start(nets_project, repository, "other")
    assert again.wait(60) == 0, again.stderr.read()
    done = int(re.search(r"resumes after iteration (\d+)", log.read_text())[1])
    assert 0 < done < 100
    assert f"{100 - done} iterations in" in log.read_text()
    assert nets_project.made() == expected
    assert not list(checkpoints.glob("*.safetensors"))
