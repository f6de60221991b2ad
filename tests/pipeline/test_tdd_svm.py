"""Rows tdd, tdd_idt and tdd_cubes out of clips' vectors, against SVMs on the vectors side by side."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from sklearn.svm import SVC

from han_core.baselines.fisher.fisherfile import read_vector, write_vectors
from han_core.clips import Clip, ClipTable, write_clips
from han_core.predictions import probabilities_file, read_predictions
from pipeline import tdd_svm
from pipeline.execution.ledger import Failure, write_failures
from tests.pipeline.toy_tdd import toy_params

CLASSES = ("left", "right", "still")
POOLED = {
    "tdd/spatial-1": ["conv4_3_st", "conv4_3_ch", "conv5_3_st", "conv5_3_ch"],
    "tdd/temporal-1": ["conv5_3_st", "conv5_3_ch"],
}
IDT = {"fisher/1": ["hog", "mbhx"]}
CUBES = {"tdd_cubes/1": ["spatial_st", "spatial_ch", "temporal_st", "temporal_ch"]}


class Project:
    """Vectors of 18 clips in all folders, of unit length, that tell the classes apart only roughly."""

    def __init__(self, repository: Path) -> None:
        self.params = toy_params(repository)
        self.params["tdd"]["layers"] = {"spatial": ["conv4_3", "conv5_3"], "temporal": ["conv5_3"]}
        self.params["fisher"]["channels"] = ["hog", "mbhx"]
        self.clips = []
        for number in range(18):
            label = number % 3
            name = f"clip{number:02d}"
            role = {1: "test" if number >= 12 else "train"}
            self.clips.append(Clip(name, f"{name}.avi", CLASSES[label], label, name, role))
        write_clips(ClipTable(tuple(self.clips), CLASSES, (1,)), Path("data/toy/clips.csv"))
        for place, (folder, channels) in enumerate((POOLED | IDT | CUBES).items()):
            write_failures(Path("data/toy") / folder, [])
            for clip in self.clips:
                random = np.random.default_rng([place, int(clip.name[4:])])
                vectors = {name: random.standard_normal(40) for name in [*channels, "not_asked_for"]}
                for vector in vectors.values():
                    vector[clip.label] += 2
                    vector /= np.linalg.norm(vector)
                path = self.path(folder, clip)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_vectors(path, clip=clip.name, fingerprint="f" * 64, vectors=vectors, attributes={})

    def path(self, folder: str, clip: Clip) -> Path:
        return Path("data/toy") / folder / clip.class_name / f"{clip.name}.h5"

    def run(self, family: str, code: int = 0) -> str:
        Path("params.yaml").write_text(yaml.safe_dump(self.params), encoding="utf-8")
        done = CliRunner().invoke(tdd_svm.main, ["--family", family, "--split", "1"])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert done.exit_code == code, done.output
        return done.output

    def predicted(self, family: str, row: str) -> dict[str, np.ndarray]:
        return read_predictions(probabilities_file(Path(f"data/toy/predictions/{family}-1"), row), list(CLASSES))

    def expected(self, *folders: dict[str, list[str]], without: tuple[str, ...] = (), c: float = 100) -> dict:
        """One binary SVM a class on all vectors side by side; the softmax of the margins."""
        channels = [(folder, name) for group in folders for folder, names in group.items() for name in names]
        clips = [clip for clip in self.clips if clip.name not in without]
        rows = np.array([np.concatenate([read_vector(self.path(f, clip), n) for f, n in channels]) for clip in clips])
        train = np.array([clip.roles[1] == "train" for clip in clips])
        labels = np.array([clip.label for clip in clips])
        margins = np.stack(
            [
                SVC(C=c, kernel="linear", tol=1e-6)
                .fit(rows[train], labels[train] == label)
                .decision_function(rows[~train])
                for label in range(3)
            ],
            axis=1,
        )
        scores = np.exp(margins - margins.max(1, keepdims=True))
        tested = [clip.key for clip in clips if clip.roles[1] == "test"]
        return dict(zip(tested, scores / scores.sum(1, keepdims=True), strict=True))


@pytest.fixture
def project(repository, tmp_path, monkeypatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return Project(repository)


def close(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    np.testing.assert_allclose([found[key] for key in wanted], list(wanted.values()), atol=2e-3)


def test_tdd_adds_all_layers_normalisations_and_streams_and_tdd_idt_the_trajectories_channels(project):
    said = project.run("tdd")
    close(project.predicted("tdd", "tdd"), project.expected(POOLED))
    close(project.predicted("tdd", "tdd_idt"), project.expected(POOLED, IDT))
    assert "tdd_idt-1: " in said
    assert " of 6 clips classified correctly" in said
    one, other = (project.predicted("tdd", row) for row in ("tdd", "tdd_idt"))
    assert max(np.abs(one[key] - other[key]).max() for key in one) > 0.02  # so that close() tells them apart


def test_tdd_cubes_adds_both_streams_and_normalisations(project):
    project.run("tdd_cubes")
    close(project.predicted("tdd_cubes", "tdd_cubes"), project.expected(CUBES))


def test_the_cost_is_that_of_the_params(project):
    project.params["svm"]["c"] = 0.05
    project.run("tdd_cubes")
    close(project.predicted("tdd_cubes", "tdd_cubes"), project.expected(CUBES, c=0.05))


def test_a_clip_that_failed_in_one_folder_is_in_no_row(project):
    failed = [clip for clip in project.clips if clip.name in ("clip00", "clip17")]
    write_failures(Path("data/toy/tdd/temporal-1"), [Failure(c.class_name, c.name, "no flow") for c in failed])
    for clip in failed:
        project.path("tdd/temporal-1", clip).unlink()
    project.run("tdd")
    close(project.predicted("tdd", "tdd"), project.expected(POOLED, without=("clip00", "clip17")))
    assert len(project.predicted("tdd", "tdd_idt")) == 5


def test_the_same_vectors_give_the_same_bytes(project):
    project.run("tdd")
    files = {path: path.read_bytes() for path in Path("data/toy/predictions").rglob("*.csv")}
    project.run("tdd")
    assert len(files) == 2
    assert {path: path.read_bytes() for path in files} == files


def test_missing_and_damaged_vectors_are_told(project):
    clip = project.clips[3]
    project.path("tdd/spatial-1", clip).unlink()
    assert "clip03.h5" in project.run("tdd", code=1)
    project.params["tdd"]["layers"]["temporal"] = ["conv4_3"]
    write_failures(Path("data/toy/tdd/spatial-1"), [Failure(clip.class_name, clip.name, "x")])
    assert "holds no conv4_3_st" in project.run("tdd", code=1)


def test_where_all_clips_of_a_role_failed_it_is_told(project):
    tested = [clip for clip in project.clips if clip.roles[1] == "test"]
    write_failures(Path("data/toy/tdd_cubes/1"), [Failure(c.class_name, c.name, "x") for c in tested])
    assert "all clips of a role failed; failures.csv says why" in project.run("tdd_cubes", code=1)
