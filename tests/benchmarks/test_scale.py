"""The dry run of UCF-101's shape: its data has that shape, and its figures are those of the processes that ran."""

import sys
import time
from collections import Counter
from subprocess import Popen

import pytest
import yaml

from benchmarks import scale
from benchmarks.dvc_files import a_file, measured
from benchmarks.scale import GROUPS, SPLITS, Found, measured_slopes, named, params_of, shape, write_lists, write_video
from benchmarks.watch import Watch
from han_core.datasets.checks import check_listing
from han_core.datasets.ucf101 import list_ucf101
from pipeline.params import load_params


def test_the_clips_are_as_many_as_ucf101_has_in_as_many_classes_and_groups():
    clips = shape(13320)
    assert len(clips) == 13320
    per_class = Counter(class_name for class_name, _ in clips)
    assert len(per_class) == 101
    assert set(per_class.values()) == {131, 132}
    assert len({group for _, group in clips}) == GROUPS
    paths = named(clips)
    assert len(set(paths)) == 13320
    assert "Class001/v_Class001_g01_c06.avi" in paths


def test_the_lists_are_sound_and_every_video_is_another(tmp_path):
    paths = named(shape(60))
    for seed, path in enumerate(paths):
        write_video(tmp_path / "videos" / path, seed)
    write_lists(tmp_path / "lists", paths)
    listing = list_ucf101(tmp_path / "videos", tmp_path / "lists", SPLITS)
    assert check_listing(listing, SPLITS) == []
    assert len(listing.videos) == 60
    for split in SPLITS:
        assert listing.splits[split].train
        assert listing.splits[split].test
    assert len({(tmp_path / "videos" / path).read_bytes() for path in paths}) == 60


def test_the_params_are_those_of_three_splits_and_sound(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params_of(tmp_path)))
    params = load_params(path)
    assert list(params.splits) == list(params.finetune.splits) == [1, 2, 3]


def test_what_grows_with_the_clips_is_told_from_what_does_not():
    small, large = Found(100), Found(1100)
    small.commands["no-op"] = {"seconds": 3.0, "megabytes": 60.0}
    large.commands["no-op"] = {"seconds": 5.0, "megabytes": 160.0}
    found = measured_slopes(small, large)["commands"]
    assert found["no-op seconds"] == {"a_clip": 2.0, "fixed": 2.8}
    assert found["no-op megabytes"] == {"a_clip": 100.0, "fixed": 50.0}


def test_memory_is_that_of_the_process_that_is_asked_for_and_not_of_its_parent(tmp_path):
    code = "import sys, time; held = bytearray(int(sys.argv[1]) << 20); time.sleep(1)"
    with Watch(tmp_path) as watch:
        processes = [Popen([sys.executable, "-c", code, str(size)], cwd=tmp_path) for size in (10, 90)]
        for process in processes:
            process.wait()
    ten, ninety = watch.most("sleep(1) 10"), watch.most("sleep(1) 90")
    assert 75 < ninety - ten < 85
    assert ten < 60, "what the tests hold is not counted"
    assert watch.most("nothing of this name") == 0


def test_a_stage_s_own_process_is_found_and_not_its_workers(tmp_path):
    package = tmp_path / "pipeline"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "decode.py").write_text(
        "import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', 'import time; time.sleep(1)'])"
    )
    with Watch(tmp_path) as watch:
        began = time.monotonic()
        Popen([sys.executable, "-m", "pipeline.decode"], cwd=tmp_path).wait()
    seen = watch.stage(began, time.monotonic())
    assert seen.command.endswith("-m pipeline.decode")
    assert 0.7 < seen.ended - seen.began < 5
    assert watch.stage(began - 100, began - 50) is None


@pytest.mark.long
def test_the_commands_of_dvc_are_timed_on_a_folder(tmp_path):
    small, large = measured(tmp_path / "small", 100, 10), measured(tmp_path / "large", 300, 10)
    slopes = a_file(small, large, (100, 300))
    assert {"commit", "no-op", "checkout", "push", "pull"} < slopes.keys()
    assert len(list((tmp_path / "large-remote/files/md5").rglob("*"))) > 300
    assert len(list((tmp_path / "large/made").rglob("*.h5"))) == 300, "pulled"


@pytest.mark.slow
def test_the_whole_campaign_on_a_few_clips_and_once_more_in_its_folder(tmp_path):
    found = scale.measured(tmp_path, 30)
    assert found.stages["decode"]["files"] == 32, "the ledger and the list beside the clips"
    assert found.stages["cubes-spatial@3"]["bytes"] > 0
    assert {"first", "no-op", "reused", "restored", "one more"} <= found.commands.keys()
    assert set(found.reused) >= {"decode", "flow", *(f"cubes-{s}@{n}" for s in ("spatial", "temporal") for n in SPLITS)}
    assert "decode" in found.commands["one more"]["stages"]
    again = scale.measured(tmp_path, 30)
    assert again.stages.keys() <= found.stages.keys() | {"report"}
