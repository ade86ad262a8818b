"""Presets of the services that speak the OpenAI protocol: address, key, request fields, terms on training.

What each endpoint takes was read in its documentation or in reports of its users on the day in `READ`; where neither
could be found the table says `not verified` and the field is sent. docs/providers.md is made from this table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from understudy.config import ServiceConfig
from understudy.errors import ConfigError, IntegrityError
from understudy.models.google_token import GoogleToken

READ = "2026-11-21"
"""The day on which endpoints and terms were read."""
Support = Literal["taken", "ignored", "refused", "not verified"]
JsonMode = Literal["schema", "object", "text"]
Training = Literal["restricted", "unrestricted", "licence", "not verified", "unknown", "none"]
_REFERENCE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a service's terms say about training a model on its output, in our words; no legal advice."""

    training: Training
    url: str | None = None
    says: str = ""
    read: str = ""


@dataclass(frozen=True, slots=True)
class Provider:
    """One preset. `base_url` may hold {host}, {project} and {location}; `key` names an environment variable.

    `needs_key`: the preset's own address answers nobody without one. A field is left out when `fields` calls it ignored
    or refused, and sent under its name in `renamed`.
    """

    title: str
    base_url: str
    terms: Terms
    key: str = ""
    needs_key: bool = False
    fields: Mapping[str, Support] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    max_temperature: float = 2.0
    notes: str = ""


FIELDS = (
    "seed",
    "n",
    "json_schema",
    "json_object",
    "stream_options",
    "logprobs",
    "max_tokens",
    "max_completion_tokens",
)
"""Request fields, and kinds of `response_format`, that endpoints differ in."""
_ALL: dict[str, Support] = dict.fromkeys(FIELDS, "taken")

