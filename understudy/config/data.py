"""Where rows come from and what is done to them before any model sees them."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from understudy.config.values import EXECUTION, Count, Name, Positive, Rate, Strict
from understudy.config.web import Day, FetchConfig, SiteConfig

Workers = Annotated[int, Field(ge=0, le=256, json_schema_extra=EXECUTION)]


class FieldMap(Strict):
    """Which column of the source holds what. Give `text`, or `messages`, or a prompt and a response."""

    id: str | None = None
    """Column with the row's own id; without it the id is a digest of the content."""
    text: str | None = None
    """Column with a document's text."""
    messages: str | None = None
    """Column with a chat: a list of {role, content}."""
    prompt: str | None = None
    """Column with the user's whole prompt."""
    response: str | None = None
    """Column with the answer to `prompt` or `question`."""
    context: str | None = None
    """Column with the passage that holds the answer."""
    question: str | None = None
    """Column with the question about `context`."""
    facts: str | None = None
    """Column with the facts that a right answer must name: a list of strings (coverage pairs)."""
    category: str | None = None
    """Column with the kind of request; quota is aimed by category."""
    group: str | None = None
    """Column with the group that must not straddle splits (a professor, a customer, a document)."""
    url: str | None = None
    """Column with the address of the page that the row was read from: rows of a page with dev or held pairs do not
    train, and rows of one page without a group stay together. Leave it out where a page lists independent rows."""


class StorageConfig(Strict):
    """How an object store is reached. Without keys, this machine's own credentials count. Only S3 takes `region`,
    `key`, `secret`, `token` and `anonymous`."""

    endpoint_url: str | None = None
    """Address of an S3-compatible store; without it the provider's own."""
    region: str | None = None
    """Region of the bucket."""
    key: str | None = None
    """Access key id, e.g. `${env:AWS_ACCESS_KEY_ID}`."""
    secret: str | None = None
    """Secret access key; only `${env:NAME}`."""
    token: str | None = None
    """Session token; only `${env:NAME}`."""
    anonymous: bool = False
    """Read a public bucket without credentials."""
    timeout_s: Positive = 60
    """Longest wait for a connection or for the next bytes."""


