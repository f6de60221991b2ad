"""The stages of TDD on a tiny dataset: what they write, against loops in float64; what is computed again; errors."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from han_core.baselines.fisher.codebook import codebook_identity, read_codebook
from han_core.baselines.fisher.fisherfile import read_vector
from han_core.baselines.fisher.stored import CodebookError
from han_core.baselines.tdd.samplefile import read_samples
from han_core.baselines.trajectories.trajectoryfile import read_trajectories
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import read_trailer
from han_core.images.reader import ImageReader
from han_core.nets.net_file import read_net, write_net
from han_core.nets.sealed_net import WeightsError
from pipeline import tdd, tdd_codebook, tdd_net, tdd_samples
from pipeline.execution.ledger import Failure, read_failures, write_failures
from pipeline.params import ParamsError, load_params
from tests.pipeline.toy_tdd import FRAMES, ROLES, STACK, STILL, TddProject, make_project, toy_params

pytestmark = pytest.mark.usefixtures("small_nets")

CHANNELS = ["conv4_3_st", "conv4_3_ch", "conv5_3_st", "conv5_3_ch"]


@pytest.fixture
def project(repository, tmp_path, monkeypatch) -> TddProject:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HAN_CACHE", raising=False)
    return make_project(tmp_path, repository)


@pytest.fixture
def params_file(repository, tmp_path):
    """Params to change, and what loads them then."""
    params = toy_params(repository)

    def load():
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        return load_params(tmp_path / "params.yaml")

    return params, load


def make_all(project, stream="spatial") -> str:
    return "".join(project.ok(stage, "--stream", stream) for stage in (tdd_samples, tdd_codebook, tdd))


def maps_of(project, clip: str, stream: str) -> dict[str, np.ndarray]:
    """Maps (frames, rows, columns, channels) float64 of all frames, which are of the net's size already."""
    net, _ = read_net(project.net(stream))
    reader = ImageReader()
    if stream == "spatial":
        path = project.clip_path("frames", clip)
        images = np.stack(reader.decode(path, "frames", 0, FRAMES - 1, grey=False))[..., ::-1].astype(np.float32)
        inputs = torch.from_numpy((images - [123.68, 116.779, 103.939]).astype(np.float32)).permute(0, 3, 1, 2)
    else:
        path = project.clip_path("flow", clip)
        x, y = (np.stack(reader.decode(path, name, 0, FRAMES - 2, grey=True)) for name in ("x", "y"))
        stacks = [[c[min(t + i, FRAMES - 2)] for i in range(STACK) for c in (x, y)] for t in range(FRAMES)]
        inputs = torch.from_numpy(np.array(stacks, np.float32) - 127.5)
    found = net.extract(inputs, ["conv4_3", "conv5_3"])
    return {layer: maps.permute(0, 2, 3, 1).double().numpy() for layer, maps in found.items()}


