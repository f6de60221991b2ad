"""Attention maps of trained models on test clips, and their scores against the boxes of the synthetic actor."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from han_core.datasets.synthetic.generate import actor_boxes
from pipeline.params import Params, synthetic_spec

if TYPE_CHECKING:
    from han_core.clips import Clip, ClipTable
    from han_core.han.model_file import TrainedHAN

_CLIPS_AT_ONCE = 4


def attending_models(params: Params) -> tuple[str, ...]:
    """Those of the params' models that have attention maps worth a look, in their order."""
    from han_core.han.model_file import load_model
    from pipeline.paths import Paths

    paths = Paths.of(params)

    def attends(name: str) -> bool:
        return load_model(paths.han(name, params.splits[0])).model.config.attention != "uniform"

    return tuple(filter(attends, params.models))


def attention_maps(
    params: Params, name: str, split: int, clips: "Sequence[Clip]"
) -> "Iterator[tuple[Clip, np.ndarray, np.ndarray, TrainedHAN]]":
    """What a model of one split looks at in some clips; clips that lack cubes are left out.

    Yields:
        clip, maps (T, R) float32, probabilities (C,) float32, and the model itself.
    """
    import torch

    from han_core.han.model_file import load_model
    from han_core.han.variants import VARIANTS
    from pipeline.features import open_store
    from pipeline.paths import Paths

    trained = load_model(Paths.of(params).han(name, split))
    store = open_store(params, VARIANTS[name], split, clips)
    for start in range(0, len(store.clips), _CLIPS_AT_ONCE):
        indices = range(start, min(start + _CLIPS_AT_ONCE, len(store.clips)))
        with torch.no_grad():
            output = trained.model(store.batch(list(indices)))
        chances = torch.softmax(output.logits.float(), dim=1).numpy()
        for index, maps, chance in zip(indices, output.attention.float().numpy(), chances, strict=True):
            yield store.clips[index], maps, chance, trained


def boxes_at(params: Params, clip: "Clip", frames: np.ndarray) -> np.ndarray:
    """The actor's box (T, 4) in the given frames of a synthetic clip, in pixels of the generated video."""
    return actor_boxes(synthetic_spec(params), clip.name)[frames]


def score_attention(params: Params, table: "ClipTable") -> dict[str, dict]:
    """Scores of every model with attention, means over the test clips of all splits.

    ``effective_regions`` (over how many regions a map is spread) for any dataset; for the synthetic one, whose actor's
    place is known, also ``mass`` and ``pointing`` of ``han_core/evaluation/attention_scores.py``, of the maps as they
    are and ``shuffled`` over time, and beside the models those of the maps that know nothing: ``uniform`` and
    ``centre_prior``.
    """
    import han_core.evaluation.attention_scores as scores
    from han_core.clipfile.reader import ClipFile
    from pipeline.paths import Paths, clip_file

    paths = Paths.of(params)
    known = params.dataset.kind == "synthetic"
    size = (params.synthetic.width, params.synthetic.height) if known else None
    found: dict[str, list[dict]] = {}
    for name in attending_models(params):
        for split in params.splits:
            for clip, maps, _, trained in attention_maps(params, name, split, table.select(split, "test")):
                row = {"effective_regions": scores.effective_regions(maps)}
                if known:
                    stream = trained.model.config.streams[0]
                    with ClipFile(clip_file(paths.cubes(stream, split), clip.class_name, clip.name)) as file:
                        boxes = boxes_at(params, clip, file.array("frames"))
                    row |= asdict(scores.score_maps(maps, boxes, size))
                    row["shuffled"] = asdict(scores.shuffled_scores(maps, boxes, size))
                    for blind, one in (
                        ("uniform", scores.uniform_map(maps.shape[1])),
                        ("centre_prior", scores.centre_prior(maps.shape[1])),
                    ):
                        still = np.tile(one, (len(boxes), 1))
                        found.setdefault(blind, []).append(asdict(scores.score_maps(still, boxes, size)))
                found.setdefault(name, []).append(row)
    summary = {name: {**_mean(rows), "clips": len(rows)} for name, rows in found.items()}
    for blind in ("uniform", "centre_prior"):
        summary.get(blind, {}).pop("clips", None)
    return summary


def _mean(rows: list[dict]) -> dict:
    """Entry by entry, of equal nested mappings."""
    return {
        key: _mean([row[key] for row in rows]) if isinstance(value, dict) else float(np.mean([r[key] for r in rows]))
        for key, value in rows[0].items()
    }
