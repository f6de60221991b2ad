"""Stage ``evaluate``: every trained variant on the test clips of its split, which gives Table 1.

Writes ``metrics/<dataset>/evaluate.json`` (top-1, mean and standard deviation over the splits),
``metrics/<dataset>/attention.json`` (how good the attention maps are, see ``pipeline/attention.py``),
``metrics/<dataset>/predictions.csv`` (one row a model, split and clip), ``plots/<dataset>/per_class.csv`` and
``plots/<dataset>/confusion/<model>.csv``. Test clips that failed in an earlier stage count as wrong.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from han_core.errors import HanError
from pipeline.params import Params, load_params, params_option

if TYPE_CHECKING:
    from han_core.datasets.clips import Clip, ClipTable


@dataclass(frozen=True)
class Result:
    """What one model says of one split's test clips."""

    model: str
    split: int
    clips: "tuple[Clip, ...]"
    probabilities: np.ndarray
    """(clips, classes); NaN for a clip without features."""

    @property
    def labels(self) -> np.ndarray:
        return np.array([clip.label for clip in self.clips])


@click.command(help=__doc__)
@params_option
def main(params_path: Path) -> None:
    """Score all models and write metrics and plots."""
    params = load_params(params_path)

    try:
        run(params)
    except HanError as error:
        raise click.ClickException(str(error)) from None


def run(params: Params) -> None:
    """Score every model on every split, then the baselines, and write the outputs."""
    from han_core.datasets.clips import read_clips
    from han_core.progress import Progress
    from pipeline.attention import score_attention
    from pipeline.outputs import clear
    from pipeline.paths import Paths

    paths = Paths.of(params)
    table = read_clips(paths.clips)
    results: list[Result] = []
    with Progress("evaluate", len(params.splits) * _rows(params)) as progress:
        for split in params.splits:
            for rows in (_models, _two_stream, _baselines):
                for result in rows(params, table, split):
                    results.append(result)
                    progress.advance(note=f"{result.model}-{split}")
    summary = summarize(results)
    if params.dataset.kind == "synthetic":
        for model, cues in score_cues(results, table).items():
            summary[model]["cues"] = cues
    attention = score_attention(params, table)
    written = [paths.metrics / name for name in ("evaluate.json", "attention.json", "predictions.csv")]
    clear(*written, paths.plots / "per_class.csv", paths.plots / "confusion")
    _write_json(summary, paths.metrics / "evaluate.json")
    _write_json(attention, paths.metrics / "attention.json")
    _write_predictions(results, table, paths.metrics / "predictions.csv")
    _write_per_class(results, table, paths.plots / "per_class.csv")
    _write_confusion(results, table, paths.plots / "confusion")
    for model, figures in summary.items():
        click.echo(
            f"{model:24s} top-1 {100 * figures['top1']['mean']:5.1f} %  ({figures['right']}/{figures['clips']} clips, "
            f"{len(params.splits)} split(s))"
        )
    click.echo(f"-> {paths.metrics / 'evaluate.json'}")


def _rows(params: Params) -> int:
    """Results of one split: a linear baseline gives three, two nets give four."""
    nets = 4 if params.scores.enabled else 0
    return len(params.models) + nets + sum(1 if name == "frame_size" else 3 for name in params.evaluate.baselines)


def _models(params: Params, table: "ClipTable", split: int) -> Iterator[Result]:
    from han_core.model_file import load_model
    from han_core.training import score
    from han_core.variants import VARIANTS
    from pipeline.device import choose_device
    from pipeline.features import open_store
    from pipeline.paths import Paths

    clips = table.select(split, "test")
    for name in params.models:
        trained = load_model(Paths.of(params).han(name, split))
        store = open_store(params, VARIANTS[name], split, clips)
        scores = score(trained.model, store, device=choose_device(params.run.device)).numpy()
        yield Result(name, split, clips, _with_gaps(scores, clips, store.clips))


