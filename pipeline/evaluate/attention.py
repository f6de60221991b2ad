"""How good the attention maps are: how widely they are spread and, of synthetic clips, whether they are right."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

import han_core.evaluation.attention_quality as quality
from han_core.datasets.synthetic.generate import actor_boxes
from han_core.predictions import attention_file, read_attention
from pipeline.params import Params, synthetic_spec
from pipeline.paths import Paths
from pipeline.predictions import attending_rows

if TYPE_CHECKING:
    from han_core.clips import ClipTable


def attention_quality(params: Params, table: "ClipTable") -> dict[str, dict]:
    """Scores of every system with attention, means over the test clips of all splits.

    ``effective_regions`` (over how many regions a map is spread) for any dataset; for the synthetic one, whose actor's
    place is known, also ``mass`` and ``pointing`` of ``han_core/evaluation/attention_quality.py``, of the maps as they
    are and ``shuffled`` over time, and beside the systems those of the maps that know nothing: ``uniform`` and
    ``centre_prior``.
    """
    known = params.dataset.kind == "synthetic"
    size = (params.synthetic.width, params.synthetic.height) if known else None
    found: dict[str, list[dict]] = {}
    for attending in attending_rows(params):
        name = attending.name
        for split in params.splits:
            attention = read_attention(attention_file(Paths.of(params).predictions(attending.family, split), name))
            for clip in table.select(split, "test"):
                if clip.key not in attention.maps:
                    continue
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
