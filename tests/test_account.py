"""What a run spends: a limit that holds under concurrency, across processes and after a kill."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from test_service import Opened, chat, error, serving

from understudy.config import ServiceConfig
from understudy.config.models import Price
from understudy.errors import RemoteError, ResourceError
from understudy.models.account import Account, cost, spending
from understudy.models.service import ServiceModel

PRICE = Price(prompt=10.0, completion=30.0)
ASKED = [[{"role": "user", "content": f"Number {i}?"}] for i in range(400)]


def test_a_price_is_per_million_tokens() -> None:
    assert cost(PRICE, 1_000_000, 500_000) == 25.0
    assert cost(None, 10**9, 10**9) == 0.0


def test_what_does_not_fit_is_refused_and_what_came_back_cheaper_makes_room(tmp_path: Path) -> None:
    account = Account(tmp_path / "spending.jsonl", 1.0)
    one = account.reserve("teacher", 0.7)
    account.settle(one, "teacher", 0.2, 10, 20)
    two = account.reserve("judge", 0.8)
    account.settle(two, "judge", 0.8)
    with pytest.raises(ResourceError, match=r"BUDGET_SPENT\] judge: 1\.0000 of the budget of 1 is spent.*cost 0\.1000"):
        account.reserve("judge", 0.1)
    assert account.spent == pytest.approx(1.0)
    account.close()
    assert spending(account.file)["teacher"] == {
        "requests": 1, "prompt_tokens": 10, "completion_tokens": 20, "cost": 0.2,
    }  # fmt: skip


def test_a_reservation_waits_for_the_requests_beside_it(tmp_path: Path) -> None:
    account = Account(tmp_path / "spending.jsonl", 1.0)
    held = account.reserve("teacher", 0.9)
    assert held and account.reserve("teacher", 0.9) is None
    account.settle(held, "teacher", 0.1)
    assert account.reserve("teacher", 0.9)


def test_what_a_killed_process_reserved_counts_in_full_and_its_half_line_hurts_nobody(tmp_path: Path) -> None:
    file = tmp_path / "spending.jsonl"
    killed = (
        "import os, sys; from pathlib import Path; from understudy.models.account import Account\n"
        "a = Account(Path(sys.argv[1]), 1.0); a.reserve('teacher', 0.6)\n"
        "open(sys.argv[1], 'a').write('{\"ticket\": \"half'); os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", killed, str(file)]).returncode == -9
    account = Account(file, 1.0)
    assert account.spent == pytest.approx(0.6)
    with pytest.raises(ResourceError, match="BUDGET_SPENT"):
        account.reserve("teacher", 0.5)
    account.settle(account.reserve("teacher", 0.4), "teacher", 0.3, 1, 1)
    assert Account(file, 1.0).spent == pytest.approx(1.0)  # the rest is kept for the next request, until it is closed
    account.close()
    assert Account(file, 1.0).spent == pytest.approx(0.9)
    assert spending(file)["unsettled"]["cost"] == pytest.approx(0.6)


def test_processes_that_share_an_account_stay_within_it_together(tmp_path: Path) -> None:
    file = tmp_path / "spending.jsonl"
    greedy = (
        "import sys; from pathlib import Path; from understudy.models.account import Account\n"
        "from understudy.errors import ResourceError\n"
        "a = Account(Path(sys.argv[1]), 1.0)\n"
        "try:\n"
        "    while True: a.settle(a.reserve('teacher', 0.01), 'teacher', 0.01, 1, 1)\n"
        "except ResourceError: a.close()\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", greedy, str(file)]) for _ in range(3)]
    assert [p.wait(60) for p in processes] == [0, 0, 0]
    assert Account(file, 1.0).spent == pytest.approx(1.0)
    assert spending(file)["teacher"]["requests"] == 100


@pytest.mark.parametrize("concurrency", [1, 16])
def test_the_service_is_never_asked_for_more_than_the_budget(tmp_path: Path, concurrency: int, opened: Opened) -> None:
    """The scripted server says what each reply cost; the sum of what it served stays under the limit."""
    account = Account(tmp_path / "spending.jsonl", 0.05)
    cfg = ServiceConfig(provider="openai", model="m", concurrency=concurrency, price=PRICE, max_tokens=50)
    with serving(lambda request, before: chat("an answer")) as (server, url):
        model = opened(ServiceModel(cfg, base_url=url, cache=tmp_path / "cache", role="teacher", account=account))
        with pytest.raises(ResourceError, match="BUDGET_SPENT"):
            model.ask(ASKED, model.sampling())
        each = cost(PRICE, 7, 3)  # what `chat` reports
        assert server.hits * each <= 0.05 < (server.hits + 1) * each + cost(PRICE, 40, 50)
        assert account.spent == pytest.approx(server.hits * each) == pytest.approx(model.calls["cost"])
        # Every reply was kept: with more money, nothing is asked twice.
        richer = opened(ServiceModel(cfg, base_url=url, cache=tmp_path / "cache", account=Account(account.file, 10.0)))
        assert all(a.text == "an answer" for a in richer.ask(ASKED, richer.sampling()))  # type: ignore[union-attr]
        assert server.hits == len(ASKED)


def test_a_reply_that_nobody_accounts_for_is_paid_in_full(tmp_path: Path, opened: Opened) -> None:
    account = Account(tmp_path / "spending.jsonl", 1.0)
    cfg = ServiceConfig(provider="openai", model="m", price=PRICE, max_tokens=100, max_attempts=1, timeout_s=0.3)
    with serving(lambda request, before: chat("late", usage=None) if before else chat("x")) as (server, url):
        server.script = lambda request, before: type(chat("x"))(body=chat("x").body, delay=1.0)
        model = opened(ServiceModel(cfg, base_url=url, account=account))
        model.ask(ASKED[:1], model.sampling())
    assert account.spent >= cost(PRICE, len("Number 0?"), 100)


def test_without_a_limit_what_was_spent_is_written_down(tmp_path: Path, opened: Opened) -> None:
    account = Account(tmp_path / "run" / "spending.jsonl")
    cfg = ServiceConfig(provider="openai", model="m", price=PRICE)
    with serving(lambda request, before: chat("an answer")) as (_, url):
        model = opened(ServiceModel(cfg, base_url=url, role="judge", account=account))
        model.ask(ASKED[:20], model.sampling())
        model.close()
    assert spending(account.file)["judge"]["cost"] == pytest.approx(20 * cost(PRICE, 7, 3))
    assert spending(account.file)["judge"]["requests"] == 20


MOST = cost(PRICE, 40, 50)
"""More than a request of ASKED may cost with 50 tokens of reply."""


def test_who_waits_for_money_is_sent_away_when_the_batch_stops(tmp_path: Path, opened: Opened) -> None:
    """Money for one request at a time; the key is refused while the others wait."""
    account = Account(tmp_path / "spending.jsonl", 1.5 * MOST)
    cfg = ServiceConfig(provider="openai", model="m", price=PRICE, max_tokens=50, concurrency=4)
    with serving(lambda request, before: error(401) if server.hits > 1 else chat("fine")) as (server, url):
        model = opened(ServiceModel(cfg, base_url=url, account=account))
        with pytest.raises(RemoteError, match="KEY_REFUSED"):
            model.ask(ASKED[:20], model.sampling())
        assert server.hits == 2


def test_waiting_for_money_is_no_part_of_the_deadline(tmp_path: Path, opened: Opened) -> None:
    account = Account(tmp_path / "spending.jsonl", 0.0017)
    held = account.reserve("teacher", 0.0015)
    assert held
    threading.Timer(1.2, lambda: account.settle(held, "teacher", 0.0001, 1, 1)).start()
    cfg = ServiceConfig(provider="openai", model="m", price=PRICE, max_tokens=30, timeout_s=1.0)
    with serving(lambda request, before: chat("fine") if before else error(503)) as (server, url):
        model = opened(ServiceModel(cfg, base_url=url, account=account))
        model.backoff_s = 0.01
        (answer,) = model.ask(ASKED[:1], model.sampling())
    assert not isinstance(answer, Exception) and answer.text == "fine" and server.hits == 2
