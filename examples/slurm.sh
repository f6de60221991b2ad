#!/usr/bin/env bash
#SBATCH --job-name=han
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#
# A Dask cluster for one command, within one job of SLURM:
#
#     sbatch examples/slurm.sh                              dvc repro
#     sbatch --nodes=8 examples/slurm.sh dvc repro flow     anything else
#
# Submit it in the project's folder, on a disk that all nodes see; params.yaml has `executor: dask` and `scheduler: null`
# in its group `run`. Each task of the job is a worker, with as many threads as it has cores. A worker has one GPU:
#
#     sbatch --nodes=2 --ntasks-per-node=8 --gpus-per-task=1 --cpus-per-task=8 examples/slurm.sh
#
# When the job's time is over, submit it again: what is done is kept. Set HAN_VENV if the environment is not .venv, and
# HAN_HOST if nodes reach the first one by another name than its own.
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:-.}"
venv="${HAN_VENV:-.venv}"
# shellcheck disable=SC1091
source "$venv/bin/activate"

host="${HAN_HOST:-$(hostname)}"
port=$((20000 + ${SLURM_JOB_ID:-0} % 20000)) # of two jobs on one node each has its own
export DASK_SCHEDULER_ADDRESS="tcp://$host:$port"

trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
dask scheduler --host "$host" --port "$port" --no-dashboard &
scheduler=$!
until (: >"/dev/tcp/$host/$port") 2>/dev/null; do
    kill -0 "$scheduler" # else it ended, and said why
    sleep 1
done
# The job's limit of memory holds; a worker's own would only be lower. Workers end when the scheduler does.
srun dask worker "$DASK_SCHEDULER_ADDRESS" --nworkers 1 --nthreads "${SLURM_CPUS_PER_TASK:-1}" --memory-limit 0 \
    --no-dashboard --death-timeout 120 --local-directory "${TMPDIR:-/tmp}" &

if (($# == 0)); then
    set -- dvc repro
fi
"$@"
