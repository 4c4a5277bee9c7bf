//! Edits the configuration file and keeps its comments.

use std::path::{Path, PathBuf};

use toml_edit::{
    Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value, value,
};

use crate::failure::Failure;
use crate::files::{self, Access};

const OWNER_COMMENT: &str = "\
# Marks the subscriptions at Pleo that this file owns. Leave this table out of a copy.\n";

/// The configuration file as an editable document.
pub(crate) struct ConfigDocument {
    path: PathBuf,
    before: String,
    toml: DocumentMut,
}

/// The keys of an endpoint that [`ConfigDocument::set_endpoint`] sets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndpointEdit<'a> {
    pub(crate) path: &'a str,
    /// Set only in a new table.
    pub(crate) name: Option<&'a str>,
    /// `file:PATH`; `None` if the endpoint already has the secret.
    pub(crate) secret: Option<&'a str>,
    pub(crate) url: &'a str,
    pub(crate) events: &'a [String],
    /// `token` or `api_key`, and the reference to it.
    pub(crate) credentials: Option<(&'a str, &'a str)>,
}

impl ConfigDocument {
    /// Reads the file. A file that does not exist is empty.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let location = path.display();
        let before = files::read_if_exists(path)
            .map_err(|error| Failure::file(&error, format!("cannot read {location}: {error}")))?;
        // The parser's error shows the line, which may hold a secret.
        let toml = before.parse();
        let toml = toml.map_err(|_| Failure::Usage(format!("{location} is not valid TOML")))?;
        Ok(Self {
            path: path.to_owned(),
            before,
            toml,
        })
    }

    /// Returns the name in the table `[subscriptions]`.
    pub(crate) fn owner(&self) -> Option<&str> {
        self.toml.get("subscriptions")?.get("name")?.as_str()
    }

    /// Sets the name in the table `[subscriptions]`.
    pub(crate) fn set_owner(&mut self, name: &str) {
        let mut table = Table::new();
        table.insert("name", value(name));
        if let Some(mut key) = table.key_mut("name") {
            key.leaf_decor_mut().set_prefix(OWNER_COMMENT);
        }
        self.toml.insert("subscriptions", Item::Table(table));
    }

    /// Checks that an endpoint can be added.
    pub(crate) fn check_endpoints(&self) -> Result<(), Failure> {
        match self.toml.get("endpoint") {
            None | Some(Item::ArrayOfTables(_)) => Ok(()),
            Some(_) => Err(Failure::Usage(format!(
                "{}: cannot add an endpoint, since `endpoint` is an inline array: write each \
                 endpoint as an `[[endpoint]]` table",
                self.path.display()
            ))),
        }
    }

    /// Sets the keys of the endpoint with this path. Adds the endpoint if there is none.
    pub(crate) fn set_endpoint(&mut self, edit: &EndpointEdit<'_>) -> Result<(), Failure> {
        self.check_endpoints()?;
        let entry = self.toml.entry("endpoint");
        let tables = entry.or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        let Some(tables) = tables.as_array_of_tables_mut() else {
            return Ok(());
        };
        let has_path = |table: &Table| table.get("path").and_then(Item::as_str) == Some(edit.path);
        let found = tables.iter().position(has_path);
        let index = found.unwrap_or_else(|| {
            let mut table = Table::new();
            table.insert("path", value(edit.path));
            if let Some(name) = edit.name {
                table.insert("name", value(name));
            }
            tables.push(table);
            tables.len() - 1
        });
        let Some(table) = tables.get_mut(index) else {
            return Ok(());
        };
        if let Some(secret) = edit.secret {
            add_secret(table, secret);
        }
        let subscription = table.entry("subscription");
        let subscription = subscription.or_insert(value(InlineTable::new()));
        if let Some(subscription) = subscription.as_table_like_mut() {
            set(subscription, "url", edit.url.into());
            set(subscription, "events", Array::from_iter(edit.events).into());
            if let Some((key, reference)) = edit.credentials {
                set(subscription, key, reference.into());
            }
        }
        Ok(())
    }

    /// Writes the file if the document has changed. Returns `true` if it has. Fails if another program
    /// has changed the file since it was read or saved.
    pub(crate) fn save(&mut self) -> Result<bool, Failure> {
        let text = self.toml.to_string();
        if text == self.before {
            return Ok(false);
        }
        // `toml_edit` starts each table with an empty line, also the first one of a new file.
        let text = if self.before.is_empty() {
            text.trim_start().to_owned()
        } else {
            text
        };
        files::replace(&self.path, &self.before, &text, Access::Keep)?;
        self.before = text;
        Ok(true)
    }
}

/// Adds a secret before the existing ones, which may have signed deliveries in flight.
fn add_secret(table: &mut Table, secret: &str) {
    let key = if table.contains_key("secrets") {
        "secrets"
    } else {
        "secret"
    };
    let Some(existing) = table.get_mut(key).and_then(Item::as_value_mut) else {
        table.insert(key, value(secret));
        return;
    };
    let is_secret = |value: &Value| value.as_str() == Some(secret);
    match existing {
        Value::Array(list) if !list.iter().any(is_secret) => list.insert(0, secret),
        Value::Array(_) => {}
        single if is_secret(single) => {}
        single => {
            let mut list = Array::from_iter([secret]);
            list.push(single.clone().decorated(" ", ""));
            let mut list = Value::from(list);
            *list.decor_mut() = single.decor().clone();
            *single = list;
        }
    }
}

/// Sets a key. Leaves an equal value as the file spells it.
fn set(table: &mut dyn TableLike, key: &str, new: Value) {
    let texts = |value: &Value| match value {
        Value::Array(list) => list
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect(),
        single => vec![single.as_str().map(str::to_owned)],
    };
    let old = table.get(key).and_then(Item::as_value);
    if old.is_none_or(|old| texts(old) != texts(&new)) {
        table.insert(key, value(new));
    }
}
