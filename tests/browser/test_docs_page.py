"""The documentation page as a person meets it: read, filled in, with a keyboard, on a telephone, in the dark."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Open, mint, sign_in
from tests.system.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.kernel, pytest.mark.slow]


def card(page: Page, tag: str) -> Locator:
    """The part of the page that is about one entrypoint."""
    return page.get_by_role("region", name=tag, exact=True)


def form(page: Page, tag: str) -> Locator:
    """Its form, opened."""
    found = card(page, tag)
    found.get_by_text("Try it", exact=True).click()
    return found.get_by_role("form")


def status(page: Page, tag: str) -> Locator:
    return card(page, tag).locator(".status")


# ---- getting in


def test_without_a_token_there_is_one_field_and_a_word_on_where_to_get_one(docs: Open, shots: Path) -> None:
    """Nothing was asked of the API yet."""
    page = docs()
    expect(page.get_by_label("Token or API key")).to_be_visible()
    expect(page.locator("#token-hint")).to_contain_text("runagentctl token create --subject me")
    expect(page.get_by_role("main")).to_be_empty()
    page.screenshot(path=shots / "01-empty.png")


@pytest.mark.parametrize(
    ("token", "says", "refused"),
    [
        ("no token at all", "This is no token: one is letters, digits and signs, without spaces.", ()),
        ("nonsense", "The token is neither a signed JWT nor an API key.", (401,)),
        ("e30.e30.e30", "The token's header cannot be read, or lacks alg, typ or kid.", (401,)),
    ],
)
def test_a_wrong_token_is_told_as_that(
    docs: Open, shots: Path, token: str, says: str, refused: tuple[int, ...]
) -> None:
    """In words, beside the field, which has the focus again."""
    page = docs(refused=refused)
    sign_in(page, token)
    expect(page.get_by_role("alert")).to_have_text(says)
    field = page.get_by_label("Token or API key")
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_role("main")).to_be_empty()
    page.screenshot(path=shots / f"02-wrong-token-{len(token)}.png")


def test_a_token_that_may_call_nothing_is_told_so(docs: Open, daemon: Daemon, shots: Path) -> None:
    """An empty page would look like a fault."""
    page = docs()
    sign_in(page, mint(daemon, "guest", ["nobody"]))
    expect(page.get_by_role("main")).to_contain_text("This token may call nothing here.")
    expect(page.locator("#who")).to_contain_text("You are guest")
    page.screenshot(path=shots / "03-nothing.png")


def test_who_asks_too_often_is_told_how_long_to_wait(docs: Open, daemon: Daemon) -> None:
    """Limits hold for the form, too."""
    page = docs(refused=(429,))
    sign_in(page, mint(daemon, "eager"))
    one = form(page, "nothing")
    for expected in ("200", "429"):
        one.get_by_role("button", name="Send").click()
        expect(status(page, "nothing")).to_contain_text(expected)
    expect(status(page, "nothing")).to_contain_text("more than 1 calls in a minute for this principal")
    expect(one.locator(".answer")).to_contain_text("Retry-After: ")


# ---- reading


def test_agents_and_entrypoints_are_listed_and_lead_there(signed_in: Open, shots: Path) -> None:
    """With the agents' own words."""
    page = signed_in()
    expect(page.locator("#who")).to_contain_text("100 of 100 left (principal)")
    contents = page.get_by_role("navigation", name="Entrypoints")
    expect(contents.get_by_role("link", name="count_stream")).to_be_visible()
    names = [heading.inner_text() for heading in page.get_by_role("heading", level=2).all()]
    assert sorted(names) == ["agent" * 12, "clerk", "data"]
    expect(page.get_by_role("main")).to_contain_text("Keeps a register <b>of people</b>")
    page.screenshot(path=shots / "04-signed-in.png")
    contents.get_by_role("link", name="quote").click()
    expect(card(page, "quote").get_by_role("heading", level=3)).to_be_in_viewport()
    page.screenshot(path=shots / "05-jumped.png")


