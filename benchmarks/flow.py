"""Measure TV-L1 optical flow: equality with OpenCV, accuracy, energy, speed. Writes benchmarks/flow.json.

\b
    python benchmarks/flow.py --data FOLDER --check                   on a CPU, about five minutes
    python benchmarks/flow.py --data FOLDER --check --backend cuda    on a GPU: against OpenCV; speed: flow_gpu.py

``--data`` holds odd_videos/kinetics_340x256.mp4, ucf101_mini/, ut_interaction/ and middlebury/; what is not there is
left out. Sections measured before stay in the file until they are measured again.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import cv2
import numba
import numpy as np
import torch
from machine import machine

from han_core.flow.flo import read_flo
from han_core.flow.tvl1.cpu import count_iterations
from han_core.flow.tvl1.energy import tvl1_energy
from han_core.flow.tvl1.params import TVL1Params
from han_core.flow.tvl1.solver import tvl1_flow

UCF101_PAIRS = 2_470_000
"""Pairs of adjacent frames in all of UCF-101."""

DATASETS = {
    "kinetics_340x256": ("odd_videos/kinetics_340x256.mp4",),
    "ucf101_mini": (
        "ucf101_mini/UCF-101/BabyCrawling/v_BabyCrawling_g05_c01.avi",
        "ucf101_mini/UCF-101/Punch/v_Punch_g10_c02.avi",
        "ucf101_mini/UCF-101/PushUps/v_PushUps_g20_c01.avi",
    ),
    "ut_interaction": ("ut_interaction/set1/0_handshake", "ut_interaction/set1/2_kick", "ut_interaction/set1/5_push"),
}
SECTIONS = ("equality", "middlebury", "reference", "speed")
MIDDLEBURY = ("RubberWhale", "Grove2", "Dimetrodon", "Venus")


@click.command(help=__doc__)
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--backend", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--check", is_flag=True, help="End with status 1 if a target of docs/flow.md is missed.")
@click.option("--section", "sections", multiple=True, type=click.Choice(SECTIONS), help="Only this; repeat for more.")
@click.option("--pairs", default=12, show_default=True, help="Pairs of each data set.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(__file__).with_suffix(".json"),
    show_default=True,
)
def main(data: Path, backend: str, check: bool, sections: tuple[str, ...], pairs: int, out: Path) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    results = json.loads(out.read_text()) if out.exists() else {}
    videos = {name: load_pairs(data, paths, pairs) for name, paths in DATASETS.items()}
    videos = {name: loaded for name, loaded in videos.items() if loaded is not None}
    measurements: dict[str, Callable[[], dict]] = {
        "equality": lambda: {name: equality(backend, *frames) for name, frames in videos.items()},
        "middlebury": lambda: middlebury(backend, data / "middlebury"),
        "reference": lambda: {name: equality("reference", *first(frames)) for name, frames in videos.items()},
        "speed": lambda: cpu_speed(videos),
    }
    if backend == "cuda":
        del measurements["reference"], measurements["speed"]
    section = results.setdefault(backend, {})
    section["machine"] = machine(backend)
    for name, measure in measurements.items():
        if sections and name not in sections:
            continue
        click.echo(f"{backend}: {name} ...")
        section[name] = measure()
        click.echo(json.dumps(section[name], indent=1))
        out.write_text(json.dumps(results, indent=1) + "\n")
    missed = verdict(section)
    for failure in missed:
        click.echo(f"MISSED: {failure}", err=True)
    sys.exit(1 if check and missed else 0)


def verdict(section: dict) -> list[str]:
    """What the section falls short of (the targets of docs/flow.md), in words."""
    missed = []
    for kind in ("equality", "reference"):
        for name, r in section.get(kind, {}).items():
            if r["median_difference_px"] > 0.02 or r["worst_pair_mean_difference_px"] > 0.1:
                missed.append(f"{kind} {name}: {r}")
            if r["energy_ratio_to_opencv"]["all_pairs"] > 1:
                missed.append(f"{kind} {name}: energy {r['energy_ratio_to_opencv']}")
    for name, r in section.get("middlebury", {}).items():
        for what in ("epe", "energy"):
            if r[what] > r[f"{what}_opencv"]:
                missed.append(f"middlebury {name}: {what} {r[what]}, OpenCV {r[f'{what}_opencv']}")
    speed = section.get("speed", {})
    if speed.get("ratio_to_opencv_one_thread", 99) < 12:
        missed.append(f"CPU speed: {speed['ratio_to_opencv_one_thread']} times OpenCV")
    threads = speed.get("threads", {})
    if threads and threads["speedup_median"] < 0.95 * min(2, threads["speedup_of_plain_arithmetic"]):
        missed.append(f"speed on two cores: {threads}")
    return missed


def first(frames: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One pair of a set: plain torch takes half a minute for each on a CPU."""
    return frames[0][:1], frames[1][:1]


