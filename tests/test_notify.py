"""Mails arrive whole, with pictures in the text; a server that is down delays them and loses none."""

from __future__ import annotations

import email
import email.message
import email.policy
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from test_chat_pack import tiny_model
from thread import make_tiny, one_line, understudy

from understudy.core.lease import hold
from understudy.notify import Delivery, Message, Outbox
from understudy.notify import messages as say
from understudy.notify.outbox import shown

ABOUT = say.About("advisor", "run-0007", "/somewhere/runs/run-0007", ["judge"])
VERDICT: dict[str, Any] = {
    "passed": True,
    "control": None,
    "rules": [{"name": "bar", "passed": True, "text": "coverage reaches <b>the bar</b>"}],
    "held": {
        "candidate": {
            "coverage": {"value": 0.858, "low": 0.785, "high": 0.91},
            "f1": {"value": 0.9, "low": 0, "high": 1},
        },
        "base": {"coverage": {"value": 0.633, "low": 0.54, "high": 0.71}},
    },
}


class Mailbox:
    """Keeps what an SMTP server was given."""

    def __init__(self) -> None:
        self.mails: list[email.message.EmailMessage] = []
        self.refuse = False

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.refuse:
            return "451 try again later"
        content = envelope.content
        assert isinstance(content, bytes)
        self.mails.append(email.message_from_bytes(content, policy=email.policy.default))  # type: ignore[arg-type]
        return "250 kept"


class Server:
    """An SMTP server on this machine that can be stopped and started on its port."""

    def __init__(self) -> None:
        self.box = Mailbox()
        self.controller: Controller | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def start(self) -> None:
        self.controller = Controller(self.box, hostname="127.0.0.1", port=self.port)
        self.controller.start()

    def stop(self) -> None:
        if self.controller:
            self.controller.stop()
            self.controller = None

    @property
    def address(self) -> str:
        return f"mailto://127.0.0.1:{self.port}?from=runs@example.org&to=team@example.org&mode=insecure"


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    found.start()
    yield found
    found.stop()


def parts(mail: email.message.EmailMessage, kind: str) -> list[email.message.Message]:
    return [part for part in mail.walk() if part.get_content_type() == kind]


