"""Files that are documents: text by document, paragraph and line, and pages as a reader sees them."""

from __future__ import annotations

from pathlib import Path

import pytest
from collecting import code, gather, put, source

from understudy.config import SiteConfig
from understudy.data.sources.markup import page_text, visible_text
from understudy.data.web.page import rows, view
from understudy.data.web.pagestore import Page

SITE = SiteConfig(name="s", urls=["https://a.example/"], columns={"all": "body"})
TEXT = "Первая строка.\r\nВторая.\r\n\r\n\r\nNext paragraph.\n \nLast, without an end"


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("document", [("a.txt", TEXT)]),
        ("paragraph", [("a.txt:1", "Первая строка.\nВторая."), ("a.txt:5", "Next paragraph."),
                       ("a.txt:7", TEXT[-20:])]),
        ("line", [("a.txt:1", "Первая строка."), ("a.txt:2", "Вторая."), ("a.txt:5", "Next paragraph."),
                  ("a.txt:7", TEXT[-20:])]),
    ],
)  # fmt: skip
def test_text_is_read_by_its_unit(tmp_path: Path, unit: str, expected: list[tuple[str, str]]) -> None:
    put(tmp_path, "a.txt", b"\xef\xbb\xbf" + TEXT.encode())
    put(tmp_path, "b.txt", "\x07")
    ledger, rows, rejects = gather(tmp_path, source("*.txt", {}, unit=unit))
    assert [r["text"] for r in rows] == [text for _, text in expected]
    assert ledger.notes["bom_removed"] == 1 and rows[0]["meta"] == {"source": "a.txt"}
    assert [(r["where"], r["reason"]) for r in rejects] == [("b.txt" + ":1" * (unit != "document"), "FIELD_BLANK")]


def test_a_bad_text_file_costs_itself_only(tmp_path: Path) -> None:
    put(tmp_path, "a.txt", "good")
    put(tmp_path, "b.txt", "плохо в другой кодировке".encode("cp1251"))
    put(tmp_path, "c.txt", b"")
    put(tmp_path, "d.txt", b"x" * 2_001)
    put(tmp_path, "e.txt", "wide".encode("utf-16"))
    ledger, rows, rejects = gather(tmp_path, source("*.txt", {}, max_row_bytes=2_000))
    assert [r["text"] for r in rows] == ["good"]
    assert {r["where"]: r["reason"] for r in rejects} == {
        "b.txt": "TEXT_ENCODING", "c.txt": "FIELD_BLANK", "d.txt": "ROW_TOO_LONG", "e.txt": "TEXT_ENCODING",
    }  # fmt: skip
    assert "cp1251" in rejects[0]["detail"]


def test_a_name_can_be_the_id_and_the_group(tmp_path: Path) -> None:
    put(tmp_path, "in/guide.md", "# Title\n\nBody")
    _, [row], _ = gather(tmp_path, source("in/*.md", {"text": "text", "id": "name", "group": "name"}))
    assert row == {"id": "guide.md", "text": "# Title\n\nBody", "meta": {"source": "in/guide.md", "group": "guide.md"}}


PAGE = """<!doctype html><html><head><title> Опера &amp; балет </title><style>p{}</style></head><body>
<nav>Home | Shop</nav><header>Site</header>
<main><h1>Опера</h1><p>First <b>bold</b>
 text&nbsp;here.<br>Second line</p><script>steal()</script><!-- note -->
<p style="display: none">hidden</p><p hidden>gone</p>
<ul><li>one</li><li>two</li></ul><table><tr><td>a</td><td>b</td></tr></table><pre>x = 1
  y = 2</pre><aside>Advert</aside></main><footer>2026</footer></body></html>"""


def test_a_page_is_read_as_a_person_sees_it(tmp_path: Path) -> None:
    put(tmp_path, "a.html", PAGE)
    fields = {"text": "text", "category": "title"}
    _, [row], _ = gather(tmp_path, source("*.html", fields))
    assert row["text"] == ("Опера\n\nFirst bold text\xa0here.\nSecond line\n\none\n\ntwo\n\na\tb\n\nx = 1\n  y = 2")
    assert row["meta"]["category"] == "Опера & балет"


