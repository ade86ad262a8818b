"""Presets against stand-ins on this machine that take what the real endpoints take; keys, terms, and the page of it."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from test_service import KEY, Reply, Scripted, _close, chat, client, delta, error, events, serving  # noqa: F401
from thread import make_tiny, one_line, understudy

from understudy.config import FailoverConfig, Price, ServiceConfig
from understudy.core.records import canonical, digest
from understudy.core.stage import without_execution
from understudy.errors import ConfigError, RemoteError
from understudy.models.base import Sampling
from understudy.models.providers import FIELDS, PROVIDERS, READ, endpoint, fitted, json_mode, terms_of, terms_warning
from understudy.serve.request import ChatRequest
from understudy.serve.upstream import Upstream

DOCS = Path(__file__).parents[1] / "docs" / "providers.md"
BEGIN, END = "<!-- presets: begin -->\n", "<!-- presets: end -->\n"
ASKED = [[{"role": "user", "content": "say 0"}]]
DRAWN = Sampling(max_new_tokens=16, temperature=0.7, seed=3)
RENTED = [name for name in PROVIDERS if name != "simulated"]
WITH_KEY = {
    "gemini": "GEMINI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "mistral": "MISTRAL_API_KEY",
    "vllm": "VLLM_API_KEY",
    "ollama": "OLLAMA_API_KEY",
}
COVERAGE = "coverage: {path: data/pairs.jsonl, fields: {prompt: q, response: a}}\n"


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", *WITH_KEY.values(), "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)


def config(provider: str, **settings: Any) -> ServiceConfig:
    return ServiceConfig.model_validate({"provider": provider, "model": "m-1", **settings})


def strict(*unknown: str) -> Any:
    """A stand-in that refuses fields as Gemini and Mistral do, and streams where a stream is asked for."""

    def script(request: dict[str, Any], before: int) -> Reply:
        if found := [name for name in unknown if name in request]:
            return error(400, message=f"Unknown name {found[0]}: Cannot find field.")
        return events(delta("well"), delta("", "stop"), "[DONE]") if request.get("stream") else chat("well")

    return script


# What is sent


SENT = {
    "openai": {"temperature", "max_tokens", "seed"},
    "gemini": {"temperature", "max_tokens"},
    "vertex": {"temperature", "max_tokens", "seed"},
    "anthropic": {"temperature", "max_tokens"},
    "mistral": {"temperature", "max_tokens", "random_seed"},
    "vllm": {"temperature", "max_tokens", "seed"},
    "ollama": {"temperature", "max_tokens", "seed"},
}
UNSTREAMED = ("vertex", "mistral")


@pytest.mark.parametrize("provider", RENTED)
def test_each_endpoint_is_sent_what_it_takes(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    refused = {"gemini": ("seed",), "mistral": ("seed", "stream_options", "max_completion_tokens")}
    project = {"project": "p"} if provider == "vertex" else {}
    with serving(strict(*refused.get(provider, ()))) as (server, url):
        model = client(url, provider=provider, model="m-1", api_key="${env:SOME_KEY}", **project)
        assert [a.text for a in model.generate(ASKED, DRAWN)] == ["well"]
        assert "".join(d.text for d in model.stream(ASKED[0], DRAWN)) == "well"
    whole, streamed = server.requests
    assert whole.keys() == {"model", "messages"} | SENT[provider]
    more = {"stream"} | (set() if provider in UNSTREAMED else {"stream_options"})
    assert streamed.keys() == whole.keys() | more and server.keys == {f"Bearer {KEY}"}
    assert whole.get("seed", whole.get("random_seed", 3)) == 3


@pytest.mark.parametrize("provider", ["gemini", "mistral"])
def test_the_served_primary_is_sent_what_it_takes(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WITH_KEY[provider], KEY)
    given = {"seed": 5, "temperature": 0.2, "max_completion_tokens": 9}
    asked = ChatRequest("understudy", ASKED[0], (DRAWN,), True, True, given)

    async def told(cfg: ServiceConfig) -> str:
        async with Upstream(cfg, FailoverConfig()) as upstream:
            return "".join([piece.delta.text async for piece in upstream.pieces(asked)])

    with serving(strict("seed", *(["stream_options"] if provider == "mistral" else []))) as (server, url):
        assert asyncio.run(told(config(provider, base_url=url))) == "well"
        assert asyncio.run(told(config(provider, base_url=url, temperature=None))) == "well"
    first, second = server.requests
    assert server.keys == {f"Bearer {KEY}"} and first["max_tokens"] == 9 and first["temperature"] == 0.2
    assert first.get("random_seed") == (5 if provider == "mistral" else None) and "temperature" not in second


def test_a_null_temperature_is_not_sent_and_draws_differ_by_seed(tmp_path: Path) -> None:
    with serving(strict("temperature")) as (server, url):
        model = client(url, tmp_path, provider="openai", model="m-1", temperature=None)
        model.generate(ASKED, model.sampling())
        model.generate(ASKED, Sampling(max_new_tokens=2048, temperature=1.0, seed=1))
        default = client(url, tmp_path, provider="openai", model="m-1", temperature=1.0)
        with pytest.raises(RemoteError, match="write teacher.temperature: null"):
            default.generate(ASKED, model.sampling())  # another request: the cache holds none for it
    assert [r.get("seed") for r in server.requests[:2]] == [0, 1] and len(server.requests) == 3


def test_a_temperature_that_the_endpoint_does_not_take_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"judge\.temperature: given 1.2, .* at most 1"):
        endpoint(config("anthropic", temperature=1.2, base_url="http://localhost/v1"), "judge")


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ({"provider": "mistral"}, "schema"),
        ({"provider": "anthropic"}, "text"),
        ({"provider": "openai"}, "schema"),
        ({"provider": "openai", "base_url": "https://llm.example/v1"}, "schema"),
        ({"provider": "openai", "base_url": "https://llm.example/v1", "json_mode": "object"}, "object"),
        ({"provider": "gemini", "json_mode": "text"}, "text"),
    ],
)
def test_json_is_asked_for_in_the_strictest_way_that_is_taken(settings: dict[str, Any], mode: str) -> None:
    assert json_mode(ServiceConfig(**settings)) == mode


# The cache, prices


OLD = {
    "simulated": "0ab5ae2ba3ea515d521f6f79b53f8872fb61ee67d4b1dfcff8f2fb85e979b775",
    "openai": "f7016433d89c6f2b5f2a122a7695a631d485d81c5680963b7089a685854d37f1",
}
"""Cache keys that the release before the presets made; replies under them were paid for."""


@pytest.mark.parametrize("provider", OLD)
def test_replies_of_earlier_releases_stay_paid(provider: str, tmp_path: Path) -> None:
    nobody = "http://127.0.0.1:9/v1"
    model, origin = ("m-1", {"endpoint": digest(nobody, 16)}) if provider == "openai" else ("simulated-1", {})
    request = {
        **{"provider": provider, "model": model, "messages": ASKED[0], **origin},
        "sampling": {"max_new_tokens": 16, "temperature": 0.0, "top_p": 1.0, "seed": None, "stop": []},
    } | ({"wrong_rate": 0.0} if provider == "simulated" else {})
    answer = {"text": "paid", "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 1}
    file = tmp_path / OLD[provider][:2] / f"{OLD[provider]}.json"
    file.parent.mkdir()
    file.write_text(canonical({"request": request, "reply": {"answer": answer, "version": "v"}}), "utf-8")
    found = client(nobody, tmp_path, provider=provider, model=model).generate(ASKED, Sampling(max_new_tokens=16))
    assert [a.text for a in found] == ["paid"]


def test_prices_and_limits_are_no_identity_and_the_json_mode_is() -> None:
    def identity(**settings: Any) -> dict[str, Any]:
        return without_execution(ServiceConfig, config("mistral", **settings).model_dump(mode="json"))

    limits = {"price": Price(prompt=1, completion=2), "requests_per_minute": 5, "tokens_per_minute": 9}
    assert identity(**limits) == identity() != identity(json_mode="text")


# Keys


@pytest.mark.parametrize("provider", WITH_KEY)
def test_the_presets_variable_is_its_key_and_shows_nowhere(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WITH_KEY[provider], KEY)
    with serving(lambda r, n: error(400, message=f"bad key {KEY}")) as (server, url):
        (failed,) = client("", provider=provider, model="m-1", base_url=url).ask(ASKED, DRAWN)
    assert server.keys == {f"Bearer {KEY}"}
    assert isinstance(failed, RemoteError) and "bad key ***" in failed.line() and KEY not in failed.line()
    assert KEY not in repr(endpoint(config(provider, base_url=url), "teacher"))


def test_openais_key_goes_to_openai_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert endpoint(config("openai"), "teacher").key == KEY
    assert endpoint(config("openai", base_url="https://api.openai.com/v1/"), "teacher").key == KEY
    for stranger in ("https://api.openai.com.evil.example/v1", "http://api.openai.com/v1", "http://localhost:1/v1"):
        assert endpoint(config("openai", base_url=stranger), "teacher").key == ""


@pytest.mark.parametrize("provider", ["openai", "gemini", "anthropic", "mistral"])
@pytest.mark.parametrize("value", [None, " "])
def test_a_missing_key_is_one_line_with_its_variable(provider: str, value: str | None, tmp_path: Path) -> None:
    project = make_tiny(tmp_path)
    with open(project / "understudy.yaml", "a") as f:
        f.write(f"judge: {{provider: {provider}, model: m-1}}\n")
    variables = {} if value is None else {PROVIDERS[provider].key: value}
    line = one_line(understudy("check", "-C", str(project), **variables), "KEY_MISSING", 2)
    assert "judge.api_key" in line and f"export {PROVIDERS[provider].key}=" in line


def test_servers_of_your_own_need_no_key() -> None:
    assert endpoint(config("vllm"), "teacher").key == endpoint(config("ollama"), "teacher").key == ""
    assert (
        endpoint(config("vllm"), "teacher").local
        and not endpoint(config("openai", base_url="https://x.example"), "j").local
    )


@pytest.mark.parametrize(("location", "host"), [("global", ""), ("europe-west4", "europe-west4-")])
def test_vertex_has_an_address_for_each_project_and_region(location: str, host: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    found = endpoint(config("vertex", project="p-1", location=location, api_key="${env:SOME_KEY}"), "teacher")
    path = f"v1/projects/p-1/locations/{location}/endpoints/openapi"
    assert found.url == f"https://{host}aiplatform.googleapis.com/{path}" and found.key == KEY


# Versions


def test_every_version_that_answered_is_listed() -> None:
    def script(request: dict[str, Any], before: int) -> Reply:
        number = int(request["messages"][0]["content"].removeprefix("say "))
        return chat("a", system_fingerprint="fp_1" if number < 2 else "fp_2")

    with serving(script) as (_, url):
        model = client(url, provider="openai", model="m-1", temperature=0.3, max_tokens=9)
        for i in (0, 1, 2, 3, 1):
            model.generate([[{"role": "user", "content": f"say {i}"}]], DRAWN)
    assert model.identity["version"] == "fp_1, fp_2"
    assert model.provenance("abc") == {
        **{"model": "m-1", "provider": "openai", "versions": ["fp_1", "fp_2"], "template": "abc"},
        "sampling": {"temperature": 0.3, "max_tokens": 9, "top_p": 1.0},
    }


def test_a_fingerprint_that_every_model_has_is_no_version() -> None:
    with serving(lambda r, n: chat("a", system_fingerprint="fp_ollama", model="llama3:8b")) as (_, url):
        model = client(url, provider="ollama", model="llama3")
        model.generate(ASKED, DRAWN)
    assert model.identity["version"] == "llama3:8b"


# Terms


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"provider": "simulated"}, None),
        ({"provider": "mistral"}, None),
        ({"provider": "mistral", "terms_url": "https://mine.example/contract"}, "https://mine.example/contract"),
        ({"provider": "openai"}, "compete with OpenAI"),
        ({"provider": "anthropic"}, "https://www.anthropic.com/legal/commercial-terms"),
        ({"provider": "gemini", "base_url": "https://gateway.example/v1"}, "https://ai.google.dev/gemini-api/terms"),
        ({"provider": "vertex", "project": "p"}, "not verified"),
        ({"provider": "openai", "base_url": "https://llm.example/v1"}, "write their address as terms_url"),
        (
            {"provider": "openai", "base_url": "https://llm.example/v1", "terms_url": "https://llm.example/terms"},
            "read https://llm.example/terms",
        ),
        ({"provider": "vllm"}, "licence of the weights"),
        ({"provider": "ollama", "terms_url": "https://x.example/licence"}, "read https://x.example/licence"),
    ],
)
def test_what_is_known_of_a_teachers_terms_is_said(settings: dict[str, Any], says: str | None) -> None:
    warning = terms_warning(ServiceConfig(**settings))
    assert warning is None if says is None else warning is not None and says in warning


def test_check_warns_of_a_teacher_that_restricts_training(tmp_path: Path) -> None:
    project = make_tiny(tmp_path)
    rows = [{"q": f"What is {i} and {i}?", "a": str(2 * i)} for i in range(150)]
    (project / "data" / "pairs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    with open(project / "understudy.yaml", "a") as f:
        f.write(COVERAGE + "teacher: {provider: gemini, model: m-1}\n")
    checked = understudy("check", "-C", str(project), GEMINI_API_KEY=KEY)
    (line,) = [line for line in checked.stderr.splitlines() if "teacher" in line]
    assert checked.returncode == 0 and "https://ai.google.dev/gemini-api/terms" in line and READ in line
    assert KEY not in checked.stdout + checked.stderr


# The page


def rows() -> list[str]:
    """A line of each table of docs/providers.md for each preset."""
    parts = []
    for name, preset in PROVIDERS.items():
        url = (
            preset.base_url.replace("{host}", "HOST").replace("{project}", "PROJECT").replace("{location}", "LOCATION")
        )
        key = f"`{preset.key}`" if preset.key else "Google's token" if name == "vertex" else ""
        needed = "needed" if preset.needs_key else "optional" if key else ""
        parts.append(f"| `{name}` | {preset.title} | {f'`{url}`' if url else ''} | {key} | {needed} |")
    return parts


def tables() -> str:
    """The tables of docs/providers.md."""
    out = ["| provider | service | base URL | key | |\n|---|---|---|---|---|", *rows(), ""]
    out += ["| provider | " + " | ".join(f"`{name}`" for name in FIELDS) + " | temperature up to |"]
    out += ["|---" * (len(FIELDS) + 2) + "|"]
    for name, preset in PROVIDERS.items():
        taken = [preset.fields[f] + (f" as `{preset.renamed[f]}`" if f in preset.renamed else "") for f in FIELDS]
        out.append(f"| `{name}` | {' | '.join(taken)} | {preset.max_temperature:g} |")
    out += ["", *(f"- `{name}`: {preset.notes}" for name, preset in PROVIDERS.items() if preset.notes), ""]
    out += ["| provider | training on output | what the terms say, in our words | read on |\n|---|---|---|---|"]
    for name, preset in PROVIDERS.items():
        terms = preset.terms
        said = f"{terms.says}. {f'<{terms.url}>' if terms.url else ''}".strip() if terms.says else ""
        out.append(f"| `{name}` | {'' if terms.training == 'none' else terms.training} | {said} | {terms.read} |")
    return "\n".join(out) + "\n"


def test_the_page_of_presets_is_fresh() -> None:
    text = DOCS.read_text("utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    fresh = f"{before}{BEGIN}\n{tables()}\n{END}{after}"
    if os.environ.get("UPDATE_DOCS"):
        DOCS.write_text(fresh, "utf-8")
        text = fresh
    assert text == fresh, "stale: UPDATE_DOCS=1 pytest tests/test_providers.py -k page"


def test_every_preset_says_something_of_every_field() -> None:
    assert [name for name, preset in PROVIDERS.items() if set(preset.fields) != set(FIELDS)] == []
    assert fitted(config("mistral"), {"seed": 1, "stop": ["x"]}) == {"random_seed": 1, "stop": ["x"]}
    assert terms_of(config("vllm")).training == "licence"
