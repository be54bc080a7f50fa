"""The page in a browser: it loads, draws, complains of nothing, and can be used with the keyboard, by day and night."""

from __future__ import annotations

import itertools

import pytest

from tests.verif.report.browser import load, quiet, until
from tiptoe_verif.native.recorder import CAPTURE
from tiptoe_verif.report.page import write_report
from tiptoe_verif.report.server import WebPage

PANELS = ["Sequence numbers", "States", "Windows, as the engine has them", "Round trip", "Engine: how busy",
          "Engine: what is in use", "Events and drops"]  # fmt: skip


@pytest.fixture(scope="module")
def report(run):
    page = run.folder / "report.html"
    write_report(run.folder, page, kept=20_000, frame_bytes=160)
    return page


def panels(browser):
    return browser.execute_script(
        "return find('plot').layout.annotations.map((each) => each.text.replace(/<.?b>/g, ''))"
    )


def test_draws_everything(browser, report, run):
    load(browser, report.as_uri())
    assert panels(browser) == PANELS
    assert browser.title.startswith("a test's <run>") and browser.find_element("id", "title").text == "a test's <run>"
    drawn = browser.execute_script("""
        const lines = {};
        for (const { name, x } of find('plot').data) lines[name] = (lines[name] || 0) + x.filter((each) => each !== null).length;
        return lines""")
    assert (
        drawn["data"] > 2 * 100 and drawn["acknowledged"] > 30 and drawn["sent again"] >= run.counters["TX_RETRANSMITS"]
    )
    for name in (
        "cwnd",
        "SRTT",
        "TCB pipeline",
        "receive buffer full",
        "DMA reads open",
        "ids",
        "established",
        "closing",
        "events",
    ):
        assert drawn[name] > 0, name
    # Paths are really there, not only their data.
    assert (
        browser.execute_script(
            "return [...document.querySelectorAll('.scatterlayer .js-line')].filter((p) => p.getBBox().width > 20).length"
        )
        > 5
    )
    assert quiet(browser)


def test_a_click_leads_to_the_segment(browser, report):
    load(browser, report.as_uri())
    from selenium.webdriver.common.action_chains import ActionChains

    at = browser.execute_script("""
        const plot = find('plot'), trace = plot.data.find((each) => each.name === 'data'), box = plot.getBoundingClientRect();
        const place = Math.floor(trace.x.length / 6) * 3, layout = plot._fullLayout;
        return [box.x + layout.margin.l + layout.xaxis.d2p(trace.x[place]),
                box.y + layout.yaxis._offset + layout.yaxis.d2p(trace.y[place]), trace.customdata[place]]""")
    actions = ActionChains(browser)
    actions.w3c_actions.pointer_action.move_to_location(round(at[0]), round(at[1]))
    actions.pause(0.3).click().perform()
    until(browser, "chosen !== null")
    number = browser.execute_script("return chosen[F.number]")
    assert abs(number - at[2]) <= 6  # neighbours are a pixel apart
    assert browser.find_element("id", "frame-title").text.startswith(f"Frame {number},")
    assert quiet(browser)


def test_fields_and_bytes_are_those_of_the_capture(browser, report, run):
    from tiptoe_verif.wire.pcap import read_pcap
    from tiptoe_verif.wire.segment import parse_tcp

    load(browser, report.as_uri())
    frames = [frame for _, frame in read_pcap(run.folder / CAPTURE)]
    chosen = [
        number
        for number, frame in enumerate(frames)
        if (segment := parse_tcp(frame)) and (segment.flags & 2 or number % 40 == 0)
    ]
    for number in chosen:
        segment = parse_tcp(frames[number])
        browser.execute_script(f"choose(byNumber({number}))")
        names = [each.text for each in browser.find_elements("css selector", "#fields dt")]
        values = [each.text for each in browser.find_elements("css selector", "#fields dd")]
        fields = dict(zip(names, values, strict=True))
        assert fields["SEG.SEQ"] == f"{segment.seq:,}" and fields["TCP"] == f"port {segment.sport} → {segment.dport}"
        assert fields["payload"] == f"{len(segment.payload):,} bytes"
        assert fields.get("MSS") == (str(segment.mss) if segment.mss else None)
        assert fields.get("window scale") == (str(segment.ws) if segment.ws is not None else None)
        dump = browser.find_element("id", "hex").get_property("textContent")
        shown = bytes.fromhex("".join(line[6:53] for line in dump.splitlines() if not line.startswith("…")))
        assert shown == frames[number][:160] and ("…" in dump) == (len(frames[number]) > 160)
        assert "cycles" in browser.find_element("id", "cycle").text