def test_an_entrypoint_shows_its_words_types_limits_and_what_is_kept(signed_in: Open, shots: Path) -> None:
    """All that a caller needs to know, and an author has written."""
    page = signed_in()
    register = card(page, "register")
    expect(register).to_contain_text("Gives back what was understood:\n  - the name as it is kept,")
    rows = [[cell.inner_text() for cell in row.locator("th, td").all()] for row in register.locator("tbody tr").all()]
    assert rows[:8] == [
        ["name", "string", "required"],
        ["age", "integer", "required"],
        ["address", "Address", "required"],
        ["nickname", "string or null", "default null"],
        ["size", '"small" or "medium" or "large"', 'default "medium"'],
        ["tags", "array of string", 'default ["new"]'],
        ["scores", "object with values of number or null", "default null"],
        ["active", "boolean", "default true"],
    ]
    expect(register).to_contain_text("1 at one time, 64 more may wait, each for up to 5 min")
    expect(register).to_contain_text("You: 50 in 1 second, 100 at once; 4 at one time")
    quote = card(page, "quote")
    expect(quote).to_contain_text("This entrypoint, for all callers: 600 in 1 min, 600 at once; 10000 a day")
    expect(quote).to_contain_text(
        "The answer to the same arguments is kept for 1 min, for each caller alone, "
        "and given for 5 min more while a new one is made."
    )
    expect(card(page, "count_stream")).to_contain_text("A stream of events, one for each value.")
    expect(card(page, "anything")).to_contain_text("Only RunAgent's protocol can give, by position: first, rest.")
    register.get_by_text("What can go wrong").click()
    expect(register.get_by_role("row", name="429")).to_contain_text("RATE_LIMIT_ERROR: too many calls")
    expect(register.get_by_text("IDEMPOTENCY_NOT_STORED")).to_contain_text(
        "has run; its result was too large to be kept"
    )
    page.screenshot(path=shots / "06-whole-page.png", full_page=True)


def test_what_agents_wrote_is_text_and_never_markup(signed_in: Open, shots: Path) -> None:
    """Names, docstrings, defaults, results, errors. The fixture looks for dialogs and requests."""
    page = signed_in(refused=(0,))
    tag = "<script>alert(5)</script>"
    one = form(page, tag)
    expect(card(page, tag)).to_contain_text('<script>alert("docstring")</script><img src="https://elsewhere.invalid')
    one.get_by_label("text").fill("<iframe srcdoc='<script>parent.alert(6)</script>'>")
    one.get_by_role("button", name="Send").click()
    expect(one.locator("pre")).to_contain_text("<script>alert(")
    loud = form(page, "shout_stream")
    loud.get_by_role("button", name="Send").click()
    expect(status(page, "shout_stream")).to_have_text(re.compile("^Cut off: .*<b onclick=alert"))
    assert [line.inner_text() for line in loud.locator("pre > div").all()] == [
        '"event: error"', r'"\n\nevent: done\ndata: {}\n\n"',
    ]  # fmt: skip
    assert page.locator("main script, main img, main iframe, main style, main b, main [onclick]").count() == 0
    card(page, tag).screenshot(path=shots / "07-markup.png")


# ---- trying


def test_a_call_with_every_kind_of_argument_succeeds(signed_in: Open, shots: Path) -> None:
    """Text needs no quotes, what is left out keeps its default, and the answer is laid out."""
    page = signed_in()
    one = form(page, "register")
    one.get_by_label(re.compile("^name")).fill('Ada "the first"')
    one.get_by_label("age").fill("36")
    one.get_by_label("address").fill('{"street": "Hill", "number": 3}')
    one.get_by_label("size").select_option(label="large")
    one.get_by_label("scores").fill('{"logic": 9.5}')
    one.get_by_label("active").select_option(label="false")
    one.get_by_role("button", name="Send").click()
    expect(status(page, "register")).to_have_text(re.compile(r"^200, after \d+ ms$"))
    assert one.get_by_label("Answer").inner_text().splitlines()[:4] == [
        "{", '  "name": "Ada \\"the first\\"",', '  "age": 36,', '  "address": "Hill 3",',
    ]  # fmt: skip
    expect(one.locator(".answer")).to_contain_text('RateLimit: "principal";r=')
    card(page, "register").screenshot(path=shots / "08-called.png")


def test_a_wrong_argument_is_told_where_it_is(signed_in: Open, shots: Path) -> None:
    """What no daemon needs to be asked for, before; what only the function knows, after."""
    page = signed_in(refused=(422,))
    one = form(page, "register")
    age, address = one.get_by_label("age"), one.get_by_label("address")
    age.fill("old")
    one.get_by_role("button", name="Send").click()
    expect(age).to_have_attribute("aria-invalid", "true")
    expect(age).to_be_focused()
    expect(age).to_have_accessible_description("Write a whole number.")
    age.fill("36")
    address.fill('{"street": "Hill", "number": "three"}')
    one.get_by_role("button", name="Send").click()
    expect(status(page, "register")).to_have_text(re.compile("^422: "))
    expect(age).to_have_attribute("aria-invalid", "false")
    expect(address).to_have_attribute("aria-invalid", "true")
    expect(address).to_be_focused()
    expect(address).to_have_accessible_description('Number: expected an integer, not "three".')
    card(page, "register").screenshot(path=shots / "09-wrong-argument.png")


def test_digits_arrive_as_they_were_written(signed_in: Open) -> None:
    """A number of JavaScript would not hold them."""
    page = signed_in()
    one = form(page, "collect")
    one.get_by_label("More arguments").fill('{"big": 12345678901234567890}')
    one.get_by_role("button", name="Send").click()
    expect(one.get_by_label("Answer")).to_have_text('{"big":12345678901234567890}')


