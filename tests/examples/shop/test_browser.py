"""The shop in a browser, as its customers see it: headless Chromium, driven through chromedriver."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from anyio import to_thread
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.examples.shop.stage import DEADLINE_SECONDS, Stage


@pytest.fixture
def browser() -> Generator[Chrome]:
    """What the system has; nothing is downloaded."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("there is no Chromium with its driver here: apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = chromium
    options.add_argument("--headless=new")
    options.add_argument("--disable-dev-shm-usage")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium's sandbox refuses to be root's
    with Chrome(options, ChromeService(driver)) as chrome:
        yield chrome


class Customer:
    """Somebody in front of the browser."""

    def __init__(self, browser: Chrome) -> None:
        self._browser = browser

    def goes_to(self, url: str) -> None:
        self._browser.get(url)

    def reads(self) -> str:
        """All words of the page: asked for in one breath, for elements go when the next page comes."""
        script = "return document.body?.innerText ?? ''"
        text = str(self._browser.execute_script(script))  # pyright: ignore[reportUnknownMemberType]
        return " ".join(text.split())

    def finds(self, text: str) -> None:
        """Waits until the page says so."""
        page = WebDriverWait(self._browser, DEADLINE_SECONDS)
        page.until(lambda _: text in self.reads(), f"no {text!r} on the page")

    def presses(self, name: str, row: str = "") -> None:
        """A button by its name; in a table, that of a row."""
        within = f"//tr[td[1][normalize-space()='{row}']]" if row else ""
        self._browser.find_element(By.XPATH, f"{within}//button[normalize-space()='{name}']").click()

    def follows(self, name: str) -> None:
        self._browser.find_element(By.LINK_TEXT, name).click()

    async def does(self, act: Callable[[Customer], None]) -> None:
        """Lets the customer act. What they saw last is kept in a picture if it does not go well."""
        try:
            await to_thread.run_sync(act, self)
        except Exception as error:
            picture = Path(tempfile.mkdtemp(prefix="operon-shop-")) / "page.png"
            picture.write_bytes(self._browser.get_screenshot_as_png())
            error.add_note(f"the page: {self._browser.current_url}, {picture}")
            raise


async def test_a_customer_buys_and_pays(open_stage: Stage, browser: Chrome) -> None:
    def buys_a_teapot(customer: Customer) -> None:
        customer.goes_to(open_stage.shop_url)
        customer.presses("Buy", row="teapot")
        customer.finds("Pay 19.99")
        customer.presses("Pay")
        customer.finds("This is paid.")
        customer.follows("Back to the shop")
        customer.finds("It is paid.")
        customer.follows("Back to the shop")
        customer.finds("Orders teapot paid")
        customer.finds("teapot 19.99 4 Buy")

    await Customer(browser).does(buys_a_teapot)

    assert await open_stage.at_provider("select cents from charges") == [(1999,)]


async def test_a_customer_thinks_better_of_it(open_stage: Stage, browser: Chrome) -> None:
    def changes_their_mind(customer: Customer) -> None:
        customer.goes_to(open_stage.shop_url)
        customer.presses("Buy", row="samovar")
        customer.finds("Pay 249.00")
        customer.goes_to(open_stage.shop_url)
        customer.finds("Orders samovar reserved")
        customer.follows("samovar")
        customer.finds("It waits for your payment.")
        customer.follows("your payment")
        customer.presses("Cancel")
        customer.finds("This is cancelled.")
        customer.follows("Back to the shop")
        customer.finds("It is cancelled.")
        customer.follows("Back to the shop")
        customer.finds("samovar 249.00 1 Buy")

    await Customer(browser).does(changes_their_mind)

    assert await open_stage.at_provider("select cents from charges") == []


async def test_the_shop_is_killed_while_its_customer_pays(stage: Stage, browser: Chrome) -> None:
    customer = Customer(browser)

    def goes_to_pay(customer: Customer) -> None:
        customer.goes_to(stage.shop_url)
        customer.presses("Buy", row="cup")
        customer.finds("Pay 4.99")

    def pays(customer: Customer) -> None:
        customer.presses("Pay")
        customer.finds("This is paid.")

    def comes_back(customer: Customer) -> None:
        customer.follows("Back to the shop")
        customer.finds("It is paid.")

    async with stage.provider():
        async with stage.shop() as shop:
            await customer.does(goes_to_pay)
            await shop.kill()
        await customer.does(pays)
        async with stage.shop():
            await stage.state(await stage.only_order())
            await customer.does(comes_back)

    assert await stage.in_shop("select stock from products where product = 'cup'") == [(11,)]
