"""The built site in a real browser: `make docs-check`. Prints what is wrong with each page; ends with 1 if anything is.

It opens every page at the width of a phone and of a desk, and looks for errors of the console, for files that were not
found or came from elsewhere, for images that do not show, for links that lead nowhere, and for pages wider than the
window. It searches, sorts a table, and photographs pages when it is told where to.
"""

import argparse
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

SITE = Path(__file__).parents[2] / "build" / "docs"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = (400, 1400)
PATIENCE = 180_000
"""Milliseconds that anything may take, on a machine that is busy."""
WORD, FOUND_ON = "growth", "docs/explain/growth.html"
TABLE = "benchmarks/results/speed.html"
PHOTOGRAPHED = (
    "docs/index",
    "docs/choose",
    "docs/api/couplings",
    "docs/explain/growth",
    "benchmarks/results/couplings",
)

LOOK = """async () => {
  const images = [...document.images];
  images.forEach((image) => { image.loading = "eager"; });
  await Promise.all(images.map((image) => image.decode().catch(() => {})));
  return {
    links: [...document.querySelectorAll("a[href]")].map((link) => link.href),
    names: [...document.querySelectorAll("[id]")].map((node) => node.id),
    unseen: images.filter((image) => !image.naturalWidth).map((image) => image.currentSrc || image.src),
    nameless: images.filter((image) => !image.alt).map((image) => image.currentSrc),
    width: document.documentElement.scrollWidth,
    title: document.title,
  };
}"""


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and prints nothing."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name that http.server has
        """Print nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder to this machine alone; yields its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def listen(tab: Any, home: str, wrong: list[str]) -> None:
    """Note each error of the console, each file that is not found, and each file from elsewhere."""
    tab.on("console", lambda said: said.type in {"error", "warning"} and wrong.append(f"console: {said.text}"))
    tab.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    tab.on("requestfailed", lambda asked: wrong.append(f"not loaded: {asked.url}"))
    tab.on("response", lambda answer: answer.status >= 400 and wrong.append(f"{answer.status}: {answer.url}"))
    tab.on("request", lambda asked: elsewhere(asked.url, home) and wrong.append(f"from elsewhere: {asked.url}"))


def elsewhere(url: str, home: str) -> bool:
    """Whether an address is on another machine."""
    return url.startswith("http") and not url.startswith(home)


def look(tab: Any, address: str, wrong: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Open a page, wide and then narrow; returns what is on it, and what is wrong with it.

    Parameters
    ----------
    tab
        The tab, whose errors go into ``wrong`` as they happen.
    address
        Of the page.
    wrong
        Errors; emptied.
    """
    wrong.clear()
    widths = {}
    tab.set_viewport_size({"width": max(WIDTHS), "height": 900})
    tab.goto(address, wait_until="load")
    tab.wait_for_function("!document.querySelector('meta[http-equiv=refresh]')")  # it leads on by itself
    found: dict[str, Any] = {}
    for width in sorted(WIDTHS, reverse=True):
        tab.set_viewport_size({"width": width, "height": 900})
        found = tab.evaluate(LOOK)
        widths[width] = found["width"]
    unseen = [f"image not shown: {image}" for image in found["unseen"]]
    nameless = [f"image without a description: {image}" for image in found["nameless"]]
    wide = [f"wider than the window of {width} pixels: {here}" for width, here in widths.items() if here > width]
    return found, [*dict.fromkeys([*wrong, *unseen, *nameless, *wide])]


def broken_links(pages: dict[str, dict[str, Any]], home: str, site: Path) -> list[str]:
    """Return the links of all pages that lead to no file, or to no place on a page."""
    wrong = []
    for page, found in pages.items():
        for link in sorted({link for link in found["links"] if link.startswith(home)}):
            address, name = urldefrag(link)
            target = unquote(urlsplit(address).path).lstrip("/") or page
            target = f"{target}index.html" if target.endswith("/") else target
            if not (site / target).is_file():
                wrong.append(f"{page}: no page {target}")
            elif name and target in pages and unquote(name) not in pages[target]["names"]:
                wrong.append(f"{page}: no place {unquote(name)} on {target}")
    return wrong


