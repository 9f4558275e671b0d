"""A headless Chromium driven over WebDriver with the standard library only."""
import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.request


def available():
    """Whether pages can be looked at here; where not, prints why."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        print("skipped: no chromium and chromium-driver (scripts/setup.sh --browser installs them)")
        return False
    try:
        with Browser():
            return True
    except RuntimeError as error:
        print(f"skipped: {error}")
        return False


class Browser:
    def __init__(self, width=1400, height=1000, phone=False, dark=False):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.driver = subprocess.Popen(["chromedriver", f"--port={self.port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        options = {"args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage",
                            "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
                            f"--window-size={width},{height}"] + (["--force-dark-mode"] if dark else [])}
        if phone:
            options["mobileEmulation"] = {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 1, "touch": True}}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options,
                                                   "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}}}
        self.session = ""
        for attempt in range(100):
            try:
                self.session = "/session/" + self.call("POST", "/session", wanted)["sessionId"]
                break
            except OSError as error:
                last = error
                time.sleep(0.1)
        else:
            self.driver.kill()
            raise RuntimeError(f"chromedriver begins no session: {last}")

    def call(self, method, path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{self.session}{path}", method=method,
                                         data=None if body is None else json.dumps(body).encode(),
                                         headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def open(self, path):
        self.call("POST", "/url", {"url": f"file://{path}"})

    def run(self, script, *arguments):
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def until(self, script, *arguments, seconds=30):
        """Runs a script again and again until it returns what is true: a page answers events in frames of its own, late on a loaded machine."""
        end = time.monotonic() + seconds
        while not (value := self.run(script, *arguments)) and time.monotonic() < end:
            time.sleep(0.02)
        return value

    def busy_s(self):
        """Processor time of the page's main thread so far, seconds: what a loaded machine does not change."""
        self.command("Performance.enable", timeDomain="threadTicks")
        return next(m["value"] for m in self.command("Performance.getMetrics")["metrics"] if m["name"] == "TaskDuration")

    def command(self, name, **parameters):
        return self.call("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def log(self, kind):
        return self.call("POST", "/se/log", {"type": kind})

    def screenshot(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("GET", "/screenshot")))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.call("DELETE", "")
        except OSError:
            pass
        self.driver.terminate()
        self.driver.wait(timeout=10)
