"""Stage cubes: a file for every clip of the split, made once, and an account of those that failed."""

import os
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from han_core.camera.shake import Hand, shake_frames, shake_levels
from han_core.camera.steady import write_steady_flow
from han_core.camera.storedflow import StoredFlow
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import read_trailer
from han_core.cubes.cubefile import read_cube
from han_core.cubes.folder import SHARDS, CubeFolder, shard_files
from han_core.cubes.statistics import read_statistics, store_statistics
from han_core.devices import TOLERANCE, device_apart
from han_core.flow.flowfile import read_flow_levels
from han_core.nets import extract as module
from han_core.nets.clip_inputs import read_clip_frames
from han_core.nets.net_file import read_net, write_net
from han_core.nets.preprocess import spatial_input, temporal_input
from han_core.nets.sampling import sample_frames, stack_fields
from han_core.nets.sealed_net import net_identity, read_metadata
from han_core.tables.checked import read_table
from pipeline.cubes import CubeSettings
from pipeline.execution.contents import CONTENTS
from pipeline.execution.ledger import Failure, read_failures, write_failures

CLASSES = {"a": "left", "b": "right"}


@pytest.fixture
def full_size(nets_project):
    """With the nets of split 1, and one frame a clip: a pass at 224x224 takes a while on one core."""
    nets_project.params["cubes"]["frames"] = 1
    for stream in ("spatial", "temporal"):
        nets_project.ok("finetune", stream)
    return nets_project


@pytest.fixture
def project(full_size, monkeypatch):
    """Images of 64x64, where nothing depends on the size."""
    for name, whole in (("spatial_input", spatial_input), ("temporal_input", temporal_input)):
        monkeypatch.setattr(module, name, partial(whole, size=64))
    return full_size


def only_a1(project, *further):
    """All other clips failed before, and that is allowed."""
    project.params["dataset"]["allowed_failures"] = 9
    others = [Failure(CLASSES[clip[0]], clip, "x") for clip in ("a2", "a3", "b1", "b2", "b3")]
    for source in ("frames", "flow", *further):
        write_failures(project.folder / "data/toy" / source, others)


def cube_path(project, clip, stream="spatial", split=1):
    return project.clip_path(f"cubes/{stream}-{split}", clip)


