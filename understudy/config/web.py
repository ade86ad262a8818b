"""Web sites as a source: which pages, what on them is a row, and how politely they are fetched."""

from __future__ import annotations

import datetime
import re
from string import Formatter
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from understudy.config.values import EXECUTION, Name, Strict


def _day(text: str) -> str:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        raise PydanticCustomError("cfg_range", "{text} is no day of the calendar", {"text": text}) from None
    return text


Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$"), AfterValidator(_day)]
"""A day as `2026-11-20`."""

Template = Annotated[str, Field(min_length=1, max_length=2000)]


class SiteConfig(Strict):
    """One site: its pages, and where on a page the columns of a row stand.

    `{as_of}` (the day, `2026-11-20`), `{as_of:%d.%m.%Y}` (the day in Python's date format) and `{key}` of `values`
    may stand in `urls`, `columns`, `item` and `marker`.
    """

    name: Name
    """Name of the site in progress, rejects and every row's `meta.site`."""
    urls: list[Template] = Field(min_length=1, max_length=1000)
    """Pages to fetch, e.g. `https://stars.example/{sign}/{as_of}`."""
    values: dict[str, list[str]] = {}
    """What the keys stand for, e.g. `{sign: [aries, taurus]}`; every combination is a row or a page."""
    item: Template | None = None
    """CSS selector of the elements that are one row each; without it the page is one row."""
    columns: dict[str, Template] = Field(min_length=1, max_length=100)
    """Column: CSS selector inside the row (its text), `selector@attribute`, or `=constant`, e.g. `={sign}`."""
    maps: dict[str, dict[str, str]] = {}
    """Column: {value on the page: value in the row}; a row with any other value is set aside."""
    dates: dict[str, str] = {}
    """Column: Python date format on the page, e.g. `%d.%m.%Y`; the row gets `2026-11-20`."""
    marker: Template | None = None
    """CSS selector that every real page has; a page without it (soft 404, login, consent) is set aside."""
    marker_text: Template | None = None
    """Text that the marker must hold, e.g. `{as_of:%d.%m.%Y}`: a page of another day is set aside."""
    follow: Template | None = None
    """CSS selector of links to further pages of the same host (next page, details)."""
    max_depth: Annotated[int, Field(ge=1, le=1000)] = 3
    """Links followed one after another from a page of `urls`."""
    max_pages: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """Pages fetched of this site a day; the rest is counted as CRAWL_CAP."""
    charset: str | None = None
    """Encoding of the pages, where the site states a wrong one."""
    headers: dict[str, str] = Field(default={}, json_schema_extra=EXECUTION)
    """Headers sent to this site's own origins only, e.g. `{Authorization: "${env:SITE_TOKEN}"}`."""

    @model_validator(mode="after")
    def _placeholders(self) -> SiteConfig:
        texts = [*self.urls, *self.columns.values(), self.item, self.marker, self.marker_text, self.follow]
        for text in filter(None, texts):
            for name in placeholders(text):
                if name != "as_of" and name not in self.values:
                    values = {"text": text, "name": name, "site": self.name}
                    raise PydanticCustomError(
                        "cfg_range", "site {site}: {text} names {name}, which is not in `values`", values
                    )
        self._check_formats([text for text in texts if text])
        for column in (*self.maps, *self.dates):
            if column not in self.columns:
                raise PydanticCustomError(
                    "cfg_range", "site {site}: no column {column}", {"site": self.name, "column": column}
                )
        return self

    def _check_formats(self, templates: list[str]) -> None:
        """Every template can be filled and every date format read; `values` have something to fill in."""
        told = {"site": self.name}
        if empty := sorted(key for key, given in self.values.items() if key == "as_of" or not given):
            what = "site {site}: `values` gives {key} nothing to stand for, or takes the day's name"
            raise PydanticCustomError("cfg_range", what, told | {"key": empty[0]})
        day = datetime.date(2001, 2, 3)
        for text in templates:
            try:
                text.format(as_of=day, **dict.fromkeys(self.values, ""))
            except (ValueError, KeyError, IndexError) as e:
                raise PydanticCustomError("cfg_range", "{text}: {why}", {"text": text, "why": str(e)}) from None
        for form in self.dates.values():
            try:
                datetime.datetime.strptime(day.strftime(form), form)
            except (ValueError, re.error):
                raise PydanticCustomError(
                    "cfg_range", "site {site}: {form} is no date format that can be read", told | {"form": form}
                ) from None


def placeholders(template: str) -> list[str]:
    """Names in the braces of a template. Raises PydanticCustomError for one that Python cannot format."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as e:
        raise PydanticCustomError("cfg_range", "{text}: {why}", {"text": template, "why": str(e)}) from None
    names = [name for _, name, _, _ in parts if name is not None]
    odd = [name for _, name, _, conversion in parts if name is not None and (conversion or not name.isidentifier())]
    if odd:
        raise PydanticCustomError("cfg_range", "{text}: write {{key}}, without more", {"text": template})
    return names


class FetchConfig(Strict):
    """How pages are fetched. Robots rules are obeyed; only public addresses are connected to."""

    requests_per_s: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Requests a second to one host at most, counted from the end of one to the next; `Crawl-delay` is obeyed."""
    attempts: Annotated[int, Field(ge=1, le=20)] = 4
    """Tries for one page, when the host is busy, broken or cut off."""
    deadline_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """Seconds for one page with all its tries, redirects and waits."""
    max_page_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = 5_000_000
    """Longer pages, also after unpacking, are set aside."""
    contact: str | None = None
    """Page or address about your crawler; stands in the User-Agent, so that a site's owner can write to you."""
    allow_hosts: list[str] = Field(default=[], max_length=1000)
    """Hosts (`intranet.local:8080`) that may have a private address: for intranets and tests."""
    on_error: Literal["stop", "skip"] = "stop"
    """When a site cannot be read: `stop` ends the run with exit code 4; `skip` leaves it out of this day, for good."""
