# SPDX-License-Identifier: GPL-3.0-or-later
"""The page in a real browser: the filter by keyboard, no complaint of the console, on paper."""

from __future__ import annotations

import base64

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.posture import html

from tests.unit.plugins.module_utils.posture import chromium
from tests.unit.plugins.module_utils.posture.build import PAYLOADS, before_and_after, fleet, hostile

pytestmark = pytest.mark.skipif(
    chromium.PROGRAM is None, reason="no chromium on the PATH (apt-get install chromium)"
)

SHOWN = "document.getElementById('shown').textContent"
VISIBLE = """[...document.querySelectorAll('li.f')].filter(e => e.checkVisibility())
    .map(e => e.querySelector('.t code').textContent)"""
ACTIVE = (
    "document.activeElement.name || document.activeElement.id || document.activeElement.className"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium.page(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def show(browser, tmp_path):
    """Open a report, perhaps with a fragment; the browser must not complain until the end."""

    def load(made=None, fragment=""):
        path = tmp_path / "report.html"
        path.write_text(html.render(made or before_and_after()), encoding="utf-8")
        browser.open(path.as_uri() + fragment)
        return browser

    browser.complaints.clear()
    browser.requests.clear()
    browser.renew()
    yield load
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith(("file:", "about:"))] == []


def tab_to(page, name, steps=60):
    for _step in range(steps):
        page.press("Tab")
        if page.run(ACTIVE) == name:
            return
    raise AssertionError(f"no way to {name} by keyboard")


def test_all_is_shown_and_what_is_well_is_folded(show):
    page = show()
    assert page.run(SHOWN) == "all 58 findings shown"
    folded = page.run("document.querySelectorAll('details.c:not([open])').length")
    assert 0 < folded < page.run("document.querySelectorAll('details.c').length")
    assert "gateway.location.metrics" in page.run(VISIBLE)


def test_the_skip_link_is_the_first_thing_and_leads_to_the_findings(show):
    page = show()
    page.press("Tab")
    assert page.run(ACTIVE) == "skip-link"
    assert page.run("document.activeElement.getBoundingClientRect().left") >= 0
    page.press("Enter")
    assert page.run("document.activeElement.id") == "findings"


def test_the_filter_by_keyboard(show):
    page = show()
    tab_to(page, "text")
    page.type("proxy_pass")
    assert page.run(SHOWN) == "1 of 58 findings shown"
    assert page.run(VISIBLE) == ["gateway.location.metrics"]
    assert page.run("location.hash") == "#text=proxy_pass"
    tab_to(page, "result")
    page.press(" ")
    assert page.run(SHOWN) == "0 of 58 findings shown"
    tab_to(page, "reset")
    page.press("Enter")
    assert page.run(SHOWN) == "all 58 findings shown"
    assert page.run("location.hash") == ""


def test_a_select_by_keyboard(show):
    page = show()
    tab_to(page, "host")
    page.press("ArrowDown")
    page.press("ArrowDown")
    assert page.run("location.hash") == "#host=llm2"
    assert page.run(SHOWN) == "24 of 58 findings shown"


def test_focus_can_be_seen(show):
    page = show()
    tab_to(page, "text")
    style = page.run("getComputedStyle(document.activeElement).outlineStyle")
    assert style == "solid"


@pytest.mark.parametrize(
    ("fragment", "visible"),
    [
        ("#result=fail", ["gateway.location.metrics"]),
        ("#result=error&severity=high", ["audit_log.head"]),
        ("#severity=critical&control=loopback&host=llm1", ["listeners.llm_server"]),
        ("#status=fixed&control=assessment", ["assessment.reached"]),
        ("#result=waived&status=unchanged", ["tls.group", "tls.group"]),
        ("#text=X25519MLKEM768&host=llm1", ["tls.group"]),
        ("#text=nothing-like-it", []),
        ("#result=", []),
    ],
)
def test_the_address_is_the_filter(show, fragment, visible):
    page = show(fragment=fragment)
    assert page.run(VISIBLE) == visible
    assert page.run(SHOWN) == f"{len(visible)} of 58 findings shown"


def test_a_cell_of_the_matrix_opens_what_it_is_about_though_it_was_filtered_out(show):
    page = show(fragment="#result=fail")
    click = "document.querySelector('a[href=\"#h0.loopback\"]').click()"
    event = f"done => {{ addEventListener('hashchange', () => done()); {click} }}"
    page.run(f"new Promise({event})", wait=True)
    assert "listeners.llm_server" in page.run(VISIBLE)
    assert page.run("document.activeElement.closest('details').id") == "h0.loopback"


@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_that_a_host_says_runs(show, payload):
    page = show(hostile(payload))
    assert page.run(SHOWN) == "all 5 findings shown"
    assert page.run("document.querySelectorAll('script').length") == 1
    assert page.run("document.images.length") == 0


def test_the_policy_stops_what_escaping_would_have_let_through(browser, tmp_path):
    path = tmp_path / "broken.html"
    page = html.render(before_and_after())
    payload = "<script>document.title='owned'</script><img src='http://127.0.0.1:1/x'>"
    path.write_text(page.replace('<main id="findings"', f'{payload}<main id="findings"'))
    browser.renew()
    browser.complaints.clear()
    browser.open(path.as_uri())
    assert browser.run("document.title") == "LLM hosts"
    assert len(browser.complaints) >= 2
    assert "Content Security Policy" in str(browser.complaints)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_colour_schemes(show, scheme):
    """WCAG 2.2, 1.4.3: 4.5 to 1, for each pair of colours that stand on each other."""
    page = show()
    page("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    try:
        low = page.run(CONTRAST)
    finally:
        page("Emulation.setEmulatedMedia", features=[])
    assert low == []


CONTRAST = """(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const low = new Set();
  for (const e of document.querySelectorAll("body *")) {
    const words = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!words || ["SCRIPT", "STYLE", "OPTION"].includes(e.tagName)) continue;
    const pair = [light(parse(getComputedStyle(e).color)), light(ground(e))];
    const [a, b] = pair.sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.add(`${e.tagName}.${e.className}`);
  }
  return [...low];
})()"""


def test_on_paper_everything_is_open_and_there_are_no_controls(show):
    page = show()
    page("Emulation.setEmulatedMedia", media="print")
    try:
        page.run("dispatchEvent(new Event('beforeprint'))")
        assert len(page.run(VISIBLE)) == 58
        assert page.run("document.getElementById('filter').offsetParent") is None
        page.run("dispatchEvent(new Event('afterprint'))")
    finally:
        page("Emulation.setEmulatedMedia", media="")
    assert len(page.run(VISIBLE)) < 58
    data = base64.b64decode(page("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert data.startswith(b"%PDF-")


def test_on_paper_a_filtered_page_says_what_it_leaves_out(show):
    page = show(fragment="#result=fail")
    page("Emulation.setEmulatedMedia", media="print")
    try:
        assert page.run("document.getElementById('shown').checkVisibility()") is True
        assert page.run("document.getElementById('reset').checkVisibility()") is False
        assert page.run(SHOWN) == "1 of 58 findings shown"
    finally:
        page("Emulation.setEmulatedMedia", media="")


def test_without_javascript_all_findings_are_visible(show):
    page = show()
    page("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page = show()
        assert len(page.run(VISIBLE)) == 58
        assert page.run("document.getElementById('filter').offsetParent") is None
    finally:
        page("Emulation.setScriptExecutionDisabled", value=False)


def test_a_fleet_is_quick(show):
    page = show(fleet())
    took = page.run("""(() => {
      const start = performance.now();
      const text = document.getElementById("f-text");
      text.value = "check_7";
      text.dispatchEvent(new Event("input", {bubbles: true}));
      document.body.offsetHeight;
      return performance.now() - start;
    })()""")
    assert page.run(SHOWN) == "220 of 4020 findings shown"
    assert took < 5000


def test_a_narrow_screen_does_not_scroll_sideways(show):
    page = show()
    page(
        "Emulation.setDeviceMetricsOverride",
        width=360,
        height=740,
        deviceScaleFactor=1,
        mobile=True,
    )
    try:
        assert page.run("document.documentElement.scrollWidth") <= 360
    finally:
        page("Emulation.clearDeviceMetricsOverride")