def test_every_clip_with_a_role_gets_what_the_net_gives(full_size):
    project = full_size
    output = project.ok("cubes")
    assert "cubes-spatial-1: 6 clips: 0 reused, 6 computed, 0 failed" in output
    net, metadata = read_net(project.net())
    source = project.clip_path("frames", "b2")
    with ClipFile(cube_path(project, "b2")) as file:
        facts, cubes, fc = file.attributes, read_cube(file.path), file.array("fc7")
        assert file.array("frames").tolist() == [1]
    assert (facts["stream"], facts["layer"], facts["fc"]) == ("spatial", "conv5_3", "fc7")
    assert facts["net"] == net_identity(project.net(), metadata)
    expected = net.extract(spatial_input(read_clip_frames(source, 1).pixels, "torchvision"))
    assert cubes.shape == (1, 512, 14, 14)
    np.testing.assert_allclose(cubes, expected["conv5_3"], rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(fc, expected["fc7"], rtol=2e-3, atol=2e-3)


def test_temporal_cubes_are_of_stacks(project):
    assert "6 computed" in project.ok("cubes", "temporal")
    net, _ = read_net(project.net("temporal"))
    clip = read_clip_frames(project.clip_path("flow", "a1"), 1, stack=2)
    expected = net.extract(temporal_input(clip.pixels, clip.fields, "torchvision", size=64))["conv5_3"]
    with ClipFile(cube_path(project, "a1", "temporal")) as file:
        np.testing.assert_allclose(read_cube(file.path), expected, rtol=2e-3, atol=2e-3)
        assert file.attributes["stack"] == 2


def test_a_split_has_the_clips_that_it_uses_and_reuses_what_is_the_same(project):
    project.ok("cubes")
    project.ok("finetune", split=2)  # iterations: 0, so the same net
    assert "5 clips: 5 reused, 0 computed" in project.ok("cubes", split=2)
    assert not cube_path(project, "b3", split=2).exists()
    assert cube_path(project, "a1", split=2).samefile(cube_path(project, "a1"))


def test_what_the_store_holds_is_counted_whether_its_files_are_made_or_reused(project):
    project.params["dataset"]["allowed_failures"] = 1
    write_failures(project.folder / "data/toy/frames", [Failure("right", "b3", "x")])
    path = project.folder / "metrics/toy/store/spatial-1.json"
    for said in ("5 computed", "5 reused"):
        assert said in project.ok("cubes")
        files = sorted((project.folder / "data/toy/cubes/spatial-1").rglob("*.h5"))
        assert (len(files), read_statistics(path)) == (5, store_statistics(map(read_trailer, files)))
        path.write_text("of an earlier run")
        path.chmod(0o444)  # a link into DVC's cache


def test_a_store_without_clips_is_told_plainly(project):
    project.params["dataset"]["allowed_failures"] = 6
    failures = [Failure(CLASSES[clip[0]], clip, "x") for clip in ("a1", "a2", "a3", "b1", "b2", "b3")]
    write_failures(project.folder / "data/toy/frames", failures)
    assert "Error: cubes spatial-1: no cube files to measure: no clip has cubes" in project.refused("cubes")


def test_shards_hold_the_same_cubes_and_cost_no_pass_of_the_net(project):
    project.params["cubes"]["views"] = ["mirrored"]
    project.ok("cubes")
    cubes, views = (project.folder / "data/toy" / kind / "spatial-1" for kind in ("cubes", "views"))
    listed = {folder: (folder / CONTENTS).read_bytes() for folder in (cubes, views, views / "mirrored")}
    counted = project.folder / "metrics/toy/store/spatial-1.json"
    before, files = counted.read_bytes(), {path.stem: path.read_bytes() for path in cubes.rglob("*.h5")}
    project.params["cubes"]["shard"] = 2
    said = project.ok("cubes")
    assert "cubes-spatial-1: 6 clips: 6 reused, 0 computed" in said
    assert "cubes-spatial-1-mirrored: 3 clips: 3 reused, 0 computed" in said
    assert shard_files(cubes)
    assert shard_files(views / "mirrored")
    assert not [path for folder in (cubes, views) for path in folder.rglob("*.h5") if path.parent.name != SHARDS]
    assert {folder: (folder / CONTENTS).read_bytes() for folder in listed} == listed, "nobody runs who reads them"
    assert counted.read_bytes() == before
    folder = CubeFolder(cubes)
    for class_name, name in folder.names():
        with folder.find(class_name, name).file() as path:
            assert path.read_bytes() == files.pop(name)
    assert files == {}


def test_what_changed_is_computed_and_the_rest_reused_with_equal_bytes(project, monkeypatch):
    project.ok("cubes")
    before = {clip: cube_path(project, clip).read_bytes() for clip in ("a1", "a2", "b3")}
    project.write_clip("a2", 99)
    assert "6 clips: 5 reused, 1 computed" in project.ok("cubes")
    assert cube_path(project, "a2").read_bytes() != before["a2"]
    project.write_clip("a2", 1)  # as it was
    assert "6 reused" in project.ok("cubes")
    monkeypatch.setenv("HAN_CACHE", "another")
    assert "6 computed" in project.ok("cubes")
    assert {clip: cube_path(project, clip).read_bytes() for clip in before} == before


def test_the_fingerprint_holds_the_net_and_the_settings(project):
    only_a1(project)
    seen = set()
    for change in ({}, {"frames": 2}, {"layer": "pool5"}, {"fc": "fc6"}, {"precision": "bfloat16"}):
        project.params["cubes"] |= change
        project.ok("cubes")
        seen.add(read_trailer(cube_path(project, "a1")).fingerprint)
    project.params["seed"] = 2
    project.ok("finetune")
    project.ok("cubes")
    seen.add(read_trailer(cube_path(project, "a1")).fingerprint)
    assert len(seen) == 6
    with ClipFile(cube_path(project, "a1")) as file:
        assert read_cube(file.path).shape == (2, 512, 2, 2)
        assert file.attributes["precision"] == "bfloat16"
        assert "fc6" in file.names()


def test_failures_are_entries_and_stop_nobody_else(project):
    write_failures(project.folder / "data/toy/frames", [Failure("left", "a1", "the file is empty")])
    project.clip_path("frames", "a2").unlink()
    path = project.clip_path("frames", "b1")
    path.write_bytes(path.read_bytes()[:-2000])
    project.params["dataset"]["allowed_failures"] = 3
    message = project.refused("cubes")
    assert "2 of 6 clips could not be done, through no fault of theirs" in message
    assert "a2.h5: cannot be opened" in message
    assert "b1.h5: is not a finished clip file" in message
    assert cube_path(project, "b3").exists()
    for clip in ("a2", "b1"):
        project.write_clip(clip, 1)
    assert "6 clips: 3 reused, 2 computed, 1 failed" in project.ok("cubes")
    found = read_failures(project.folder / "data/toy/cubes/spatial-1")
    assert found == {"left/a1": "no frames: the file is empty"}


def test_activations_beyond_float16_are_entries(project):
    net, metadata = read_net(project.net())
    net.features[28].bias.data += 1e6
    project.net().unlink()
    write_net(project.net(), net, metadata)
    assert "conv5_3 reaches 1e+06, but float16 ends at 65504" in project.refused("cubes")


def test_nets_from_elsewhere_are_known_by_their_content(project):
    """A file without our metadata, whose input convention the params name."""
    only_a1(project)
    tensors = load_file(project.net())
    project.net().unlink()
    save_file(tensors, project.net())
    assert "does not say which scale" in project.refused("cubes")
    project.params["finetune"]["spatial"]["input"] = "caffe"
    project.ok("cubes")
    first = read_trailer(cube_path(project, "a1")).fingerprint
    tensors["features.0.bias"] += 1
    save_file(tensors, project.net())
    project.ok("cubes")
    assert read_trailer(cube_path(project, "a1")).fingerprint != first


def test_another_datasets_nets_serve(project):
    other = project.folder / "models/other/nets"
    other.mkdir(parents=True)
    project.net().rename(other / "spatial-1.safetensors")
    project.params["cubes"]["nets"] = "other"
    project.params["finetune"]["splits"] = []
    project.ok("cubes")
    with ClipFile(cube_path(project, "a1")) as file:
        net = other / "spatial-1.safetensors"
        assert file.attributes["net"] == net_identity(net, read_metadata(net))


def test_nets_that_do_not_fit_are_refused(project):
    assert "split 7 is not in the clips table, which has 1, 2" in project.refused("cubes", split=7)
    assert "spatial-2.safetensors: is missing; make it with stage finetune" in project.refused("cubes", split=2)
    project.params["stack"] = 5
    assert "takes 4 channels, but the temporal stream has 10 (stack: 5)" in project.refused("cubes", "temporal")
    project.net().unlink()
    project.net().write_text("text")
    assert "is not a safetensors file" in project.refused("cubes")


@pytest.mark.parametrize("executor", ["local", "dask"])
def test_a_net_is_read_only_where_a_clip_is_to_be_made(project, executor, monkeypatch):
    """So its damage is found then, by this process, before any worker is given a clip, and is nobody's failure."""
    project.ok("cubes")
    with project.net().open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    project.params["run"] |= {"executor": executor, "scheduler": "tcp://127.0.0.1:9"}  # nobody listens there
    cube_path(project, "a2").unlink()
    assert "6 reused, 0 computed" in project.ok("cubes")
    project.write_clip("a2", 77)
    said = project.refused("cubes")
    assert "spatial-1.safetensors: is damaged" in said
    assert "Run stage finetune again" in said
    assert read_failures(project.folder / "data/toy/cubes/spatial-1") == {}
    assert cube_path(project, "a1").exists()


def test_further_views_are_stores_of_their_own_and_leave_the_plain_one_as_it_is(project):
    only_a1(project)
    project.params["cubes"]["frames"] = 3
    for stream in ("spatial", "temporal"):
        project.ok("cubes", stream)
    plain = {stream: cube_path(project, "a1", stream).read_bytes() for stream in ("spatial", "temporal")}
    project.params["cubes"]["views"] = ["mirrored", "mirrored-shift1", "shift2"]
    for stream in ("spatial", "temporal"):
        output = project.ok("cubes", stream)
        assert f"cubes-{stream}-1: 6 clips: 1 reused, 0 computed" in output
        assert f"cubes-{stream}-1-shift2: 6 clips: 0 reused, 1 computed" in output
        assert cube_path(project, "a1", stream).read_bytes() == plain[stream]
    net, _ = read_net(project.net())
    frames = read_frames_of(project, "a1")
    chosen = sample_frames(len(frames), 3, thirds=1)
    with ClipFile(view_path(project, "a1", "mirrored-shift1")) as file:
        assert file.array("frames").tolist() == chosen.tolist()
        assert file.attributes["view"] == "mirrored-shift1"
        expected = net.extract(spatial_input(frames[chosen][:, :, ::-1].copy(), "torchvision", size=64))["conv5_3"]
        np.testing.assert_allclose(read_cube(file.path), expected, rtol=2e-3, atol=2e-3)
    net, _ = read_net(project.net("temporal"))
    levels = read_flow_levels(project.clip_path("flow", "a1"))
    turned = levels[..., ::-1].astype(np.int16)
    turned[:, 0] = 255 - turned[:, 0]
    middle = sample_frames(len(levels) + 1, 3)
    stacks = stack_fields(middle, 2, len(levels))
    expected = net.extract(temporal_input(turned.astype(np.uint8), stacks, "torchvision", size=64))["conv5_3"]
    np.testing.assert_allclose(
        read_cube(view_path(project, "a1", "mirrored", "temporal")), expected, rtol=2e-3, atol=2e-3
    )


@pytest.mark.parametrize("camera", ["none", "homography"])
def test_both_streams_of_a_shaken_view_are_moved_by_the_same_hand(project, camera):
    only_a1(project)
    project.params |= {"camera": camera}
    project.params["cubes"] |= {"frames": 3, "views": ["shaken2", "mirrored-shaken1"]}
    flow = project.clip_path("flow", "a1")
    if camera != "none":
        target = project.folder / "data/toy/steady" / flow.relative_to(project.folder / "data/toy/flow")
        target.parent.mkdir(parents=True)
        write_steady_flow(flow, target, clip="a1", fingerprint="5" * 64, camera=camera)
        only_a1(project, "steady")
        flow = target
    for stream in ("spatial", "temporal"):
        assert f"cubes-{stream}-1-shaken2: 3 clips: 0 reused, 1 computed" in project.ok("cubes", stream)
    hand = Hand(2, "a1 shaken2")
    frames = read_frames_of(project, "a1")
    shake_frames(frames, range(len(frames)), hand)
    levels, form = read_flow_levels(flow), stored_form(flow)
    shake_levels(levels, range(len(levels)), hand, form, None if camera == "none" else camera)
    middle = sample_frames(len(frames), 3)
    stacks = stack_fields(middle, 2, len(levels))
    inputs = {
        "spatial": spatial_input(frames[middle], "torchvision", size=64),
        "temporal": temporal_input(levels, stacks, "torchvision", size=64),
    }
    for stream, images in inputs.items():
        net, _ = read_net(project.net(stream))
        found = read_cube(view_path(project, "a1", "shaken2", stream))
        np.testing.assert_allclose(found, net.extract(images)["conv5_3"], rtol=2e-3, atol=2e-3)
        assert np.abs(found - read_cube(cube_path(project, "a1", stream))).max() > 0.01
        assert np.abs(found - read_cube(view_path(project, "a1", "mirrored-shaken1", stream))).max() > 0.01


def test_clips_that_are_not_learnt_from_have_no_mirrored_and_no_shaken_view(project):
    project.params["cubes"]["views"] = ["mirrored", "shift1", "shaken1"]
    output = project.ok("cubes")
    assert "cubes-spatial-1-shift1: 6 clips: 0 reused, 6 computed" in output
    for view in ("mirrored", "shaken1"):
        assert f"cubes-spatial-1-{view}: 3 clips: 0 reused, 3 computed" in output
        assert not view_path(project, "b3", view).exists()  # a test clip
        assert not view_path(project, "b2", view).exists()  # a validation clip
        assert view_path(project, "a2", view).exists()


def stored_form(path):
    with ClipFile(path) as file:
        return StoredFlow(file).form


def test_a_shaken_view_depends_on_what_is_taken_out_again_and_no_other_view_does():
    plain = CubeSettings("n", "caffe", "temporal", 10, 25, "conv5_3", "fc7", 25, "float32")
    shaken = replace(plain, view="shaken1")
    prints = {one.fingerprint("source") for one in (plain, shaken, replace(shaken, camera="homography"))}
    assert len(prints) == 3


def test_a_view_that_is_no_longer_asked_for_is_removed(project):
    only_a1(project)
    project.params["cubes"]["views"] = ["mirrored", "shift1"]
    project.ok("cubes")
    project.params["cubes"]["views"] = ["shift1"]
    assert "0 computed" in project.ok("cubes")
    views = project.folder / "data/toy/views/spatial-1"
    assert {path.name for path in views.iterdir()} == {"shift1", CONTENTS}
    assert [view for view, _ in read_table(views / CONTENTS)[1]] == ["shift1"]


def view_path(project, clip, view, stream="spatial"):
    return project.folder / f"data/toy/views/{stream}-1/{view}/{CLASSES[clip[0]]}/{clip}.h5"


def read_frames_of(project, clip):
    return read_clip_frames(project.clip_path("frames", clip), 1000).pixels


def test_cubes_of_a_gpu_are_those_of_a_cpu_only_in_float32():
    """By their fingerprint: float32 differs by less than a thousandth of the largest value."""
    settings = CubeSettings("n", "caffe", "spatial", 0, 5, "conv5_3", "fc7", 5, "bfloat16")
    found = {
        (precision, device.type): replace(
            settings, precision=precision, device=device_apart(precision, device)
        ).fingerprint("source")
        for precision in ("float32", "bfloat16")
        for device in (torch.device("cpu"), torch.device("cuda"))
    }
    assert found["float32", "cpu"] == found["float32", "cuda"]
    assert len(set(found.values())) == 3
    assert replace(settings, device="").fingerprint("source") == found["bfloat16", "cpu"]


@pytest.mark.long
def test_worker_processes_make_the_bytes_that_this_process_makes(full_size, monkeypatch):
    """As on two GPUs, on the CPU: each process opens the net, and does several clips at once."""
    project = full_size
    for clip in ("a1", "a2", "b1", "b2"):
        project.clip_path("frames", clip).unlink()
    assert "4 of 6 clips could not be done" in project.refused("cubes")
    before = {clip: cube_path(project, clip).read_bytes() for clip in ("a3", "b3")}
    closed = []

    @contextmanager
    def elsewhere(work, nets, job, device, run):
        closed.append(work.name)
        yield replace(work, gpus=2, net=True)

    monkeypatch.setattr("pipeline.execution.clip_tasks.net_work", elsewhere)
    monkeypatch.setenv("HAN_CACHE", "another")
    project.params["run"]["workers"] = 4
    assert "4 of 6 clips could not be done" in project.refused("cubes")
    assert len(closed) == 1
    assert {clip: cube_path(project, clip).read_bytes() for clip in before} == before


@pytest.mark.gpu
def test_on_a_gpu_the_cubes_are_the_cpus_and_the_same_however_many_workers_there_are(full_size, gpu, monkeypatch):
    """Within ``TOLERANCE`` of the largest value, of which float16 takes half."""
    project = full_size
    found = []
    for cache, run in (("a", {"device": "cpu"}), ("b", {"device": "cuda", "workers": 1}), ("c", {"device": "cuda"})):
        monkeypatch.setenv("HAN_CACHE", cache)
        project.params["run"] |= {"workers": 0} | run
        assert "6 computed" in project.ok("cubes")
        found.append({clip: cube_path(project, clip) for clip in ("a1", "b3")})
        found[-1] = {clip: (path.read_bytes(), read_cube(path)) for clip, path in found[-1].items()}
    for clip, (_, expected) in found[0].items():
        assert found[1][clip][0] == found[2][clip][0]
        largest = np.abs(expected.astype(np.float32)).max()
        np.testing.assert_allclose(found[1][clip][1].astype(np.float32), expected, rtol=0, atol=TOLERANCE * largest)
