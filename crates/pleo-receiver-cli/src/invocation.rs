//! How this program was started.

use std::path::Path;

/// Returns the command that runs this program, also from another folder.
pub(crate) fn program() -> String {
    let named = std::env::args_os().next().unwrap_or_default();
    let path = if Path::new(&named).components().count() > 1 {
        std::env::current_exe().unwrap_or_else(|_| named.into())
    } else {
        named.into()
    };
    let path = path.to_string_lossy();
    shlex::try_quote(&path).unwrap_or_default().into_owned()
}
