"""Measure TV-L1 on a GPU: equality with the back end cpu, pairs a second, and how far that is from the card's limits.

\b
    python -m benchmarks.flow_gpu [--data FOLDER] [--check]

Needs torch with Triton, numpy, numba, OpenCV and click; takes one to two minutes. Each figure is written to
flow_gpu.json beside this file as soon as it is known. ``--data`` holds odd_videos/kinetics_340x256.mp4; without it
frames are made. Without a GPU, ``TRITON_INTERPRET=1 python -m benchmarks.flow_gpu --small`` runs every line on tiny
frames.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import cv2
import numpy as np
import torch
import triton
import triton.language as tl

from benchmarks.machine import machine
from han_core.flow.tvl1 import cuda, cuda_layout
from han_core.flow.tvl1.cpu import count_iterations
from han_core.flow.tvl1.cuda_pool import Pool, Tuning
from han_core.flow.tvl1.cuda_sweep import sweep
from han_core.flow.tvl1.params import TVL1Params
from han_core.flow.tvl1.solver import tvl1_flow, tvl1_quantized

SIZES = ((256, 340), (224, 224))
"""Height and width."""
GOAL = 2500
"""Pairs of 340x256 a second."""
VIDEO = "odd_videos/kinetics_340x256.mp4"
VIDEO_WORK = {(256, 340): 43_300_000, (224, 224): 24_300_000}
"""Pixel-iterations of a pair of that video in the mean, all levels together; made frames take fewer."""
INSTRUCTIONS = {4: 502, 6: 702}
"""Of a warp for a row of a strip, 64 columns, by iterations of a sweep: counted in the code compiled for sm_90."""
UCF101_PAIRS = 2_470_000

TRIED = (
    {},
    {"rows": 32},
    {"rows": 128},
    {"slots": 64},
    {"pixels": 11_000_000},
    {"pixels": 32_000_000},
    {"steps": 6, "registers": 224},
    {"steps": 6, "registers": 224, "rows": 128},
    {"launches": 16},
    {"blocks": 16},
    {"blocks": 32},
)
"""Ways to cut up the work, as differences to the default."""


@click.command(help=__doc__)
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--small", is_flag=True, help="Tiny frames, to see that every line runs.")
@click.option("--check", is_flag=True, help="End with status 1 where flow differs too much or the goal is missed.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(__file__).with_suffix(".json"),
    show_default=True,
)
def main(data: Path | None, small: bool, check: bool, out: Path) -> None:
    found: dict = {}
    for name, value in measured(data, small=small):
        found[name] = value
        click.echo(f"{name}: {json.dumps(value)}")
        out.write_text(json.dumps(found, indent=1) + "\n")
    missed = verdict(found)
    for line in missed:
        click.echo(f"MISSED: {line}", err=True)
    sys.exit(1 if check and missed else 0)


def verdict(found: dict) -> list[str]:
    """What falls short, in words."""
    missed = []
    for name, row in found.items():
        if name.startswith("equality"):
            if row["median_difference_px"] > 0.02 or row["worst_pair_mean_difference_px"] > 0.1:
                missed.append(f"{name}: {row}")
            if not (row["same_bytes_again"] and row["static_frames_give_zero"]):
                missed.append(f"{name}: {row}")
    speed = found.get("speed 340x256", {}).get("pairs_of_video_per_second", GOAL)
    if speed < GOAL:
        missed.append(f"{speed} pairs of 340x256 a second of a video, the goal is {GOAL}")
    return missed


def measured(data: Path | None, *, small: bool = False) -> Iterator[tuple[str, dict]]:
    """The figures one after the other, each with its name."""
    device = torch.device("cpu" if cuda.interpreted() else "cuda")
    params = TVL1Params(scales=1, warps=1, epsilon=0.1, iterations=6, settle=0) if small else TVL1Params()
    sizes = ((10, 12), (8, 9)) if small else SIZES
    yield "machine", machine(device.type) | {"frames": "made" if data is None else VIDEO}
    limits = card_limits(device, small=small)
    yield "card", limits
    for height, width in sizes:
        size = f"{width}x{height}"
        first, second = frames(data, height, width, 2 if small else 24)
        yield f"equality {size}", equality(first, second, params)
        work = [
            sum(h * w * n for h, w, n in count_iterations(a, b, params)) for a, b in zip(first, second, strict=True)
        ]
        many = [repeated(x, len(x) if small else cuda.pairs_at_once(height, width)) for x in (first, second)]
        speed = pairs_per_second(*many, params, device, 1 if small else 5)
        pixels = statistics.mean(work)
        rate = pixels * speed["pairs_per_second"]
        speed |= {"pixel_iterations_a_pair": round(pixels), "pixel_iterations_per_second": round(rate)}
        if not small:
            of_video = speed["pairs_per_second"] if data else rate / VIDEO_WORK[height, width]
            speed["pairs_of_video_per_second"] = round(of_video, 1)
        if (height, width) == SIZES[0]:
            speed["ucf101_hours"] = round(UCF101_PAIRS / of_video * 320 * 240 / 340 / 256 / 3600, 3)
        yield f"speed {size}", speed
        yield f"sweep {size}", sweep_alone(height, width, params, device, limits, small=small)
        for change in () if small else TRIED:
            tuning = Tuning(**change)
            at_once = tuning.waiting * tuning.slots_for(height, width)  # of each way, what suits it
            many = [torch.from_numpy(repeated(x, at_once)).to(device) for x in (first, second)]
            row = {"pairs_in_a_call": at_once} | solver_speed(*many, params, tuning, 3)
            yield f"tuning {size} {change or 'default'}", row
            cuda._pool.cache_clear()


def repeated(pairs: np.ndarray, count: int) -> np.ndarray:
    """``count`` pairs, the given ones over and over. As many as a pool takes, or the last ones would run alone."""
    return np.resize(pairs, (count, *pairs.shape[1:]))


def frames(data: Path | None, height: int, width: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """``count`` grey pairs (N, H, W) of a video, or made ones."""
    if data is None:
        pairs = [made_pair(height, width, seed) for seed in range(count)]
    else:
        video = cv2.VideoCapture(str(data / VIDEO))
        read = []
        while (got := video.read())[0]:
            read.append(cv2.resize(cv2.cvtColor(got[1], cv2.COLOR_BGR2GRAY), (width, height)))
        at = np.linspace(0, len(read) - 2, count).round().astype(int)
        pairs = [(read[i], read[i + 1]) for i in at]
    return tuple(np.stack([pair[k] for pair in pairs]) for k in (0, 1))


def made_pair(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A texture that moves slowly with a noisy disc before it that moves fast, uint8."""
    rng = np.random.default_rng(seed)
    margin = 12
    scale = cv2.GaussianBlur(rng.random((height + 2 * margin, width + 2 * margin)).astype(np.float32), (0, 0), 3)
    scale = (scale - scale.min()) / (scale.max() - scale.min()) * 220
    move = np.float32([[1, 0, rng.normal(0, 0.5)], [0, 1, rng.normal(0, 0.5)]])
    second = cv2.warpAffine(scale, move, scale.shape[::-1], flags=cv2.INTER_CUBIC)
    cut = slice(margin, -margin)
    pair = []
    for image, shift in ((scale, 0), (second, int(rng.integers(1, 6)))):
        image = image[cut, cut].copy()
        disc = np.zeros_like(image)
        cv2.circle(disc, (width // 3 + shift, height // 2), max(min(height, width) // 6, 1), 1, -1)
        image += disc * 60 + rng.normal(0, 2, image.shape)
        pair.append(np.clip(image, 0, 255).astype(np.uint8))
    return pair[0], pair[1]


def equality(first: np.ndarray, second: np.ndarray, params: TVL1Params) -> dict:
    """How far the flow is from that of the back end cpu, and whether it is the same bytes again."""
    ours = tvl1_flow(first, second, backend="cuda", params=params)
    difference = np.sqrt(((ours - tvl1_flow(first, second, backend="cpu", params=params)) ** 2).sum(1))
    backwards = tvl1_flow(first[::-1].copy(), second[::-1].copy(), backend="cuda", params=params)
    return {
        "pairs": len(first),
        "median_difference_px": round(float(np.median(difference)), 6),
        "worst_pair_mean_difference_px": round(float(difference.mean((1, 2)).max()), 6),
        "mean_flow_px": round(float(np.sqrt((ours**2).sum(1)).mean()), 3),
        "same_bytes_again": bool(np.array_equal(backwards[::-1], ours)),
        "static_frames_give_zero": not tvl1_flow(first[:1], first[:1], backend="cuda", params=params).any(),
    }


def pairs_per_second(
    first: np.ndarray, second: np.ndarray, params: TVL1Params, device: torch.device, repeats: int
) -> dict:
    """From frames in the host's memory to levels there, as stage flow does it; and on the GPU alone."""
    whole = seconds(lambda: tvl1_quantized(first, second, params=params, bound=20.0), device, repeats)
    alone = solver_speed(*(torch.from_numpy(x).to(device) for x in (first, second)), params, Tuning(), repeats)
    return {
        "pairs_in_a_call": len(first),
        "pairs_per_second": round(len(first) / whole, 1),
        "pairs_per_second_on_the_gpu_alone": alone["pairs_per_second"],
    }


def solver_speed(first: torch.Tensor, second: torch.Tensor, params: TVL1Params, tuning: Tuning, repeats: int) -> dict:
    """Pairs a second, of frames that lie on the GPU."""
    took = seconds(lambda: cuda.solve(first, second, params, tuning), first.device, repeats)
    return {"pairs_per_second": round(len(first) / took, 1)}


def sweep_alone(
    height: int, width: int, params: TVL1Params, device: torch.device, limits: dict, *, small: bool = False
) -> dict:
    """One sweep of all slots on the finest level: time, and what it reaches of the card's own limits."""
    tuning = Tuning()
    slots = 2 if small else tuning.slots_for(height, width)
    pool = Pool(slots, 1, height, width, params, tuning, device)
    steps = tuning.steps
    pool.plan.zero_()  # every slot on the finest level: to make its graph, a pool decides what comes next once
    pool.plan[:, cuda_layout.STEPS_LEFT] = steps
    pool.state.normal_(0, 0.1)
    pool.data.normal_(0, 0.1)

    def one() -> None:
        sweep[(pool.parts, pool.slots)](
            pool.state,
            pool.data,
            pool.partial,
            pool.plan,
            pool.table,
            pool.field,
            pool.parts,
            params.tau,
            0.03,
            1e-6,
            LANES=cuda_layout.COLUMNS // 2,
            STEPS=steps,
            num_warps=1,
            maxnreg=tuning.registers,
            enable_fp_fusion=False,
        )

    took = seconds(one, device, *((1,) if small else (10, 20)))
    level = pool.table[0].tolist()
    strips, segments, rows = (level[k] for k in (cuda_layout.STRIPS, cuda_layout.SEGMENTS, cuda_layout.ROWS))
    passed = sum(min((n + 1) * rows, height) + steps - max(n * rows - steps, 0) for n in range(segments))
    read = slots * strips * cuda_layout.COLUMNS * (passed - segments * steps + segments) * 36
    moved = read + slots * height * width * 24
    instructions = slots * strips * passed * INSTRUCTIONS[steps]
    return {
        "slots": slots,
        "strips": slots * strips * segments,
        "milliseconds": round(1e3 * took, 4),
        "pixel_iterations_per_second": round(slots * height * width * steps / took),
        "bytes": moved,
        "of_the_copy_s_bandwidth": round(moved / took / limits["copy_bytes_per_second"], 3),
        "warp_instructions": instructions,
        "of_the_fma_s_rate": round(instructions * 32 * 2 / took / limits["fma_operations_per_second"], 3),
    }


@triton.jit
def _fma(target, rounds, BLOCK: tl.constexpr):
    """Nothing but fused multiplications and additions, eight in a row that do not wait for each other."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a = at.to(tl.float32) * 1e-9
    b, c, d, e, f, g, h = a + 1.0, a + 2.0, a + 3.0, a + 4.0, a + 5.0, a + 6.0, a + 7.0
    for _ in range(rounds):
        a, b, c, d = tl.fma(a, 0.999, 0.1), tl.fma(b, 0.999, 0.1), tl.fma(c, 0.999, 0.1), tl.fma(d, 0.999, 0.1)
        e, f, g, h = tl.fma(e, 0.999, 0.1), tl.fma(f, 0.999, 0.1), tl.fma(g, 0.999, 0.1), tl.fma(h, 0.999, 0.1)
    tl.store(target + at, a + b + c + d + e + f + g + h)


def card_limits(device: torch.device, *, small: bool = False) -> dict:
    """What this card reaches: bytes read and written by copies that do not and do fit its cache; fused operations."""
    large, cached = (4096, 1024) if small else (2**31, 2**23)
    programs, block, rounds = (2, 128, 3) if small else (8192, 128, 4096)
    sums = torch.empty(programs * block, device=device)
    found = {}
    for name, size in (("copy", large), ("cached_copy", cached)):
        source, target = torch.ones(2, size, dtype=torch.uint8, device=device)
        took = seconds(lambda source=source, target=target: target.copy_(source), device, 10, 2 if small else 50)
        found[f"{name}_bytes_per_second"] = round(2 * size / took)
    took = seconds(lambda: _fma[(programs,)](sums, rounds, BLOCK=block, num_warps=4, enable_fp_fusion=False), device, 5)
    found["fma_operations_per_second"] = round(2 * 8 * rounds * programs * block / took)
    return found


def seconds(work: Callable[[], object], device: torch.device, repeats: int, in_a_row: int = 1) -> float:
    """Median of a few runs, after one that compiles; of short work many in a row, so that the host, which takes tens of
    microseconds for a launch, is ahead of the GPU."""
    work()
    times = []
    for _ in range(repeats):
        _finish(device)
        start = time.perf_counter()
        for _ in range(in_a_row):
            work()
        _finish(device)
        times.append((time.perf_counter() - start) / in_a_row)
    return statistics.median(times)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
