"""Code behind a stage may not move unseen: `stages.lock` holds its digest, `make lock-stages` renews it."""

from __future__ import annotations

import ast

import understudy.stages  # noqa: F401  (declares the stages)
from understudy.core import source


def test_stages_lock_is_up_to_date() -> None:
    assert source.stale() == []


def test_comments_and_docstrings_do_not_move_a_digest_but_code_does() -> None:
    def dump(code: str) -> str:
        return ast.dump(source._bare(ast.parse(code)))

    plain = "def f(x):\n    return x + 1\n"
    assert dump(plain) == dump('def f(x):\n    """Says."""\n    # why\n    return x + 1\n')
    assert dump(plain) != dump("def f(x):\n    return x + 2\n")


def test_a_stage_covers_the_modules_it_reaches() -> None:
    reached = source._imports(ast.parse("from understudy.data import pack\nimport json\n"))
    assert {p.name for p in reached} >= {"pack.py"}
