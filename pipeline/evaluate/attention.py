"""How good the attention maps are: how widely they are spread and, of synthetic clips, whether they are right."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

import han_core.evaluation.attention_quality as quality
from han_core.datasets.synthetic.generate import actor_boxes
from han_core.predictions import Attention
from han_core.rows import Row
from pipeline.params import Params, synthetic_spec
from pipeline.predictions import attending_rows, read_maps

if TYPE_CHECKING:
    from han_core.clips import ClipTable


def attention_quality(params: Params, table: "ClipTable") -> dict[str, dict]:
    """Scores of every system with attention, means over the test clips of all splits, and over the seeds.

    ``effective_regions`` (over how many regions a map is spread) for any dataset; for the synthetic one, whose actor's
    place is known, also ``mass`` and ``pointing`` of ``han_core/evaluation/attention_quality.py``, of the maps as they
    are and ``shuffled`` over time, and beside the systems those of the maps that know nothing: ``uniform`` and
    ``centre_prior``.
    """
    known = params.dataset.kind == "synthetic"
    size = (params.synthetic.width, params.synthetic.height) if known else None
    found: dict[str, list[dict]] = {}
    clips: Counter[str] = Counter()
    for attending in attending_rows(params):
        name = attending.name
        for number, split, attention in _maps(params, attending):
            for clip in table.select(split, "test"):
                if clip.key not in attention.maps:
                    continue
                clips[name] += number == 0
                maps = attention.maps[clip.key]
                row = {"effective_regions": quality.effective_regions(maps)}
                if known:
                    boxes = actor_boxes(synthetic_spec(params), clip.name)[attention.frames[clip.key]]
                    row |= asdict(quality.map_quality(maps, boxes, size))
                    row["shuffled"] = asdict(quality.shuffled_quality(maps, boxes, size))
                    for blind, one in (
                        ("uniform", quality.uniform_map(maps.shape[1])),
                        ("centre_prior", quality.centre_prior(maps.shape[1])),
                    ):
                        still = np.tile(one, (len(boxes), 1))
                        found.setdefault(blind, []).append(asdict(quality.map_quality(still, boxes, size)))
                found.setdefault(name, []).append(row)
    return {name: _mean(rows) | ({"clips": clips[name]} if name in clips else {}) for name, rows in found.items()}


def _maps(params: Params, row: Row) -> Iterator[tuple[int, int, Attention]]:
    """Number of the seed, split, and the maps that a row left for them."""
    for split in params.splits:
        for number, attention in enumerate(read_maps(params, row, split)):
            yield number, split, attention


def _mean(rows: list[dict]) -> dict:
    """Entry by entry, of equal nested mappings."""
    return {
        key: _mean([row[key] for row in rows]) if isinstance(value, dict) else float(np.mean([r[key] for r in rows]))
        for key, value in rows[0].items()
    }
