//! `pleo-receiver man`: prints the manual page of the program, or writes those of all commands.

use std::fs;
use std::io::{self, Write as _};

use clap::CommandFactory;
use clap_mangen::Man;

use crate::args::{self, Cli};
use crate::failure::Failure;
use crate::files::cannot_write;

pub(crate) fn run(args: &args::Man) -> Result<(), Failure> {
    if let Some(folder) = &args.dir {
        let written = fs::create_dir_all(folder)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
        return written.map_err(|error| cannot_write(folder, &error));
    }
    let mut page = Vec::new();
    Man::new(Cli::command()).render(&mut page)?;
    Ok(io::stdout().lock().write_all(&page)?)
}
