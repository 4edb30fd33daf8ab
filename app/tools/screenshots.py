"""Make the pictures of the README: pages of the running product, over a gallery of drawn people.

    .venv/bin/python app/tools/screenshots.py

It needs Chromium and nothing else. It ingests the gallery with the demo pack into a temporary folder, starts a service,
and writes docs/result-light.webp, result-dark.webp, photo-light.webp and photo-dark.webp. `--to FOLDER` writes them
elsewhere. After a change to a page, run it again and look at its pictures.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image
from playwright.sync_api import Browser, Page

from app.core.types import Pixels
from app.demo import draw_group, draw_portrait, write_demo_pack
from tests.support.browsing import chromium, drop, opened, settled
from tests.support.running import environment, ingest, service

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
THEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
_EVENTS: Final = ("Graduation", "Summer camp", "Lake", "Wedding", "Harbour", "Winter walk")  # one a year
_FIRST_YEAR: Final = 2018
_GUESTS: Final = 6
_WHO: Final = 1
_SIZE: Final = {"width": 1440, "height": 900}
_DATE: Final = 0x9003
_EXIF: Final = 0x8769

# Without the notice of the demo pack, and with the paths of a machine whose photographs are in /photos.
_TIDY: Final = """(folder) => {
    document.querySelector("aside.demo").remove();
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(folder, "/photos");
}"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the pictures and print their names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--to", type=Path, default=DOCS, metavar="FOLDER", help="default: docs")
    target: Path = parser.parse_args(arguments).to
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        base = Path(folder)
        photographs, queries = base / "photographs", base / "queries"
        write_gallery(photographs)
        write_queries(queries)
        with _running(base, photographs) as address:
            for theme in THEMES:
                for name, picture in _pages(browser, address, theme, photographs, queries):
                    path = target / f"{name}-{theme}.webp"
                    picture.save(path, "WEBP", quality=86, method=6)
                    print(f"{path}: {path.stat().st_size // 1000} kB")


def write_gallery(folder: Path) -> None:
    """Write portraits and groups of drawn people, with dates: a folder for each event."""
    for number, event in enumerate(_EVENTS):
        year = _FIRST_YEAR + number
        place = folder / f"{year} {event}"
        place.mkdir(parents=True)
        for guest in range(_GUESTS):
            for variant in (2 * number, 2 * number + 1)[: 2 if guest == _WHO else 1]:
                name = place / f"DSC_{1000 + 40 * number + 3 * guest + variant % 2}.jpg"
                _write(name, draw_portrait(guest, variant), f"{year}:06:{10 + guest} 10:{10 + variant}:00")
        others = [guest for guest in range(_GUESTS) if guest != _WHO]
        table = [others[number % 5], _WHO, others[(number + 1) % 5], others[(number + 2) % 5]]
        _write(place / f"DSC_{1030 + 40 * number}.jpg", draw_group(table, number), f"{year}:06:20 18:30:00")


def write_queries(folder: Path) -> None:
    """Write three portraits of one person that are not in the gallery."""
    folder.mkdir(parents=True)
    for variant in (101, 102, 103):
        _write(folder / f"{variant}.jpg", draw_portrait(_WHO, variant), "2026:01:01 12:00:00")


def _write(path: Path, pixels: Pixels, taken: str) -> None:
    exif = Image.Exif()
    exif.get_ifd(_EXIF)[_DATE] = taken
    Image.fromarray(pixels[:, :, ::-1].copy()).save(path, quality=93, exif=exif)


@contextmanager
def _running(base: Path, photographs: Path) -> Iterator[str]:
    pack = base / "models" / "demo"
    pack.parent.mkdir()
    write_demo_pack(pack)
    env = environment(base / "data", MODEL_NAME=pack)
    report = ingest(photographs, env)
    if report["failed"] or not report["faces"]:
        raise SystemExit(f"the ingest of the gallery failed: {report}")
    with service(env) as client:
        yield str(client.base_url)


def _pages(
    browser: Browser, address: str, theme: Literal["light", "dark"], photographs: Path, queries: Path
) -> Iterator[tuple[str, Image.Image]]:
    with opened(browser, address, viewport=_SIZE, color_scheme=theme, reduced_motion="reduce") as page:
        page.goto("/?lang=en")
        drop(page, sorted(queries.iterdir()))
        settled(page)
        yield "result", _shot(page, photographs)
        group = page.locator(".card", has=page.locator(f'.card-title[title$="DSC_{1030 + 40 * 3}.jpg"]'))
        group.locator(".card-link").click()
        page.wait_for_selector("[data-searched]:not([hidden])")
        yield "photo", _shot(page, photographs)


def _shot(page: Page, photographs: Path) -> Image.Image:
    page.wait_for_load_state("networkidle")
    page.evaluate(_TIDY, str(photographs))
    page.evaluate("Promise.all([...document.images].map((one) => one.decode().catch(() => {})))")
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        return picture.convert("RGB")


if __name__ == "__main__":
    main()
