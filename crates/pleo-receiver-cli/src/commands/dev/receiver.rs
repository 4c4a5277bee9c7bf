//! The receiver of a session, and its inspection page.

use core::time::Duration;
use std::sync::Arc;

use pleo_receiver::{
    DispatchOptions, Endpoint, Inbox, Receiver, ServeError, Server, ServerOptions,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};

use super::observe::{ObservedInbox, Observer};
use crate::admin::metrics::{ProgramMetrics, ReloadMetrics, TaskMetrics};
use crate::admin::{self, Access, Admin, History, Hosts};
use crate::config::handler::Target;
use crate::failure::Failure;
use crate::listen::url;
use crate::log::LostLines;

/// How long handlers and requests may continue after the end of the session.
const GRACE: Duration = Duration::from_secs(2);

/// A running receiver.
pub(super) struct Running {
    receiver: Receiver,
    server: JoinHandle<Result<(), ServeError>>,
    /// Stops the server on drop.
    end: oneshot::Sender<()>,
    admin: Arc<Admin>,
    /// The URL of the inspection page, without a path.
    page: String,
}

impl Running {
    pub(super) fn start(
        endpoint: Endpoint,
        inbox: Arc<dyn Inbox>,
        handler: Option<Target>,
        listener: TcpListener,
        admin_listener: TcpListener,
        observer: Observer,
    ) -> Result<Self, Failure> {
        let page = url("http", &admin_listener, "")?;
        let address = admin_listener.local_addr();
        let address = address.map_err(|error| Failure::run(&error))?;
        let kind = handler.as_ref().map(Target::kind);
        let history = Arc::new(History::new());
        let rejections = Arc::clone(&history);
        let outputs = observer.clone();
        let inbox = ObservedInbox::new(inbox, observer.clone(), kind.is_some());
        let builder = Receiver::builder(inbox)
            .endpoint(endpoint)
            .dispatch_options(DispatchOptions::default().with_grace(GRACE))
            .on_rejected(move |rejected| {
                rejections.rejected(rejected);
                observer.rejected(rejected);
            });
        let builder = match handler {
            None => builder,
            Some(Target::Exec { exec, .. }) => {
                builder.handler(exec.on_exit(move |delivery, output| {
                    outputs.output(delivery, output.stdout, output.stderr);
                }))
            }
            Some(Target::Forward(forward)) => {
                builder.handler(forward.on_failed(move |delivery, body| {
                    outputs.output(delivery, &String::from_utf8_lossy(body), "");
                }))
            }
        };
        let (receiver, dispatcher) = builder.build().map_err(|error| Failure::run(&error))?;

        let metrics = ProgramMetrics::new(
            LostLines::default(),
            &TaskMetrics::default(),
            &ReloadMetrics::default(),
        );
        let access = Access {
            credentials: None,
            hosts: Hosts::new(Some(address), Vec::new()),
            shows_bodies: true,
        };
        let admin = Admin::new(access, &receiver, None, metrics, Arc::clone(&history), kind);
        let admin = Arc::new(admin);
        tokio::spawn(admin::serve(admin_listener, Arc::clone(&admin)));
        let counted = receiver.clone();
        tokio::spawn(async move { history.run(&counted).await });

        let (end, ended) = oneshot::channel();
        let options = ServerOptions::default().with_grace(GRACE);
        let server = Server::new(receiver.clone(), dispatcher)
            .options(options)
            .listen(listener)
            .run(async {
                // Dropping the sender ends it too.
                let _ = ended.await;
            });
        Ok(Self {
            receiver,
            server: tokio::spawn(server),
            end,
            admin,
            page,
        })
    }

    pub(super) fn inbox(&self) -> &Arc<dyn Inbox> {
        self.receiver.inbox()
    }

    /// Returns a link that signs in to the inspection page once. It replaces an earlier one.
    pub(super) fn sign_in_link(&self) -> Result<String, Failure> {
        let (path, _) = self.admin.create_sign_in_link();
        Ok(format!("{}{path}", self.page))
    }

    /// Resolves if the server fails.
    pub(super) async fn failed(&mut self) -> Failure {
        match result((&mut self.server).await) {
            Ok(()) => Failure::Run("the receiver ended".to_owned()),
            Err(failure) => failure,
        }
    }

    /// Stops the server.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        if self.server.is_finished() {
            // It has failed, and the failure is known.
            return Ok(());
        }
        self.admin.start_shutdown();
        drop(self.end);
        result(self.server.await)
    }
}

fn result(ended: Result<Result<(), ServeError>, JoinError>) -> Result<(), Failure> {
    ended.map_err(|error| Failure::run(&error))??;
    Ok(())
}