class SourceConfig(Strict):
    """One source of rows."""

    kind: Literal["files", "sql", "bigquery", "hub", "web"] = "files"
    """`files` reads path; `sql` and `bigquery` run a query; `hub` reads files of a Hugging Face data set; `web` reads
    sites, day by day."""
    name: Name | None = None
    """Name in the steps of a web source; needed when there are several."""
    path: str | None = None
    """File or glob, relative to the project, or a URL such as `s3://bucket/*.jsonl`. Packed files are looked into.
    In a data set of the Hub: a pattern; without it every file of a known format that is not text."""
    storage: StorageConfig = Field(default=StorageConfig(), json_schema_extra=EXECUTION)
    """How the object store of a URL is reached."""
    format: Literal["auto", "jsonl", "json", "csv", "squad", "parquet", "text", "html"] = "auto"
    """`auto` goes by the suffix; `squad` reads SQuAD-format JSON, `text` and `html` files that are documents."""
    unit: Literal["document", "paragraph", "line"] = "document"
    """What one row of a text file is."""
    select: dict[str, str] = {}
    """HTML: a column for each CSS selector, e.g. `{body: "article p"}`, beside `text`, `title` and `name`."""
    members: str | None = None
    """Which members of a zip or tar are read: a pattern such as `*.jsonl`; without it all of them."""
    max_unpacked_mb: Positive = 50_000
    """A packed file that unpacks to more MB is refused; so is one that grows more than 200-fold."""
    url: str | None = None
    """SQLAlchemy URL, e.g. `sqlite:///data/catalogue.db` (relative to the project) or `${env:DATABASE_URL}`."""
    query: str | None = None
    """SQL text of one SELECT."""
    query_file: str | None = None
    """File with the SQL, relative to the project."""
    max_rows: Positive = 10_000_000
    """A query that gives more rows is refused."""
    project: str | None = None
    """BigQuery: the project that pays for the query."""
    location: str | None = None
    """BigQuery: where the data lies, e.g. `EU`."""
    max_bytes: Annotated[int, Field(ge=1, le=10**15)] = 10_000_000_000
    """BigQuery: a query that would read more is refused before anything is spent."""
    price_per_tib: Annotated[float, Field(ge=0, le=1000, json_schema_extra=EXECUTION)] = 6.25
    """BigQuery: what reading a TiB costs you; only for the printed estimate."""
    endpoint_url: Annotated[str | None, Field(json_schema_extra=EXECUTION)] = None
    """BigQuery: another address of the service; one over plain http (an emulator) is sent no credentials."""
    timeout_s: Annotated[Positive, Field(json_schema_extra=EXECUTION)] = 60
    """BigQuery and Hub: longest wait for one request, retries included."""
    repo: str | None = None
    """Hub: the data set, e.g. `org/name`."""
    revision: str | None = None
    """Hub: the full commit hash; a branch or tag is refused, because it moves."""
    token: str | None = None
    """Hub: `${env:HF_TOKEN}`, for gated or private data sets."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    """Column separator of CSV files."""
    fields: FieldMap = FieldMap()
    """Which column holds what."""
    text_template: str | None = None
    """Python format string that makes a document's text from the row's columns, e.g. `{title}. {body}`."""
    prompt_template: str | None = None
    """Python format string that makes the prompt from the row's columns; goes with `response`."""
    sites: list[SiteConfig] = Field(default=[], max_length=100)
    """Web sites of different structure that give the same columns."""
    since: Day | None = None
    """First day of a web source; every day from here to the run's `as_of` is a step of its own, made once."""
    until: Day | None = None
    """Last day of a web source, e.g. the day before a site changed its layout."""
    days: Annotated[int, Field(ge=1, le=5000)] | None = None
    """Without `since`: so many days, the last being the run's `as_of`."""
    fetch: FetchConfig = Field(default=FetchConfig(), json_schema_extra=EXECUTION)
    """How politely a web source reads."""
    suspects: Literal["keep", "quarantine"] = "keep"
    """Web rows that seem to give orders to a language model are always counted; `quarantine` sets them aside."""
    licence: str | None = None
    """Licence of these rows; carried to the model card."""
    max_bad_rows: Count = 100
    """More quarantined rows than this stop the run with exit code 3."""
    max_row_bytes: Positive = 8_000_000
    """Longer rows are quarantined unread."""

    @model_validator(mode="after")
    def _complete(self) -> SourceConfig:
        if self.kind == "files" and not self.path:
            raise PydanticCustomError("cfg_missing", "a source of kind files needs `path`")
        if self.kind == "sql" and (not self.url or bool(self.query) == bool(self.query_file)):
            raise PydanticCustomError(
                "cfg_missing", "a source of kind sql needs `url` and one of `query` and `query_file`"
            )
        if self.kind == "bigquery" and (not self.project or bool(self.query) == bool(self.query_file)):
            raise PydanticCustomError(
                "cfg_missing", "a source of kind bigquery needs `project` and one of `query` and `query_file`"
            )
        if self.kind == "hub" and not (self.repo and self.revision):
            raise PydanticCustomError("cfg_missing", "a source of kind hub needs `repo` and `revision`")
        if self.kind == "web" and not self.sites:
            raise PydanticCustomError("cfg_missing", "a source of kind web needs `sites`")
        if len({site.name for site in self.sites}) < len(self.sites):
            raise PydanticCustomError("cfg_range", "two sites of one source have the same name")
        return self

    def days_until(self, as_of: str) -> list[str]:
        """The days of a web source in a run of the day `as_of`, oldest first; empty when it starts later."""
        last = datetime.date.fromisoformat(min(as_of, self.until or as_of))
        if self.since:
            first = datetime.date.fromisoformat(self.since)
        else:
            first = datetime.date.fromisoformat(as_of) - datetime.timedelta(days=(self.days or 1) - 1)
        return [(first + datetime.timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]


class CollectConfig(Strict):
    """Reads the sources into records; bad rows are quarantined with a reason."""

    sources: list[SourceConfig] = Field(default=[], max_length=100)
    digests: dict[str, str] = {}
    """Bound by the run: a digest per source, so that identity follows the content."""


class WebStep(Strict):
    """One day of one web source."""

    source: SourceConfig
    as_of: Day
    """The day."""


class MergeStep(Strict):
    """The union of what several sources and days brought."""


class CleanConfig(Strict):
    """Text is normalised (NFC, control characters, line ends); rows outside the limits are dropped with a reason."""

    min_chars: Count = 1
    """Shorter texts are dropped."""
    max_chars: Positive = 200_000
    """Longer texts are dropped."""
    max_answer_chars: Positive | None = None
    """Examples with a longer answer are dropped; `max_chars` bounds the whole chat."""
    strip_markup: bool = True
    """Remove HTML tags and entities."""
    workers: Workers = 0
    """Processes; 0 takes one for each core. Small files are cleaned by one."""
    characters: Literal["any", "letters"] = "any"
    """`letters` keeps letters, punctuation and white space of documents and answers, and removes all else (digits,
    emoji, symbols); prompts stay as they are."""


class DedupeConfig(Strict):
    """Exact and near duplicates are dropped; the first stays, and the reject names it."""

    normalise: bool = True
    """Compare after case folding and white-space folding."""
    near: bool = True
    """Drop near duplicates too: long texts that share most of their word runs."""
    similarity: Annotated[float, Field(gt=0.2, le=1, allow_inf_nan=False)] = 0.6
    """Near duplicates share at least this part of their word runs (Jaccard). One changed word in 25 leaves 0.85."""
    shingle_words: Annotated[int, Field(ge=1, le=8)] = 2
    """Length of the word runs that are compared. Longer runs miss more of what was lightly edited."""
    boilerplate_rows: Annotated[int, Field(ge=2, le=50_000)] = 10
    """A run of five words that stands in more rows than this is boilerplate and counts for nothing."""
    seed: Count = 0
    """Seed of the MinHash functions."""
    workers: Workers = 0
    """Processes; 0 takes one for each core. Small files are read by one."""


class DecontaminateConfig(Strict):
    """Rows that show a dev, held or test row in any guise are taken out of the splits before it, and of synthesis."""

    enabled: bool = True
    """Compare by word n-grams; without it only equal prompts, passages and groups are taken out."""
    ngram_words: Annotated[int, Field(ge=2, le=13)] = 4
    """Words in an n-gram. 13 and 8 are usual for web text; short and edited rows need fewer."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of a protected row's rare n-grams from which another row shows it."""


class SplitConfig(Strict):
    """How documents and coverage pairs are divided. A group never straddles splits."""

    validation: Rate = 0.1
    """Share of the examples that do not train; their loss is logged after each epoch of training."""
    test: Rate = 0.1
    """Share of the documents scored once, at the end."""
    seed_pairs: Count = 60
    """Coverage pairs shown to the teacher."""
    dev_pairs: Count = 60
    """Coverage pairs that steer rounds; all others are held."""
    seed: Count = 0
    """Seed of the division."""
    decontaminate: DecontaminateConfig = DecontaminateConfig()
    """What of the protected rows may stand in others."""
    workers: Workers = 0
    """Processes; 0 takes one for each core. Small files are divided by one."""

    @model_validator(mode="after")
    def _sum(self) -> SplitConfig:
        if self.validation + self.test >= 1.0:
            total = f"{self.validation + self.test:g}"
            raise PydanticCustomError(
                "cfg_range", "validation + test is {total}, wanted a sum under 1", {"total": total}
            )
        return self
