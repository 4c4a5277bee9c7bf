//! `pleo-receiver completions`: prints the completions of a shell.

use std::io;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::{Cli, Completions};
use crate::failure::Failure;

/// The name of the program.
const NAME: &str = "pleo-receiver";

pub(crate) fn run(args: &Completions) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut text);
    if args.shell == Shell::Bash {
        text = with_matching_names(&text).into_bytes();
    }
    Ok(io::Write::write_all(&mut io::stdout().lock(), &text)?)
}

/// Gives the subcommands in bash's script one name. For a program with a hyphen, `clap_complete` 4.6
/// spells the name in two ways: the script sets one and matches the other, and completes no subcommand
/// (clap issues 6421 and 6529).
fn with_matching_names(script: &[u8]) -> String {
    let set = NAME.replace('-', "__");
    let matched = NAME.replace('-', "__subcmd__");
    String::from_utf8_lossy(script).replace(&matched, &set)
}
