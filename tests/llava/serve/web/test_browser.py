"""The web demo in a headless Chromium: bundled model, real controller, worker and page."""

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
    page.wait_for_function("document.querySelector('#model input').value == 'shapes-H'")
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


def plan_of(page, side: str, other_than: str | None = None) -> tuple[str, str]:
    """Plot and text of a panel, once it shows another plot than before."""
    page.wait_for_function(
        "([panel, old]) => { const i = document.querySelector(panel + ' img'); return i && i.src != old }",
        arg=[f"{side} .execution-plan", other_than],
    )
    panel = page.locator(f"{side} .execution-plan").first
    return panel.locator("img").get_attribute("src"), panel.inner_text()


def test_chat_tab_asks_regenerates_votes_and_clears(browser, address, root) -> None:
    """Add an image, ask, move the slider and see another plan, regenerate, vote, clear."""
    page = open_page(browser, address[0])
    image = root / "playground" / "shapes" / "demo.png"
    put(page, "#question", image, "What word is written in the picture?")
    dense_plan, text = plan_of(page, "")
    assert "10 of 10" in text and "(100 %)" in text
    assert "sun" in page.inner_text("#conversation")
    choose(page, "", "0.6")
    page.click("#regenerate")
    plan, text = plan_of(page, "", dense_plan)
    assert plan != dense_plan and "48 of 80" in text and "not measured yet" not in text
    page.get_by_role("button", name="Good answer").click()
    page.get_by_text("Thank you.").wait_for()
    assert len(list(address[1].glob("*-conv.json"))) == 1
    page.click("#clear")
    page.get_by_text("Ask something: what ran").first.wait_for()
    assert "sun" not in page.inner_text("#conversation")
    page.click("#regenerate")
    page.get_by_text("there is no question yet").first.wait_for()
    assert all(url.startswith((address[0], "data:", "blob:")) for url in page.outside), "nothing comes from outside"
    page.close()


@pytest.mark.parametrize("viewport", [{"width": 1280, "height": 1000}, {"width": 390, "height": 844}])
def test_chat_tab_shows_the_image_with_what_was_left_out_dimmed(browser, address, root, viewport) -> None:
    page = open_page(browser, address[0], **viewport)
    page.get_by_label("Image tokens").click()
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


def test_compare_tab_two_budgets_show_two_plans(browser, address, root) -> None:
    page = open_page(browser, address[0])
    page.get_by_role("tab", name="Compare").click()
    choose(page, "#compare-right", "0.55")
    put(page, "#compare-question", root / "playground" / "shapes" / "demo.png", "What word is written in the picture?")
    right, text_right = plan_of(page, "#compare-right")
    left, text_left = plan_of(page, "#compare-left")
    assert left != right and "80 of 80" in text_left and "44 of 80" in text_right
    page.close()


def test_page_on_a_phone_needs_no_sideways_scrolling(browser, address) -> None:
    page = open_page(browser, address[0], width=390, height=844)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_page_without_a_worker_says_so(browser, start_program) -> None:
    controller = start_program("llava.serve.controller")
    demo = start_program("llava.serve.gradio_web_server", "--controller", controller)
    page = browser.new_page()
    page.set_default_timeout(WAIT_MS)
    page.goto(demo)
    page.get_by_text("No model is being served.").wait_for()
    page.close()