def test_results_come_as_html_with_the_pictures_in_the_text(server: Server, tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    box.put(say.results(ABOUT, VERDICT, ["coverage", "f1"], 3), [server.address])
    assert box.send() == Delivery(1, 0) and not box.waiting()
    (mail,) = server.box.mails
    assert mail["Subject"] == "advisor: gate passed, coverage 0.858 [0.785, 0.910]" and "team@example.org" in mail["To"]
    html = parts(mail, "text/html")[0].get_payload(decode=True).decode()  # type: ignore[union-attr]
    pictures = {part["Content-ID"].strip("<>"): part for part in parts(mail, "image/png")}
    assert set(pictures) == {"held-0.png", "held-1.png"} and all(f"cid:{name}" in html for name in pictures)
    for part in pictures.values():
        assert part.get_content_disposition() == "inline"
        assert part.get_payload(decode=True).startswith(b"\x89PNG")  # type: ignore[union-attr]
    assert "registered as version 3" in html and "Simulated: judge" in html
    assert "&lt;b&gt;the bar&lt;/b&gt;" in html and "<b>the bar</b>" not in html


def test_a_dead_server_delays_and_loses_nothing(server: Server, tmp_path: Path) -> None:
    server.stop()
    box = Outbox(tmp_path)
    for number in range(3):
        box.put(Message("data", f"mail {number}", "<p>text</p>"), [server.address])
        begin = time.monotonic()
        done = box.send()
        assert done.sent == 0 and done.waiting == number + 1 and time.monotonic() - begin < 15
        assert len(done.why) == 1 and done.why[0].startswith("mailto://127.0.0.1")
    server.start()
    assert Outbox(tmp_path).send().sent == 3
    assert [m["Subject"] for m in server.box.mails] == ["mail 0", "mail 1", "mail 2"]
    assert Outbox(tmp_path).send().sent == 0 and len(server.box.mails) == 3


def test_a_recipient_that_has_its_mail_gets_no_second_one(server: Server, tmp_path: Path) -> None:
    other = Server()
    other.start()
    try:
        other.box.refuse = True
        box = Outbox(tmp_path)
        box.put(Message("data", "one", "<p>x</p>"), [server.address, other.address])
        assert box.send().waiting == 1 and len(server.box.mails) == 1
        other.box.refuse = False
        assert box.send().waiting == 0
        assert len(server.box.mails) == 1 and len(other.box.mails) == 1
    finally:
        other.stop()


def test_no_name_slips_a_header_into_a_mail(server: Server, tmp_path: Path) -> None:
    about = say.About("evil\r\nBcc: all@example.org\r\n\r\nbody", "run-1", "x")
    box = Outbox(tmp_path)
    box.put(say.failure(about, "train-1", "error[X] y: <script>", ["line\x00 <b>"]), [server.address])
    assert box.send().sent == 1
    (mail,) = server.box.mails
    assert mail["Bcc"] is None and "evil Bcc: all@example.org" in mail["Subject"]
    html = parts(mail, "text/html")[0].get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert "<script>" not in html and "&lt;script&gt;" in html


def test_secrets_stay_references_on_disk_and_out_of_complaints(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.stop()
    monkeypatch.setenv("MAIL_PASSWORD", "canary-4711")
    address = f"mailto://me:${{env:MAIL_PASSWORD}}@127.0.0.1:{server.port}?to=team@example.org&mode=insecure"
    box = Outbox(tmp_path)
    box.put(Message("data", "x", "<p>y</p>"), [address])
    done = box.send()
    assert done.waiting == 1 and "canary" not in " ".join(done.why)
    assert all(b"canary" not in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert shown(address) == f"mailto://127.0.0.1:{server.port}" and shown("${env:NOTIFY}") == "${env:NOTIFY}"
    assert oct(box.waiting()[0].stat().st_mode)[-3:] == "700"


def test_an_address_that_cannot_be_used_keeps_its_secret_and_stops_no_other(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAT", "tgram://canary-4711/")
    monkeypatch.delenv("NO_SUCH_ADDRESS", raising=False)
    box = Outbox(tmp_path)
    box.put(Message("data", "x", "<p>y</p>"), ["${env:NO_SUCH_ADDRESS}", "${env:CHAT}", server.address])
    done = box.send()
    assert (done.sent, done.waiting, len(server.box.mails)) == (0, 1, 1)
    assert "NO_SUCH_ADDRESS is not set" in done.why[0] and "Unparseable" in done.why[1]
    assert "canary" not in " ".join(done.why) and shown("tgram://canary-4711/1") == "tgram://***"


def test_two_processes_that_send_at_once_send_once(server: Server, tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    box.put(Message("data", "x", "<p>y</p>"), [server.address])
    with hold(tmp_path / ".lock", what="outbox"):
        other = Outbox(tmp_path).send()
    assert (other.sent, other.waiting, server.box.mails) == (0, 1, []) and "another process" in other.why[0]
    assert box.send().sent == 1 and len(server.box.mails) == 1


EXTRA = """
base: {path: base/model}
split: {test: 0.5}
train: {max_steps: 2}
answer: {max_new_tokens: 6}
notify: {to: ["${env:NOTIFY_URL}"]}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = make_tiny(tmp_path / "task")
    tiny_model(folder / "base" / "model", tied=True, seed=1)
    config = folder / "understudy.yaml"
    config.write_text(config.read_text() + EXTRA)
    return folder


@pytest.mark.slow
def test_a_run_tells_of_data_training_and_results_and_a_second_one_of_nothing(server: Server, project: Path) -> None:
    done = understudy("run", "-C", str(project), "--quiet", NOTIFY_URL=server.address)
    assert done.returncode == 0, done.stderr
    subjects = [str(m["Subject"]) for m in server.box.mails]
    assert subjects[0] == "tiny-task: data ready, 20 rows" or subjects[0].startswith("tiny-task: data ready")
    assert subjects[1].startswith("tiny-task: train-1 done in") and subjects[2].startswith("tiny-task: gate passed")
    assert len(subjects) == 3
    assert understudy("run", "-C", str(project), "--quiet", NOTIFY_URL=server.address).returncode == 0
    assert len(server.box.mails) == 3


@pytest.mark.slow
def test_a_failure_is_told_with_the_end_of_its_log_even_later(server: Server, project: Path) -> None:
    server.stop()
    rows = project / "data" / "rows.jsonl"
    good = rows.read_text()
    rows.write_text("".join(json.dumps({"q": "same?", "a": "yes"}) + "\n" for _ in range(40)))
    done = understudy("run", "-C", str(project), "--quiet", NOTIFY_URL=server.address)
    assert done.returncode == 3 and "1 messages wait" in done.stderr and "error[" in done.stderr
    waits = understudy("notify", "-C", str(project), NOTIFY_URL=server.address)
    one_line(waits, "NOTIFY_WAITING", 4)
    server.start()
    sent = understudy("notify", "-C", str(project), NOTIFY_URL=server.address)
    assert sent.returncode == 0 and sent.stdout == "1 sent, 0 waiting\n"
    (mail,) = server.box.mails
    html = parts(mail, "text/html")[0].get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert "tiny-task: run-0001 failed in" in str(mail["Subject"]) and "error[" in html and "started" in html
    rows.write_text(good)


def test_without_recipients_notify_says_what_to_add(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "task")
    assert "add `notify" in one_line(understudy("notify", "-C", str(folder)), "NOTIFY_UNSET", 2)
    assert os.environ.get("NOTIFY_URL") is None


def test_the_bias_report_comes_with_a_picture_a_difference_and_marks_flagged_ones(
    server: Server, tmp_path: Path
) -> None:
    cell = {"measure": "sentiment", "bucket": "teaching style", "a": "women", "b": "men", "low": -0.2, "high": 0.1}
    report = {
        "cells": [
            {**cell, "effect": -0.05, "flagged": False},
            {**cell, "b": "nobody", "effect": -0.9, "flagged": True},
        ],
        "rules": {"alpha": 0.05},
        "proposal": {"command": "understudy run --mitigate"},
    }
    box = Outbox(tmp_path)
    box.put(say.bias(ABOUT, report), [server.address])
    assert box.send().sent == 1
    (mail,) = server.box.mails
    assert mail["Subject"] == "advisor: bias report, 1 of 2 differences between groups flagged"
    html = parts(mail, "text/html")[0].get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert html.count("cid:bias-") == 2 == len(parts(mail, "image/png"))
    assert html.count("flagged</td>") == 1 and "understudy run --mitigate" in html


def test_an_alert_of_the_watch_is_told(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from understudy.announce import alert
    from understudy.project import Project

    folder = make_tiny(tmp_path / "task")
    config = folder / "understudy.yaml"
    config.write_text(config.read_text() + 'notify: {to: ["${env:NOTIFY_URL}"], events: [alert]}\n')
    monkeypatch.setenv("NOTIFY_URL", server.address)
    alert(Project(folder), "drift: p = 0.0001", {"queries": 200, "median": 0.7})
    assert [str(m["Subject"]) for m in server.box.mails] == ["tiny-task: drift: p = 0.0001"]
