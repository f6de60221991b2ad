"""A small dataset as the stages before ``report`` would leave it, results included, made without running them."""

import csv
import json
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import yaml

from han_core.clipfile.trailer import read_trailer
from han_core.clipfile.writer import ClipFileWriter
from han_core.clips import Clip, ClipTable, write_clips
from han_core.cubes.cubefile import write_cube
from han_core.predictions import attention_file, probabilities_file, write_attention, write_predictions
from pipeline.curve import Curve
from pipeline.execution.contents import write_contents
from pipeline.paths import clip_file

CLASSES = ("hand_shake", "kick")
CLIPS = tuple(f"{name}_{n}" for name in CLASSES for n in range(3))
FRAMES, TAKEN = 6, (0, 2, 5)
TOP1 = {"han": 0.5, "no_attention": 0.25, "two_stream": 0.75, "linear": 1.0, "brand_new": 0.125}


def write_results(
    folder: Path,
    repository: Path,
    models: tuple[str, ...] = ("han", "no_attention"),
    seeds: tuple[int, ...] = (1,),
) -> None:
    """Write clips, cubes, frames, flow, predictions, metrics, plots and params below ``folder``."""
    params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    params |= {"synthetic": None, "models": list(models)}
    params["dataset"].update(name="toy", kind="folder", root="videos", generate=[])
    params["cubes"].update(nets="toy", frames=len(TAKEN))
    params["report"]["clips"] = 2
    params["train"]["seeds"] = list(seeds)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    clips = []
    for number, name in enumerate(CLIPS):
        label = number // 3
        role = "train" if number % 3 == 0 else "test"
        clips.append(Clip(name, f"{name}.avi", CLASSES[label], label, name, {1: role}))
        _write_clip(folder / "data/toy", name, CLASSES[label], number)
    write_clips(ClipTable(tuple(clips), CLASSES, (1,)), folder / "data/toy/clips.csv")
    for kind in ("frames", "flow", "cubes/spatial-1", "cubes/temporal-1"):
        _write_contents(folder / "data/toy" / kind, clips)
    tested = [clip for clip in clips if clip.roles[1] == "test"]
    for number, (seed, name) in enumerate(product(seeds, models)):
        _write_predictions(folder / f"data/toy/predictions/{name}-1-seed{seed}", name, tested, number)
    _write_json(folder / "metrics/toy/evaluate.json", {name: _figures(top1) for name, top1 in TOP1.items()})
    _write_json(folder / "metrics/toy/attention.json", {"han": {"effective_regions": 12.3, "clips": 4}})
    _write_json(folder / "metrics/ucf101/evaluate.json", {"han": _figures(0.912)})
    for name in models:
        rows = [[clip.class_name, CLASSES[0]] for clip in tested]
        _write_csv(folder / f"plots/toy/confusion/{name}.csv", ["actual", "predicted"], rows)
        for seed in seeds:
            with Curve(folder / f"plots/toy/train/{name}-1-seed{seed}") as curve:
                for n in range(1, 6):
                    curve.add(n, {"loss": 2 * seed / n, "top1": 1 - 1 / n, "validation_loss": None})
    for stream, steps in (("spatial", (2, 4, 5)), ("temporal", ())):  # a net that was trained, one used as it is
        with Curve(folder / f"plots/toy/finetune/{stream}-1") as curve:
            for n in steps:
                curve.add(n, {"loss": 3 / n, "learning_rate": 0.01})
    rows = [[name, c, f"{top1:.4f}", 1, 2] for name, top1 in TOP1.items() for c in CLASSES]
    _write_csv(folder / "plots/toy/per_class.csv", ["model", "class", "top1", "right", "clips"], rows)


def _write_clip(data: Path, name: str, class_name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for kind, names, count in (("frames", ("frames",), FRAMES), ("flow", ("x", "y"), FRAMES - 1)):
        path = data / kind / class_name / f"{name}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with ClipFileWriter(path, kind=kind, clip=name, fingerprint="e" * 64, attributes={"bound": 20.0}) as file:
            for images in map(file.images, names):
                for _ in range(count):
                    shape = (48, 64, 3) if kind == "frames" else (48, 64)
                    picture = cv2.GaussianBlur(rng.integers(0, 256, shape).astype(np.uint8), (9, 9), 0)
                    images.append(cv2.imencode(".jpg", picture)[1])
    for stream in ("spatial", "temporal"):
        path = data / f"cubes/{stream}-1" / class_name / f"{name}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with ClipFileWriter(path, kind="cubes", clip=name, fingerprint="f" * 64) as file:
            cubes = rng.random((len(TAKEN), 6, 14, 14)) * (rng.random((len(TAKEN), 6, 14, 14)) < 0.2)
            write_cube(file, cubes.astype(np.float16))
            file.array("frames", np.array(TAKEN, np.int32))


def _write_contents(folder: Path, clips: list[Clip]) -> None:
    files = {clip.key: clip_file(folder, clip.class_name, clip.name) for clip in clips}
    write_contents(folder, {clip.key: (clip, read_trailer(files[clip.key]).content) for clip in clips}, [])


def _write_predictions(folder: Path, row: str, clips: list[Clip], seed: int) -> None:
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet(np.ones(len(CLASSES)), len(clips))
    names = [clip.key for clip in clips]
    write_predictions(probabilities_file(folder, row), names, CLASSES, chances)
    if row in ("han", "soft_attention_lstm"):
        maps = rng.dirichlet(np.full(196, 0.05), (len(clips), len(TAKEN))).astype(np.float32)
        if row == "han":
            maps[:, 0] = 1 / 196  # h_0 = 0
        write_attention(attention_file(folder, row), names, maps, np.tile(TAKEN, (len(clips), 1)))


def _figures(top1: float) -> dict:
    return {"top1": {"mean": top1, "std": 0.0, "split_1": top1}, "right": round(4 * top1), "clips": 4, "missing": 0}


def _write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _write_csv(path: Path, header: list[str], rows: list[list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
