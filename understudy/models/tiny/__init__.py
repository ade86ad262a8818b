"""The tiny base models that ship in the package: fixtures, not products.

`BASES` maps what `base.path` may say to the folder with the exported model and tokenizer; `pretrain.py` makes them anew
from text that `text.py` (English) and `russian/` write. Importing this package loads neither torch nor transformers.
"""

from pathlib import Path

_HERE = Path(__file__).resolve().parent
BASES: dict[str, Path] = {"tiny": _HERE / "base", "tiny-ru": _HERE / "base-ru"}
BASE_DIR: Path = BASES["tiny"]

__all__ = ["BASES", "BASE_DIR"]
