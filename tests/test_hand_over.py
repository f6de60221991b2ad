"""From one clone to another through a DVC remote, by the commands of README.md, word for word: through a folder, and in
the long tests through an S3 server and an SSH server.

The owner's results are made in this process, most of them by hand: what is tested is what DVC and `han pull-for` do
with them. A dataset ``hmdb51`` on the nets of ``ucf101``; two models at first, then one.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from dvc.repo import Repo

from han_core.cli.main import main
from han_core.clipfile.trailer import read_trailer
from han_core.cubes.statistics import store_statistics, write_statistics
from pipeline.execution.contents import write_contents_of_views
from pipeline.left_behind import outputs
from pipeline.params import load_params
from tests.only_han import only_han
from tests.pipeline.toy_results import CLIPS, write_results
from tests.remote_servers import SERVERS, Remote

GIT = ("git", "-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always")
NAME, NETS = "hmdb51", "ucf101"
MANY, FEW = ["han", "no_attention"], ["han"]
LONG = pytest.mark.long


def readme_command(repository: Path, name: str) -> str:
    text = (repository / "README.md").read_text(encoding="utf-8")
    return re.search(rf"<!-- command: {re.escape(name)} -->\n```sh\n(.*?)```", text, re.DOTALL)[1]


def shell(command: str, folder: Path) -> str:
    """What a command says that ends well, in a shell whose `han`, `dvc` and `python` are those of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    author = {f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**os.environ, **author, "PATH": path, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": str(folder)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def han(*arguments: str) -> Result:
    """The command in this process, where its start costs nothing."""
    return CliRunner().invoke(main, arguments)


def stage(name: str, *arguments: str) -> str:
    """Run a stage in this process, without DVC."""
    module = import_module(f"pipeline.{name}" + (".__main__" if name in ("evaluate", "report") else ""))
    result = CliRunner().invoke(module.main, list(arguments))
    assert result.exit_code == 0, (name, result.output, result.exception)
    return result.output


def write_params(repository: Path, name: str, models: list[str]) -> None:
    params = only_han(yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8")))
    params |= {"synthetic": None, "models": models}
    params["dataset"].update(name=name, kind="folder", root=f"videos/{name}", generate=[])
    params["finetune"]["splits"] = [1] if name == NETS else []
    params["cubes"].update(nets=NETS, frames=3)
    params["scores"]["enabled"] = False
    params["train"].update(lstm_size=4, epochs=2)
    params["report"]["clips"] = 1
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def write_nets_dataset() -> None:
    """What fine-tuning reads and makes; DVC does not mind what is in it."""
    made = [f"models/{NETS}/nets/{stream}-1.safetensors" for stream in ("spatial", "temporal")]
    made += [f"plots/{NETS}/finetune/{stream}-1/metrics.json" for stream in ("spatial", "temporal")]
    made += [f"plots/{NETS}/finetune/{stream}-1/plots/metrics/loss.tsv" for stream in ("spatial", "temporal")]
    made += [
        f"data/{NETS}/{name}"
        for name in ("clips.csv", "frames/contents.csv", "flow/contents.csv", "steady/contents.csv")
    ]
    for path in map(Path, made):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{path}\n", encoding="utf-8")


@pytest.fixture(
    scope="module", params=[kind if kind == "folder" else pytest.param(kind, marks=LONG) for kind in SERVERS]
)
def remote(request, tmp_path_factory):
    """A DVC remote that is reached as the README says, with what its user has in the environment."""
    with (
        SERVERS[request.param](tmp_path_factory.mktemp(request.param)) as remote,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in remote.environment.items():
            patch.setenv(name, value)
        yield remote


def share(repository: Path, folder: Path, remote: Remote, *, first: bool) -> None:
    """The README's lines that add the remote, the first time only, and push."""
    adding, *sending = readme_command(repository, "share").splitlines()
    if first:
        assert "s3://bucket/han" in adding
        shell(adding.replace("s3://bucket/han", remote.url), folder)
        for option, value in remote.options.items():
            shell(f"dvc remote modify team {option} {value}", folder)
    shell("\n".join(sending), folder)


@pytest.fixture(scope="module")
def owner(repository, remote, tmp_path_factory):
    """The clone in which everything was made, with the videos: pushed, and committed."""
    folder = tmp_path_factory.mktemp("owner") / "project"
    listed = subprocess.run([*GIT, "ls-files", "-z", "-co", "--exclude-standard"], cwd=repository, capture_output=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (repository / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repository / name, folder / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("HAN_CACHE", raising=False)
        subprocess.run([*GIT, "init", "-q"], check=True)
        subprocess.run([*GIT, "add", "-A"], check=True)
        subprocess.run([*GIT, "commit", "-qm", "code"], check=True)

        write_params(repository, NETS, MANY)
        write_nets_dataset()
        with Repo() as repo:
            for name in ("finetune-spatial", "finetune-temporal"):
                repo.commit(name, force=True)
        share(repository, folder, remote, first=True)

        made = folder.parent / "made"
        made.mkdir()
        write_results(made, repository, models=())
        Path(f"data/{NAME}").mkdir()
        for kind in ("clips.csv", "frames", "flow", "cubes"):
            shutil.move(made / "data/toy" / kind, f"data/{NAME}/{kind}")
        for clip in CLIPS:
            video = Path(f"videos/{NAME}/{clip}.avi")
            video.parent.mkdir(parents=True, exist_ok=True)
            video.write_text("a video\n")
        write_params(repository, NAME, MANY)
        stage("check")
        stage("steady")
        for stream in ("spatial", "temporal"):
            write_contents_of_views(Path(f"data/{NAME}/views/{stream}-1"), [])
            cubes = Path(f"data/{NAME}/cubes/{stream}-1").glob("*/*.h5")
            counted = Path(f"metrics/{NAME}/store/{stream}-1.json")
            write_statistics(store_statistics(map(read_trailer, cubes)), counted)
            stage("scores", "--stream", stream, "--split", "1")
        stage("two_stream", "--split", "1")
        for model in MANY:
            for name in ("train", "classify"):
                stage(name, "--model", model, "--split", "1", "--seed", "1")
        stage("baselines", "--baseline", "linear", "--split", "1")

        write_params(repository, NAME, FEW)
        said = stage("check") + stage("evaluate") + stage("report")
        with Repo() as repo:
            repo.commit(force=True)
            known = {out.fs_path for stage in repo.index.stages for out in stage.outs}
        graph = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"].values()
        params = load_params()
        assert {str(folder / out) for stage in graph for out in outputs(stage, params)} == known
        share(repository, folder, remote, first=False)
        unsaid = subprocess.run([*GIT, "status", "--porcelain"], capture_output=True, check=True).stdout
        assert unsaid == b"", "the README's commit has all that a clone needs"
    return folder, said


@pytest.fixture(scope="module")
def colleague(owner):
    """A clone without the videos."""
    folder = owner[0].parent / "colleague"
    subprocess.run([*GIT, "clone", "-q", str(owner[0]), str(folder)], check=True)
    assert not (folder / "videos").exists()
    assert not (folder / "data" / NAME).exists()
    return folder


def ran(output: str) -> list[str]:
    return re.findall(r"Running stage '(.+?)'", output)


def clips(folder: Path) -> bytes:
    return (folder / f"data/{NAME}/clips.csv").read_bytes()


def test_a_model_that_was_taken_out_leaves_nothing_in_the_lock(owner, colleague, monkeypatch):
    folder, said = owner
    for gone in (f"data/{NAME}/predictions/no_attention-1-seed1", f"plots/{NAME}/train/no_attention-1-seed1"):
        assert f"removed {gone}" in said
        assert not (folder / gone).exists()
    assert (folder / f"models/{NAME}/han/no_attention-1-seed1.safetensors").exists(), "nobody depends on the folder"
    monkeypatch.chdir(colleague)
    assert han("pull-for", "evaluate", "report").exit_code == 0
    with Repo() as repo:
        repo.pull(["evaluate", "report"])
        assert repo.status(["evaluate", "report"]) == {}, "what DVC would run again"


def test_nets_of_another_dataset_are_pulled(owner, colleague, repository):
    shell(readme_command(repository, "nets of another dataset"), colleague)
    for stream in ("spatial", "temporal"):
        net = f"models/{NETS}/nets/{stream}-1.safetensors"
        assert (colleague / net).read_bytes() == (owner[0] / net).read_bytes()


def test_training_without_the_videos(owner, colleague, repository):
    params = yaml.safe_load((colleague / "params.yaml").read_text(encoding="utf-8"))
    params["train"]["dropout"] = 0.25
    (colleague / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    assert ran(shell(readme_command(repository, "train without the videos"), colleague)) == ["train@han-1-1"]
    model = f"models/{NAME}/han/han-1-seed1.safetensors"
    assert (colleague / model).read_bytes() != (owner[0] / model).read_bytes()
    assert clips(colleague) == clips(owner[0])


def test_evaluation_and_report_without_the_videos(owner, colleague, repository):
    said = shell(readme_command(repository, "evaluate and report without the videos"), colleague)
    assert ran(said) == ["classify@han-1-1", "evaluate", "report"]
    assert clips(colleague) == clips(owner[0])
    assert (colleague / f"report/{NAME}/report.html").is_file()
    assert not (colleague / "videos").exists()


def test_an_unknown_stage_and_an_input_that_cannot_be_pulled_are_named(colleague, monkeypatch):
    monkeypatch.chdir(colleague)
    said = han("pull-for", "trian")
    assert said.exit_code == 1
    assert re.search(r"this params file has no stage trian; it has check, .*train, ", said.output)
    said = han("pull-for", "prepare")
    assert said.exit_code == 1
    assert f"videos/{NAME}: not here, and dvc.lock does not know it" in said.output


@pytest.mark.long
def test_an_experiment_in_a_copy_finds_videos_by_an_absolute_path(owner):
    """DVC's copy has none of the files that git ignores."""
    said = shell(f"dvc exp run --temp -S dataset.root=$PWD/videos/{NAME} check", owner[0])
    assert "check: params.yaml is sound" in said
