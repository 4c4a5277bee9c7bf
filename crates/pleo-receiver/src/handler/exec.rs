//! A handler that runs a command for each message.

use core::fmt;
use core::pin::pin;
use core::time::Duration;
use std::ffi::OsString;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time;

use super::contract::{Handler, HandlerError, HandlerFuture};
use super::delivery::Delivery;
use crate::telemetry;

/// How many bytes of a command's output are kept.
const MAX_OUTPUT: usize = 1024;

/// How long the command's output is read after it exits. A process that it started may keep the pipe
/// open.
const PIPE_TIMEOUT: Duration = Duration::from_millis(200);

/// The variables that a command inherits, beside those that begin with `LC_`.
#[rustfmt::skip]
const INHERITED_ENV: &[&str] = &[
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR",
    "SSL_CERT_FILE", "SSL_CERT_DIR",
    // Windows programs do not start without some of these.
    "SystemRoot", "SystemDrive", "ComSpec", "PATHEXT", "TEMP", "TMP", "USERPROFILE",
];

/// The exit code of a permanent failure: `EX_DATAERR` of BSD's `sysexits.h`.
const PERMANENT: i32 = 65;

/// The exit code of a failure that is retried: `EX_TEMPFAIL` of BSD's `sysexits.h`.
const RETRY: i32 = 75;

/// Runs a command for each message, without a shell.
///
/// The raw body is on standard input. The arguments contain nothing of the message.
///
/// | command | outcome |
/// | --- | --- |
/// | exits with 0 | success |
/// | exits with 65 (`EX_DATAERR`) | permanent failure: the message is dead |
/// | exits with 75 (`EX_TEMPFAIL`), the last line of standard output is a number | retry after that many seconds |
/// | exits with 75 otherwise | retry with backoff |
/// | exits with another code, is killed by a signal, or cannot be started | retry with backoff |
///
/// The end of a failed command's standard error is stored with the message; all output is logged at
/// level `debug`.
///
/// The environment has these variables about the message, if they have a value: `PLEO_WEBHOOK_ID`,
/// `PLEO_ENDPOINT`, `PLEO_EVENT_TYPE`, `PLEO_EVENT_ID`, `PLEO_ATTEMPT` (from 1), `PLEO_RECEIVED_AT`
/// and `PLEO_EXPIRES_AT` (RFC 3339), and `PLEO_EXPIRED=1` if the export job expired before this
/// attempt. `TRACEPARENT` has the context of the attempt's OpenTelemetry span, if there is one. Of the
/// receiver's variables, which may hold its secrets, the command inherits only `PATH`, `HOME`, `USER`, `LOGNAME`, `SHELL`, `LANG`, `LANGUAGE`, `LC_…`, `TZ`, `TMPDIR`,
/// `SSL_CERT_FILE`, `SSL_CERT_DIR`, those that Windows needs, and those of
/// [`inherit_env`](Self::inherit_env).
///
/// At the time limit, at the end of a shutdown's grace period, and when the lease is lost, the command
/// and the processes that it started are killed (on Unix: its process group). A process that left the
/// group, as a daemon does, keeps running.
#[derive(Clone, Debug)]
pub struct Exec {
    program: OsString,
    args: Vec<OsString>,
    inherited_env: Vec<OsString>,
    on_exit: Option<OnExit>,
}

impl Exec {
    /// Runs this program. It is searched for in `PATH` unless it contains a slash.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            inherited_env: Vec::new(),
            on_exit: None,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds names of variables that the command inherits from the receiver.
    #[must_use]
    pub fn inherit_env(mut self, names: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.inherited_env.extend(names.into_iter().map(Into::into));
        self
    }

    /// Calls a function with the output of each command that exits, before its outcome is recorded. It
    /// must not block.
    #[must_use]
    pub fn on_exit(
        mut self,
        observe: impl Fn(&Delivery, CommandOutput<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.on_exit = Some(OnExit(Arc::new(observe)));
        self
    }

    async fn run(&self, delivery: &Delivery) -> Result<(), HandlerError> {
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
                let _ = stdin.write_all(delivery.body()).await;
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
        telemetry::command_exited(delivery.endpoint(), delivery.id(), status, &stdout, &stderr);
        if let Some(OnExit(observe)) = &self.on_exit {
            let (stdout, stderr) = (&*stdout, &*stderr);
            observe(delivery, CommandOutput { stdout, stderr });
        }
        if status.success() {
            return Ok(());
        }
        let error = ExecError::Failed { status, stderr };
        Err(match (status.code(), last_number(&stdout)) {
            (Some(PERMANENT), _) => HandlerError::permanent(error),
            (Some(RETRY), Some(seconds)) => {
                HandlerError::retry_after(Duration::from_secs(seconds), error)
            }
            _ => HandlerError::retry(error),
        })
    }

    fn command(&self, delivery: &Delivery) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear();
        for (name, value) in std::env::vars_os() {
            let is_inherited = name.to_str().is_some_and(is_inherited);
            if is_inherited || self.inherited_env.contains(&name) {
                command.env(name, value);
            }
        }
        for (name, _, value) in delivery.metadata() {
            // The sender chooses some values. Those with a NUL are invalid in an environment.
            if !value.contains('\0') {
                command.env(name, value);
            }
        }
        if delivery.is_expired() {
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
        Box::pin(async move { self.run(&delivery).await })
    }
}

/// The output of a command: the last 1,024 bytes of each stream, without white space at its ends.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CommandOutput<'a> {
    /// The end of standard output.
    pub stdout: &'a str,
    /// The end of standard error.
    pub stderr: &'a str,
}

/// The function of [`Exec::on_exit`].
#[derive(Clone)]
struct OnExit(Arc<Observe>);

type Observe = dyn Fn(&Delivery, CommandOutput<'_>) + Send + Sync;

impl fmt::Debug for OnExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnExit").finish_non_exhaustive()
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

/// Returns the number on the last line of a command's output.
fn last_number(output: &str) -> Option<u64> {
    output.lines().next_back()?.trim().parse().ok()
}

fn is_inherited(name: &str) -> bool {
    let is_equal = |inherited: &&str| {
        if cfg!(windows) {
            inherited.eq_ignore_ascii_case(name)
        } else {
            *inherited == name
        }
    };
    INHERITED_ENV.iter().any(is_equal) || name.starts_with("LC_")
}
