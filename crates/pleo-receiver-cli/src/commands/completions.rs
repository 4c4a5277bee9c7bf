//! `pleo-receiver completions`: prints the completions of a shell.

use std::io;

use clap::CommandFactory;

use crate::args::{Cli, Completions};
use crate::failure::Failure;

/// The name of the program.
const NAME: &str = "pleo-receiver";

pub(crate) fn run(args: &Completions) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut text);
    Ok(io::Write::write_all(&mut io::stdout().lock(), &text)?)
}
