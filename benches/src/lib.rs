//! What the benchmarks share.

pub mod allocations;
pub mod contenders;
pub mod delivery;
pub mod floor;
pub mod interleave;
pub mod random;
pub mod stats;

/// Which backend the verifier under test uses.
pub const BACKEND: &str = if cfg!(feature = "ring") {
    "ring"
} else {
    "RustCrypto"
};

/// What a benchmark was asked to do, from its command line.
pub struct Options {
    /// A second or two in all, to see that everything still works.
    pub quick: bool,
    /// Exit with 1 where a mark is missed.
    pub check: bool,
}

impl Options {
    /// Reads the command line; exits with 2 where it holds anything unknown.
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
                    eprintln!("{arg}: unknown; there are --quick and --check");
                    std::process::exit(2);
                }
            }
        }
        options
    }
}
