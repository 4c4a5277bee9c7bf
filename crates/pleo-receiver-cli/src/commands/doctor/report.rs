//! Prints the result of each check.

use std::io::{self, Write};

use serde_json::json;

use crate::escape::escape;
use crate::failure::Failure;
use crate::output;

/// Prints checks as they finish: lines for people, or a JSON object a line.
pub(super) struct Report {
    json: bool,
    endpoint: Option<String>,
    ok: usize,
    skipped: usize,
    failed: usize,
}

impl Report {
    pub(super) const fn new(json: bool) -> Self {
        Self {
            json,
            endpoint: None,
            ok: 0,
            skipped: 0,
            failed: 0,
        }
    }

    /// Starts the checks of an endpoint.
    pub(super) fn start_endpoint(&mut self, name: &str) -> io::Result<()> {
        self.endpoint = Some(name.to_owned());
        if self.json {
            return Ok(());
        }
        writeln!(io::stdout().lock(), "\nendpoint {}", escape(name))
    }

    pub(super) fn ok(&mut self, check: &str, found: &str) -> io::Result<()> {
        self.ok += 1;
        self.print("ok", check, found, None)
    }

    /// Reports a check that could not run.
    pub(super) fn skipped(&mut self, check: &str, why: &str) -> io::Result<()> {
        self.skipped += 1;
        self.print("skipped", check, why, None)
    }

    pub(super) fn failed(&mut self, check: &str, found: &str, fix: &str) -> io::Result<()> {
        self.failed += 1;
        self.print("failed", check, found, Some(fix))
    }

    /// Prints the number of checks. Fails if a check has failed.
    pub(super) fn end(self) -> Result<(), Failure> {
        if !self.json {
            let (ok, failed, skipped) = (self.ok, self.failed, self.skipped);
            writeln!(
                io::stdout().lock(),
                "\n{ok} ok, {failed} failed, {skipped} skipped"
            )?;
        }
        if self.failed == 0 {
            Ok(())
        } else {
            Err(Failure::AlreadyReported)
        }
    }

    fn print(&self, state: &str, check: &str, found: &str, fix: Option<&str>) -> io::Result<()> {
        if self.json {
            return output::json(&json!({
                "check": check,
                "endpoint": self.endpoint,
                "state": state,
                "found": found,
                "fix": fix,
            }));
        }
        let mut out = io::stdout().lock();
        let state = if state == "failed" { "FAILED" } else { state };
        writeln!(out, "{state:7} {check:13} {}", escape(found))?;
        if let Some(fix) = fix {
            writeln!(out, "        {:13} {}", "fix", escape(fix))?;
        }
        Ok(())
    }
}
