//! The password in the environment, or in a file as libpq reads it.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::error::UrlError;
use super::hosts::host_and_port;

/// Sets the password of each host unless the URL has one: that in `PGPASSWORD`, or that in the password
/// file or in `PGPASSFILE`.
pub(super) fn set_passwords(hosts: &mut [Config], file: Option<PathBuf>) -> Result<(), UrlError> {
    if hosts.iter().any(|host| host.get_password().is_some()) {
        return Ok(());
    }
    if file.is_none()
        && let Some(password) = env::var_os("PGPASSWORD")
    {
        for host in hosts {
            host.password(password.as_encoded_bytes());
        }
        return Ok(());
    }
    let Some(path) = file.or_else(|| env::var_os("PGPASSFILE").map(PathBuf::from)) else {
        return Ok(());
    };
    let text = match read(&path) {
        Ok(text) => text,
        Err(error) => {
            let source = error.into();
            return Err(UrlError::File { path, source });
        }
    };
    for host in hosts {
        if let Some(password) = find_for(host, &text) {
            host.password(password);
        }
    }
    Ok(())
}

fn find_for(config: &Config, text: &str) -> Option<String> {
    let user = config.get_user().unwrap_or_default();
    let database = config.get_dbname().unwrap_or(user);
    let (host, port) = host_and_port(config);
    let host = match host? {
        Host::Tcp(host) => host,
        #[cfg(unix)]
        Host::Unix(_) => "localhost",
    };
    find(text, [host, &port.to_string(), database, user])
}

fn read(path: &Path) -> io::Result<String> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
            let text = "other users can read it; make it owner-only (`chmod 600`)";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    }
    fs::read_to_string(path)
}

/// Returns the password of the first line `host:port:database:user:password` that matches.
fn find(text: &str, wanted: [&str; 4]) -> Option<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(fields).find_map(|fields| {
        let [host, port, database, user, password] = <[String; 5]>::try_from(fields).ok()?;
        let found = [host, port, database, user];
        let matches = |(found, wanted): (&String, &str)| found == "*" || found == wanted;
        found.iter().zip(wanted).all(matches).then_some(password)
    })
}

/// Splits a line at colons. A backslash escapes the character that follows it.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' if fields.len() < 5 => fields.push(String::new()),
            other => {
                let escaped = (other == '\\').then(|| characters.next()).flatten();
                if let Some(field) = fields.last_mut() {
                    field.push(escaped.unwrap_or(other));
                }
            }
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::super::hosts::split;
    use super::*;

    #[test]
    fn finds_first_line_that_matches() {
        let text = "# a comment\n\
                    other:*:*:*:wrong\n\
                    short:line\n\
                    db.example:5432:inbox:pleo:s\\:ec\\\\ret:1\n\
                    *:*:*:*:any\n";
        let find = |host| find(text, [host, "5432", "inbox", "pleo"]);
        assert_eq!(find("db.example").as_deref(), Some("s:ec\\ret:1"));
        assert_eq!(find("elsewhere").as_deref(), Some("any"));
    }

    #[test]
    fn finds_password_of_each_host() {
        let text = "a:5432:inbox:pleo:one\nb:5433:inbox:pleo:two\n";
        let config: Config = "postgres://pleo@a,b:5433,c/inbox".parse().unwrap();
        let hosts = split(&config).unwrap();
        let passwords = hosts.iter().map(|host| find_for(host, text));
        let expected = [Some("one".into()), Some("two".into()), None];
        assert_eq!(passwords.collect::<Vec<_>>(), expected);
    }
}