def load_pairs(data: Path, paths: tuple[str, ...], count: int) -> tuple[np.ndarray, np.ndarray] | None:
    """``count`` grey pairs of adjacent frames, spread over the videos; frames cut to the smallest video's size."""
    files = [data / path for path in paths]
    files = [sorted(path.glob("*.avi"))[0] if path.is_dir() else path for path in files]
    if not all(path.is_file() for path in files):
        click.echo(f"not found: {', '.join(paths)}", err=True)
        return None
    pairs = []
    for path in files:
        frames = []
        video = cv2.VideoCapture(str(path))
        while (read := video.read())[0]:
            frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY))
        at = np.linspace(0, len(frames) - 2, -(-count // len(files))).round().astype(int)
        pairs += [(frames[i], frames[i + 1]) for i in at]
    height, width = (min(a.shape[k] for a, _ in pairs) for k in (0, 1))
    return tuple(np.stack([pair[k][:height, :width] for pair in pairs]) for k in (0, 1))


def equality(backend: str, first: np.ndarray, second: np.ndarray) -> dict:
    """Difference of flow and of energy to ``cv2.optflow``, median filter off; static frames."""
    params = TVL1Params()
    ours = tvl1_flow(first, second, backend=backend, params=params)
    theirs = tvl1_flow(first, second, backend="opencv", params=params)
    difference = np.sqrt(((ours - theirs) ** 2).sum(1)).reshape(len(ours), -1)
    images = torch.from_numpy(first), torch.from_numpy(second)
    energy = [tvl1_energy(*images, torch.from_numpy(x), params.lambda_).numpy() for x in (ours, theirs)]
    ratio = energy[0] / energy[1]
    return {
        "pairs": len(first),
        "size": f"{first.shape[2]}x{first.shape[1]}",
        "median_difference_px": round(float(np.median(difference)), 5),
        "median_difference_of_worst_pair_px": round(float(np.median(difference, axis=1).max()), 5),
        "worst_pair_mean_difference_px": round(float(difference.mean(1).max()), 5),
        "mean_flow_px": round(float(np.sqrt((theirs**2).sum(1)).mean()), 3),
        "energy_ratio_to_opencv": {
            "all_pairs": round(float(energy[0].sum() / energy[1].sum()), 5),
            "lowest": round(float(ratio.min()), 5),
            "highest": round(float(ratio.max()), 5),
        },
        "static_frames_give_zero": not tvl1_flow(first[:1], first[:1], backend=backend, params=params).any(),
    }


def middlebury(backend: str, folder: Path) -> dict:
    """End-point error and energy beside OpenCV's, median filter on (5), as OpenCV's CPU class has it."""
    results = {}
    params = TVL1Params(median=5)
    for name in MIDDLEBURY if folder.is_dir() else ():
        frames = [cv2.imread(str(folder / name / f"frame1{k}.png"), cv2.IMREAD_GRAYSCALE)[None] for k in "01"]
        truth = read_flo(folder / name / "flow10.flo")
        known = (np.abs(truth) < 1e9).all(0)
        row = {}
        for suffix, which in (("", backend), ("_opencv", "opencv")):
            flow = tvl1_flow(*frames, backend=which, params=params)
            row["epe" + suffix] = round(float(np.sqrt(((flow[0] - truth) ** 2).sum(0))[known].mean()), 5)
            tensors = (torch.from_numpy(x) for x in (*frames, flow))
            row["energy" + suffix] = round(float(tvl1_energy(*tensors, params.lambda_)[0]), 1)
        results[name] = row
    return results


def cpu_speed(videos: dict) -> dict:
    """Speed on one thread beside OpenCV, same pairs, taken in turn; speed on more threads; what UCF-101 would take.

    One thread is timed by the CPU time it used, so that other work on the machine counts less.
    """
    first, second = videos["kinetics_340x256"]
    tvl1_flow(first[:1], second[:1], backend="cpu")
    repeats = 8
    ours, alone, theirs = [], [], []
    for i in range(len(first)):
        batch = [np.repeat(x[i : i + 1], repeats, axis=0) for x in (first, second)]
        theirs.append(used(lambda i=i: tvl1_flow(first[i : i + 1], second[i : i + 1], backend="opencv")))
        ours.append(used(lambda batch=batch: tvl1_flow(*batch, backend="cpu", threads=1)) / repeats)
        alone.append(used(lambda i=i: tvl1_flow(first[i : i + 1], second[i : i + 1], backend="cpu", threads=1)))
    work = [
        sum(h * w * n for h, w, n in count_iterations(a, b, TVL1Params())) for a, b in zip(first, second, strict=True)
    ]
    result = {
        "pairs": len(first),
        "opencv_seconds_a_pair": spread(theirs),
        "seconds_a_pair": spread(ours),
        "seconds_a_pair_alone": spread(alone),
        "ratio_to_opencv_one_thread": round(statistics.median(np.divide(theirs, ours)), 2),
        "ratio_lowest_pair": round(min(np.divide(theirs, ours)), 2),
        "ratio_highest_pair": round(max(np.divide(theirs, ours)), 2),
        "full_size_iterations_a_pair": round(statistics.mean(work) / first[0].size, 1),
        "nanoseconds_a_pixel_and_iteration_all_included": round(statistics.median(np.divide(ours, work)) * 1e9, 3),
        "threads": scaling(first, second),
    }
    if "ucf101_mini" in videos:
        frames = videos["ucf101_mini"]
        seconds = statistics.median(used(lambda: tvl1_flow(*frames, backend="cpu", threads=1)) for _ in range(5))
        a_pair = seconds / len(frames[0])
        result["ucf101"] = {
            "seconds_a_pair_320x240": round(a_pair, 5),
            "pairs": UCF101_PAIRS,
            "hours_on_2_cores": round(UCF101_PAIRS * a_pair / 2 / 3600, 2),
            "hours_on_64_cores": round(UCF101_PAIRS * a_pair / 64 / 3600, 2),
            "note": "solver alone, cores like this one, as many pairs at once as cores",
        }
    return result


def scaling(first: np.ndarray, second: np.ndarray) -> dict:
    """Wall time of a batch on 1 thread over that on 2, taken in turn.

    Beside it what two threads of plain arithmetic gain over one in the same minute: on a busy machine it is far from 2,
    and then the flow's figure says nothing. ``cpu_time_on_2`` is the CPU time spent on 2 threads over that on 1.
    """
    batch = [np.concatenate([x, x]) for x in (first, second)]
    count(1)

    def flow(threads: int) -> None:
        tvl1_flow(*batch, backend="cpu", threads=threads)

    def arithmetic(threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(count, [300_000_000 // threads] * threads))

    wall, cpu = {}, {}
    for _ in range(7):
        for work in (flow, arithmetic):
            for threads in (1, 2):
                start, used_before = time.perf_counter(), time.process_time()
                work(threads)
                wall.setdefault((work, threads), []).append(time.perf_counter() - start)
                cpu.setdefault((work, threads), []).append(time.process_time() - used_before)
    return {
        "speedup_median": round(float(np.median(np.divide(wall[flow, 1], wall[flow, 2]))), 3),
        "speedup_of_best_times": round(min(wall[flow, 1]) / min(wall[flow, 2]), 3),
        "speedup_of_plain_arithmetic": round(float(np.median(np.divide(wall[arithmetic, 1], wall[arithmetic, 2]))), 3),
        "cpu_time_on_2": round(float(np.median(np.divide(cpu[flow, 2], cpu[flow, 1]))), 3),
        "pairs_per_second_on_2": round(len(batch[0]) / min(wall[flow, 2]), 2),
    }


@numba.njit(nogil=True)
def count(n: int) -> float:
    """Arithmetic that needs no memory."""
    total = 1.0
    for _ in range(n):
        total = total * 1.0000001 + 1e-9
    return total


def used(work: Callable) -> float:
    """CPU seconds that this thread spends on some work."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def spread(seconds: list[float]) -> dict:
    return {
        "median": round(statistics.median(seconds), 5),
        "least": round(min(seconds), 5),
        "most": round(max(seconds), 5),
    }


if __name__ == "__main__":
    main()
