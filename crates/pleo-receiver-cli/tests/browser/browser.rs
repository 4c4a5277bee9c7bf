//! Drives Chromium by `chromedriver`, over WebDriver (<https://www.w3.org/TR/webdriver2/>).
//!
//! `thirtyfour` would turn on `preserve_order` of `serde_json` also in the program under test, and
//! `fantoccini` brings twenty crates, among them a second ICU, for as many lines.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pleo_http::reqwest::Client;
use serde_json::{Value, json};

use crate::TOKEN;
use crate::support::program::RunningServer;

const TIMEOUT: Duration = Duration::from_secs(60);

/// How a browser shows pages.
#[derive(Clone, Copy)]
pub(crate) struct Screen {
    pub(crate) name: &'static str,
    width: u32,
    height: u32,
    is_dark: bool,
}

const fn screen(name: &'static str, width: u32, height: u32, is_dark: bool) -> Screen {
    Screen {
        name,
        width,
        height,
        is_dark,
    }
}

pub(crate) const DESKTOP: Screen = screen("desktop-light", 1280, 800, false);
pub(crate) const SCREENS: [Screen; 4] = [
    DESKTOP,
    screen("desktop-dark", 1280, 800, true),
    screen("phone-light", 390, 844, false),
    screen("phone-dark", 390, 844, true),
];

/// A browser. Killed with its driver on drop.
pub(crate) struct Browser {
    client: Client,
    /// The URL of the driver's session.
    session: String,
    process: Child,
    /// The URL of the inspection page.
    base: String,
}

impl Browser {
    /// Starts a browser, signs in and shows the overview. Returns `None` if there is no browser.
    pub(crate) async fn start(server: &RunningServer, screen: Screen) -> Option<Self> {
        let (process, port) = match start_driver() {
            Ok(started) => started,
            Err(error) => {
                assert!(
                    std::env::var_os("PLEO_TEST_FORBID_SKIP").is_none(),
                    "no `chromedriver`: {error}; install chromium and chromium-driver"
                );
                // Not captured as `eprintln!` is.
                let _ = writeln!(io::stderr(), "SKIPPED browser: no `chromedriver`");
                return None;
            }
        };
        let mut browser = Self {
            client: pleo_http::client("pleo-receiver", &[]).unwrap(),
            session: format!("http://127.0.0.1:{}/session", port),
            process,
            base: format!("http://{}", server.admin_address()),
        };
        let created = browser.post("", &capabilities(screen)).await.unwrap();
        let id = created["sessionId"].as_str().unwrap();
        browser.session = format!("{}/{id}", browser.session);
        browser.open("/").await;
        browser.wait_for("h1", "Sign in").await;
        browser.fill("#secret", TOKEN).await;
        browser.click("button.main").await;
        browser.wait_for("h1", "Overview").await;
        Some(browser)
    }

    /// Opens a page of the receiver.
    pub(crate) async fn open(&self, path: &str) {
        let url = format!("{}{path}", self.base);
        self.post("/url", &json!({ "url": url })).await.unwrap();
    }

    /// Clicks on the first element.
    pub(crate) async fn click(&self, css: &str) {
        let click = format!("{}/click", self.find(css).await);
        self.post(&click, &json!({})).await.unwrap();
    }

    /// Types a text into a field.
    pub(crate) async fn fill(&self, css: &str, text: &str) {
        let value = format!("{}/value", self.find(css).await);
        let text = json!({ "text": text });
        self.post(&value, &text).await.unwrap();
    }

    /// Waits until an element has a text. In one script, since the page may replace the element.
    pub(crate) async fn wait_for(&self, css: &str, text: &str) {
        let find = "const [css, text] = arguments; const found = document.querySelectorAll(css); \
                    return [...found].some((one) => one.textContent.includes(text))";
        let script = json!({ "script": find, "args": [css, text] });
        let deadline = Instant::now() + TIMEOUT;
        // Fails while the browser loads another page.
        while self.post("/execute/sync", &script).await != Ok(true.into()) {
            assert!(Instant::now() < deadline, "no {css} with {text:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs a script. Returns what it returns.
    pub(crate) async fn run(&self, script: &str) -> Value {
        let script = json!({ "script": script, "args": [] });
        self.post("/execute/sync", &script).await.unwrap()
    }

    /// Runs a script. Returns what it passes to its argument, a function.
    pub(crate) async fn run_async(&self, script: &str) -> Value {
        let script = json!({ "script": script, "args": [] });
        self.post("/execute/async", &script).await.unwrap()
    }

    /// Returns a picture of the page, as PNG.
    pub(crate) async fn screenshot(&self) -> Vec<u8> {
        let url = format!("{}/screenshot", self.session);
        let answer = self.client.get(url).send().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        STANDARD.decode(answer["value"].as_str().unwrap()).unwrap()
    }

    /// Ends the browser.
    pub(crate) async fn stop(self) {
        let deleted = self.client.delete(&self.session).send().await;
        assert!(deleted.unwrap().status().is_success());
    }

    /// Returns the path of an element.
    async fn find(&self, css: &str) -> String {
        let query = json!({ "using": "css selector", "value": css });
        let found = self.post("/element", &query).await.unwrap();
        let id = found.as_object().unwrap().values().next().unwrap();
        format!("/element/{}", id.as_str().unwrap())
    }

    /// Sends a command. Returns its value, or its error.
    async fn post(&self, path: &str, body: &Value) -> Result<Value, Value> {
        let request = self.client.post(format!("{}{path}", self.session));
        let answer = request.body(body.to_string()).timeout(TIMEOUT).send();
        let answer = answer.await.unwrap();
        let is_success = answer.status().is_success();
        let answer = answer.bytes().await.unwrap();
        let mut answer: Value = serde_json::from_slice(&answer).unwrap();
        let value = answer["value"].take();
        if is_success { Ok(value) } else { Err(value) }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a driver on a free port. Returns the port.
fn start_driver() -> io::Result<(Child, String)> {
    // A driver ends if another one took the same free port for IPv6.
    for _ in 0..10 {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null());
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            let port = line.split_once("started successfully on port ")?.1;
            Some(port.trim_end_matches('.').to_owned())
        });
        if let Some(port) = port {
            return Ok((process, port));
        }
        let status = process.wait().unwrap();
        let _ = writeln!(
            io::stderr(),
            "chromedriver exited: {status}; starting another"
        );
    }
    Err(io::Error::other("it exits each time"))
}

fn capabilities(screen: Screen) -> Value {
    let scheme = if screen.is_dark { 0 } else { 1 };
    let arguments = [
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        &format!("--blink-settings=preferredColorScheme={scheme}"),
    ];
    let metrics = json!({
        "width": screen.width,
        "height": screen.height,
        "pixelRatio": 1.0,
        "mobile": screen.width < 600,
    });
    let options = json!({
        "args": arguments,
        "mobileEmulation": { "deviceMetrics": metrics },
    });
    json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": options } } })
}