def descriptors_of(project, clip: str, stream: str) -> dict[str, np.ndarray]:
    """Point by point, as the paper writes it: maps normalised, summed, and the root taken."""
    trajectories = read_trajectories(project.clip_path("trajectories", clip))
    kept = np.flatnonzero(trajectories.scale == 0)
    found = {}
    for layer, maps in maps_of(project, clip, stream).items():
        stride = {"conv4_3": 8, "conv5_3": 16}[layer]
        for name, axes in (("st", (0, 1, 2)), ("ch", 3)):
            largest = maps.max(axes, keepdims=True)
            values = maps / np.where(largest > 0, largest, 1)
            sums = np.zeros((len(kept), maps.shape[3]))
            for row, i in enumerate(kept):
                for step in range(15):
                    x, y = ((trajectories.points[i, step].astype(float) + 0.5) // stride).astype(int)
                    sums[row] += values[trajectories.start[i] + step, y, x]
            found[f"{layer}_{name}"] = np.sqrt(sums)
    return found


@pytest.mark.parametrize("stream", ["spatial", "temporal"])
def test_vectors_are_those_of_a_loop_over_points_and_gaussians(project, stream):
    said = make_all(project, stream)
    assert f"tdd-{stream}-1: 5 clips: 0 reused, 5 computed, 0 failed" in said
    codebook, metadata = read_codebook(project.codebook(f"tdd-{stream}"))
    assert list(codebook.channels) == sorted(CHANNELS)
    expected = descriptors_of(project, "b3", stream)
    path = project.clip_path(f"tdd/{stream}-1", "b3")
    for channel in CHANNELS:
        own = codebook.channels[channel]
        assert own.projection.components.shape == (6, 32)
        drawn = [
            read_samples(project.clip_path(f"tdd_samples/{stream}-1", name))[channel]
            for name in project.files(f"tdd_samples/{stream}-1")
        ]
        np.testing.assert_allclose(own.projection(np.concatenate(drawn)).var(0), 1, rtol=1e-3)  # whitened
        mixture = {name: np.asarray(getattr(own.mixture, name), float) for name in ("weights", "means", "variances")}
        u, v = np.zeros((3, 6)), np.zeros((3, 6))
        for x in (expected[channel] - own.projection.mean) @ own.projection.components.T.astype(float):
            away = (x - mixture["means"]) / np.sqrt(mixture["variances"])
            q = mixture["weights"] * np.exp(-0.5 * (away**2).sum(1)) / np.sqrt(mixture["variances"].prod(1))
            q /= q.sum()
            u += q[:, None] * away / np.sqrt(mixture["weights"])[:, None]
            v += q[:, None] * (away**2 - 1) / np.sqrt(2 * mixture["weights"])[:, None]
        vector = np.concatenate([u.ravel(), v.ravel()])
        vector = np.sign(vector) * np.sqrt(np.abs(vector))
        np.testing.assert_allclose(read_vector(path, channel), vector / np.linalg.norm(vector), atol=5e-3)
    with ClipFile(path) as file:
        facts = file.attributes
    assert (file.kind, facts["stream"], facts["tracks"], facts["step"]) == ("fisher", stream, 20, 1)
    assert (facts["layers"], facts["sizes"]) == ("conv4_3, conv5_3", "1.0")
    assert facts["codebook"] == codebook_identity(metadata)


def test_samples_are_descriptors_of_training_clips(project):
    project.ok(tdd_samples, "--stream", "spatial")
    found = project.files("tdd_samples/spatial-1")
    assert len(found) == 2  # codebook_clips
    assert found.keys() < {"a1", "a2", "b1"}
    for clip in found:
        samples = read_samples(project.clip_path("tdd_samples/spatial-1", clip))
        expected = descriptors_of(project, clip, "spatial")
        assert samples.keys() == set(CHANNELS)
        for channel, values in samples.items():
            assert values.shape == (20, 32)  # all there are: 60 are wanted of both
            np.testing.assert_allclose(values, expected[channel], rtol=2e-3, atol=2e-3)


def test_shares_are_in_proportion_to_the_tracks(project):
    project.params["tdd"] |= {"codebook_clips": 3, "samples": 15}
    project.write_trajectories("a1", 1, count=90)
    project.ok(tdd_samples, "--stream", "spatial")
    sizes = {
        clip: len(read_samples(project.clip_path("tdd_samples/spatial-1", clip))["conv4_3_st"])
        for clip in project.files("tdd_samples/spatial-1")
    }
    assert sizes == {"a1": 9, "a2": 3, "b1": 3}


def test_a_clip_without_trajectories_has_vectors_of_zeros_and_needs_no_net(project):
    make_all(project)
    for channel in CHANNELS:
        vector = read_vector(project.clip_path("tdd/spatial-1", STILL), channel)
        assert vector.shape == (36,)
        assert not vector.any()
        assert read_vector(project.clip_path("tdd/spatial-1", "a1"), channel).any()
    path = project.clip_path("frames", STILL)
    path.write_bytes(path.read_bytes()[:1000] + b"x" + path.read_bytes()[1001:])  # nobody looks
    assert "5 reused" in project.ok(tdd, "--stream", "spatial")


def test_several_sizes_share_a_codebook_and_are_added(project):
    project.params["tdd"]["sizes"] = [1, 0.5]
    make_all(project)
    for clip in project.files("tdd_samples/spatial-1"):
        samples = read_samples(project.clip_path("tdd_samples/spatial-1", clip))
        assert samples["conv4_3_st"].shape == (30, 32)  # 15 tracks of 20: 60 samples are 30 tracks at two sizes
    both = {name: read_vector(project.clip_path("tdd/spatial-1", "b3"), name) for name in CHANNELS}
    singles = []
    for size in (1, 0.5):  # with the same codebook
        project.params["tdd"]["sizes"] = [size]
        project.ok(tdd, "--stream", "spatial")
        singles.append({name: read_vector(project.clip_path("tdd/spatial-1", "b3"), name) for name in CHANNELS})
    for name, vector in both.items():
        parts = np.stack([single[name] * np.abs(single[name]) for single in singles], axis=1)  # before the root
        whole = vector * np.abs(vector)
        shares, residual, *_ = np.linalg.lstsq(parts, whole)
        assert (shares > 0.1).all()
        assert residual < 1e-4 * (whole @ whole)


def test_what_changed_is_computed_and_the_rest_reused_with_equal_bytes(project, monkeypatch):
    make_all(project)
    before = project.files("tdd/spatial-1")
    assert "2 clips: 2 reused, 0 computed" in make_all(project)
    project.write_trajectories("b3", 77)  # a test clip: samples and codebook stay
    said = make_all(project)
    assert "2 clips: 2 reused" in said
    assert "tdd_codebook spatial-1: reused" in said
    assert "5 clips: 4 reused, 1 computed" in said
    assert project.files("tdd/spatial-1")["b3"] != before["b3"]
    project.params["tdd"]["gaussians"] = 4  # no second pass for the samples
    said = make_all(project)
    assert "2 clips: 2 reused" in said
    assert "5 clips: 0 reused, 5 computed" in said
    project.params["tdd"]["gaussians"] = 3
    project.write_trajectories("b3", list(ROLES).index("b3"))
    monkeypatch.setenv("HAN_CACHE", "another")
    assert "5 clips: 0 reused, 5 computed" in make_all(project)
    assert project.files("tdd/spatial-1") == before


def test_no_test_clip_reaches_the_codebook(project):
    project.params["tdd"]["codebook_clips"] = 1000
    make_all(project)
    before = project.codebook("tdd-spatial").read_bytes()
    for clip in ("a3", "b2", "b3"):
        project.write_images(clip, 99)
        project.write_trajectories(clip, 99)
    make_all(project)
    assert project.codebook("tdd-spatial").read_bytes() == before
    project.write_images("a1", 99)
    make_all(project)
    assert project.codebook("tdd-spatial").read_bytes() != before


def test_the_fingerprint_holds_the_settings(project):
    make_all(project)
    layers = {"spatial": ["conv5_3"], "temporal": ["conv5_3"]}
    for change in ({"step": 2}, {"sizes": [0.5]}, {"precision": "bfloat16"}, {"batch": 3}, {"layers": layers}):
        project.params["tdd"] |= change
        assert "2 clips: 0 reused, 2 computed" in project.ok(tdd_samples, "--stream", "spatial")
        if "layers" in change:
            project.ok(tdd_codebook, "--stream", "spatial")
        assert "5 clips: 0 reused, 5 computed" in project.ok(tdd, "--stream", "spatial")


def test_the_fingerprint_holds_the_net_and_the_seed(project):
    make_all(project)
    project.write_net("spatial", seed=2)
    assert "2 clips: 0 reused, 2 computed" in make_all(project)
    project.params["seed"] += 1
    project.params["tdd"]["codebook_clips"] = 3
    assert "3 clips: 0 reused, 3 computed" in project.ok(tdd_samples, "--stream", "spatial")


def test_another_datasets_nets_serve(project):
    other = project.folder / "models/other/nets"
    other.mkdir(parents=True)
    project.net("spatial").rename(other / "spatial-1.safetensors")
    project.params["cubes"]["nets"] = "other"
    project.params["finetune"]["splits"] = []
    assert "5 computed" in make_all(project)
    assert project.codebook("tdd-spatial").exists()


def test_failures_are_entries_and_stop_nobody_else(project):
    make_all(project)
    project.clip_path("trajectories", "a1").unlink()
    write_failures(project.folder / "data/toy/trajectories", [Failure("left", "a1", "no flow: too short")])
    path = project.clip_path("trajectories", "b3")
    path.write_bytes(path.read_bytes()[:-2000])
    project.params["dataset"]["allowed_failures"] = 1
    said = project.refused(tdd, "--stream", "spatial")
    assert "1 of 5 clips could not be done, through no fault of theirs" in said
    assert "b3.h5: is not a finished clip file" in said
    project.write_trajectories("b3", 5)
    assert "5 clips: 4 reused, 0 computed, 1 failed" in project.ok(tdd, "--stream", "spatial")
    found = read_failures(project.folder / "data/toy/tdd/spatial-1")
    assert found == {"left/a1": "no trajectories: no flow: too short"}
    assert "2 clips" in project.ok(tdd_samples, "--stream", "spatial")  # the draw is among the others
    assert project.files("tdd_samples/spatial-1").keys() == {"a2", "b1"}


@pytest.mark.parametrize(("kind", "array"), [("frames", ""), ("trajectories", "steps"), ("trajectories", "start")])
def test_damaged_files_of_a_drawn_clip_are_told(project, kind, array):
    """Where its starts are damaged, the clip's tracks cannot even be counted."""
    project.params["tdd"]["codebook_clips"] = 3
    path = project.clip_path(kind, "a2")
    arrays = read_trailer(path).arrays
    content = bytearray(path.read_bytes())
    content[arrays[array].offset + 9 if array else len(content) // 3] ^= 4
    path.write_bytes(content)
    said = project.refused(tdd_samples, "--stream", "spatial")
    assert "1 of 3 clips could not be done, through no fault of theirs" in said
    assert "a2.h5" in said


def test_trajectories_of_another_clip_are_told(project):
    make_all(project)
    project.write_trajectories("b3", 3, frames=60)
    said = project.refused(tdd, "--stream", "spatial")
    assert "but the clip has frames 0 to 19" in said
    assert "run stage trajectories again" in said


def test_activations_that_are_not_finite_are_entries(project):
    net, metadata = read_net(project.net("spatial"))
    with torch.no_grad():
        net.features[19].weight *= 1e30
        net.features[21].weight *= 1e30
    project.net("spatial").unlink()
    write_net(project.net("spatial"), net, metadata)
    assert "the net's activations are not finite" in project.refused(tdd_samples, "--stream", "spatial")


def test_a_split_without_trajectories_has_no_codebook(project):
    for clip in ("a1", "a2", "b1"):
        project.write_trajectories(clip, 1, count=0)
    assert "0 clips" in project.ok(tdd_samples, "--stream", "spatial")
    said = project.refused(tdd_codebook, "--stream", "spatial")
    assert "no training clip has a trajectory; lower" in said


def test_a_missing_net_or_codebook_is_told(project):
    assert "tdd-spatial-1.safetensors" in project.refused(tdd, "--stream", "spatial")
    project.net("spatial").unlink()
    assert "spatial-1.safetensors: is missing; make it with stage finetune" in project.refused(
        tdd_samples, "--stream", "spatial"
    )


def test_a_job_is_plain_settings_from_which_another_process_makes_the_same_bytes(project, monkeypatch, tmp_path):
    make_all(project)
    here = project.files("tdd/spatial-1"), project.files("tdd_samples/spatial-1")
    monkeypatch.setattr("han_core.devices.choose_device", lambda wanted: torch.device("cuda"))
    params = load_params(project.folder / "params.yaml")
    for opens, made in zip((tdd.tdd_work, tdd_samples.samples_work), here, strict=True):
        monkeypatch.chdir(project.folder)
        with opens(params, "spatial", 1) as work:
            assert (work.gpus, work.net, work.executor) == (1, True, None), "a process for each GPU opens the net"
        monkeypatch.chdir("/")  # a worker of a cluster is in another folder
        sent = pickle.dumps(work.function)
        assert len(sent) < 2000
        pooling = replace(work.function.pooling, device="cpu")
        function = replace(pickle.loads(sent), pooling=pooling)
        for task in work.tasks:
            path = tmp_path / "one.h5"
            function(task, path)
            assert path.read_bytes() == made[task.clip.name]
            path.unlink()


@pytest.mark.parametrize("what", ["net", "codebook"])
def test_what_was_replaced_since_the_stage_began_is_not_used(project, what, tmp_path):
    """Workers of a cluster outlive a stage: under the same path there may be another codebook by then."""
    make_all(project)
    with tdd.tdd_work(load_params(project.folder / "params.yaml"), "spatial", 1) as work:
        pass
    work.function(work.tasks[-1], tmp_path / "before.h5")
    tdd_net.NETS.close()
    if what == "net":
        project.write_net("spatial", seed=2)
    else:
        project.params["tdd"]["gaussians"] = 4
        project.ok(tdd_codebook, "--stream", "spatial")
        later = replace(work.function, identity="of the fourth")
        with pytest.raises(CodebookError, match="was replaced by another codebook meanwhile; run the stage again"):
            later(work.tasks[-1], tmp_path / "after.h5")
        return
    with pytest.raises(WeightsError, match="was replaced by another net meanwhile; run the stage again"):
        work.function(work.tasks[-1], tmp_path / "after.h5")


def test_files_without_a_role_or_a_share_are_not_left_lying(project):
    project.ok(tdd_samples, "--stream", "spatial")
    stale = project.clip_path("tdd_samples/spatial-1", "zz")
    stale.write_bytes(b"")
    project.ok(tdd_samples, "--stream", "spatial")
    assert not stale.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"splits": [2]}, "tdd.splits: must equal splits, or be [] for none of its rows"),
        ({"sizes": []}, "tdd.sizes: is empty"),
        ({"sizes": [1, 1]}, "tdd.sizes: holds a value twice"),
        ({"sizes": [0]}, "tdd.sizes.0: "),
        ({"step": 0}, "tdd.step: "),
        ({"dimensions": 257}, "tdd.dimensions: "),
        ({"layers": {"spatial": ["fc7"], "temporal": ["conv5_3"]}}, "tdd.layers.spatial.0: "),
        ({"layers": {"spatial": ["conv5_3", "conv5_3"]}}, "tdd.layers.spatial: holds a value twice"),
        ({"layers": {"spatial": []}}, "tdd.layers.spatial: is empty"),
    ],
    ids=str,
)
def test_wrong_params_are_told(params_file, change, words):
    params, load = params_file
    params["tdd"] |= change
    with pytest.raises(ParamsError) as error:
        load()
    assert words in str(error.value)


