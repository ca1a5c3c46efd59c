"""Take a picture of each page for `docs/img/`: in light, in dark, and as wide as a phone.

    make screenshots LINK=http://127.0.0.1:…/login/link/…     the link that `make demo` prints

The link is good once; `--state FILE` keeps the session for the next run, where LINK may be the
server's address alone.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.e2e.browser import CHROMIUM, FLAGS

PASSWORD = "the demo is for looking"
DESKTOP, PHONE = {"width": 1200, "height": 800}, {"width": 390, "height": 800}
VIEWS = {
    "light": (DESKTOP, "light"),
    "dark": (DESKTOP, "dark"),
    "phone": (PHONE, "light"),
}
TALLEST = 1500
COLOURS = 128


def pages(page: Page, base: str) -> dict[str, str]:
    """By name, the address of each page worth a picture."""
    fixed = ["models", "rollouts", "devices", "groups", "policies", "audit", "account", "upload"]
    found = {"fleet": "/", **{name: f"/{name}" for name in fixed}}
    found["rollout-new"] = "/rollouts/new?group=field&policy=field-in-three"
    found |= {f"settings-{n}": f"/settings/{n}" for n in ("people", "tokens", "codes", "webhooks")}
    for name, listed, link in (
        ("model", "/models", 'tbody a[href^="/models/"]'),
        ("rollout-running", "/rollouts?state=running", 'tbody a[href^="/rollouts/"]'),
        ("rollout-rolled-back", "/rollouts?state=rolled_back", 'tbody a[href^="/rollouts/"]'),
        ("rollout-asking", "/rollouts?state=awaiting_approval", 'tbody a[href^="/rollouts/"]'),
        ("group", "/groups", 'tbody a[href="/groups/field"]'),
        ("policy", "/policies", 'a[href="/policies/field-in-three"]'),
        ("device", "/devices?selector=hw%3Dpi5", 'tbody a[href^="/devices/"]'),
        ("device-real", "/devices?selector=site%3Ddemo", 'tbody a[href^="/devices/"]'),
        ("device-failing", "/devices?state=failing", 'tbody a[href^="/devices/"]'),
    ):
        page.goto(base + listed)
        first = page.locator(link).first
        if first.count():
            found[name] = str(first.get_attribute("href"))
    model = found.get("model", "")
    page.goto(base + model)
    version = page.locator(f'tbody a[href^="{model}/"]').first
    if model and version.count():
        found["version"] = str(version.get_attribute("href"))
    return found


def sign_in(page: Page, link: str) -> None:
    """Come in by a link, setting the password."""
    page.goto(link)
    page.locator("#password").fill(PASSWORD)
    page.locator("#again").fill(PASSWORD)
    page.locator("button.main").click()
    page.wait_for_url(lambda url: "/login" not in url)


def shrunk(raw: bytes) -> bytes:
    """The picture with few colours, which a page of text needs no more of."""
    with Image.open(io.BytesIO(raw)) as image:
        flat = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    out = io.BytesIO()
    flat.save(out, "PNG", optimize=True)
    return out.getvalue()


def main() -> None:
    """Sign in, find the pages, take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("link", help="the login link, or the server's address with --state")
    parser.add_argument("--out", type=Path, default=Path("docs/img"))
    parser.add_argument("--state", type=Path, help="keep the session in this file")
    parser.add_argument("--only", default="", help="pages whose name begins so, with a comma")
    parser.add_argument("--language", default="en-GB")
    options = parser.parse_args()
    parts = urlsplit(options.link)
    base = f"{parts.scheme}://{parts.netloc}"
    options.out.mkdir(parents=True, exist_ok=True)
    wanted = tuple(filter(None, options.only.split(",")))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        known = options.state is not None and options.state.exists()
        first = browser.new_context(storage_state=options.state if known else None)
        page = first.new_page()
        page.set_default_timeout(120_000)
        if not known:
            sign_in(page, options.link)
        found = pages(page, base)
        state = first.storage_state(path=options.state) if options.state else first.storage_state()
        total = 0
        for view, (viewport, scheme) in VIEWS.items():
            context = browser.new_context(
                viewport=viewport,  # type: ignore[arg-type]  # two whole numbers
                color_scheme=scheme,  # type: ignore[arg-type]  # one of its words
                locale=options.language,
                storage_state=state,
                reduced_motion="reduce",
            )
            page = context.new_page()
            page.set_default_timeout(120_000)
            for name, path in found.items():
                if wanted and not name.startswith(wanted):
                    continue
                page.goto(base + path)
                page.wait_for_timeout(700)
                height = page.evaluate("document.documentElement.scrollHeight")
                clip = {"x": 0, "y": 0, "width": viewport["width"], "height": min(height, TALLEST)}
                raw = page.screenshot(full_page=True, clip=clip)  # type: ignore[arg-type]  # four numbers
                small = shrunk(raw)
                (options.out / f"{name}-{view}.png").write_bytes(small)
                total += len(small)
            context.close()
        browser.close()
    print(f"{options.out}: {total / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
