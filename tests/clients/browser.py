"""Headless Chromium, told what to do line by line."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.clients.node import Node, Script, script


class Browser:
    """One Chromium; each page has a profile of its own."""

    def __init__(self, driver: Script) -> None:
        self._driver = driver
        self._pages = 0

    async def do(self, name: str, page: int, **arguments: Any) -> Any:
        """The result of a command of `js/browser.mjs`."""
        await self._driver.tell({"name": name, "page": page, **arguments})
        answer = await self._driver.answer()
        if "error" in answer:
            raise AssertionError(f"{name}: {answer['error']}")
        return answer["result"]

    @contextlib.asynccontextmanager
    async def page(self, url: str, *, scheme: str = "light") -> AsyncIterator["Page"]:
        self._pages += 1
        page = Page(self, self._pages)
        await page.do("open", url=url, scheme=scheme)
        try:
            yield page
        finally:
            await page.do("close")


class Page:
    """A page. Waiting has a bound of 5 s."""

    def __init__(self, browser: Browser, number: int) -> None:
        self._browser = browser
        self._number = number

    async def do(self, name: str, **arguments: Any) -> Any:
        return await self._browser.do(name, self._number, **arguments)

    async def click(self, selector: str) -> None:
        await self.do("click", selector=selector)

    async def text(self, selector: str) -> str:
        return await self.do("text", selector=selector)

    async def until(self, expression: str) -> None:
        """Wait until the page finds `expression` true."""
        await self.do("until", expression=expression)

    async def evaluate(self, expression: str) -> Any:
        return await self.do("evaluate", expression=expression)

    async def exchanges(self) -> list[dict[str, Any]]:
        """Every request of the page: method, URL, status (null if it failed) and why it failed."""
        return await self.do("exchanges")

    async def complaints(self) -> list[str]:
        """Errors in its console."""
        return await self.do("complaints")

    async def screenshot(self, path: Path) -> None:
        await self.do("screenshot", path=str(path))


@contextlib.asynccontextmanager
async def browsing(node: Node, chromium: str) -> AsyncIterator[Browser]:
    """Chromium at the path `chromium`, until the end."""
    async with script(node, "browser.mjs", chromium) as driver:
        assert await driver.answer() == "ready"
        yield Browser(driver)
