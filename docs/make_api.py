"""Write docs/api.md out of the docstrings of room han_core.api: ``python docs/make_api.py``."""

import inspect
import re
from pathlib import Path

from han_core.api import models, stores, videos

OFFERED = {
    "frames": videos.frames,
    "flow": videos.flow,
    "extract": videos.extract,
    "open_store": stores.open_store,
    "load_model": models.load_model,
    "Model": models.Model,
    "Model.predict": models.Model.predict,
    "Label": models.Label,
}
SHORT = {"os.PathLike[str]": "Path", "collections.abc.": "", "numpy.": "np.", "han_core.api.models.": ""}
PAGE = Path(__file__).with_name("api.md")
HEAD = """# From Python

What `import han_core as han` offers. Paths may be `str` or `Path`. Whatever cannot be done is a
`han_core.errors.HanError`, whose message says what is wrong, with which file, and what to do. Nothing is imported
before it is used."""


def page() -> str:
    """The page: each name with its signature and its docstring."""
    parts = [HEAD]
    for name, found in OFFERED.items():
        signature = "" if inspect.isclass(found) else _signature(found)
        shown = name if name[0].isupper() else f"han.{name}"
        parts += [f"## {shown}", f"```python\n{shown}{signature}\n```", f"```text\n{inspect.getdoc(found)}\n```"]
    parts.append("(Written by `python docs/make_api.py` out of the docstrings.)")
    return "\n\n".join(parts) + "\n"


def _signature(function: object) -> str:
    text = str(inspect.signature(function))
    for long, short in (
        ("os.PathLike[str]", "Path"),
        ("collections.abc.", ""),
        ("numpy.", "np."),
        ("han_core.api.models.", ""),
    ):
        text = text.replace(long, short)
    return re.sub(r"-> '(\w+)'$", r"-> \1", text)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
