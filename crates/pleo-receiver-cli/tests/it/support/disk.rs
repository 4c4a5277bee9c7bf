//! A simulated disk under the program: it fails on demand, and it loses what was not flushed.
//!
//! `disk.c` describes the simulation.

use core::fmt;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rusqlite::Connection;

use crate::support::program::{CommandOutput, ENV, RunningServer, WorkDir};

/// The smallest part of a page that a disk writes.
const SECTOR: usize = 512;

/// The inbox on the simulated disk.
pub(crate) const INBOX: &str = "sqlite:disk/files/inbox.db";

/// The log of the inbox, for [`Fault::on`].
pub(crate) const LOG: &str = "-wal";

/// The database of the inbox, for [`Fault::on`].
pub(crate) const DATABASE: &str = ".db";

/// Operations that fail: the first `skip` succeed, the next `count` fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    operation: &'static str,
    suffix: &'static str,
    action: &'static str,
    skip: u32,
    count: i32,
}

impl Fault {
    /// Fails the next operation (`write`, `flush` or `truncate`) of a file with this suffix. The
    /// action is `EIO`, `ENOSPC`, `half` or `drop`.
    pub(crate) const fn on(
        operation: &'static str,
        suffix: &'static str,
        action: &'static str,
    ) -> Self {
        Self {
            operation,
            suffix,
            action,
            skip: 0,
            count: 1,
        }
    }

    pub(crate) const fn after(self, skip: u32) -> Self {
        Self { skip, ..self }
    }

    pub(crate) const fn times(self, count: i32) -> Self {
        Self { count, ..self }
    }

    /// Fails until [`Disk::repair`].
    pub(crate) const fn forever(self) -> Self {
        self.times(-1)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            operation,
            suffix,
            action,
            skip,
            count,
        } = self;
        writeln!(f, "{operation} {suffix} {action} {skip} {count}")
    }
}

/// Pseudorandom numbers that can be repeated (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ (value >> 31)
    }

    /// Returns a number less than `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Returns `true` in one of `n` cases.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        let len = u64::try_from(choices.len()).unwrap();
        choices[usize::try_from(self.below(len)).unwrap()]
    }
}

/// A working directory with a simulated disk.
pub(crate) struct Disk {
    pub(crate) dir: WorkDir,
    library: &'static Path,
}

impl Disk {
    /// Returns `None` if the disk cannot be simulated.
    pub(crate) fn new() -> Option<Self> {
        static LIBRARY: OnceLock<Option<PathBuf>> = OnceLock::new();
        let library = LIBRARY.get_or_init(compile).as_deref()?;
        let dir = WorkDir::new();
        for name in ["files", "image", "state"] {
            fs::create_dir_all(dir.path().join("disk").join(name)).unwrap();
        }
        Some(Self { dir, library })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("disk").join(name)
    }

