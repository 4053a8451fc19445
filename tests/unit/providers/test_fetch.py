"""Fetching what requests point to: only public addresses, the one that was checked, and bounded in every way."""

import asyncio
import contextlib
import gzip
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import msgspec
import pytest
import trustme

from cauce.domain.errors import InvalidRequest
from cauce.domain.message import DocumentPart, ImagePart, Message, ReasoningPart, TextPart
from cauce.domain.request import Request
from cauce.providers import inline
from cauce.providers.addresses import SystemResolver, is_public
from cauce.providers.fetch import Allowance, Fetcher, FetchSettings
from cauce.providers.inline import inline_request
from tests.http import within

pytestmark = pytest.mark.anyio

FIELD = "messages[0].content[1]"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class Site:
    """A web server on loopback. `pages` gives the bytes of each path's answer; `asked` the heads it was sent."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.port = 0
        self.busy = 0
        self.most = 0
        self.gate: asyncio.Event | None = None
        self.left = asyncio.Event()

    @property
    def paths(self) -> list[str]:
        return [head.split(" ")[1] for head in self.asked]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head)
        self.busy += 1
        self.most = max(self.most, self.busy)
        if self.gate is not None:
            await self.gate.wait()
        writer.write(self.pages.get(head.split(" ")[1], b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
        self.busy -= 1
        await reader.read()
        self.left.set()


@contextlib.asynccontextmanager
async def listening(
    handler: Handler, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[int]:
    """Serve each connection with `handler`; gives the port."""
    tasks: set[asyncio.Task[Any]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # pyright: ignore[reportArgumentType]
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(accept, host, port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def site(tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Site]:
    running = Site()
    async with listening(running.serve, tls, host, port) as running.port:
        yield running


def page(body: bytes, media_type: str = "image/png", *headers: str, length: int | None = None) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {media_type}", *headers]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def chunked(body: bytes, media_type: str = "image/png", end: bytes = b"0\r\n\r\n") -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"%x\r\n%s\r\n" % (len(body), body) + end


class Names:
    """A resolver. Each lookup of a name takes the next of its answers; the last one serves all further ones."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self.answers = {name.replace("_", "."): list(given) for name, given in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.answers:
            raise OSError("no such name")
        given = self.answers[host]
        return given.pop(0) if len(given) > 1 else given[0]


def only(*addresses: str) -> Callable[[str], bool]:
    """What only tests may do: allow loopback."""
    return addresses.__contains__


@contextlib.asynccontextmanager
async def fetching(names: Names | None = None, *allowed: str, **settings: Any) -> AsyncIterator[Fetcher]:
    made = Fetcher(
        FetchSettings(**settings),
        names or Names(example_test=[["127.0.0.1"]]),
        only(*(allowed or ("127.0.0.1",))),
    )
    try:
        yield made
    finally:
        await made.aclose()


async def refusal(fetcher: Fetcher, url: str, **options: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        await within(fetcher.fetch(url, field=FIELD, **options))
    assert caught.value.field == FIELD
    message = str(caught.value)
    assert message.startswith(f"{FIELD}: ")
    return message.removeprefix(f"{FIELD}: ")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "168.63.129.16",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "::ffff:169.254.169.254",
        "::ffff:0:8.8.8.8",
        "64:ff9b::7f00:1",
        "64:ff9b::8.8.8.8",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:0:5ef5:79fb::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:808:808::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "localhost",
        "2130706433",
        "",
    ],
)
def test_address_that_is_not_public_is_told(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "168.63.129.17", "2606:4700:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8"]
)
def test_public_address_is_told(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "１２７.０.０.１",
        "0",
        "localhost",
        "LOCALHOST",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
        "[fe80::1]",
        "[fd00::1]",
        "169.254.169.254",
        "10.0.0.1",
    ],
)
async def test_every_spelling_of_an_inner_address_is_refused_without_a_connection(host: str) -> None:
    async with site() as running:
        fetcher = Fetcher(resolve=SystemResolver())
        for path in ("/x.png", "/"):
            why = await refusal(fetcher, f"http://{host}:{running.port}{path}")
            assert why == "is not fetched: its address is not public; send a data URL instead"
        await fetcher.aclose()
        assert running.asked == []


