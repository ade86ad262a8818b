"""understudy: prepare a small model that you own to do the job of a large one that you rent."""

__version__ = "0.1.0"
