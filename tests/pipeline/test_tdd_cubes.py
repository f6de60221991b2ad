"""Row tdd_cubes: the cubes pooled along trajectories, from the codebook to the vectors of each clip."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from han_core.baselines.fisher.codebook import read_codebook
from han_core.baselines.fisher.fisherfile import read_vector
from han_core.baselines.tdd.encoding import encode
from han_core.baselines.tdd.from_cubes import pool_cube
from han_core.baselines.tdd.tracks import Tracks
from han_core.baselines.trajectories.trajectoryfile import read_trajectories
from han_core.clipfile.reader import ClipFile
from han_core.cubes.cubefile import write_cubes
from han_core.cubes.shard import write_shard
from pipeline import tdd_cubes, tdd_cubes_codebook
from pipeline.execution import local
from pipeline.execution.ledger import Failure, read_failures, write_failures
from pipeline.params import load_params
from tests.pipeline.toy_tdd import HEIGHT, ROLES, STILL, WIDTH, TddProject, make_project

STREAMS = ("spatial", "temporal")
CHANNELS = ["spatial_st", "spatial_ch", "temporal_st", "temporal_ch"]
SAMPLED = np.array([0, 5, 10, 14, 19], np.int32)


def cube_of(clip: str, stream: str, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng([seed, *f"{stream} {clip}".encode()])
    return np.maximum(random.standard_normal((len(SAMPLED), 12, 7, 7)), 0).astype(np.float16)


def write_cube_file(project: TddProject, clip: str, stream: str, seed: int = 0) -> None:
    path = project.clip_path(f"cubes/{stream}-1", clip)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    cube = cube_of(clip, stream, seed)
    values = {"conv5_3": cube, "fc7": cube[:, :, 0, 0]}
    facts = {"layer": "conv5_3", "fc": "fc7", "values": values, "attributes": {"stream": stream}}
    write_cubes(path, clip=clip, fingerprint=f"{seed:064x}", frames=SAMPLED, **facts)


class Threads(ThreadPoolExecutor):
    """In place of worker processes, which take seconds to start; tests/pipeline/execution has those."""

    _processes = None


@pytest.fixture
def project(repository, tmp_path, monkeypatch) -> TddProject:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local, "local_pool", lambda workers, gpus: Threads(workers))
    monkeypatch.delenv("HAN_CACHE", raising=False)
    project = make_project(tmp_path, repository)
    for stream in STREAMS:
        for clip in ROLES:
            write_cube_file(project, clip, stream)
        write_failures(tmp_path / f"data/toy/cubes/{stream}-1", [])
    return project


def make_all(project) -> str:
    return "".join(project.ok(stage) for stage in (tdd_cubes_codebook, tdd_cubes))


def tracks_of(project, clip: str) -> Tracks:
    """All of the original scale: with frames 0, 5, 10, 14 and 19 there is none that crosses none."""
    found = read_trajectories(project.clip_path("trajectories", clip))
    kept = found.scale == 0
    return Tracks(found.points[kept, :15], found.start[kept].astype(int), WIDTH, HEIGHT)


def test_vectors_are_the_cubes_pooled_and_encoded(project):
    said = make_all(project)
    assert "tdd_cubes_codebook 1: of 3 clips" in said
    assert "tdd-cubes-1: 5 clips: 0 reused, 5 computed, 0 failed" in said
    codebook, _ = read_codebook(project.codebook("tdd_cubes"))
    assert list(codebook.channels) == CHANNELS
    for clip in ("a1", "b3"):
        expected = encode(
            [
                {
                    f"{stream}_{name}": values
                    for stream in STREAMS
                    for name, values in pool_cube(cube_of(clip, stream), SAMPLED, tracks_of(project, clip)).items()
                }
            ],
            codebook,
        )
        path = project.clip_path("tdd_cubes/1", clip)
        for channel, vector in expected.items():
            np.testing.assert_allclose(read_vector(path, channel), vector, atol=1e-3)
        with ClipFile(path) as file:
            assert (file.kind, file.attributes["tracks"]) == ("fisher", 20)
    for channel in CHANNELS:
        assert not read_vector(project.clip_path("tdd_cubes/1", STILL), channel).any()


def test_of_shards_the_same_bytes_are_made(project):
    said = make_all(project)
    made = [project.codebook("tdd_cubes"), *(project.folder / "data/toy/tdd_cubes/1").rglob("*.h5")]
    before = {path: path.read_bytes() for path in made}
    assert "codebook 1: of" in said
    for stream in STREAMS:
        for of_class in (project.folder / f"data/toy/cubes/{stream}-1").iterdir():
            files = {path.stem: path for path in of_class.glob("*.h5")}
            if files:
                (of_class / "shards").mkdir()
                write_shard(of_class / "shards/all.h5", name="all", fingerprint="5" * 64, files=files)
            for path in files.values():
                path.unlink()
    said = make_all(project)
    assert "codebook 1: reused" in said
    assert "5 reused, 0 computed" in said, "the clips are the same"
    shutil.rmtree(project.folder / ".han_cache")
    assert "5 computed" in make_all(project)
    assert {path: path.read_bytes() for path in made} == before


def test_no_test_clip_reaches_the_codebook(project):
    project.ok(tdd_cubes_codebook)
    before = project.codebook("tdd_cubes").read_bytes()
    for clip in ("a3", "b2", "b3"):
        write_cube_file(project, clip, "spatial", seed=9)
        project.write_trajectories(clip, 99)
    assert "codebook 1: reused" in project.ok(tdd_cubes_codebook)
    assert project.codebook("tdd_cubes").read_bytes() == before
    write_cube_file(project, "a1", "temporal", seed=9)
    project.ok(tdd_cubes_codebook)
    assert project.codebook("tdd_cubes").read_bytes() != before


def test_what_changed_is_computed_and_the_rest_reused_with_equal_bytes(project, monkeypatch):
    make_all(project)
    before = project.files("tdd_cubes/1")
    assert "5 reused" in project.ok(tdd_cubes)
    write_cube_file(project, "b3", "temporal", seed=9)
    project.write_trajectories("b1", 9)
    assert "5 clips: 3 reused, 2 computed" in project.ok(tdd_cubes)
    write_cube_file(project, "b3", "temporal")
    project.write_trajectories("b1", list(ROLES).index("b1"))
    monkeypatch.setenv("HAN_CACHE", "another")
    assert "5 clips: 0 reused, 5 computed" in make_all(project)
    assert project.files("tdd_cubes/1") == before


def test_the_codebooks_settings_are_part_of_the_vectors_identity(project):
    identities = set()
    for change in ({}, {"samples": 20}, {"gaussians": 2}, {"dimensions": 4}, {"iterations": 1}):
        project.params["tdd_cubes"] |= change
        assert "codebook 1: of 3 clips" in project.ok(tdd_cubes_codebook)
        work = tdd_cubes.tdd_cubes_work(load_params(project.folder / "params.yaml"), 1)
        identities.add(work.tasks[0].fingerprint)
    assert len(identities) == 5


def test_failures_and_damage(project):
    write_failures(project.folder / "data/toy/cubes/temporal-1", [Failure("left", "a1", "no flow: too short")])
    project.params["dataset"]["allowed_failures"] = 1
    assert "codebook 1: of 2 clips" in project.ok(tdd_cubes_codebook)
    assert "5 clips: 0 reused, 4 computed, 1 failed" in project.ok(tdd_cubes)
    assert read_failures(project.folder / "data/toy/tdd_cubes/1") == {"left/a1": "no cubes: no flow: too short"}
    path = project.clip_path("cubes/spatial-1", "b1")
    path.write_bytes(path.read_bytes()[:-1000])
    assert "b1.h5" in project.refused(tdd_cubes_codebook)
    assert "1 of 5 clips could not be done" in project.refused(tdd_cubes)
    write_cube_file(project, "b1", "spatial")
    project.write_trajectories("b1", 3, frames=60)
    assert "but the clip has frames 0 to 19" in project.refused(tdd_cubes_codebook)


def test_without_trajectories_there_is_no_codebook(project):
    for clip in ("a1", "a2", "b1"):
        project.write_trajectories(clip, 1, count=0)
    assert "no training clip has a trajectory; lower" in project.refused(tdd_cubes_codebook)
    assert "tdd_cubes-1.safetensors" in project.refused(tdd_cubes)
