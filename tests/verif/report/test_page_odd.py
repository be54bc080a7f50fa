"""The page with runs that are not the usual one."""

from __future__ import annotations

import json
from itertools import chain
from urllib.parse import urlsplit

import pytest

from tests.verif.report.browser import load, quiet, until
from tests.verif.report.traffic import SAMPLE, ethernet, exchange, folder, write
from tiptoe_verif.native.recorder import CAPTURE, RECORD, RUN
from tiptoe_verif.report.page import write_report
from tiptoe_verif.report.server import WebPage

ENDS = "10.77.0.2:80 10.77.0.1:5000"


def show(browser, run, **options):
    page = run.parent / f"{run.name}.html"
    write_report(run, page, **{"kept": 20_000, "frame_bytes": 160} | options)
    load(browser, page.as_uri())
    return page


def text(browser, name):
    return browser.find_element("id", name).text


@pytest.mark.parametrize("frames", [0, 2])
def test_without_a_connection(browser, tmp_path, frames):
    """Nothing at all, and frames of nobody, all at one time."""
    write(tmp_path / "a.pcap", [b"\xff" * 12 + b"\x08\x06" + bytes(46)] * frames, step_ns=0)
    show(browser, tmp_path / "a.pcap")
    assert f"{frames} frames" in text(browser, "facts") and ("no frame has passed" in text(browser, "notes")) != frames
    assert len(browser.find_elements("css selector", "#list li")) == frames
    assert text(browser, "list-title") == f"Frames: {frames}"
    if frames:
        browser.execute_script("move(Infinity)")
        assert text(browser, "frame-title").startswith("Frame 1,") and "ARP" in text(browser, "fields")
    assert quiet(browser)


def test_strings_of_others_are_shown_and_not_obeyed(browser, tmp_path):
    evil = "<img src=x onerror=\"window.hit=1\"><a href='javascript:window.hit=1'>x</a></script><script>window.hit=1</script>"
    rows = [SAMPLE | {"t": 1_000_000 + 10 * n, "conns": [{"conn": ENDS, "cwnd": 5, "state": evil}]} for n in range(3)]
    rows += [{"k": "event", "t": 1_000_100, "name": evil},
             {"k": "state", "t": 1_000_100, "id": 1, "conn": ENDS, "state": evil, "reason": evil}]  # fmt: skip
    run = folder(tmp_path / "run", exchange(5000, [100]), rows, command=evil, config=evil, address=evil, waveform=evil)
    show(browser, run)
    browser.execute_script("choose(run.frames[3])")
    assert text(browser, "title") == evil and browser.title.startswith(evil) and evil in text(browser, "facts")
    assert browser.execute_script("return window.hit === undefined && document.querySelectorAll('img').length === 0")
    assert browser.execute_script(
        "return [...document.querySelectorAll('a')].every((a) => !a.href.baseVal?.includes('script:'))"
    )
    assert quiet(browser)


def test_an_id_has_one_connection_behind_the_other(browser, tmp_path):
    """The states of each are its own, also those before its name was known."""
    names = [f"10.77.0.2:80 10.77.0.1:{port}" for port in (5000, 5001)]
    rows = [SAMPLE | {"t": 1_000_000}]
    for t, name in zip((1_000_000, 1_001_000), names, strict=True):
        for at, conn, state in ((0, "", "SYN_RECEIVED"), (100, name, "ESTABLISHED"), (400, name, "CLOSED")):
            rows.append({"k": "state", "t": t + at, "id": 3, "conn": conn, "state": state})
    frames = chain(exchange(5000, [10, 10]), exchange(5001, [10, 10]))
    show(browser, folder(tmp_path / "run", frames, rows))
    spans = browser.execute_script("return run.spans.map((each) => [each.conn, each.state, each.from, each.to])")
    assert spans == [
        [name, state, t + begin, t + end]
        for t, name in zip((1_000_000, 1_001_000), names, strict=True)
        for state, begin, end in (("SYN_RECEIVED", 0, 100), ("ESTABLISHED", 100, 400))
    ]


def test_time_is_counted_from_the_run_s_first_frame_also_where_it_is_left_out(browser, tmp_path):
    write(tmp_path / "a.pcap", exchange(5000, [10] * 50))
    show(browser, tmp_path / "a.pcap", kept=10)
    browser.execute_script("choose(run.frames[0])")
    assert text(browser, "frame-title") == "Frame 96, 9.600 milliseconds"


