"""The page of `kmatting.demo` in a headless Chromium."""

import base64
import json
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from demo_server import wait_for
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

_PASTE = """
const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], "image.png", { type: "image/png" }));
document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
"""
_FETCH = """
const [url, done] = arguments;
document.addEventListener("securitypolicyviolation", (event) => done(event.blockedURI));
fetch(url).catch(() => setTimeout(() => done("nothing"), 1000));
"""


class Browser:
    """One browser; `open` gives it a page of its own each time.

    Args:
        downloads: the folder that downloads go to.
        arguments: for Chromium, beside those that every test needs.

    Attributes:
        driver: Selenium's driver.
        downloads: the folder that downloads go to.
    """

    def __init__(self, downloads: Path, *arguments: str):
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        options.add_argument("--headless=new")
        options.add_argument("--disable-dev-shm-usage")
        options.add_argument("--window-size=1280,900")
        # Whatever the page asked elsewhere would fail, and be noted all the same.
        options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
        for argument in arguments:
            options.add_argument(argument)
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
        self.driver.set_page_load_timeout(180)
        self.downloads = downloads
        self._blank = self.driver.current_window_handle

    def open(self, url: str):
        """Opens the page in a new tab, which becomes the current one; returns its handle."""
        self.driver.switch_to.new_window("tab")
        self.driver.get(url)
        wait_for(lambda: self.button("Save matte") and self.find("#photo input[type=file]"))
        return self.driver.current_window_handle

    def close_pages(self):
        for handle in self.driver.window_handles:
            if handle != self._blank:
                self.driver.switch_to.window(handle)
                self.driver.close()
        self.driver.switch_to.window(self._blank)

    def find(self, selector: str):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def messages(self) -> str:
        """What is said in the corner of the page."""
        return " ".join(each.text for each in self.find("[data-testid=toast-body]"))

    def button(self, text: str):
        """The visible button with a text, or None."""
        try:
            return next((each for each in self.find("button") if each.text == text), None)
        except StaleElementReferenceException:  # the page is being redrawn
            return None

    def choose(self, photo: Path, selector: str = "#photo"):
        """Chooses a photo, or a background."""
        wait_for(lambda: self.find(f"{selector} input[type=file]"))[0].send_keys(str(photo))

    def give(self, photo: Path, selector: str = "#photo"):
        """Chooses a photo, or a background, and waits for what is made of it."""
        before = self.results()
        self.choose(photo, selector)
        self.wait_for_results(before)

    def remove_photo(self):
        """Presses the cross at the photo, and waits until its results are gone."""
        self.find("#photo button[aria-label*=emove], #photo button[aria-label=Clear]")[0].click()
        wait_for(lambda: not self.find(".comparison img"))

    def paste(self, photo: Path):
        before = self.results()
        self.driver.execute_script(_PASTE, base64.b64encode(photo.read_bytes()).decode())
        self.wait_for_results(before)

    def results(self) -> set[str]:
        """Addresses of the pictures in the visible comparison."""
        images = self.find(".comparison img")
        return {each.get_attribute("src") for each in images if each.is_displayed()}

    def savable_results(self) -> set[str]:
        """Addresses of the pictures in the visible comparison, once all results can be saved."""
        try:
            button = self.button("Save composite")
            return self.results() if button and button.is_enabled() else set()
        except StaleElementReferenceException:  # the page is being redrawn
            return set()

    def wait_for_results(self, before: set[str]):
        """Waits until there are new results, and all of them can be saved."""
        wait_for(lambda: self.savable_results() - before)

    def shows(self, folders: set[str]) -> bool:
        """Whether results of one of the server's folders are visible, and can be saved."""
        results = self.savable_results()
        return any(f"/{folder}/" in address for folder in folders for address in results)

    def show(self, tab: str):
        """Opens a tab of the results."""
        tabs = {each.text: each for each in self.find("button[role=tab]")}
        tabs[tab].click()
        wait_for(lambda: tabs[tab].get_attribute("aria-selected") == "true")

    def choose_colour(self, colour: str):
        """Types a colour into the picker."""
        before = self.results()
        self.find("#colour .dialog-button")[0].click()
        field = wait_for(lambda: self.find("#colour input[type=text]"))[0]
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(colour, Keys.ENTER)
        self.wait_for_results(before)

    def save(self, name: str) -> tuple[str, bytes]:
        """Presses a button; returns name and content of the file that it saves."""
        self.button(f"Save {name}").click()

        def finished():
            return [path for path in self.downloads.glob("*.png") if path.stat().st_size]

        (path,) = wait_for(finished)
        content = path.read_bytes()
        path.unlink()
        return path.name, content

    def violations(self) -> list[str]:
        """What the console said since this was last called of things that a policy blocks."""
        messages = [entry["message"] for entry in self.driver.get_log("browser")]
        return [each for each in messages if "Content Security Policy" in each]

    def blocked(self, url: str) -> str:
        """Asks for an address from the page; returns the address that its policy blocked."""
        return self.driver.execute_async_script(_FETCH, url)

    def asked(self) -> set[str]:
        """The hosts that the page asked for anything since this was last called."""
        hosts = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                address = urlsplit(message["params"]["request"]["url"])
                if address.scheme not in ("data", "blob"):
                    hosts.add(address.hostname)
            elif message["method"] == "Network.webSocketCreated":
                hosts.add(urlsplit(message["params"]["url"]).hostname)
        return hosts
