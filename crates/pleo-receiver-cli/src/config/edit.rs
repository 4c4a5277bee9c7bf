//! Edits the configuration file and keeps its comments.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, value};

use crate::failure::Failure;
use crate::files;

/// The file itself, to be changed.
pub(crate) struct Document {
    path: PathBuf,
    before: String,
    toml: DocumentMut,
}

impl Document {
    /// The file, or a new one where there is none.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let place = path.display();
        let before = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Failure::Usage(format!("cannot read {place}: {error}"))),
        };
        // Its own words would show the line, which may hold a secret.
        let toml = before.parse();
        let toml = toml.map_err(|_| Failure::Usage(format!("{place} is not TOML")))?;
        Ok(Self {
            path: path.to_owned(),
            before,
            toml,
        })
    }

    pub(crate) fn owner(&self) -> Option<&str> {
        self.toml.get("subscriptions")?.get("name")?.as_str()
    }

    pub(crate) fn set_owner(&mut self, name: &str) {
        let mut table = Table::new();
        table.insert("name", value(name));
        let key = table.key_mut("name");
        if let Some(mut key) = key {
            let comment = "# Marks at Pleo what was made for this file; only that is ever deleted. Leave it \
                           out of a copy.\n";
            key.leaf_decor_mut().set_prefix(comment);
        }
        self.toml.insert("subscriptions", Item::Table(table));
    }

    /// Whether an endpoint could be added.
    pub(crate) fn check_endpoints(&self) -> Result<(), Failure> {
        match self.toml.get("endpoint") {
            None | Some(Item::ArrayOfTables(_)) => Ok(()),
            Some(_) => {
                let why = "`endpoint` is a list in one line: write it as `[[endpoint]]` tables";
                Err(Failure::Usage(format!("{}: {why}", self.path.display())))
            }
        }
    }

    /// Says that the endpoint at this path is subscribed, and signed with the secret that is where
    /// `secret` says; makes the endpoint where there is none.
    pub(crate) fn subscribe(&mut self, change: &Subscribe<'_>) -> Result<(), Failure> {
        self.check_endpoints()?;
        let entry = self.toml.entry("endpoint");
        let tables = entry.or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        let Some(tables) = tables.as_array_of_tables_mut() else {
            return Ok(());
        };
        let is_it = |table: &Table| table.get("path").and_then(Item::as_str) == Some(change.path);
        let found = tables.iter().position(is_it);
        let table = match found.and_then(|index| tables.get_mut(index)) {
            Some(table) => table,
            None => {
                let mut table = Table::new();
                table.insert("path", value(change.path));
                if let Some(name) = change.name {
                    table.insert("name", value(name));
                }
                tables.push(table);
                let last = tables.len() - 1;
                // It was just put there.
                let Some(table) = tables.get_mut(last) else {
                    return Ok(());
                };
                table
            }
        };
        if let Some(secret) = change.secret {
            add_secret(table, secret);
        }
        let subscription = table.entry("subscription");
        let subscription = subscription.or_insert(value(InlineTable::new()));
        if let Some(subscription) = subscription.as_table_like_mut() {
            set(subscription, "url", change.url.into());
            set(
                subscription,
                "events",
                Array::from_iter(change.events).into(),
            );
            if let Some((key, reference)) = change.login {
                set(subscription, key, reference.into());
            }
        }
        Ok(())
    }

    /// Writes the file where anything changed. Says whether anything did.
    pub(crate) fn save(&self) -> Result<bool, Failure> {
        let text = self.toml.to_string();
        if text == self.before {
            return Ok(false);
        }
        // A new file needn't begin with what parts tables.
        let text = if self.before.is_empty() {
            text.trim_start()
        } else {
            &text
        };
        files::replace(&self.path, text, false)?;
        Ok(true)
    }
}

/// What [`Document::subscribe`] says of an endpoint.
#[derive(Clone, Copy)]
pub(crate) struct Subscribe<'a> {
    pub(crate) path: &'a str,
    pub(crate) name: Option<&'a str>,
    /// `file:PATH`; `None` where the endpoint has the secret already.
    pub(crate) secret: Option<&'a str>,
    pub(crate) url: &'a str,
    pub(crate) events: &'a [String],
    /// `token` or `api_key`, and where it is.
    pub(crate) login: Option<(&'a str, &'a str)>,
}

/// Adds a secret to those that are there, which may sign the deliveries of other subscriptions.
fn add_secret(table: &mut Table, secret: &str) {
    let key = if table.contains_key("secrets") {
        "secrets"
    } else {
        "secret"
    };
    let Some(there) = table.get_mut(key).and_then(Item::as_value_mut) else {
        table.insert(key, value(secret));
        return;
    };
    let is_it = |one: &toml_edit::Value| one.as_str() == Some(secret);
    match there {
        toml_edit::Value::Array(list) if !list.iter().any(is_it) => list.insert(0, secret),
        toml_edit::Value::Array(_) => {}
        one if is_it(one) => {}
        one => {
            let mut list = Array::from_iter([secret]);
            list.push(one.clone().decorated(" ", ""));
            let mut list = toml_edit::Value::from(list);
            *list.decor_mut() = one.decor().clone();
            *one = list;
        }
    }
}

/// Sets a key, and leaves it as it is written where it says the same.
fn set(table: &mut dyn TableLike, key: &str, new: toml_edit::Value) {
    let plain = |value: &toml_edit::Value| match value {
        toml_edit::Value::Array(list) => list
            .iter()
            .map(|one| one.as_str().map(str::to_owned))
            .collect(),
        one => vec![one.as_str().map(str::to_owned)],
    };
    let same = table
        .get(key)
        .and_then(Item::as_value)
        .is_some_and(|old| plain(old) == plain(&new));
    if !same {
        table.insert(key, value(new));
    }
}
