//! A handler that runs a command for each message.

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

use super::contract::{Delivery, Handler, HandlerFuture};

/// How many bytes of a command's output are kept.
const MAX_OUTPUT: usize = 1024;

/// How long the command's output is read after it exits. A process that it started may keep the pipe
/// open.
const PIPE_TIMEOUT: Duration = Duration::from_millis(200);

/// Runs a command for each message, without a shell.
///
/// The raw body is on standard input. The arguments contain nothing of the message.
///
/// The environment is the receiver's, with these variables if they have a value: `PLEO_WEBHOOK_ID`,
/// `PLEO_ENDPOINT`, `PLEO_EVENT_TYPE`, `PLEO_EVENT_ID`, `PLEO_ATTEMPT` (from 1), `PLEO_RECEIVED_AT`
/// and `PLEO_EXPIRES_AT` (RFC 3339), and `PLEO_EXPIRED=1` if the export job expired before this
/// attempt. All other `PLEO_…` variables are removed, because they may hold the receiver's secrets.
///
/// Exit code 0 is a success; any other exit code or a signal is a failed attempt. The end of a failed
/// command's standard error is stored with the message; all output is logged at level `debug`.
///
/// At the time limit, and at the end of a shutdown's grace period, the command and all processes that
/// it started are killed (on Unix: its process group).
#[derive(Clone, Debug)]
pub struct Exec {
    program: OsString,
    args: Vec<OsString>,
    removed_env: BTreeSet<OsString>,
}

impl Exec {
    /// Runs this program. It is searched for in `PATH` unless it contains a slash.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            removed_env: BTreeSet::new(),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Removes these variables from the command's environment too.
    #[must_use]
    pub fn without_env(mut self, names: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.removed_env.extend(names.into_iter().map(Into::into));
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
        let mut group = ProcessGroup::of(&child);
        let stdin = child.stdin.take();
        let (mut out, mut err) = (Tail::default(), Tail::default());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                // A command may succeed without reading all of its input.
                let _ = stdin.write_all(&delivery.body).await;
            }
        };
        let status = {
            let mut pipes = pin!(async { tokio::join!(write, out.read(stdout), err.read(stderr)) });
            tokio::select! {
                status = child.wait() => {
                    let _ = time::timeout(PIPE_TIMEOUT, &mut pipes).await;
                    status
                }
                _ = &mut pipes => child.wait().await,
            }
        };
        group.disarm();
        let status = status.map_err(ExecError::Wait)?;
        let (stdout, stderr) = (out.text(), err.text());
        let webhook_id = &delivery.webhook_id;
        debug!(webhook_id, %status, stdout, stderr, "command exited");
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
            if is_pleo_variable(&name) || self.removed_env.contains(&name) {
                command.env_remove(name);
            }
        }
        for (name, _, value) in delivery.metadata() {
            // The sender chooses some values. Those with a NUL are invalid in an environment.
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

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// The command could not be started.
    #[error("cannot run {program:?}")]
    Start {
        /// The program.
        program: OsString,
        /// The cause.
        source: io::Error,
    },
    /// The command exited with another code than 0, or by a signal.
    #[error("command failed: {status}{}{stderr}", if stderr.is_empty() { "" } else { ": " })]
    Failed {
        /// The exit status.
        status: ExitStatus,
        /// The end of its standard error.
        stderr: String,
    },
    /// The exit status is unknown.
    #[error("cannot wait for the command to exit")]
    Wait(#[source] io::Error),
}

/// The last bytes of a stream.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    /// Reads to the end, so that the command never blocks on a full pipe.
    async fn read(&mut self, pipe: Option<impl AsyncRead + Unpin>) {
        let Some(mut pipe) = pipe else { return };
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
            self.0
                .extend_from_slice(chunk.get(..read).unwrap_or_default());
            self.0.drain(..self.0.len().saturating_sub(MAX_OUTPUT));
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).trim().to_owned()
    }
}

/// The process group of a command. Killed on drop, unless the command has exited.
struct ProcessGroup {
    #[cfg(unix)]
    id: Option<rustix::process::Pid>,
}

impl ProcessGroup {
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

    /// Prevents the kill: after the command has exited, its id may be reused.
    fn disarm(&mut self) {
        #[cfg(unix)]
        {
            self.id = None;
        }
    }
}

#[cfg(unix)]
impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            // Fails if the processes have already exited.
            let _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
        }
    }
}

fn is_pleo_variable(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"PLEO_")
}