def test_an_empty_cell_keeps_its_column(tmp_path: Path) -> None:
    cells = "<td> <td>b<td>c", "<td>a<td></td><td>c", "<td>a<td>b<td><i></i>", "<td><td> <td>"
    put(tmp_path, "a.html", "<table>" + "".join(f"<tr>{row}\n" for row in cells) + "<tr><td><p>one</p><td>two</table>")
    _, [row], _ = gather(tmp_path, source("*.html", {}))
    assert row["text"] == "\tb\tc\n\na\t\tc\n\na\tb\t\n\none\n\ntwo"
    put(tmp_path, "a.html", "<p>x<table><tr>" + "<td>" * 200_000 + "y</table>")
    _, [row], _ = gather(tmp_path, source("*.html", {}))
    assert len(row["text"]) == 200_000 + len("x\n\ny") - 1


@pytest.mark.parametrize(
    "page",
    [
        "<p hidden>no</p>yes",
        "<div aria-hidden=true><p>no</p></div><p aria-hidden=false>yes</p>",
        "<p style='DISPLAY : none'>no</p><b style='visibility:hidden'>no</b>yes",
        "<p style='font-size:0'>no</p><p style='font-size:0.0em'>no</p><p style='font-size: 0.9em'>yes</p>",
        "<p>yes<button>no</button><select><option>no</select><textarea>no</textarea><svg><text>no</text></svg>",
        "yes<noscript><p>no</p></noscript><template><p>no</p></template><script>no</script><style>no</style>",
        "<body style='visibility:hidden'>yes",
    ],
)
def test_files_and_sites_hide_the_same(tmp_path: Path, page: str) -> None:
    put(tmp_path, "a.html", page)
    _, [row], _ = gather(tmp_path, source("*.html", {}))
    shown = view(Page("https://a.example/", "text/html; charset=utf-8", page.encode()), SITE)
    [found] = rows(shown, SITE, "2026-11-20", {})
    assert (row["text"], found.values["all"]) == ("yes", "yes")  # type: ignore[union-attr]


def test_what_is_hidden_is_found_by_no_selector_and_a_control_by_its_own(tmp_path: Path) -> None:
    put(tmp_path, "a.html", "<div aria-hidden=true><p>no</p></div><p hidden>no</p><p>yes</p><button>Buy</button>")
    select = {"body": "p", "label": "button"}
    _, [row], _ = gather(tmp_path, source("*.html", {"text": "body", "category": "label"}, select=select))
    assert (row["text"], row["meta"]["category"]) == ("yes", "Buy")
    put(tmp_path, "a.html", "<main hidden>no</main><article hidden>no</article><article>yes</article>Menu")
    assert gather(tmp_path, source("*.html", {}))[1][0]["text"] == "yes"


def test_selectors_make_columns_and_one_that_finds_nothing_costs_the_page(tmp_path: Path) -> None:
    put(tmp_path, "a.html", "<h2>Овен</h2><div class=t><p>Раз.</p><p>Два.</p></div><div class=t>Три.</div>")
    put(tmp_path, "b.html", "<h2>Телец</h2>")
    select = {"sign": "h2", "body": "div.t"}
    ledger, [row], rejects = gather(tmp_path, source("*.html", {"text": "body", "category": "sign"}, select=select))
    assert row["text"] == "Раз.\n\nДва.\n\nТри." and row["meta"]["category"] == "Овен"
    assert ledger.rejected == {"FIELD_MISSING": 1} and "body" in rejects[0]["detail"]
    error = code(tmp_path, source("*.html", {"text": "body"}, select={"body": "div..t["}))
    assert (error.code, error.exit_code) == ("SELECTOR", 2) and "select.body" in error.where