@pytest.mark.parametrize("leads", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::1"], ["8.8.8.8", "fe80::1%lo"]])
async def test_public_name_that_leads_inside_is_refused_if_only_one_of_its_addresses_does(leads: list[str]) -> None:
    fetcher = Fetcher(resolve=Names(example_test=[leads]))
    async with site() as running:
        assert "its address is not public" in await refusal(fetcher, f"http://example.test:{running.port}/x")
        assert running.asked == []
    await fetcher.aclose()


async def test_refusal_says_nothing_of_where_a_name_leads() -> None:
    fetcher = Fetcher(resolve=Names(example_test=[["10.9.8.7"]]))
    assert "10.9" not in await refusal(fetcher, "http://example.test/x")
    await fetcher.aclose()


async def test_what_was_checked_is_what_is_connected_to() -> None:
    # The second answer is a server too: whoever looked the name up again would reach it.
    names = Names(rebinding_test=[["127.0.0.1"], ["127.0.0.2"]])
    async with site() as good, site(host="127.0.0.2", port=good.port) as inner, fetching(names) as fetcher:
        good.pages["/x"] = page(PNG)
        fetched = await within(fetcher.fetch(f"http://rebinding.test:{good.port}/x", field=FIELD))
        assert (fetched.media_type, fetched.data) == ("image/png", PNG)
        assert names.asked == ["rebinding.test"]
        assert inner.asked == []
        # The next fetch looks again, checks again, and takes no connection of the first.
        assert "not public" in await refusal(fetcher, f"http://rebinding.test:{good.port}/x")
        assert len(good.asked) == 1 and inner.asked == []


async def test_server_is_told_the_name_and_the_port_it_was_asked_for() -> None:
    async with site() as running, fetching() as fetcher:
        running.pages["/a%20b?c=d%20e"] = page(PNG)
        url = f"http://Example.Test:{running.port}/a%20b?c=d%20e#part"
        assert (await within(fetcher.fetch(url, field=FIELD))).data == PNG
        head = running.asked[0].lower()
        assert f"\r\nhost: example.test:{running.port}\r\n" in head
        assert "authorization" not in head and "cookie" not in head


async def test_characters_outside_ascii_are_encoded() -> None:
    async with site() as running, fetching(Names(**{"xn--bcher-kva_test": [["127.0.0.1"]]})) as fetcher:
        running.pages["/%C3%A9.png"] = page(PNG)
        url = f"http://bücher.test:{running.port}/é.png"
        assert (await within(fetcher.fetch(url, field=FIELD))).data == PNG
        assert f"Host: xn--bcher-kva.test:{running.port}" in running.asked[0]


async def test_next_address_is_tried_when_one_does_not_answer() -> None:
    async with (
        site() as running,
        fetching(Names(example_test=[["127.0.0.3", "127.0.0.1"]]), "127.0.0.1", "127.0.0.3") as fetcher,
    ):
        running.pages["/x"] = page(PNG)
        assert (await within(fetcher.fetch(f"http://example.test:{running.port}/x", field=FIELD))).data == PNG


async def test_https_checks_the_certificate_for_the_name_not_the_address() -> None:
    authority = trustme.CA()
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("example.test").configure_cert(serving)
    authority.configure_trust(trusting)
    indicated: list[str | None] = []
    serving.sni_callback = lambda _socket, name, _context: indicated.append(name)
    names = Names(example_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]])
    async with site(serving) as running:
        running.pages["/x"] = page(PNG)
        fetcher = Fetcher(resolve=names, allowed=only("127.0.0.1"), tls=trusting)
        assert (await within(fetcher.fetch(f"https://example.test:{running.port}/x", field=FIELD))).data == PNG
        assert indicated == ["example.test"]
        assert "certificate" in await refusal(fetcher, f"https://other.test:{running.port}/x")
        await fetcher.aclose()
        wary = Fetcher(resolve=names, allowed=only("127.0.0.1"))
        assert "certificate" in await refusal(wary, f"https://example.test:{running.port}/x")
        await wary.aclose()
        assert len(running.asked) == 1


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file:///etc/passwd", "must be an http:// or https:// address"),
        ("ftp://example.test/x", "must be an http:// or https:// address"),
        ("gopher://example.test/x", "must be an http:// or https:// address"),
        ("//example.test/x", "must be an http:// or https:// address"),
        ("example.test/x", "must be an http:// or https:// address"),
        ("", "must be an http:// or https:// address"),
        ("http://user:secret@example.test/x", "must not hold a user name or password"),
        ("http://user@example.test/x", "must not hold a user name or password"),
        ("http://@example.test/x", "must not hold a user name or password"),
        ("http://example.test\\@127.0.0.1/x", "must not hold a user name or password"),
        ("http://example.test\\x", "is not a valid address"),
        ("http:///x", "is not a valid address"),
        ("http://example.test:99999/x", "is not a valid address"),
        ("http://example.test:0/x", "is not a valid address"),
        ("http://example.test:port/x", "is not a valid address"),
        ("http://[::1/x", "is not a valid address"),
        ("http://[fe80::1%25lo]/x", "is not a valid address"),
        ("http://exam%70le.test/x", "is not a valid address"),
        ("http://" + "é" * 80 + ".test/x", "is not a valid address"),
        ("http://example.test/x\r\nX-Injected: 1", "must have no blanks or control characters"),
        ("http://example.test/\tx", "must have no blanks or control characters"),
        (" http://example.test/x", "must have no blanks or control characters"),
        ("http://example.test/\x00", "must have no blanks or control characters"),
        ("http://example.test/" + "x" * 9000, "at most 8192 characters"),
    ],
)
async def test_what_is_no_plain_web_address_is_refused_before_its_name_is_looked_up(url: str, why: str) -> None:
    names = Names(example_test=[["127.0.0.1"]])
    async with fetching(names) as fetcher:
        told = await refusal(fetcher, url)
        assert why in told and "secret" not in told
    assert names.asked == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_not_followed(status: int) -> None:
    async with site() as running, fetching() as fetcher:
        to = f"http://127.0.0.1:{running.port}/inner"
        running.pages["/x"] = f"HTTP/1.1 {status} Go\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()
        told = await refusal(fetcher, f"http://example.test:{running.port}/x")
        assert "it redirects, which is not followed" in told
        assert running.paths == ["/x"]


