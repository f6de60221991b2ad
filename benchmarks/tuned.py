"""Fine-tuned nets against un-tuned ones on real data: every row of the results. Writes benchmarks/tuned.json.

\b
    python benchmarks/tuned.py ucf101 --data FOLDER --work WORK
    python benchmarks/tuned.py ut_interaction --data FOLDER --work WORK

FOLDER holds ucf101_mini (three classes of UCF-101), ut_interaction/set1 and weights. WORK takes all that is made, and
what is there is reused. Both variants run the stages of the pipeline on the same frames and flow, with a shortened
schedule and the lower layers frozen, so that a CPU does it in an hour; RECIPES below has the settings. HAN, which
trains in seconds, is trained with several seeds on the same cubes. Prints how many test clips each model got right.

\b
    python benchmarks/tuned.py ut_interaction --nets --splits 1,2,3,4,5,6,7,8,9,10 --data FOLDER --work WORK

trains the nets of all ten folds and scores them by themselves; no cubes, no HAN, no un-tuned nets.
"""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import click
import yaml
from machine import machine
from short_nets import SHORT, WHOLE_FRAMES, right_of_nets

from han_core.clips import read_clips
from pipeline.params import SYSTEMS

REPOSITORY = Path(__file__).resolve().parent.parent
STREAMS = ("spatial", "temporal")
VARIANTS = ("tuned", "untuned")
WEIGHTS = "weights/vgg16_imagenet_features.safetensors"

SMALL_HAN = {"lstm_size": 128, "skip": 2, "batch": 32, "epochs": 20, "standardize": True}

RECIPES = {
    "ucf101": {
        "dataset": {"root": "ucf101_mini/UCF-101", "annotations": "ucf101_mini/ucfTrainTestlist"},
        "splits": [1],
        "net": SHORT,
        "crops": 1,
        "train": SMALL_HAN,
    },
    "ut_interaction": {
        "dataset": {"root": "ut_interaction/set1"},
        "splits": [1, 2, 3],
        "net": SHORT | WHOLE_FRAMES,  # as the cubes see them: the clips are cropped to the people already
        "crops": "whole",
        "train": SMALL_HAN,
    },
}