    /// Returns the path of a file of the program.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path("files").join(name)
    }

    /// Returns a command that runs the program on the disk.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.dir.command(args);
        command.envs(ENV.iter().copied());
        command.env("LD_PRELOAD", self.library);
        command.env("PLEO_TEST_DISK", self.path(""));
        command
    }

    /// Starts a server.
    pub(crate) fn serve(&self, args: &[&str]) -> RunningServer {
        let serve = ["serve", "--listen", "127.0.0.1:0", "--inbox", INBOX];
        RunningServer::start(self.command(&[&serve, args].concat()))
    }

    /// Starts a server that is expected to exit. Returns its log.
    pub(crate) fn refused(&self) -> String {
        let serve = ["serve", "--listen", "127.0.0.1:0", "--inbox", INBOX];
        match RunningServer::try_start(self.command(&serve)) {
            Ok(server) => panic!("the server runs at {}", server.url),
            Err(log) => log,
        }
    }

    /// Runs the program until it exits.
    pub(crate) fn run(&self, args: &[&str]) -> CommandOutput {
        self.command(args).output().unwrap().into()
    }

    /// Sets what fails from now on.
    pub(crate) fn fail(&self, faults: &[Fault]) {
        let text: String = faults.iter().map(Fault::to_string).collect();
        let lock = File::create(self.path("state/lock")).unwrap();
        lock.lock().unwrap();
        fs::write(self.path("state/faults"), text).unwrap();
    }

    /// Makes all operations succeed.
    pub(crate) fn repair(&self) {
        self.fail(&[]);
    }

    /// Returns the operations that failed.
    pub(crate) fn hits(&self) -> Vec<String> {
        let hits = fs::read_to_string(self.path("state/hits")).unwrap_or_default();
        hits.lines().map(str::to_owned).collect()
    }

    /// Loses everything that was not flushed, as a power cut does. No server may run.
    pub(crate) fn cut_power(&self) {
        self.replace(|_, _, _| false);
    }

    /// Cuts the power, and lets some of the sectors that were not flushed reach the disk.
    pub(crate) fn tear(&self, random: &mut Random) {
        // Of some files all sectors reach the disk, of others none.
        let share = [0, 1, 2, 4].map(|share| (share, random.next()));
        self.replace(|name, _, _| {
            let of_name = name.bytes().map(u64::from).sum::<u64>();
            let (share, _) = share[usize::try_from(of_name % 4).unwrap()];
            random.below(4) < share
        });
    }

    /// Replaces the files with those on the disk. `keeps` decides for each other sector that differs.
    fn replace(&self, mut keeps: impl FnMut(&str, usize, usize) -> bool) {
        let (files, image) = (names(&self.path("files")), names(&self.path("image")));
        for name in files.union(&image) {
            let (file, durable) = (self.file(name), self.path("image").join(name));
            if name.ends_with(".lock") {
                continue;
            }
            if !image.contains(name) || name.ends_with("-shm") {
                fs::remove_file(&file).unwrap();
                continue;
            }
            let mut bytes = fs::read(&durable).unwrap();
            let written = fs::read(&file).unwrap_or_default();
            let sectors = written.len().div_ceil(SECTOR);
            for sector in 0..sectors {
                let range = sector * SECTOR..written.len().min((sector + 1) * SECTOR);
                let (start, end) = (range.start, range.end);
                if bytes.get(range.clone()) != Some(&written[range.clone()])
                    && keeps(name, sector, sectors)
                {
                    bytes.resize(bytes.len().max(end), 0);
                    bytes[start..end].copy_from_slice(&written[range]);
                }
            }
            fs::write(&file, &bytes).unwrap();
            fs::write(&durable, &bytes).unwrap();
        }
        for name in names(&self.path("state")) {
            fs::remove_file(self.path("state").join(name)).unwrap();
        }
    }

    /// Copies what is on the disk to a directory, and opens it there. The disk does not change.
    pub(crate) fn open_copy(&self, directory: &Path) -> Connection {
        for name in names(&self.path("files")) {
            fs::copy(self.file(&name), directory.join(&name)).unwrap();
        }
        Connection::open(directory.join("inbox.db")).unwrap()
    }

    /// Changes bytes of a file on the disk.
    pub(crate) fn damage(&self, name: &str, at: u64, bytes: &[u8]) {
        for directory in ["files", "image"] {
            let file = File::options()
                .write(true)
                .open(self.path(directory).join(name));
            file.unwrap().write_all_at(bytes, at).unwrap();
        }
    }
}

/// Returns the names of the files in a directory.
fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

/// Compiles `disk.c`.
fn compile() -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let library = directory.join("libdisk.so");
    let unfinished = directory.join(format!("libdisk.{}.so", std::process::id()));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/disk.c");
    let compile = || {
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-shared", "-fPIC", "-o"]);
        cc.arg(&unfinished).arg(source).status()
    };
    if cfg!(target_os = "linux") && compile().is_ok_and(|status| status.success()) {
        fs::rename(unfinished, &library).unwrap();
        return Some(library);
    }
    let allowed = std::env::var_os("PLEO_TEST_FORBID_SKIP").is_none();
    assert!(
        allowed,
        "no disk can be simulated; install a C compiler, on Linux"
    );
    // libtest captures `eprintln!`.
    let _ = writeln!(
        io::stderr(),
        "SKIPPED disk: `cc` is missing, or this is not Linux"
    );
    None
}