async def test_answer_other_than_200_is_told_with_its_status() -> None:
    async with site() as running, fetching() as fetcher:
        assert "HTTP 404" in await refusal(fetcher, f"http://example.test:{running.port}/x")
        running.pages["/x"] = page(PNG).replace(b"200 OK", b"206 Partial Content")
        assert "HTTP 206" in await refusal(fetcher, f"http://example.test:{running.port}/x")


async def test_body_that_declares_too_much_is_refused_before_it_is_read() -> None:
    async with site() as running, fetching(max_bytes=1000) as fetcher:
        running.pages["/x"] = page(b"", length=1001)
        assert "larger than 1000 bytes" in await refusal(fetcher, f"http://example.test:{running.port}/x")
        await within(running.left.wait())


@pytest.mark.parametrize("packed", [False, True])
async def test_body_that_turns_out_too_large_is_given_up(packed: bool) -> None:
    body = b"x" * 5000
    sent = chunked(gzip.compress(body) if packed else body, end=b"")
    if packed:
        sent = sent.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n", 1)
    async with site() as running, fetching(max_bytes=4999) as fetcher:
        running.pages["/x"] = sent
        assert "larger than 4999 bytes" in await refusal(fetcher, f"http://example.test:{running.port}/x")
        await within(running.left.wait())


async def test_body_of_exactly_the_cap_is_taken() -> None:
    async with site() as running, fetching(max_bytes=5000) as fetcher:
        running.pages |= {"/x": chunked(b"x" * 5000), "/y": page(b"x" * 5000)}
        for path in ("/x", "/y"):
            fetched = await within(fetcher.fetch(f"http://example.test:{running.port}{path}", field=FIELD))
            assert len(fetched.data) == 5000


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Type: im", page(PNG, length=5000)])
async def test_server_that_takes_too_long_is_given_up(sent: bytes) -> None:
    async with site() as running, fetching(timeout=0.05) as fetcher:
        running.pages["/x"] = sent
        told = await refusal(fetcher, f"http://example.test:{running.port}/x")
        assert told == "could not be fetched within 0.05 s"
        await within(running.left.wait())


async def test_body_that_trickles_does_not_gain_time() -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with listening(trickle) as port, fetching(timeout=0.1) as fetcher:
        assert "within 0.1 s" in await refusal(fetcher, f"http://example.test:{port}/x")


