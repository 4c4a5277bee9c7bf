//! An inbox in PostgreSQL: several receivers behind a load balancer, and the commands.

mod commands;
mod faults;
mod fleet;
mod health;
mod pooler;
mod restart;

mod tasks;
