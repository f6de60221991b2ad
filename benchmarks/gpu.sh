#!/usr/bin/env bash
# Checks and times all that runs on a GPU, in less than eight minutes.
#
#     bash benchmarks/gpu.sh [FOLDER]            figures into FOLDER/*.json (default benchmarks), what is said into gpu.log
#     bash benchmarks/gpu.sh --small [FOLDER]    without a GPU, on tiny inputs: to see that every part runs
#
# It needs torch, torchvision, Triton (with a C compiler and Python's headers), NumPy, Numba, h5py, OpenCV, PyYAML,
# safetensors, zstandard, pydantic, click, tqdm, pytest and pytest-xdist; no DVC, PyAV or hdf5plugin, and no project's data.
# HAN_TEST_DATA, as for the tests, may name a folder with odd_videos/kinetics_340x256.mp4: flow is then timed on that video.
# Each part has a limit of time, and one that fails stops no other; the status is 1 if one did.
set -uo pipefail
cd "$(dirname "$0")/.."
small=
if [ "${1-}" = --small ]; then
    small=yes
    shift
fi
folder=$(realpath -m "${1-benchmarks}")
log=$folder/gpu.log
mkdir -p "$folder"
: > "$log"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
python=$(command -v python3 || command -v python)
failed=

say() {
    # shellcheck disable=SC2059  # the first argument is a format
    printf "$@" | tee -a "$log"
}

part() {  # part NAME SECONDS COMMAND..: runs it, notes how long it took and whether it failed
    local name=$1 limit=$2 start=$SECONDS status=0
    shift 2
    say '\n== %s: %s\n' "$name" "$*"
    timeout --kill-after=10 "$limit" "$@" 2>&1 | tee -a "$log" || status=$?
    [ "$status" = 124 ] && say '== %s was stopped after %d s\n' "$name" "$limit"
    [ "$status" = 0 ] || failed="$failed $name"
    say '== %s took %d s, status %d\n' "$name" $((SECONDS - start)) "$status"
}

if [ -n "$small" ]; then
    export TRITON_INTERPRET=1
    part flow 600 "$python" -m benchmarks.flow_gpu --small --out "$folder/flow_gpu.json"
    unset TRITON_INTERPRET
    part han 600 "$python" benchmarks/han.py --tiny --epoch --peer --out "$folder/han.json"
    part nets 600 "$python" benchmarks/nets_gpu.py --device cpu --precision float32 --seconds 0 --clips-in-work 1 --clips 2 \
        --length 12 --batch 2 --micro-batch 2 --iterations 1 --out "$folder/nets_gpu.json"
else
    "$python" -c 'import torch; print("card:", torch.cuda.get_device_name(), "| torch", torch.__version__)' || exit 1
    part flow 95 "$python" -m benchmarks.flow_gpu --check ${HAN_TEST_DATA:+--data "$HAN_TEST_DATA"} --out "$folder/flow_gpu.json"
    part han 105 "$python" benchmarks/han.py --device cuda --peer --out "$folder/han_gpu.json"
    part han-bfloat16 40 "$python" benchmarks/han.py --device cuda --precision bfloat16 --no-epoch \
        --out "$folder/han_gpu_bfloat16.json"
    part nets 150 "$python" benchmarks/nets_gpu.py --out "$folder/nets_gpu.json"
    # Only files that have such tests: to import all others would take packages that are not needed here.
    part tests 90 "$python" -m pytest -q -n 4 -m gpu $(grep -rl 'mark\.gpu' tests --include='test_*.py')
fi
[ -z "$failed" ] || say '== failed:%s\n' "$failed"
[ -z "$failed" ]