def search(tab: Any, home: str) -> list[str]:
    """Search for a word as a reader does; returns what is wrong."""
    tab.set_viewport_size({"width": WIDTHS[-1], "height": 900})
    tab.goto(f"{home}docs/index.html", wait_until="load")
    tab.keyboard.press("Control+k")
    tab.keyboard.type(WORD)
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/search.html*")
    tab.wait_for_function("document.querySelectorAll('#search-results li a').length > 0")
    tab.wait_for_timeout(1500)  # results come one after the other
    links = tab.eval_on_selector_all("#search-results li a", "links => links.map((link) => link.href)")
    return [] if any(FOUND_ON in link for link in links) else [f"search for {WORD!r} finds no {FOUND_ON} in {links}"]


def sort(tab: Any, home: str) -> list[str]:
    """Click a heading of a benchmark's table twice; returns what is wrong."""
    tab.goto(home + TABLE, wait_until="load")
    table = tab.locator(".bd-article table").first
    head = table.locator("th").first
    orders = []
    for _ in range(2):
        head.click()
        orders.append(table.locator("tbody tr td:first-child").all_inner_texts())
    sorted_ = [sorted(orders[0]), sorted(orders[0], reverse=True)]
    return [] if orders == sorted_ else [f"{TABLE}: clicks on a heading give {orders}"]


def photograph(tab: Any, home: str, folder: Path, pages: list[str]) -> None:
    """Save pictures of whole pages at each width."""
    folder.mkdir(parents=True, exist_ok=True)
    for page in pages:
        for width in WIDTHS:
            tab.set_viewport_size({"width": width, "height": 900})
            tab.goto(f"{home}{page}.html", wait_until="load")
            tab.evaluate(LOOK)
            tab.screenshot(path=folder / f"{page.replace('/', '-')}-{width}.png", full_page=True)


def check(browser: Any, site: Path, photographs: Path | None, only: list[str]) -> int:
    """Look at every page of a site and print what is wrong; returns how many things are."""
    names = sorted(str(path.relative_to(site)) for path in site.rglob("*.html") if "_static" not in path.parts)
    pages, noted, count = {}, [], 0
    with served(site) as home:
        tab = browser.new_page()
        tab.set_default_timeout(PATIENCE)
        listen(tab, home, noted)
        for name in names:
            pages[name], here = look(tab, home + name, noted)
            count += tell(name, here)
        noted.clear()
        count += tell("links", broken_links(pages, home, site))
        count += tell("search", [*search(tab, home), *noted])
        count += tell("tables", sort(tab, home))
        if photographs is not None:
            photograph(tab, home, photographs, only or list(PHOTOGRAPHED))
    links = sum(len(found["links"]) for found in pages.values())
    print(f"{len(names)} pages at {len(WIDTHS)} widths, {links} links: {count} things wrong.")
    return count


def tell(where: str, wrong: list[str]) -> int:
    """Print what is wrong, a line each; returns how much."""
    for what in wrong:
        print(f"{where}: {what}", flush=True)
    return len(wrong)


def main() -> None:
    """Look for a browser, then at the site."""
    parser = argparse.ArgumentParser(description="Look at the built site in Chromium.")
    parser.add_argument("--site", type=Path, default=SITE, help="folder of the built site")
    parser.add_argument("--photographs", type=Path, help="folder for pictures of pages")
    parser.add_argument("--page", action="append", default=[], help="page to photograph, such as docs/choose")
    given = parser.parse_args()
    if not (given.site / "docs" / "index.html").is_file():
        sys.exit(f"No site in {given.site}. Build it first, with `make docs`.")
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        print("Nothing was checked: there is no Chromium. Install it, for example with `apt-get install chromium`,")
        print("or say where it is, with CHROMIUM=/path/to/chromium.")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        count = check(browser, given.site, given.photographs, given.page)
        browser.close()
    sys.exit(1 if count else 0)


if __name__ == "__main__":
    main()
