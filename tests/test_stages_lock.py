"""Code behind a stage may not move unseen: `stages.lock` holds its digest, `make lock-stages` renews it."""

from __future__ import annotations

import ast

import understudy.stages  # noqa: F401  (declares the stages)
from understudy.core import source
from understudy.core.stage import STAGES


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


def test_a_stage_covers_what_its_own_module_lends_it() -> None:
    own, files = source.closure(STAGES["score"])
    names = {path.relative_to(source.PACKAGE).as_posix() for path in files}
    assert {"evals/score.py", "evals/judge.py", "evals/prompts/judge.txt", "models/connect.py"} <= names
    assert {"scores_of", "outlook"} <= {getattr(node, "name", "") for node in own}
    packed, reached = source.closure(STAGES["pack"])
    assert "training_files" in {getattr(node, "name", "") for node in packed}
    assert not [path for path in reached if "evals" in path.parts]
    assert "data/synthesis/prompts/synthesize.txt" in {
        path.relative_to(source.PACKAGE).as_posix() for path in source.closure(STAGES["synthesize"])[1]
    }


def test_a_parameter_that_is_called_like_a_stage_does_not_reach_it() -> None:
    own, files = source.closure(STAGES["pack"])
    assert "base" not in {getattr(node, "name", "") for node in own}
    assert not [path for path in files if path.name == "base_files.py"]


def test_names_are_followed_from_function_to_function() -> None:
    module = ast.parse(
        "from x import work\nA = 1\ndef f():\n    return g()\ndef g():\n    return work(A)\ndef h():\n    pass\n"
    )
    used = source._used(module.body[2], module)
    assert {ast.unparse(node).splitlines()[0] for node in used} == {"from x import work", "A = 1", "def g():"}