def test_wrap_ipv6_and_many_connections(browser, tmp_path):
    """Sequence numbers that pass 2**32, more frames than a call takes arguments, a list of thousands."""
    few = exchange(5000, [1000] * 20, first=2**32 - 5000, v6=True)
    write(tmp_path / "a.pcap", chain(few, *(exchange(2000 + n, [1]) for n in range(2000))))
    show(browser, tmp_path / "a.pcap")
    highest = browser.execute_script("return Math.max(...find('plot').data.find((each) => each.name === 'data').y)")
    assert highest == 20_000 and text(browser, "connection").startswith(
        "[fd00::a4d:1]:5000 → [fd00::a4d:2]:80, 46 frames"
    )
    browser.execute_script("find('connection').value = 1999; find('connection').dispatchEvent(new Event('change'))")
    assert text(browser, "list-title") == "Segments: 8 of this connection"
    browser.execute_script(
        "absorb({ ...JSON.parse(find('data').textContent), frames: Array(300000).fill(run.frames[3]) })"
    )
    assert quiet(browser)


def test_a_later_fragment_is_not_read_as_a_header(browser, tmp_path):
    packet = bytearray(exchange(5000, [40])[3][14:])
    packet[6:8] = b"\x20\x05"
    write(tmp_path / "a.pcap", [ethernet(bytes(packet))])
    show(browser, tmp_path / "a.pcap")
    browser.execute_script("choose(run.frames[0])")
    fields = text(browser, "fields")
    assert "from byte 40" in fields and "SEG.SEQ" not in fields


@pytest.mark.parametrize("width", [360, 800])
def test_a_narrow_window_is_not_wider_than_itself(browser, tmp_path, width):
    write(tmp_path / "a.pcap", exchange(5000, [10]))
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        show(browser, tmp_path / "a.pcap")
        browser.execute_script("choose(run.frames[3])")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_without_javascript_it_says_so(browser, tmp_path):
    write(tmp_path / "a.pcap", [])
    page = show(browser, tmp_path / "a.pcap")
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(page.as_uri())
        assert "JavaScript" in browser.find_element("css selector", "noscript").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_it_asks_no_network(browser, run, tmp_path):
    """A report; and the live page, nobody but its server."""
    show(browser, run.folder)
    asked = "return performance.getEntriesByType('resource').map((each) => each.name)"
    assert [name for name in browser.execute_script(asked) if not name.startswith("data:")] == []
    with WebPage(run.folder, 0) as page:
        load(browser, page.url)
        assert all(name.startswith((page.url, "data:")) for name in browser.execute_script(asked))


def test_live_page_outlives_silence_and_notices_another_run(browser, tmp_path):
    """The capture's header comes late, the server goes away and comes back, then with another run on its port."""
    run = folder(tmp_path / "run", exchange(5000, [10]), written="once")
    content = (run / CAPTURE).read_bytes()
    (run / CAPTURE).write_bytes(b"")
    with WebPage(run, 0) as page:
        browser.get(page.url)
        until(browser, "find('notes').textContent.includes('is not a capture')")
        (run / CAPTURE).write_bytes(content)
        until(browser, "drawn && run.framesRead === 8")
    until(browser, "find('notes').textContent.includes('does not answer')")
    with WebPage(run, urlsplit(page.url).port):
        until(browser, "!find('notes').textContent.includes('answer')")
    (run / RUN).write_text(json.dumps({"format": 1, "written": "twice"}))
    write(run / CAPTURE, exchange(5000, [10, 10]))
    (run / RECORD).write_text("")
    with WebPage(run, urlsplit(page.url).port):
        until(browser, "drawn && run.header.written === 'twice' && run.framesRead === 10")


def test_an_open_list_is_left_alone_while_the_run_goes_on(browser, tmp_path):
    first, then = exchange(5000, [10]), exchange(5001, [10])
    run = folder(tmp_path / "run", first, written="now")
    with WebPage(run, 0) as page:
        load(browser, page.url)
        browser.execute_script("window.before = find('connection').options[0]")
        write(run / CAPTURE, [*first, *then])
        until(browser, "find('connection').options.length === 2")
        assert browser.execute_script(
            "return window.before === find('connection').options[0] && window.before.selected"
        )
