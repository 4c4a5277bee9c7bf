//! The program on an inbox in PostgreSQL.

mod commands;
mod health;
mod tasks;