async def test_name_server_that_takes_too_long_is_given_up() -> None:
    async def never(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return ()

    fetcher = Fetcher(FetchSettings(timeout=0.05), never)
    assert "within 0.05 s" in await refusal(fetcher, "http://example.test/x")
    await fetcher.aclose()


async def test_name_nobody_knows_and_server_nobody_runs_are_told() -> None:
    async with fetching() as fetcher:
        assert "no address for its host name" in await refusal(fetcher, "http://unknown.test/x")
        assert "cannot be reached" in await refusal(fetcher, "http://example.test:9/x")


async def test_answer_that_breaks_is_told() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(page(PNG, length=5000))

    async with listening(cut) as port, fetching() as fetcher:
        assert "broke the connection" in await refusal(fetcher, f"http://example.test:{port}/x")


@pytest.mark.parametrize(
    ("media_type", "shown"),
    [
        ("text/html", "text/html"),
        ("application/json; charset=utf-8", "application/json"),
        ("image", "unknown"),
        ("image/", "unknown"),
        ("image/png,text/html", "unknown"),
        ("image/<script>", "unknown"),
        ("", "unknown"),
    ],
)
async def test_content_type_that_was_not_asked_for_is_refused(media_type: str, shown: str) -> None:
    async with site() as running, fetching() as fetcher:
        running.pages["/x"] = page(PNG, media_type)
        told = await refusal(fetcher, f"http://example.test:{running.port}/x")
        assert f"its content type is {shown}; expected image/* or application/pdf or text/plain" in told


async def test_content_types_are_those_that_the_caller_takes() -> None:
    async with site() as running, fetching() as fetcher:
        url = f"http://example.test:{running.port}/x"
        running.pages["/x"] = page(b"hello", "Text/Plain; charset=utf-8")
        assert await within(fetcher.fetch(url, field=FIELD)) == await fetcher.fetch(
            url, field=FIELD, accept=("text/plain",)
        )
        assert "expected image/*" in await refusal(fetcher, url, accept=("image/*",))
        assert (await fetcher.fetch(url, field=FIELD)).data_url() == "data:text/plain;base64,aGVsbG8="


async def test_switched_off_nothing_is_fetched() -> None:
    names = Names(example_test=[["127.0.0.1"]])
    async with fetching(names, enabled=False) as fetcher:
        assert "[fetch] enabled is false" in await refusal(fetcher, "http://example.test/x")
    assert names.asked == []


async def test_fetch_that_nobody_waits_for_closes_its_connection() -> None:
    async with site() as running, fetching() as fetcher:
        running.pages["/x"] = page(PNG, length=5000)
        asking = asyncio.create_task(fetcher.fetch(f"http://example.test:{running.port}/x", field=FIELD))
        while not running.asked:
            await asyncio.sleep(0)
        asking.cancel()
        await within(running.left.wait())
        with pytest.raises(asyncio.CancelledError):
            await asking


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in ({"max_bytes": 0}, {"timeout": 0}, {"unknown": 1}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(wrong, FetchSettings)
    assert msgspec.convert({}, FetchSettings) == FetchSettings(True, 20 * 1024 * 1024, 10.0)


# Whole requests.


def request(*messages: Message) -> Request:
    return Request("some/model", messages)


def data_url(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{b64encode(data).decode()}"


async def test_request_without_addresses_is_left_as_it_is() -> None:
    asked = request(
        Message("user", (TextPart("hi"), ImagePart(data_url(PNG)), ImagePart("DATA:image/png;base64,AA==")))
    )
    async with fetching() as fetcher:
        assert await inline_request(asked, fetcher) is asked


async def test_addresses_become_data_and_everything_else_stays() -> None:
    async with site() as running, fetching() as fetcher:
        base = f"http://example.test:{running.port}"
        running.pages |= {"/a.png": page(PNG), "/b.pdf": page(b"%PDF-", "application/pdf")}
        asked = request(
            Message("system", (TextPart("Look."),)),
            Message(
                "user",
                (
                    TextPart("What is it?"),
                    ImagePart(f"{base}/a.png", "low"),
                    DocumentPart(f"{base}/b.pdf", name="b.pdf"),
                ),
                name="ana",
            ),
            Message("user", (DocumentPart(f"{base}/b.pdf", "application/x-own"), ImagePart(data_url(b"other")))),
        )
        assert await within(inline_request(asked, fetcher)) == request(
            asked.messages[0],
            Message(
                "user",
                (
                    TextPart("What is it?"),
                    ImagePart(data_url(PNG), "low"),
                    DocumentPart(data_url(b"%PDF-", "application/pdf"), "application/pdf", "b.pdf"),
                ),
                name="ana",
            ),
            Message(
                "user",
                (
                    DocumentPart(data_url(b"%PDF-", "application/pdf"), "application/x-own"),
                    ImagePart(data_url(b"other")),
                ),
            ),
        )
        assert sorted(running.paths) == ["/a.png", "/b.pdf"]


async def test_same_address_is_fetched_once() -> None:
    async with site() as running, fetching() as fetcher:
        running.pages["/a"] = page(PNG)
        part = ImagePart(f"http://example.test:{running.port}/a")
        made = await within(inline_request(request(*[Message("user", (part, part))] * 3), fetcher))
        assert {part.url for message in made.messages for part in message.parts if isinstance(part, ImagePart)} == {
            data_url(PNG)
        }
        assert running.paths == ["/a"]


async def test_failure_names_the_place_of_the_part_in_its_message() -> None:
    async with site() as running, fetching() as fetcher:
        running.pages["/a"] = page(PNG)
        base = f"http://example.test:{running.port}"
        asked = request(
            Message("user", (TextPart("hi"),)),
            Message("assistant", (ReasoningPart("hm"), TextPart("hello"))),
            Message("user", (TextPart("see"), ImagePart(f"{base}/missing"), ImagePart(f"{base}/a"))),
        )
        with pytest.raises(InvalidRequest, match="HTTP 404") as caught:
            await within(inline_request(asked, fetcher))
        assert caught.value.field == "messages[2].content[1]"


async def test_reasoning_beside_the_content_does_not_count_as_a_place_in_it() -> None:
    asked = request(Message("assistant", (ReasoningPart("hm"), TextPart("see"), ImagePart("http://unknown.test/a"))))
    async with fetching() as fetcher:
        with pytest.raises(InvalidRequest) as caught:
            await within(inline_request(asked, fetcher))
    assert caught.value.field == "messages[0].content[1]"


@pytest.mark.parametrize("part", [ImagePart("file:///etc/passwd"), DocumentPart("file:///etc/passwd"), ImagePart("")])
async def test_request_with_an_address_of_another_kind_is_refused(part: ImagePart | DocumentPart) -> None:
    async with fetching() as fetcher:
        with pytest.raises(InvalidRequest, match="must be an http:// or https:// address, or a data URL"):
            await inline_request(request(Message("user", (part,))), fetcher)


async def test_image_that_is_a_document_is_refused() -> None:
    async with site() as running, fetching() as fetcher:
        running.pages["/a"] = page(b"%PDF-", "application/pdf")
        url = f"http://example.test:{running.port}/a"
        with pytest.raises(InvalidRequest, match="content type is application/pdf"):
            await within(inline_request(request(Message("user", (ImagePart(url), DocumentPart(url)))), fetcher))


async def test_addresses_are_fetched_at_once_but_only_so_many() -> None:
    async with site() as running, fetching() as fetcher:
        running.gate = asyncio.Event()
        parts = [ImagePart(f"http://example.test:{running.port}/{n}") for n in range(20)]
        running.pages = {f"/{n}": page(PNG) for n in range(20)}
        making = asyncio.create_task(inline_request(request(Message("user", tuple(parts))), fetcher))
        while running.busy < inline.AT_ONCE:
            await asyncio.sleep(0)
        running.gate.set()
        await within(making)
        assert running.most == inline.AT_ONCE
        assert len(running.asked) == 20


async def test_one_failure_gives_up_the_others() -> None:
    async with site() as running, fetching() as fetcher:
        running.pages["/slow"] = page(PNG, length=5000)
        base = f"http://example.test:{running.port}"
        parts = (ImagePart(f"{base}/slow"), ImagePart(f"{base}/missing"))
        with pytest.raises(InvalidRequest, match="HTTP 404"):
            await within(inline_request(request(Message("user", parts)), fetcher))
        await within(running.left.wait())


async def test_fetches_of_one_request_are_bounded_together() -> None:
    allowance = Allowance(2 * len(PNG) - 1)
    async with site() as running, fetching() as fetcher:
        running.pages["/a"] = page(PNG)
        url = f"http://example.test:{running.port}/a"
        await within(fetcher.fetch(url, field=FIELD, allowance=allowance))
        told = await refusal(fetcher, url, allowance=allowance)
        assert f"may give {2 * len(PNG) - 1} bytes together" in told


async def test_whole_request_may_not_give_more_than_its_cap() -> None:
    size = inline.MOST_BYTES // 2 - 10
    async with site() as running, fetching() as fetcher:
        running.pages = {"/a": page(b"x" * size), "/b": page(b"y" * size), "/c": page(b"z" * 21)}
        parts = [ImagePart(f"http://example.test:{running.port}/{name}") for name in "abc"]
        with pytest.raises(InvalidRequest, match="may give 40 MB together"):
            await within(inline_request(request(Message("user", tuple(parts))), fetcher))
        assert await within(inline_request(request(Message("user", tuple(parts[:2]))), fetcher))
