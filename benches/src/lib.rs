//! Shared code of the benchmarks.

pub mod allocations;
pub mod contenders;
pub mod delivery;
pub mod floor;
pub mod interleave;
pub mod random;
pub mod stats;

/// The backend of the verifier.
pub const BACKEND: &str = if cfg!(feature = "ring") {
    "ring"
} else {
    "RustCrypto"
};

/// The command-line options of a benchmark.
pub struct Options {
    /// Runs for a second or two, to test the benchmark itself.
    pub quick: bool,
    /// Exits with 1 if a limit is exceeded.
    pub check: bool,
}

impl Options {
    /// Parses the command line; exits with 2 if an argument is unknown.
    #[must_use]
    pub fn from_args() -> Self {
        let mut options = Self {
            quick: false,
            check: false,
        };
        for arg in std::env::args().skip(1) {
            match arg.as_str() {
                "--quick" => options.quick = true,
                "--check" => options.check = true,
                _ => {
                    eprintln!("unknown argument `{arg}`; use --quick or --check");
                    std::process::exit(2);
                }
            }
        }
        options
    }
}