@pytest.mark.parametrize(
    ("head", "codec", "kept"),
    [
        ('<meta charset="windows-1251">', "cp1251", True),
        ('<meta http-equiv="Content-Type" content="text/html; charset=KOI8-R">', "koi8-r", True),
        ("<meta charset=utf-8>", "utf-8", True),
        ("", "utf-8", True),
        ("", "cp1251", False),
        ("<meta charset=utf-8>", "cp1251", False),
        ("<meta charset=klingon>", "utf-8", False),
        ("<meta charset=ascii>", "cp1251", True),
        ("<meta charset=utf-16>", "utf-8", True),
        ("<meta charset=undefined>", "utf-8", False),
    ],
)
def test_a_page_is_in_the_encoding_that_it_declares_or_is_set_aside(
    tmp_path: Path, head: str, codec: str, kept: bool
) -> None:
    put(tmp_path, "ok.html", "<p>ok</p>")
    put(tmp_path, "page.html", f"{head}<p>Сегодня ясно</p>".encode(codec))
    ledger, rows, _ = gather(tmp_path, source("*.html", {}))
    assert ledger.rejected == ({} if kept else {"TEXT_ENCODING": 1})
    assert not kept or "ascii" in head or rows[1]["text"] == "Сегодня ясно"


def test_a_page_nested_too_deep_is_set_aside_and_a_long_list_is_not(tmp_path: Path) -> None:
    put(tmp_path, "a.html", "<div>" * 600_000 + "deep" + "</div>" * 600_000)
    put(tmp_path, "b.html", "<div>" * 900 + "<ul>" + "<li><p>item<br>" * 5_000 + "</div>" * 900)
    ledger, [row], rejects = gather(tmp_path, source("*.html", {}))
    assert ledger.rejected == {"ROW_DEPTH": 1} and rejects[0]["where"] == "a.html"
    assert row["text"].count("item") == 5_000


def test_only_the_part_that_is_asked_for_is_read() -> None:
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser("<div><p>a</p><p id=x>b<i>c</i></p><p>d</p></div>")
    node = tree.css_first("#x")
    assert node and visible_text(node) == "bc"
    assert page_text("<article>one</article><p>rest</p>")[1] == "one"
    assert page_text("<article>one</article><article>two</article><p>rest</p>")[1] == "one\n\ntwo\n\nrest"
    assert page_text("") == ("", "")


def test_a_drawing_and_a_script_nest_nothing_and_cannot_hide_what_does() -> None:
    from understudy.data.sources.markup import MAX_DEPTH, MAX_LEAVES, too_deep

    many = MAX_DEPTH * 2
    drawing, script = "<svg>" + "<path d='M0'/>" * many + "</svg>", "<script>" + "if(i <n ){}" * many + "</script>"
    assert not too_deep(drawing + script)
    assert too_deep("<path d='M0'/>" * many) and too_deep(drawing + "<div>" * (MAX_DEPTH + 1))
    assert too_deep(f"<svg>{'<path/>' * (MAX_LEAVES + 1)}") and too_deep(f"<script>{'<b >' * (MAX_LEAVES + 1)}")


@pytest.mark.parametrize("stray", ["", "</b>", "</unknown-thing>"])
def test_end_tags_of_nothing_hide_no_depth(stray: str) -> None:
    from understudy.data.sources.markup import MAX_DEPTH, too_deep

    assert too_deep(f"<div>{stray}" * (MAX_DEPTH + 1))
    assert not too_deep(f"<div>{stray}</div>" * (MAX_DEPTH * 2)) and not too_deep(f"<div>{stray}" * MAX_DEPTH)


@pytest.mark.slow
def test_a_paragraph_over_the_limit_costs_itself_and_no_memory(tmp_path: Path) -> None:
    import tracemalloc

    put(tmp_path, "a.txt", "one\n\n" + ("x" * 99 + "\n") * 200_000 + "\ntwo\n")
    tracemalloc.start()
    ledger, rows, rejects = gather(tmp_path, source("a.txt", {}, unit="paragraph", max_row_bytes=1_000_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [row["text"] for row in rows] == ["one", "two"] and ledger.rejected == {"ROW_TOO_LONG": 1}
    assert rejects[0]["where"] == "a.txt:3" and "19999999 bytes" in rejects[0]["detail"]
    assert peak < 12_000_000, "20 MB were read"