def _two_stream(params: Params, table: "ClipTable", split: int) -> Iterator[Result]:
    if not params.scores.enabled:
        return

    from pipeline.two_stream import two_stream_rows

    clips = table.select(split, "test")
    for name, scores, scored in two_stream_rows(params, table, split):
        yield Result(name, split, clips, _with_gaps(scores, clips, scored))


def _baselines(params: Params, table: "ClipTable", split: int) -> Iterator[Result]:
    for baseline in params.evaluate.baselines:
        if baseline == "frame_size":
            yield _frame_size(params, table, split)
        else:
            yield from _linear(params, table, split, baseline)


def _linear(params: Params, table: "ClipTable", split: int, baseline: str) -> Iterator[Result]:
    """Logistic regression on averaged cubes: each stream, and both."""
    from han_core.baselines import clip_vectors, logistic_regression
    from han_core.cubestore import CubeStore
    from pipeline.paths import Paths

    folders = {stream: Paths.of(params).cubes(stream, split) for stream in ("spatial", "temporal")}
    test_clips = table.select(split, "test")
    stores = [CubeStore(folders, clips, pooled=True) for clips in (table.select(split, "train"), test_clips)]
    train, test = (store.load() for store in stores)
    for name, streams in {
        f"{baseline}_spatial": ["spatial"],
        f"{baseline}_temporal": ["temporal"],
        baseline: ["spatial", "temporal"],
    }.items():
        over_time = baseline == "linear_mean"
        vectors = [
            clip_vectors({s: part.arrays[s].numpy() for s in streams}, over_time=over_time) for part in (train, test)
        ]
        scores = logistic_regression(vectors[0], train.labels.numpy(), vectors[1], len(table.classes))
        yield Result(name, split, test_clips, _with_gaps(scores, test_clips, stores[1].clips))


def _frame_size(params: Params, table: "ClipTable", split: int) -> Result:
    """Logistic regression on width, height and ratio alone: what a cropped clip tells before anyone looks."""
    from han_core.baselines import frame_size_features, logistic_regression
    from han_core.clipfile import ClipFile
    from pipeline.paths import Paths, clip_file

    folder = Paths.of(params).frames

    def sizes(clips: "Iterable[Clip]") -> "tuple[list[Clip], np.ndarray]":
        have = [clip for clip in clips if clip_file(folder, clip.class_name, clip.name).is_file()]
        rows = []
        for clip in have:
            with ClipFile(clip_file(folder, clip.class_name, clip.name)) as file:
                rows.append((file.attributes["width"], file.attributes["height"]))
        return have, frame_size_features(np.array(rows))

    train_clips, train = sizes(table.select(split, "train"))
    test_clips = table.select(split, "test")
    scored, test = sizes(test_clips)
    labels = np.array([clip.label for clip in train_clips])
    scores = logistic_regression(train, labels, test, len(table.classes))
    return Result("frame_size", split, test_clips, _with_gaps(scores, test_clips, scored))


def _with_gaps(scores: np.ndarray, clips: "Iterable[Clip]", scored: "Iterable[Clip]") -> np.ndarray:
    """Rows of ``scores`` (one a clip of ``scored``) in the order of ``clips``, NaN where a clip was not scored."""
    rows = dict(zip((clip.name for clip in scored), scores, strict=True))
    gap = np.full(scores.shape[1], np.nan)
    return np.array([rows.get(clip.name, gap) for clip in clips])


def summarize(results: Iterable[Result]) -> dict:
    """{model: {top1: {mean, std, split_1, ..}, top5 likewise where it means something, right, clips, missing}}."""
    from han_core.metrics import predictions, score_predictions

    summary: dict[str, dict] = {}
    for result in results:
        scores = score_predictions(result.probabilities, result.labels)
        predicted = predictions(result.probabilities)
        entry = summary.setdefault(result.model, {"top1": {}, "top5": {}, "right": 0, "clips": 0, "missing": 0})
        entry["top1"][f"split_{result.split}"] = scores.top1
        if scores.top5 is not None:
            entry["top5"][f"split_{result.split}"] = scores.top5
        entry["right"] += int((predicted == result.labels).sum())
        entry["clips"] += len(result.clips)
        entry["missing"] += int((predicted < 0).sum())
    for entry in summary.values():
        if not entry["top5"]:
            del entry["top5"]
        for key in ("top1", "top5"):
            if key in entry:
                values = list(entry[key].values())
                entry[key] = {"mean": float(np.mean(values)), "std": float(np.std(values)), **entry[key]}
    return summary


