"""The tiny base model that ships in the package: a fixture, not a product.

`BASE_DIR` holds the exported model and tokenizer; `pretrain.py` makes them anew from text that `text.py` writes.
Importing this package loads neither torch nor transformers.
"""

from pathlib import Path

BASE_DIR: Path = Path(__file__).resolve().parent / "base"

__all__ = ["BASE_DIR"]
