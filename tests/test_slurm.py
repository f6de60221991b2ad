"""The job for SLURM, and the lines of docs/cluster.md for dask-jobqueue, with stand-ins for SLURM's commands, which do
on this machine what SLURM does on its nodes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from benchmarks.workspace import small_params, tiny_videos
from han_core.clipfile.trailer import read_trailer
from pipeline import prepare

pytest.importorskip("distributed")
pytestmark = pytest.mark.long

SBATCH = """#!/usr/bin/env bash
# Options of the command line; then the script, which runs here and now, as the first node would run it.
while [[ $1 == --* ]]; do shift; done
echo "Submitted batch job 4711"
export SLURM_JOB_ID=4711 SLURM_SUBMIT_DIR=$PWD SLURM_CPUS_PER_TASK=1 SLURM_NTASKS=2
exec bash "$@"
"""
SRUN = """#!/usr/bin/env bash
# One process for each task, which end with this one.
trap 'kill $(jobs -p) 2>/dev/null' TERM
for task in $(seq "$SLURM_NTASKS"); do SLURM_PROCID=$((task - 1)) "$@" & done
wait
wait
"""


@pytest.fixture
def project(tmp_path, monkeypatch, repository):
    """A folder with eight videos that prepare has seen, and SLURM's commands."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("sbatch", SBATCH), ("srun", SRUN)):
        command = Path("bin", name)
        command.parent.mkdir(exist_ok=True)
        command.write_text(text)
        command.chmod(0o755)
    Path("venv/bin").mkdir(parents=True)
    Path("venv/bin/activate").write_text(f'PATH="{Path(sys.executable).parent}:$PATH"\n')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(repository))
    for name in ("DASK_SCHEDULER_ADDRESS", "HAN_CACHE"):
        monkeypatch.delenv(name, raising=False)
    tiny_videos(Path("videos"), 2, 4)
    params = small_params("videos")
    write(params)
    result = CliRunner().invoke(prepare.main, [])
    assert result.exit_code == 0, result.output
    return params


def write(params, **run):
    params["run"].update(run)
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def made():
    """Clip -> its frames file's content."""
    return {path.stem: read_trailer(path).sha256 for path in Path("data/tiny/frames").rglob("*.h5")}


def test_a_job_of_slurm_decodes_on_its_nodes(project, repository, monkeypatch):
    decode = [sys.executable, "-m", "pipeline.decode"]
    subprocess.run(decode, check=True)
    here = made()
    assert len(here) == 8
    monkeypatch.setenv("HAN_CACHE", "another")
    monkeypatch.setenv("HAN_VENV", "venv")
    monkeypatch.setenv("HAN_HOST", "127.0.0.1")
    write(project, executor="dask", scheduler=None)
    job = ["sbatch", "--nodes=2", str(repository / "examples/slurm.sh"), *decode]
    done = subprocess.run(job, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "decode: 8 clips: 0 reused, 8 computed, 0 failed" in done.stdout
    assert made() == here
    assert done.stdout.count("Start worker at") == 2
    failing = [*job[:3], "bash", "-c", "exit 7"]
    assert subprocess.run(failing, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60).returncode == 7


def test_the_lines_for_dask_jobqueue_start_workers(project, repository, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    code = re.search(r"```python\n(.*?)```", (repository / "docs/cluster.md").read_text(encoding="utf-8"), re.S)[1]
    assert "SLURMCluster(" in code
    code = code.replace("jobs=8", "jobs=1").replace("/shared/han", str(Path.cwd())).replace(".venv", "venv")
    code += "\nimport subprocess, sys; subprocess.run([sys.executable, '-m', 'pipeline.decode'], check=True)\n"
    Path("bin/sbatch").write_text(
        "#!/bin/sh\necho 'Submitted batch job 7'\ncp \"$1\" job.sh\nsh job.sh >job.txt 2>&1 &\n"
    )
    write(project, executor="dask", scheduler=None)
    code = code.replace(
        "print(cluster.scheduler_address)",
        "import os; os.environ['DASK_SCHEDULER_ADDRESS'] = cluster.scheduler_address",
    )
    Path("bin/scancel").write_text("#!/bin/sh\n")
    Path("bin/scancel").chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "decode: 8 clips: 0 reused, 8 computed, 0 failed" in done.stdout
    assert "#SBATCH --cpus-per-task=16" in Path("job.sh").read_text()
