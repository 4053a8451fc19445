"""Pages and texts of documents, from their bytes."""

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.document import BYTES_PER_PAGE, is_doubtful, longest, pages_of, text_of

KINDS = ["application/pdf", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", "video/mp4", ""]


def held(content: bytes, kind: str = "application/pdf") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def pdf(pages: int, *, page: bytes = b"<< /Type /Page /Parent 2 0 R >>", each: int = 3_000) -> bytes:
    """Something like a file of `pages`, each of that many bytes."""
    tree = b"%%PDF-1.7\n2 0 obj << /Type /Pages /Count %d /Kids [] >> endobj\n" % pages
    return tree + b"".join([page.ljust(each, b"\n") for _ in range(pages)])


@pytest.mark.parametrize(
    "page", [b"<< /Type /Page /Parent 2 0 R >>", b"<</Type/Page/Parent 2 0 R>>", b"<</Type\n/Page>>"]
)
@pytest.mark.parametrize("pages", [1, 7, 300])
def test_pages_of_a_pdf_are_those_it_names(pages: int, page: bytes) -> None:
    assert pages_of(held(pdf(pages, page=page))) == pages


def test_scans_are_as_many_pages_as_they_name_however_large_each_is() -> None:
    assert pages_of(held(pdf(4, each=400_000))) == 4


def test_pages_that_are_compressed_are_told_by_the_bytes() -> None:
    hidden = b"%PDF-1.7\n<< /Type /ObjStm >>" + b"\x8f" * (12 * BYTES_PER_PAGE)
    assert pages_of(held(hidden)) == pytest.approx(12, rel=0.01)
    assert pages_of(held(pdf(40) + hidden)) == 40
    assert pages_of(held(pdf(1) + hidden)) > 12


@pytest.mark.parametrize("kind", ["application/msword", ""])
def test_pages_of_other_documents_are_told_by_the_bytes(kind: str) -> None:
    assert pages_of(held(b"x" * (5 * BYTES_PER_PAGE), kind)) == pytest.approx(5, rel=0.01)


@pytest.mark.parametrize(
    "url",
    [
        "https://x/long.pdf",
        "file-abc",
        held(b"short"),
        held(b"%PDF" + b"/Type /Page " * 9),
        held(b"s" * 10**6, "audio/mpeg"),
        "data:",
        "data:application/pdf",
        "data:application/pdf;base64,===",
    ],
)
def test_documents_of_which_nothing_is_known_have_a_page(url: str) -> None:
    assert pages_of(url) == pytest.approx(1, abs=0.01)


def test_text_is_read_however_it_is_written_down() -> None:
    said = "Ñandú, 日本語\n" * 9
    assert text_of(held(said.encode(), "text/plain;charset=utf-8")) == said
    assert text_of(held(said.encode(), "Application/JSON")) == said
    assert text_of(f"DATA:text/plain,{quote(said)}") == said
    assert text_of(held(said.encode())) is None
    assert text_of("https://x/notes.txt") is None


@given(st.binary(max_size=2_000), st.sampled_from(KINDS), st.sampled_from([0, 1, 5, 500]))
def test_no_document_has_more_pages_than_the_most_it_can_have(content: bytes, kind: str, pages: int) -> None:
    url = held(content + b"/Type /Page " * pages, kind)
    assert 1 <= pages_of(url) <= longest(url)


def test_long_documents_that_are_no_text_are_doubtful() -> None:
    long = b"x" * (2 * BYTES_PER_PAGE)
    assert is_doubtful(held(long))
    assert not is_doubtful(held(long, "text/plain"))
    assert not is_doubtful(held(long[:9])) and not is_doubtful("https://x/y.pdf")