def test_by_keyboard(browser, report):
    from selenium.webdriver.common.keys import Keys

    load(browser, report.as_uri())
    listed = browser.find_element("id", "list")
    for _ in range(12):  # with Tab alone
        browser.switch_to.active_element.send_keys(Keys.TAB)
        if browser.switch_to.active_element == listed:
            break
    assert browser.switch_to.active_element == listed
    outline = browser.execute_script(
        "const s = getComputedStyle(find('list')); return [s.outlineStyle, parseInt(s.outlineWidth)]"
    )
    assert outline[0] == "solid" and outline[1] >= 2
    places = []
    for key in (Keys.END, Keys.HOME, Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP, Keys.PAGE_DOWN, Keys.PAGE_UP):
        listed.send_keys(key)
        places.append(browser.execute_script("return shownFrames().indexOf(chosen)"))
        active = browser.execute_script(
            "return document.getElementById(find('list').getAttribute('aria-activedescendant')).ariaSelected"
        )
        assert active == "true"
    last = browser.execute_script("return shownFrames().length - 1")
    assert places == [last, 0, 1, 2, 1, 11, 1]
    plot = browser.find_element("id", "plot")
    browser.execute_script("find('plot').focus()")
    plot.send_keys(Keys.ARROW_RIGHT)
    assert browser.execute_script("return shownFrames().indexOf(chosen)") == 2
    assert browser.execute_script("return find('plot').layout.shapes.length") == 1  # the mark moves along
    assert quiet(browser)


def luminance(colour):
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("dark", [False, True])
def test_legible_by_day_and_night(browser, report, dark):
    """WCAG 2.1: 4.5 to 1 for text, 3 to 1 for lines; and the graphs are of the page's colour."""
    load(browser, report.as_uri(), dark=dark)
    browser.execute_script("choose(run.frames[10])")
    tones = browser.execute_script("""
        const style = getComputedStyle(document.documentElement), card = getComputedStyle(document.querySelector('aside'));
        const probe = document.createElement('i'), plot = find('plot').layout;
        const rgb = (text) => { probe.style.color = text; document.body.append(probe);
          const found = getComputedStyle(probe).color; probe.remove(); return found; };
        return { back: style.backgroundColor, ink: style.color, card: card.backgroundColor,
          soft: getComputedStyle(find('facts')).color, paper: rgb(plot.paper_bgcolor),
          lines: find('plot').data.map((trace) => rgb((trace.line || trace.marker).color)) }""")
    assert (luminance(tones["back"]) < 0.05) == dark and tones["paper"] == tones["back"]

    def contrast(one, two):
        low, high = sorted((luminance(one), luminance(two)))
        return (high + 0.05) / (low + 0.05)

    for ink, ground in itertools.product(("ink", "soft"), ("back", "card")):
        assert contrast(tones[ink], tones[ground]) >= 4.5, (ink, ground)
    assert min(contrast(colour, tones["back"]) for colour in tones["lines"]) >= 3
    assert quiet(browser)


def test_the_night_falls_while_it_is_open(browser, report):
    load(browser, report.as_uri())
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    until(browser, "find('plot').layout.paper_bgcolor === DARK.back")


def test_a_capture_alone(browser, run, tmp_path):
    page = tmp_path / "capture.html"
    write_report(run.folder / CAPTURE, page, kept=30, frame_bytes=160)
    load(browser, page.as_uri())
    assert panels(browser) == ["Sequence numbers", "States", "Events and drops"]
    notes = browser.find_element("id", "notes").text
    assert f"the first {run.frames - 30} frames are left out" in notes and "a capture alone" in notes
    assert quiet(browser)


def test_live_page_follows_the_run(browser, run, tmp_path):
    """A run that grows: the page shows what has come, and keeps the segment that was chosen."""
    parts = {name.name: name.read_bytes() for name in run.folder.iterdir() if name.suffix != ".html"}

    def write(share):
        for name, content in parts.items():
            (tmp_path / name).write_bytes(content if name == "run.json" else content[: int(len(content) * share)])

    write(0.5)
    with WebPage(tmp_path, 0) as page:
        load(browser, page.url)
        browser.execute_script("choose(byNumber(20))")
        before = browser.execute_script("return run.framesRead")
        assert 0 < before < run.frames
        write(1)
        until(browser, f"run.framesRead === {run.frames}")
        assert browser.execute_script(
            "return [chosen[F.number], run.frames.length, run.frames.every((f, n) => f[F.number] === n)]"
        ) == [20, run.frames, True]
        assert browser.find_element("id", "frame-title").text.startswith("Frame 20,")
        assert quiet(browser)
    until(browser, "find('notes').textContent.includes('does not answer')")