def test_tdd_needs_trajectories_and_their_fisher_vectors(params_file):
    params, load = params_file
    assert {"tdd", "tdd_cubes"} <= set(load().families)
    params["fisher"]["splits"] = []
    with pytest.raises(ParamsError, match=r"must equal splits, because tdd\.splits asks for row tdd_idt"):
        load()
    params["tdd"]["splits"] = []
    assert {"tdd", "tdd_cubes"} & set(load().families) == {"tdd_cubes"}
    params["trajectories"]["source"] = []
    with pytest.raises(ParamsError, match=r"must be \[flow\], because tdd_cubes.splits asks to pool along them"):
        load()
    params["tdd_cubes"]["splits"] = []
    load()


def test_presets_have_the_paper_s_settings(repository):
    for name in ("ucf101", "hmdb51"):
        params = load_params(repository / "presets" / f"{name}.yaml")
        assert params.tdd.splits == params.tdd_cubes.splits == params.splits
        assert (params.tdd.step, params.tdd.dimensions, params.tdd.gaussians) == (1, 64, 256)
        assert {"tdd", "tdd_cubes"} <= set(params.families)
    assert load_params(repository / "presets/hmdb51.yaml").cubes.nets == "ucf101"
    demonstration = load_params(repository / "params.yaml")
    assert demonstration.tdd.splits == ()
    assert "tdd" not in demonstration.families


def test_files_are_told_apart_by_their_stream(project):
    make_all(project)
    make_all(project, "temporal")
    spatial, temporal = (
        read_trailer(project.clip_path(f"tdd/{stream}-1", "b3")).fingerprint for stream in ("spatial", "temporal")
    )
    assert spatial != temporal