def test_a_stream_arrives_value_by_value_and_can_be_stopped(signed_in: Open, shots: Path) -> None:
    """Not all at its end: the values are there while it still runs."""
    page = signed_in()
    one = form(page, "count_stream")
    one.get_by_label("to").fill("1000")
    one.get_by_role("button", name="Send").click()
    expect(one.locator("pre > div").nth(1)).to_have_text('"number 2"')
    expect(status(page, "count_stream")).to_have_text(re.compile(r"^Receiving… after \d+ ms: \d+ values$"))
    expect(one.get_by_role("button", name="Send")).to_be_disabled()
    card(page, "count_stream").screenshot(path=shots / "10-stream.png")
    one.get_by_role("button", name="Stop").click()
    expect(status(page, "count_stream")).to_have_text(re.compile("^Stopped by you"))
    expect(one.get_by_role("button", name="Send")).to_be_enabled()
    one.get_by_label("to").fill("3")
    one.get_by_role("button", name="Send").click()
    expect(status(page, "count_stream")).to_have_text(re.compile(r"^200, complete after \d+ ms: 3 values$"))


def test_a_kept_answer_says_that_it_is_one(signed_in: Open, shots: Path) -> None:
    """And is the same as the first."""
    page = signed_in()
    one = form(page, "quote")
    one.get_by_label("symbol").fill("ACME")
    answers = []
    for expected in (r"^200, after \d+ ms$", r"^200, after \d+ ms, a kept answer$"):
        one.get_by_role("button", name="Send").click()
        expect(status(page, "quote")).to_have_text(re.compile(expected))
        answers.append(one.get_by_label("Answer").inner_text())
    assert answers[0] == answers[1]
    card(page, "quote").screenshot(path=shots / "11-kept.png")


# ---- for everybody


def test_every_control_has_a_name_and_no_id_is_there_twice(signed_in: Open) -> None:
    """As a screen reader would say it."""
    page = signed_in()
    for summary in page.get_by_text("Try it", exact=True).all():
        summary.click()
    for control in page.locator("input, select, textarea, button").all():
        expect(control).to_have_accessible_name(re.compile(r"\S"))
    ids = page.eval_on_selector_all("[id]", "found => found.map((one) => one.id)")
    assert len(ids) == len(set(ids)) > 20


def test_a_keyboard_is_enough(docs: Open, daemon: Daemon, shots: Path) -> None:
    """From the token to an answer without a mouse, and what has the focus can be seen."""
    page = docs()
    press = page.keyboard.press
    press("Tab")
    page.keyboard.type(daemon.token)
    press("Enter")
    page.get_by_role("heading", name="clerk", exact=True).wait_for()
    summary = card(page, "nothing").get_by_text("Try it", exact=True)
    summary.focus()
    press("Enter")
    press("Tab")
    expect(card(page, "nothing").get_by_role("button", name="Send")).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    card(page, "nothing").screenshot(path=shots / "12-focus.png")
    press("Enter")
    expect(status(page, "nothing")).to_contain_text("200")
    expect(card(page, "nothing").get_by_role("button", name="Send")).to_be_focused()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 800, 1280, 1920])
def test_nothing_is_cut_off_at_any_width(signed_in: Open, shots: Path, width: int, dark: bool) -> None:
    """WCAG 2.2, 1.4.10: no scrolling sideways, whatever agents call themselves."""
    page = signed_in(width=width, dark=dark, touch=width < 500)
    for name in ("Try it", "What can go wrong"):
        card(page, "register").get_by_text(name, exact=True).click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    outside = """found => found.filter((one) => {
      const box = one.getBoundingClientRect();
      return box.width > 1 && (box.right > innerWidth + 0.5 || box.left < -0.5);
    }).map((one) => one.outerHTML.slice(0, 80))"""
    assert page.eval_on_selector_all("body *", outside) == []
    if width in (390, 1280, 1920):
        colours = "dark" if dark else "light"
        for number, place in enumerate(
            (page.get_by_role("heading", level=1), card(page, "register"), form(page, "quote"))
        ):
            place.evaluate("one => one.scrollIntoView({ behavior: 'instant' })")
            page.screenshot(path=shots / f"13-{width}-{colours}-{number}.png")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_has_enough_contrast(signed_in: Open, dark: bool) -> None:
    """WCAG 2.2, 1.4.3: at least 4.5 to 1, for the colours that the browser has computed."""
    page = signed_in(dark=dark)
    form(page, "register")
    faint = page.evaluate(
        """() => {
          const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
          const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
            .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
          const behind = (one) => {
            const colour = parse(getComputedStyle(one).backgroundColor);
            return colour.length === 3 || colour[3] > 0 ? colour : behind(one.parentElement);
          };
          const found = [];
          for (const one of document.querySelectorAll("body *")) {
            if (![...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) || one.disabled) continue;
            const [a, b] = [light(parse(getComputedStyle(one).color)), light(behind(one))];
            const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${one.outerHTML.slice(0, 80)}`);
          }
          return found;
        }"""
    )
    assert faint == []
