//! A handler that runs a command.

use core::pin::pin;
use core::time::Duration;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time;
use tracing::debug;

use super::{Delivery, Handler, HandlerFuture};

/// How much of what a command prints is kept.
const TAIL: usize = 1024;

/// How long to go on reading what a command printed after it ended: something that it left running
/// may hold the pipe open for ever.
const PIPE_GRACE: Duration = Duration::from_millis(200);

/// Runs a command for each message, without a shell.
///
/// The body comes on standard input, byte for byte, and nothing of the message is ever in the
/// arguments. The environment holds, beside what the receiver's own does, `PLEO_WEBHOOK_ID`,
/// `PLEO_ENDPOINT`, `PLEO_EVENT_TYPE`, `PLEO_EVENT_ID`, `PLEO_ATTEMPT` (counted from 1),
/// `PLEO_RECEIVED_AT` and `PLEO_EXPIRES_AT` (RFC 3339), and `PLEO_EXPIRED`, which is 1 where the job
/// expired before this attempt; those without a value are not set. Every other variable named `PLEO_…` is taken away, since the receiver's secrets may be among them.
///
/// Exit code 0 is a success, anything else a failure. The end of what a failed command printed to
/// standard error is kept with the message; the rest of its output is logged at level `debug`. When
/// the time limit is over or the receiver stops, the command and everything that it started are
/// killed (on Unix: its process group).
#[derive(Clone, Debug)]
pub struct Exec {
    program: OsString,
    args: Vec<OsString>,
    hidden: BTreeSet<OsString>,
}

impl Exec {
    /// Runs this program, found by `PATH` unless it holds a slash.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            hidden: BTreeSet::new(),
        }
    }

    /// Gives the program these arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Takes these variables out of the command's environment too.
    #[must_use]
    pub fn without_env(mut self, names: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.hidden.extend(names.into_iter().map(Into::into));
        self
    }

    async fn run(&self, delivery: &Delivery) -> Result<(), ExecError> {
        let mut child = self
            .command(delivery)
            .spawn()
            .map_err(|source| ExecError::Start {
                program: self.program.clone(),
                source,
            })?;
        let mut group = Group::of(&child);
        let stdin = child.stdin.take();
        let (mut out, mut err) = (Tail::default(), Tail::default());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                // A command that succeeds without reading it all has succeeded.
                let _ = stdin.write_all(&delivery.body).await;
            }
        };
        let status = {
            let mut pipes = pin!(async { tokio::join!(write, out.read(stdout), err.read(stderr)) });
            tokio::select! {
                status = child.wait() => {
                    let _ = time::timeout(PIPE_GRACE, &mut pipes).await;
                    status
                }
                _ = &mut pipes => child.wait().await,
            }
        };
        group.ended();
        let status = status.map_err(ExecError::Wait)?;
        let (stdout, stderr) = (out.text(), err.text());
        let webhook_id = &delivery.webhook_id;
        debug!(webhook_id, %status, stdout, stderr, "command ended");
        if status.success() {
            Ok(())
        } else {
            Err(ExecError::Failed { status, stderr })
        }
    }

    fn command(&self, delivery: &Delivery) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        for (name, _) in std::env::vars_os() {
            if is_ours(&name) || self.hidden.contains(&name) {
                command.env_remove(name);
            }
        }
        for (name, _, value) in delivery.metadata() {
            // The sender chose some of these, and a NUL can't stand in an environment.
            if !value.contains('\0') {
                command.env(name, value);
            }
        }
        if delivery.expired {
            command.env("PLEO_EXPIRED", "1");
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        command
    }
}

impl Handler for Exec {
    fn handle(&self, delivery: Delivery) -> HandlerFuture<'_> {
        Box::pin(async move { self.run(&delivery).await.map_err(Into::into) })
    }
}

/// Why a command didn't take a message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// It didn't start.
    #[error("cannot run {program:?}")]
    Start {
        /// The program.
        program: OsString,
        /// Why.
        source: io::Error,
    },
    /// It ended otherwise than with exit code 0.
    #[error("the command failed: {status}{}{stderr}", if stderr.is_empty() { "" } else { ": " })]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed to standard error.
        stderr: String,
    },
    /// How it ended is unknown.
    #[error("cannot wait for the command")]
    Wait(#[source] io::Error),
}

/// The last bytes of a stream.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    /// Reads all that comes, so that whoever writes never waits, and keeps the end of it.
    async fn read(&mut self, pipe: Option<impl AsyncRead + Unpin>) {
        let Some(mut pipe) = pipe else { return };
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
            self.0
                .extend_from_slice(chunk.get(..read).unwrap_or_default());
            self.0.drain(..self.0.len().saturating_sub(TAIL));
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).trim().to_owned()
    }
}

/// The process group of a command; killed when this is dropped before the command ended.
struct Group {
    #[cfg(unix)]
    id: Option<rustix::process::Pid>,
}

impl Group {
    #[cfg(unix)]
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self {
            id: id.and_then(rustix::process::Pid::from_raw),
        }
    }

    #[cfg(not(unix))]
    fn of(_: &Child) -> Self {
        Self {}
    }

    /// Its id may soon be another's.
    fn ended(&mut self) {
        #[cfg(unix)]
        {
            self.id = None;
        }
    }
}

#[cfg(unix)]
impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            // It may have ended by itself just now.
            let _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
        }
    }
}

fn is_ours(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"PLEO_")
}