def score_cues(results: Iterable[Result], table: "ClipTable") -> dict[str, dict[str, float]]:
    """{model: {cue: share of the clips whose predicted class has the right value of the cue}}, of synthetic clips.

    Says which of the paper's claims a variant lives up to: appearance, motion or order. Guessing gets 1/2 of each.
    """
    from han_core.datasets.synthetic import CUES, class_cues
    from han_core.metrics import predictions

    hits: dict[str, dict[str, list[bool]]] = {}
    for result in results:
        counts = hits.setdefault(result.model, {cue: [] for cue in CUES})
        for clip, label in zip(result.clips, predictions(result.probabilities), strict=True):
            truth = class_cues(clip.class_name)
            said = class_cues(table.classes[label]) if label >= 0 else {}
            for cue in CUES:
                counts[cue].append(said.get(cue) == truth[cue])
    return {model: {cue: float(np.mean(right)) for cue, right in counts.items()} for model, counts in hits.items()}


def _write_json(summary: dict, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)

    def rounded(value: object) -> object:
        if isinstance(value, dict):
            return {k: rounded(v) for k, v in value.items()}
        return round(value, 6) if isinstance(value, float) else value

    path.write_text(json.dumps(rounded(summary), indent=2) + "\n", encoding="utf-8")


def _write_rows(path: Path, header: list[str], rows: Iterable[Iterable]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _write_predictions(results: Iterable[Result], table: "ClipTable", path: Path) -> None:
    from han_core.metrics import predictions

    rows = []
    for result in results:
        predicted = predictions(result.probabilities)
        for clip, label, row in zip(result.clips, predicted, result.probabilities, strict=True):
            said = table.classes[label] if label >= 0 else ""
            sure = f"{row[label]:.4f}" if label >= 0 else ""
            rows.append([result.model, result.split, clip.name, clip.class_name, said, sure])
    _write_rows(path, ["model", "split", "clip", "class", "predicted", "probability"], rows)


def _write_per_class(results: Iterable[Result], table: "ClipTable", path: Path) -> None:
    """Accuracy by class, clips of all splits together."""
    from han_core.metrics import predictions

    counts: dict[tuple[str, str], list[int]] = {}
    for result in results:
        right = predictions(result.probabilities) == result.labels
        for clip, hit in zip(result.clips, right, strict=True):
            count = counts.setdefault((result.model, clip.class_name), [0, 0])
            count[0] += int(hit)
            count[1] += 1
    order = {name: n for n, name in enumerate(table.classes)}
    models = {model: n for n, (model, _) in enumerate(counts)}
    ranked = sorted(counts.items(), key=lambda item: (models[item[0][0]], order[item[0][1]]))
    rows = [[model, name, f"{right / clips:.4f}", right, clips] for (model, name), (right, clips) in ranked]
    _write_rows(path, ["model", "class", "top1", "right", "clips"], rows)


def _write_confusion(results: Iterable[Result], table: "ClipTable", folder: Path) -> None:
    """One file a model, one row a test clip, as DVC's confusion plots read it."""
    from han_core.metrics import predictions

    rows: dict[str, list[list[str]]] = {}
    for result in results:
        for clip, label in zip(result.clips, predictions(result.probabilities), strict=True):
            said = table.classes[label] if label >= 0 else "(failed)"
            rows.setdefault(result.model, []).append([clip.class_name, said])
    for model, pairs in rows.items():
        _write_rows(folder / f"{model}.csv", ["actual", "predicted"], pairs)


if __name__ == "__main__":
    main()
