"""Further views of the clips, from their cubes to what is learnt and to the probabilities of a clip."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file

from han_core.clipfile.writer import ClipFileWriter
from han_core.clips import read_clips
from han_core.cubes.cubefile import read_cube, write_cube
from han_core.cubes.store import CubeStore
from han_core.han.model_file import load_model
from han_core.han.training import classify as classify_clips
from han_core.predictions import probabilities_file, read_predictions
from pipeline import classify, train
from pipeline.execution.ledger import Failure, write_failures
from tests.only_han import only_han
from tests.pipeline.toy_store import CLASSES, FRAMES, write_store

VIEWS = ("mirrored", "shift1", "shift2")
MODEL = "models/toy/han/han-1-seed1.safetensors"


@pytest.fixture(scope="module")
def store(repository, tmp_path_factory):
    """A project as stage cubes leaves it, and its params."""
    folder = tmp_path_factory.mktemp("project")
    params = only_han(yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8")))
    params |= {"synthetic": None, "splits": [1], "models": ["han"]}
    params["dataset"].update(name="toy", kind="folder", root="videos", generate=[])
    params["cubes"].update(nets="toy", frames=FRAMES, views=list(VIEWS))
    params["train"].update(lstm_size=4, epochs=3, batch=8)
    write_store(folder)
    for stream in ("spatial", "temporal"):
        for number, view in enumerate(VIEWS):
            for path in sorted((folder / f"data/toy/cubes/{stream}-1").glob("*/*.h5")):
                to = folder / f"data/toy/views/{stream}-1/{view}" / path.parent.name / path.name
                to.parent.mkdir(parents=True, exist_ok=True)
                with ClipFileWriter(to, kind="cubes", clip=path.stem, fingerprint=str(number) * 64) as file:
                    write_cube(file, np.roll(read_cube(path), number + 1, axis=3) / np.float16(number + 2))
                    file.array("frames", np.arange(FRAMES, dtype=np.int32))
    return folder, params


@pytest.fixture
def project(store, monkeypatch):
    folder, params = store
    monkeypatch.chdir(folder)

    def run(stage, expected=0, **changes):
        own = {**params, "train": {**params["train"], **changes.get("train", {})}}
        own["evaluate"] = {**params["evaluate"], **changes.get("evaluate", {})}
        Path("params.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
        done = CliRunner().invoke(stage.main, ["--model", "han", "--split", "1", "--seed", "1"])
        assert done.exit_code == expected, (done.output, done.exception)
        return done.output

    return run


def weights():
    return load_file(MODEL)


def test_what_is_learnt_depends_on_the_views_and_on_those_alone_that_are_asked_for(project):
    project(train)
    plain = weights()
    project(train, train={"views": ["mirrored"]})
    mirrored = weights()
    project(train, train={"views": ["mirrored", "shift2"]})
    both = weights()
    name = next(iter(plain))
    assert not torch.equal(plain[name], mirrored[name])
    assert not torch.equal(mirrored[name], both[name])
    project(train)
    assert all(torch.equal(plain[key], value) for key, value in weights().items())


def test_what_is_learnt_depends_on_the_shift_of_the_cubes(project):
    project(train)
    plain = weights()
    project(train, train={"shift": 1})
    assert any(not torch.equal(plain[key], value) for key, value in weights().items())


def test_three_samplings_give_the_mean_of_their_probabilities(project):
    project(train)
    project(classify)
    folder = Path("data/toy/predictions/han-1-seed1")
    alone = read_predictions(probabilities_file(folder, "han"), CLASSES)
    project(classify, evaluate={"samplings": 3})
    found = read_predictions(probabilities_file(folder, "han"), CLASSES)
    tested = read_clips("data/toy/clips.csv").select(1, "test")
    model = load_model(Path(MODEL)).model
    looks = []
    for place in ("cubes/{}-1", "views/{}-1/shift1", "views/{}-1/shift2"):
        folders = {stream: Path("data/toy") / place.format(stream) for stream in ("spatial", "temporal")}
        looks.append(classify_clips(model, CubeStore(folders, tested))[0].numpy())
    expected = np.mean(looks, axis=0)
    np.testing.assert_allclose([found[clip.key] for clip in tested], expected, atol=1e-6)
    np.testing.assert_allclose([alone[clip.key] for clip in tested], looks[0], atol=1e-6)
    assert np.abs(expected - looks[0]).max() > 1e-4


def test_a_clip_that_lacks_a_view_is_told_unless_its_failure_is_noted(project):
    lost = Path("data/toy/views/temporal-1/mirrored/left/clip00.h5")
    kept = lost.read_bytes()
    lost.unlink()
    try:
        said = project(train, expected=1, train={"views": ["mirrored"]})
        assert "1 clips have no cubes, e.g. left/clip00" in said
        write_failures(lost.parents[1], [Failure("left", "clip00", "the net gave no number")])
        assert "15 clips (1 without cubes)" in project(train, train={"views": ["mirrored"]})
        assert "16 clips (0 without cubes)" in project(train, train={"views": ["shift1"]})
    finally:
        lost.write_bytes(kept)
        write_failures(lost.parents[1], [])
