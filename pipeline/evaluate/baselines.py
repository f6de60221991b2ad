"""The rows of simple methods that any result must be read beside."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from han_core.evaluation.results import Result, with_gaps
from pipeline.params import Params

if TYPE_CHECKING:
    from han_core.clips import Clip, ClipTable


def baseline_results(params: Params, table: "ClipTable", split: int) -> Iterator[Result]:
    for baseline in params.evaluate.baselines:
        if baseline == "frame_size":
            yield _frame_size(params, table, split)
        else:
            yield from _linear(params, table, split, baseline)


def _linear(params: Params, table: "ClipTable", split: int, baseline: str) -> Iterator[Result]:
    """Logistic regression on averaged cubes: each stream, and both."""
    from han_core.baselines.linear import clip_vectors, logistic_regression
    from han_core.cubes.store import CubeStore
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
        yield Result(name, split, test_clips, with_gaps(scores, test_clips, stores[1].clips))


def _frame_size(params: Params, table: "ClipTable", split: int) -> Result:
    """Logistic regression on width, height and ratio alone: what a cropped clip tells before anyone looks."""
    from han_core.baselines.linear import frame_size_features, logistic_regression
    from han_core.clipfile.reader import ClipFile
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
    return Result("frame_size", split, test_clips, with_gaps(scores, test_clips, scored))