PROVIDERS: dict[str, Provider] = {
    "simulated": Provider(
        "Simulated service",
        "",
        Terms("none"),
        fields={**_ALL, "logprobs": "refused"},
        notes="Started on this machine for each step; no real model.",
    ),
    # developers.openai.com/api/docs/guides/reasoning, github.com/tmc/langchaingo/issues/1355 (temperature)
    "openai": Provider(
        "OpenAI",
        "https://api.openai.com/v1",
        Terms(
            "restricted",
            "https://openai.com/policies/services-agreement/",
            "output may not be used to develop models that compete with OpenAI's products and services; excepted are "
            "classifiers and the like that are kept in-house, and OpenAI's own fine-tuning",
            READ,
        ),
        key="OPENAI_API_KEY",
        needs_key=True,
        fields=_ALL,
        notes="Models since gpt-5 take no temperature but their own (write `temperature: null`) and want "
        "`max_completion_tokens`, which is found out by the first request. With `base_url`: any endpoint of the "
        "protocol; `OPENAI_API_KEY` is not sent there, and what it takes is not known.",
    ),
    # ai.google.dev/gemini-api/docs/openai; github.com/mcpchecker/mcpchecker/pull/188 (seed)
    "gemini": Provider(
        "Gemini API (AI Studio)",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        Terms(
            "restricted",
            "https://ai.google.dev/gemini-api/terms",
            "the service may not be used to develop models that compete with it, nor to replicate its own models",
            READ,
        ),
        key="GEMINI_API_KEY",
        needs_key=True,
        fields={
            **dict.fromkeys(FIELDS, "not verified"),
            "seed": "refused",
            "json_schema": "taken",
            "max_tokens": "taken",
        },
        notes="Answers fields that it does not know with HTTP 400. Its free tier has limits per minute: set "
        "`requests_per_minute`.",
    ),
    # docs.cloud.google.com/gemini-enterprise-agent-platform/models/migrate/openai/overview
    "vertex": Provider(
        "Vertex AI (Google Cloud)",
        "https://{host}/v1/projects/{project}/locations/{location}/endpoints/openapi",
        Terms(
            "not verified",
            "https://cloud.google.com/terms/service-terms",
            "the section on generative AI services could not be read; have it read before you train",
        ),
        needs_key=True,
        fields={**_ALL, "stream_options": "ignored", "logprobs": "ignored"},
        notes="`model` carries its publisher, e.g. `google/gemini-3.8-flash`. Without `api_key`, short-lived tokens "
        "come from Google's default credentials (`pip install 'understudy[vertex]'`). Fields that it does not know are "
        "ignored.",
    ),
    # platform.claude.com/docs/en/cli-sdks-libraries/libraries/openai-sdk;
    # support.claude.com/en/articles/12326764 (training); github.com/sipeed/picoclaw/issues/2939 (temperature)
    "anthropic": Provider(
        "Anthropic (OpenAI SDK compatibility)",
        "https://api.anthropic.com/v1",
        Terms(
            "restricted",
            "https://www.anthropic.com/legal/commercial-terms",
            "output may not train competing models, and the usage policy wants prior authorisation for training on it; "
            "its help pages allow tools of one purpose that compete with no model of its own, such as classifiers",
            READ,
        ),
        key="ANTHROPIC_API_KEY",
        needs_key=True,
        fields={
            **_ALL,
            "seed": "ignored",
            "n": "refused",
            "json_schema": "ignored",
            "json_object": "ignored",
            "logprobs": "ignored",
        },
        max_temperature=1.0,
        notes="Meant by Anthropic for tests and comparisons. Models since Opus 4.7 refuse `temperature`: write "
        "`temperature: null`.",
    ),
    # docs.mistral.ai/api; github.com/editor-code-assistant/eca/issues/231 (max_completion_tokens),
    # github.com/posit-dev/chatlas/pull/145 (seed, stream_options)
    "mistral": Provider(
        "Mistral AI",
        "https://api.mistral.ai/v1",
        Terms(
            "unrestricted",
            "https://legal.mistral.ai/terms/commercial-terms-of-service",
            "text output is the customer's, and training on it is not restricted; output may not serve to reverse "
            "engineer the models, nor images to train a competing image model",
            READ,
        ),
        key="MISTRAL_API_KEY",
        needs_key=True,
        fields={
            **_ALL,
            "n": "not verified",
            "stream_options": "refused",
            "logprobs": "not verified",
            "max_completion_tokens": "refused",
        },
        renamed={"seed": "random_seed"},
        max_temperature=1.5,
        notes="Answers fields that it does not know with HTTP 422. The highest temperature is not verified: its client "
        "names 1.0, older pages 1.5.",
    ),
    # docs.vllm.ai/en/latest/serving/openai_compatible_server.html, github.com/vllm-project/vllm/pull/9837
    "vllm": Provider(
        "vLLM",
        "http://localhost:8000/v1",
        Terms("licence", says="the licence of the weights that it serves decides"),
        key="VLLM_API_KEY",
        fields=_ALL,
        notes="Early releases ignore `max_completion_tokens`. The key is the server's `--api-key`, if it has one.",
    ),
    # docs.ollama.com/api/openai-compatibility; github.com/ollama/ollama openai/openai.go
    "ollama": Provider(
        "Ollama",
        "http://localhost:11434/v1",
        Terms("licence", says="the licence of the weights that it serves decides"),
        key="OLLAMA_API_KEY",
        fields={**_ALL, "n": "ignored", "logprobs": "not verified", "max_completion_tokens": "ignored"},
        notes="The local server reads no key. It gives every model the same fingerprint, so the reported version is "
        "the model's name.",
    ),
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a service is and what opens it; the key never shows in its repr."""

    url: str
    key: str | GoogleToken = field(repr=False)

    @property
    def local(self) -> bool:
        """Whether it is on this machine, where no proxy belongs."""
        host = urlsplit(self.url).hostname or ""
        return host in ("localhost", "::1") or host.startswith("127.")

    def hide(self, text: str) -> str:
        """The text without the key in it."""
        secret = self.key if isinstance(self.key, str) else self.key.last
        return text.replace(secret, "***") if secret else text


def endpoint(cfg: ServiceConfig, role: str, base_url: str | None = None) -> Endpoint:
    """Address and key of a service. `base_url` is that of a simulated service which runs.

    Raises ConfigError SERVICE_NOT_STARTED, ENV_MISSING, KEY_MISSING or TEMPERATURE, IntegrityError SECRET_IN_CONFIG for
    a literal key, ResourceError EXTRA_MISSING where Google's library is wanted and not installed.
    """
    preset = PROVIDERS[cfg.provider]
    url = base_url or cfg.base_url or _own_url(cfg)
    if not url:
        what, fix = "provider `simulated` has no address", "start models.simulated and pass its base_url"
        raise ConfigError("SERVICE_NOT_STARTED", f"{role} {cfg.model}", what, fix)
    if cfg.temperature is not None and cfg.temperature > preset.max_temperature:
        what = f"given {cfg.temperature:g}, but {preset.title} takes at most {preset.max_temperature:g}"
        raise ConfigError("TEMPERATURE", f"{role}.temperature", what, "lower it")
    return Endpoint(url, _key(cfg, f"{role}.api_key", url))


def resolve_reference(value: str, where: object) -> str:
    """The secret behind `${env:NAME}`. Raises ConfigError naming the variable, never its value."""
    match = _REFERENCE.fullmatch(value)
    if match is None:
        raise IntegrityError("SECRET_IN_CONFIG", where, "holds a value (***), not a reference", "write ${env:NAME}")
    return _secret(match[1], where)


def terms_of(cfg: ServiceConfig) -> Terms:
    """The terms that hold for a service, as far as they are known."""
    preset = PROVIDERS[cfg.provider]
    # Behind an address of their own, `openai` may be anybody.
    stranger = cfg.provider == "openai" and not _at_home(cfg, cfg.base_url or preset.base_url)
    if preset.terms.training == "none" or (not stranger and cfg.terms_url in (None, preset.terms.url)):
        return preset.terms
    return Terms("unknown", cfg.terms_url)


def terms_warning(cfg: ServiceConfig) -> str | None:
    """One line for people who are about to train a model on this service's output; None where nothing is to be said."""
    terms, title = terms_of(cfg), PROVIDERS[cfg.provider].title
    if terms.training == "restricted":
        return f"{title} restricts training on its output: {terms.says} (read {terms.read}): {terms.url}"
    if terms.training == "not verified":
        return f"what {title} says on training on its output is not verified: {terms.says}: {terms.url}"
    if terms.training == "licence":
        return f"{terms.says} whether its output may train a model; write its address as terms_url"
    if terms.training == "unknown":
        read = f"read {terms.url}" if terms.url else "find its terms and write their address as terms_url"
        return f"whether its provider allows training on its output is not known here; {read}"
    return None


def fitted(cfg: ServiceConfig, fields: dict[str, Any]) -> dict[str, Any]:
    """Request fields as the endpoint takes them: what it ignores or refuses is left out, some have names of its own."""
    preset = PROVIDERS[cfg.provider]
    left_out = {name for name, support in preset.fields.items() if support in ("ignored", "refused")}
    return {preset.renamed.get(name, name): value for name, value in fields.items() if name not in left_out}


def json_mode(cfg: ServiceConfig) -> JsonMode:
    """How this service is asked for JSON first: as configured, or else the strictest that the preset's endpoint takes.

    An address of your own under `openai` is asked like OpenAI; the client asks on more loosely when that is refused.
    """
    if cfg.json_mode != "auto":
        return cfg.json_mode
    preset = PROVIDERS[cfg.provider]
    modes: tuple[JsonMode, ...] = ("schema", "object")
    return next((mode for mode in modes if preset.fields[f"json_{mode}"] == "taken"), "text")


def _own_url(cfg: ServiceConfig) -> str:
    host = "aiplatform.googleapis.com" if cfg.location == "global" else f"{cfg.location}-aiplatform.googleapis.com"
    return PROVIDERS[cfg.provider].base_url.format(host=host, project=cfg.project, location=cfg.location)


def _at_home(cfg: ServiceConfig, url: str) -> bool:
    """Whether an address is on the preset's own host."""
    given, own = urlsplit(url), urlsplit(_own_url(cfg))
    return (given.scheme, given.netloc) == (own.scheme, own.netloc)


def _key(cfg: ServiceConfig, where: str, url: str) -> str | GoogleToken:
    preset = PROVIDERS[cfg.provider]
    home = _at_home(cfg, url)
    if cfg.api_key:
        return resolve_reference(cfg.api_key, where)
    if cfg.provider == "vertex":
        return GoogleToken(where)
    # `base_url` makes anybody of `openai`; OpenAI's key is not for them. Beside another preset it is your gateway.
    if preset.key and os.environ.get(preset.key, "").strip() and (home or cfg.provider != "openai"):
        return _secret(preset.key, where)
    if preset.needs_key and home:
        what = f"{preset.title} needs a key, and the environment variable {preset.key} is not set or empty"
        raise ConfigError("KEY_MISSING", where, what, f"export {preset.key}=..., or write ${{env:NAME}}")
    return ""


def _secret(name: str, where: object) -> str:
    secret = os.environ.get(name, "")
    if not secret.strip() or not secret.isascii() or not secret.isprintable():
        state = "holds a character that no header may carry" if secret.strip() else "is not set or empty"
        raise ConfigError("ENV_MISSING", where, f"the environment variable {name} {state}", f"set {name}")
    return secret