@click.command(help=__doc__)
@click.argument("dataset", type=click.Choice(list(RECIPES)))
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Of HAN and its variants.")
@click.option("--splits", metavar="1,2,..", help="By default those of the recipe.")
@click.option("--nets", is_flag=True, help="The rows of the tuned nets by themselves alone.")
@click.option("--jobs", type=click.IntRange(min=1), default=2, show_default=True, help="Stages side by side.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(__file__).with_suffix(".json"),
    show_default=True,
)
def main(
    dataset: str, data: Path, work: Path, seeds: int, splits: str | None, nets: bool, jobs: int, out: Path
) -> None:
    recipe = RECIPES[dataset] | ({"splits": [int(split) for split in splits.split(",")]} if splits else {})
    rows: dict[str, dict[str, list[int]]] = {}
    clips = 0
    environment = os.environ | {
        "HAN_CACHE": str(work.resolve() / "cache"),
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // jobs)),
    }
    for variant in VARIANTS[:1] if nets else VARIANTS:
        folder = work.resolve() / dataset / variant
        folder.mkdir(parents=True, exist_ok=True)
        params = params_of(dataset, variant, recipe, data.resolve())
        if nets:
            params["evaluate"]["baselines"] = []
        for seed in range(1, 2 if nets else seeds + 1):
            params["train"]["seeds"] = [seed]
            (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
            for stages in (*(cube_stages(params, nets) if seed == 1 else ()), *han_stages(params, nets)):
                with ThreadPoolExecutor(jobs) as pool:
                    list(pool.map(lambda stage: run(stage, folder, environment), stages))  # noqa: B023
            if nets:
                rows = {row: {variant: [count[""]]} for row, count in right_of_nets(folder / f"data/{dataset}").items()}
                table = read_clips(folder / f"data/{dataset}/clips.csv")
                clips = sum(len(table.select(split, "test")) for split in recipe["splits"])
                break
            for model, figures in json.loads((folder / f"metrics/{dataset}/evaluate.json").read_text()).items():
                rows.setdefault(model, {}).setdefault(variant, []).append(figures["right"])
                clips = figures["clips"]
    results = json.loads(out.read_text()) if out.exists() else {}
    name = f"{dataset}, nets" if nets else dataset
    results[name] = {"machine": machine(), "jobs": jobs, "recipe": recipe, "clips": clips, "right": rows}
    out.write_text(json.dumps(results, indent=1) + "\n")
    click.echo(f"\n| right of {clips} | tuned | un-tuned |\n| --- | --- | --- |")
    for model, row in rows.items():
        click.echo(f"| {model} | " + " | ".join(seeds_summary(row.get(variant, [])) for variant in VARIANTS) + " |")


def seeds_summary(right: list[int]) -> str:
    """One figure where all seeds agree, else the mean and, in brackets, that of each seed."""
    if len(set(right)) < 2:
        return str(right[0]) if right else ""
    return f"{sum(right) / len(right):.1f} ({', '.join(map(str, right))})"


def params_of(dataset: str, variant: str, recipe: dict, data: Path) -> dict:
    """The preset of the dataset with the settings of its recipe; un-tuned nets are the same with 0 iterations."""
    params = yaml.safe_load((REPOSITORY / f"presets/{dataset}.yaml").read_text())
    params["dataset"] |= {key: str(data / value) for key, value in recipe["dataset"].items()}
    params["splits"] = params["finetune"]["splits"] = recipe["splits"]
    for stream in STREAMS:
        settings = copy.deepcopy(params["finetune"][stream]) | recipe["net"] | {"weights": str(data / WEIGHTS)}
        params["finetune"][stream] = settings if variant == "tuned" else settings | {"iterations": 0}
    params["cubes"] |= {"frames": 10, "precision": "auto"}
    params["scores"] |= {"frames": 5, "crops": recipe["crops"], "precision": "auto"}
    params["train"] |= recipe["train"]
    for group in SYSTEMS.values():
        params[group]["splits"] = []
    params["evaluate"]["baselines"] = ["linear", "linear_mean"]
    return params


def cube_stages(params: dict, nets: bool) -> Iterator[list[list[str]]]:
    """Commands up to the cubes and the nets' scores, in their order; those of one list do not need each other."""
    for stage in ("prepare", "decode", "flow", "steady"):
        yield [[stage]]
    for stage in ("finetune", "scores") if nets else ("finetune", "cubes", "scores"):
        yield [
            [stage, "--stream", stream, "--split", str(split)] for split, stream in product(params["splits"], STREAMS)
        ]


def han_stages(params: dict, nets: bool) -> Iterator[list[list[str]]]:
    """Commands after the cubes."""
    for stage in () if nets else ("train", "classify"):
        yield [
            [stage, "--model", model, "--split", str(split), "--seed", str(seed)]
            for split, model, seed in product(params["splits"], params["models"], params["train"]["seeds"])
        ]
    yield [["two_stream", "--split", str(split)] for split in params["splits"]]
    yield [
        ["baselines", "--baseline", baseline, "--split", str(split)]
        for split, baseline in product(params["splits"], params["evaluate"]["baselines"])
    ]
    if not nets:
        yield [["evaluate"]]


def run(stage: list[str], folder: Path, environment: dict[str, str]) -> None:
    """One stage in the folder; its output is passed on to ours."""
    done = subprocess.run([sys.executable, "-m", f"pipeline.{stage[0]}", *stage[1:]], cwd=folder, env=environment)
    if done.returncode:
        raise click.ClickException(f"stage {' '.join(stage)} failed; its message stands above")


if __name__ == "__main__":
    main()
