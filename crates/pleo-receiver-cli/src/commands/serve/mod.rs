//! `pleo-receiver serve`: receives webhooks.

mod file_limit;
mod reload;
mod retention;
mod scheduled_catch_up;
mod tasks;

use core::time::Duration;
use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use pleo_receiver::{
    DispatchOptions, Endpoint, Inbox, MemoryInbox, Receiver, ReceiverBuilder, Server, Tls,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time;
use tracing::{info, warn};

use self::file_limit::within_file_limit;
use self::reload::Reload;
use self::tasks::RunningTasks;
use crate::admin::metrics::{ProgramMetrics, ReloadMetrics, TaskMetrics};
use crate::admin::{self, Admin, History};
use crate::args::Serve;
use crate::certificate;
use crate::config::handler::Target;
use crate::config::load::{Config, Fixed, TlsFiles};
use crate::failure::{Failure, chain};
use crate::inbox_url::InboxUrl;
#[cfg(not(unix))]
use crate::listen::bind;
use crate::listen::url;
use crate::log::Log;
use crate::output;
use crate::secret_ref::SecretRef;
use crate::signals::{Hangup, Stop};
#[cfg(unix)]
use crate::systemd::{Sockets, State, notify, send_pings};
#[cfg(feature = "otel")]
use crate::traces::Traces;

pub(crate) async fn run(args: Serve, log: &Log) -> Result<(), Failure> {
    let config = Config::new(&args)?;
    log.configure(config.log.clone());
    warn_of_plain_secrets(&args);
    let tls = config.fixed.tls.as_ref().map(load_tls).transpose()?;
    if args.check {
        return check(config);
    }
    #[cfg(feature = "otel")]
    let traces = Traces::start()?;
    let mut stop = Stop::new()?;
    let hangup = Hangup::new()?;
    let fixed = config.fixed;
    let names = config.endpoints.iter();
    let names = names.map(Endpoint::name).cloned().collect();
    for endpoint in &config.endpoints {
        info!(endpoint = %endpoint.name(), path = endpoint.path(), "endpoint configured");
    }
    if let Some(target) = &config.handler {
        info!(handler = target.kind(), "handler configured");
    }
    warn_of_handler(config.handler.as_ref());
    let handler = config.handler.as_ref().map(Target::kind);
    let history = Arc::new(History::new());
    let options = fixed.limits.inbox();
    let options = options.with_allow_shared_directory(fixed.allow_shared_directory);
    let inbox_url = InboxUrl::parse(&fixed.inbox)?;
    let shown_url = inbox_url.to_string();
    let inbox = tokio::select! {
        opened = inbox_url.open(options, fixed.migrate) => opened?,
        // A migration may take long. What is not committed is undone.
        () = stop.wait() => {
            info!("shutdown complete");
            return Ok(());
        }
    };
    info!(inbox = shown_url, "inbox opened");
    let builder = receiver_builder(
        inbox,
        &fixed,
        config.endpoints,
        config.handler,
        config.retry,
    );
    let rejections = Arc::clone(&history);
    let builder = builder.on_rejected(move |rejected| rejections.rejected(rejected));
    #[cfg(feature = "otel")]
    let builder = traces.instrument(builder);
    let (receiver, dispatcher) =
        (builder.build()).map_err(|error| Failure::Usage(chain(&error)))?;
    let task_metrics = TaskMetrics::default();
    let reload_metrics = ReloadMetrics::default();
    let program_metrics = ProgramMetrics::new(log.lost_lines(), &task_metrics, &reload_metrics);
    #[cfg(feature = "otel")]
    let program_metrics = program_metrics.with_spans(traces.metrics());
    let admin = Admin::new(
        config.admin.access,
        &receiver,
        tls.clone(),
        program_metrics,
        Arc::clone(&history),
        handler,
    );
    let admin = Arc::new(admin);
    #[cfg(unix)]
    let mut sockets = Sockets::take()?;
    #[cfg(unix)]
    let mut listen = |address, flag| sockets.listen(address, flag);
    #[cfg(not(unix))]
    let listen = bind;
    if let Some(address) = fixed.admin {
        let listener = listen(address, "admin")?;
        info!(url = url("http", &listener, "/")?, "admin listener started");
        print_sign_in_link(&listener, &admin)?;
        let receiver = receiver.clone();
        tokio::spawn(async move { history.run(&receiver).await });
        tokio::spawn(admin::serve(listener, Arc::clone(&admin)));
    }
    let options = within_file_limit(fixed.limits.server());
    let mut server = Server::new(receiver.clone(), dispatcher).options(options);
    if let Some(address) = fixed.listen {
        let listener = listen(address, "listen")?;
        info!(url = url("http", &listener, "/")?, "listening");
        server = server.listen(listener);
    }
    if let (Some(files), Some(tls)) = (&fixed.tls, &tls) {
        let listener = listen(files.listen, "tls-listen")?;
        info!(url = url("https", &listener, "/")?, "listening");
        server = server.listen_tls(listener, tls.clone());
    }
    #[cfg(unix)]
    sockets.check_all_used()?;
    let stopping = watch::Sender::new(false);
    let mut tasks = RunningTasks::new(receiver.inbox(), task_metrics, stopping.subscribe());
    tasks.restart(config.tasks);
    let shutdown_delay = fixed.limits.shutdown_delay();
    let shutdown = async {
        stop.wait().await;
        info!("shutting down");
        #[cfg(unix)]
        notify(State::Stopping);
        admin.start_shutdown();
        stopping.send_replace(true);
        delay_shutdown(shutdown_delay, &mut stop).await;
    };
    let reload = Reload {
        args: Arc::new(args),
        log,
        admin: Arc::clone(&admin),
        metrics: reload_metrics,
        receiver,
        tls,
        tasks,
        handler_hash: config.handler_hash,
        fixed,
        endpoints: names,
        hanging: None,
    };
    #[cfg(unix)]
    notify(State::Ready);
    #[cfg(unix)]
    tokio::spawn(send_pings());
    let ended = tokio::select! {
        ended = server.run(shutdown) => ended,
        never = reload.run(hangup) => match never {},
    };
    #[cfg(feature = "otel")]
    traces.shutdown().await;
    ended?;
    info!("shutdown complete");
    Ok(())
}

/// Checks what [`Config::new`] does not.
fn check(config: Config) -> Result<(), Failure> {
    InboxUrl::parse(&config.fixed.inbox)?;
    #[cfg(feature = "otel")]
    Traces::check()?;
    warn_of_handler(config.handler.as_ref());
    let inbox = Arc::new(MemoryInbox::new());
    let builder = receiver_builder(
        inbox,
        &config.fixed,
        config.endpoints,
        config.handler,
        config.retry,
    );
    let built = builder.build();
    drop(built.map_err(|error| Failure::Usage(chain(&error)))?);
    Ok(output::line("the configuration is valid")?)
}

/// Prints a link that signs in to the inspection page once, if somebody sees it: on a terminal.
fn print_sign_in_link(listener: &TcpListener, admin: &Admin) -> Result<(), Failure> {
    if !io::stdout().is_terminal() {
        return Ok(());
    }
    let (path, lifetime) = admin.create_sign_in_link();
    let link = url("http", listener, &path)?;
    let minutes = lifetime.as_secs() / 60;
    Ok(output::line(format_args!(
        "inspection page, once within {minutes} minutes: {link}"
    ))?)
}

/// Warns if there is no handler, or its program is missing.
fn warn_of_handler(handler: Option<&Target>) {
    let Some(target) = handler else {
        warn!("no handler; messages stay pending until `exec` or `forward` is set");
        return;
    };
    if let Some(program) = target.missing_program() {
        warn!(
            program,
            "handler program not found or not executable; correct `exec`, or install it"
        );
    }
}

fn warn_of_plain_secrets(args: &Serve) {
    let is_plain = |secret: &Option<SecretRef>| secret.as_ref().is_some_and(SecretRef::is_plain);
    for (flag, is_plain) in [
        ("secret", args.secret.iter().any(SecretRef::is_plain)),
        ("admin_token", is_plain(&args.admin_token)),
        ("admin_read_token", is_plain(&args.admin_read_token)),
        ("admin_password", is_plain(&args.admin_password)),
    ] {
        if is_plain && args.flags.contains(flag) {
            let flag = format!("--{}", flag.replace('_', "-"));
            warn!(
                flag,
                "every user of this machine can read the flag in the arguments; use `env:NAME` or \
                 `file:PATH`"
            );
        }
    }
}

/// Keeps the listeners open, so that a load balancer sees that the receiver is not ready before
/// connections are refused. Another signal ends the delay.
async fn delay_shutdown(delay: Duration, stop: &mut Stop) {
    if delay.is_zero() {
        return;
    }
    info!(?delay, "not ready; listeners close after the delay");
    tokio::select! {
        () = time::sleep(delay) => {}
        () = stop.wait() => {}
    }
}

fn load_tls(files: &TlsFiles) -> Result<Tls, Failure> {
    let TlsFiles {
        certificate, key, ..
    } = files;
    let tls = Tls::from_pem_files(certificate, key);
    let tls = tls.map_err(|error| {
        let fix = "correct `tls_certificate` and `tls_key`";
        Failure::usage("TLS", &format!("{}; {fix}", chain(&error)))
    })?;
    if certificate::is_authority(certificate) {
        warn!(
            certificate = %certificate.display(),
            "certificate is that of an authority (CA:TRUE), which clients reject; make one with \
             CA:FALSE (`openssl req -x509 … -addext basicConstraints=critical,CA:FALSE`)"
        );
    }
    Ok(tls)
}

fn receiver_builder(
    inbox: Arc<dyn Inbox>,
    fixed: &Fixed,
    endpoints: Vec<Endpoint>,
    handler: Option<Target>,
    retry: DispatchOptions,
) -> ReceiverBuilder {
    let mut builder = Receiver::builder(inbox)
        .trusted_proxies(&fixed.trusted_proxies)
        .dispatch_options(retry);
    for endpoint in endpoints {
        builder = builder.endpoint(endpoint);
    }
    builder = match handler {
        None => builder,
        Some(Target::Exec { exec, .. }) => builder.handler(exec),
        Some(Target::Forward(forward)) => builder.handler(*forward),
    };
    fixed.limits.receiver(builder)
}
