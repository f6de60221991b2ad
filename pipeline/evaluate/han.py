"""The rows that are a HAN."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from han_core.evaluation.results import Result, with_gaps
from pipeline.params import Params

if TYPE_CHECKING:
    from han_core.clips import ClipTable


def han_results(params: Params, table: "ClipTable", split: int) -> Iterator[Result]:
    from han_core.devices import choose_device
    from han_core.han.model_file import load_model
    from han_core.han.training import score
    from han_core.han.variants import VARIANTS
    from pipeline.features import open_store
    from pipeline.paths import Paths

    clips = table.select(split, "test")
    for name in params.models:
        trained = load_model(Paths.of(params).han(name, split))
        store = open_store(params, VARIANTS[name], split, clips)
        scores = score(trained.model, store, device=choose_device(params.run.device)).numpy()
        yield Result(name, split, clips, with_gaps(scores, clips, store.clips))
