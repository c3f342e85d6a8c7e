"""The web demo in a headless Chromium: bundled model, real controller, worker and page."""

import re
from pathlib import Path

import pytest

WAIT_MS = 120_000
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(root, start_program, tmp_path_factory):
    """The demo's address, and the folder of its votes."""
    votes = tmp_path_factory.mktemp("votes")
    controller = start_program("llava.serve.controller")
    start_program("llava.serve.model_worker", "--controller-address", controller)
    flags = ["--controller", controller, "--log-dir", votes]
    return start_program("llava.serve.gradio_web_server", *flags), votes


def open_page(browser, address: str, **viewport: int):
    page = browser.new_page(viewport=viewport or {"width": 1280, "height": 1000})
    page.set_default_timeout(WAIT_MS)
    page.outside = []
    page.on("request", lambda request: page.outside.append(request.url))
    page.goto(address)
    page.wait_for_selector("#question textarea")
    page.wait_for_function("document.querySelector('#model input')?.value == 'shapes-H'")
    page.locator(".latency-budget .control").first.wait_for()
    return page


def put(page, field: str, image: Path, question: str) -> None:
    with page.expect_response(lambda reply: "/upload" in reply.url):
        page.set_input_files(f"{field} input[type=file]", str(image))
    page.wait_for_selector(f"{field} img")
    page.fill(f"{field} textarea", question)
    page.locator(f"{field} textarea").press("Enter")


def choose(page, side: str, budget: str) -> None:
    page.locator(f"{side} .latency-budget input[type=number]").first.fill(budget)
    page.keyboard.press("Tab")


def answer_of(page, side: str = "", before: str = "") -> str:
    """The figures of a side's panel, once it shows other figures than ``before``."""
    figures = f"{side} .execution-plan table"
    page.wait_for_function(
        "([figures, old]) => ![undefined, old].includes(document.querySelector(figures)?.innerText)",
        arg=[figures, before],
    )
    return page.locator(figures).first.inner_text()


def test_chat_tab_asks_regenerates_votes_shares_reloads_and_clears(browser, address, root) -> None:
    """Add an image, ask, lower the budget and see another plan, vote, open the link, load the page anew, clear."""
    page = open_page(browser, address[0])
    put(page, "#question", root / "playground" / "shapes" / "demo.png", "What word is written in the picture?")
    full = answer_of(page)
    assert "10 of 10" in full and "(100 %)" in full and "80 of 80" in full
    assert "sun" in page.inner_text("#conversation")
    assert page.locator(".history").count() == 0
    choose(page, "", "50")
    page.click("#regenerate")
    assert "50 % of the compute" in answer_of(page, before=full)
    page.wait_for_selector(".history svg circle:nth-of-type(2)")
    page.get_by_role("button", name="Good answer").click()
    page.get_by_text("Thank you for your vote.").wait_for()
    assert len(list(address[1].glob("*-conv.json"))) == 1
    page.click("#share")
    page.wait_for_function("document.querySelector('#link textarea, #link input')?.value.includes('?chat=')")
    link = page.locator("#link textarea, #link input").input_value()
    other = open_page(browser, link)
    other.get_by_text("This conversation was shared with you.").wait_for()
    assert "sun" in other.inner_text("#conversation") and "?chat" not in other.url
    other.close()
    with page.expect_download() as loading:
        page.click("#download")
    written = Path(loading.value.path()).read_text()
    assert "What word is written in the picture?" in written and "<script" not in written
    page.reload()
    page.locator("#conversation").get_by_text("sun", exact=True).wait_for()
    assert "50 % of the compute" in answer_of(page) and page.locator(".history svg circle").count() == 2
    page.click("#clear")
    page.get_by_text("Ask something, and see here").first.wait_for()
    assert "sun" not in page.inner_text("#conversation")
    page.reload()
    page.wait_for_function("document.querySelector('#model input')?.value == 'shapes-H'")
    assert "sun" not in page.inner_text("#conversation")
    assert all(url.startswith((address[0], "data:", "blob:")) for url in page.outside), "nothing comes from outside"
    page.close()


@pytest.mark.parametrize("viewport", [{"width": 1280, "height": 1000}, {"width": 390, "height": 844}])
def test_chat_tab_shows_the_image_with_what_was_left_out_dimmed(browser, address, root, viewport) -> None:
    page = open_page(browser, address[0], **viewport)
    page.get_by_role("button", name="Settings").first.click()
    page.get_by_label("Image tokens").first.click()
    page.get_by_role("option", name="25%").click()
    put(page, "#question", root / "playground" / "shapes" / "demo.png", "What word is written in the picture?")
    page.wait_for_selector(".execution-plan .kept-patches svg path")
    assert "9 of 36" in page.locator(".execution-plan").first.inner_text()
    outline = page.locator(".kept-patches svg path").get_attribute("d")
    assert outline.count("M") == 27, "one square for each patch that was left out"
    box = page.locator(".kept-patches svg").bounding_box()
    assert abs(box["width"] - box["height"]) < 2 and 100 < box["width"] <= 260
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], "nothing to scroll sideways"
    assert all(url.startswith((address[0], "data:", "blob:")) for url in page.outside), "nothing comes from outside"
    page.close()


def test_compare_tab_asks_full_against_half_and_says_what_differs(browser, address, root) -> None:
    page = open_page(browser, address[0])
    page.get_by_role("tab", name="Compare").click()
    page.locator("#compare-B-budget .control").wait_for()
    budgets = [page.locator(f"#compare-{side}-budget input[type=number]").input_value() for side in "AB"]
    assert budgets == ["100", "50"]
    put(page, "#compare-question", root / "playground" / "shapes" / "demo.png", "What word is written in the picture?")
    page.wait_for_selector("#differences table")
    left, right = answer_of(page, "#compare-A"), answer_of(page, "#compare-B")
    assert "80 of 80" in left and "60 of 80" in right
    said = page.inner_text("#differences")
    assert re.search(r"Both answers are the same; (B began|both first tokens)", said)
    assert re.search(r"attention heads\s+80 of 80\s+60 of 80\s+−25 %", said)
    page.close()


def test_page_on_a_phone_folds_examples_and_needs_no_sideways_scrolling(browser, address) -> None:
    page = open_page(browser, address[0], width=390, height=844)
    page.wait_for_function("document.documentElement.scrollWidth <= 390")
    example = page.locator(".examples .gallery-item").first
    example.wait_for(state="hidden")
    page.get_by_role("button", name="Examples").first.click()
    example.click()
    page.wait_for_selector("#question img")
    assert page.input_value("#question textarea") == "What colour is the triangle?"
    page.close()


def test_examples_show_different_images(browser, address) -> None:
    page = open_page(browser, address[0])
    images = page.locator(".examples").first.locator("img")
    assert len({images.nth(number).get_attribute("src") for number in range(images.count())}) == images.count() == 3
    page.close()


def test_page_without_a_worker_says_so(browser, start_program) -> None:
    controller = start_program("llava.serve.controller")
    demo = start_program("llava.serve.gradio_web_server", "--controller", controller)
    page = browser.new_page()
    page.set_default_timeout(WAIT_MS)
    page.goto(demo)
    page.get_by_text("No model is being served.").wait_for()
    page.fill("#question textarea", "What?")
    page.locator("#question textarea").press("Enter")
    page.get_by_text("choose Reload models").wait_for()
    assert page.input_value("#question textarea") == "What?", "kept, to be asked once there is a model"
    page.close()
