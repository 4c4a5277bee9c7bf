//! Lists and their pages.

use core::cmp::Ordering;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use crate::check::{Refused, bad};

/// How many entries a page has where nobody says.
const PAGE: usize = 20;
const MAX_PAGE: usize = 100;

/// What can be sorted by.
const KEYS: &[&str] = &["createdAt", "updatedAt", "id", "status"];

/// A query, name by name. A name may stand several times.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads it; nothing may be in it but these filters and what every list has.
    pub(crate) fn parse(text: &str, filters: &[&str]) -> Result<Self, Refused> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let Some((name, value)) = pair.split_once('=') else {
                return bad(format!("{pair} has no value"));
            };
            let decoded = percent_decode_str(value).decode_utf8();
            let Ok(value) = decoded.map(|value| value.into_owned()) else {
                return bad(format!("{name} is not UTF-8"));
            };
            let paging = [
                "before",
                "after",
                "offset",
                "limit",
                "sorting_keys",
                "sorting_order",
            ];
            if !paging.contains(&name) && !filters.contains(&name) {
                return bad(format!("unknown parameter {name}"));
            }
            pairs.push((name.to_owned(), value));
        }
        Ok(Self(pairs))
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.0.iter().filter(|(other, _)| other == name);
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// One of these, or nothing.
    pub(crate) fn one_of(&self, name: &str, values: &[&str]) -> Result<Option<&str>, Refused> {
        match self.all(name)[..] {
            [] => Ok(None),
            [value] if values.contains(&value) => Ok(Some(value)),
            _ => bad(format!("{name} must be one of {values:?}")),
        }
    }

    /// Any of these, or nothing.
    pub(crate) fn any_of(&self, name: &str, values: &[&str]) -> Result<Vec<&str>, Refused> {
        let given = self.all(name);
        if given.iter().all(|value| values.contains(value)) {
            return Ok(given);
        }
        bad(format!("{name} must be among {values:?}"))
    }

    fn number(&self, name: &str) -> Result<Option<usize>, Refused> {
        match self.all(name)[..] {
            [] => Ok(None),
            [text] => match text.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => bad(format!("{name} must be a number")),
            },
            _ => bad(format!("{name} is there twice")),
        }
    }

    fn cursor(&self, name: &str) -> Result<Option<u64>, Refused> {
        match self.all(name)[..] {
            [] => Ok(None),
            [text] => match decode(text) {
                Some(sequence) => Ok(Some(sequence)),
                None => bad(format!("{name} is not a cursor")),
            },
            _ => bad(format!("{name} is there twice")),
        }
    }

    fn sorting(&self) -> Result<Vec<(&str, &str)>, Refused> {
        let keys = self.any_of("sorting_keys", KEYS)?;
        let orders = self.any_of(
            "sorting_order",
            &[
                "ASC",
                "ASC_NULLS_FIRST",
                "ASC_NULLS_LAST",
                "DESC",
                "DESC_NULLS_FIRST",
                "DESC_NULLS_LAST",
            ],
        )?;
        if keys.len() != orders.len() {
            return bad("sorting_order must have as many entries as sorting_keys");
        }
        Ok(keys.into_iter().zip(orders).collect())
    }
}

/// The page of a list that a query asks for.
pub(crate) fn page(mut list: Vec<(u64, Value)>, query: &Query) -> Result<Value, Refused> {
    let (before, after) = (query.cursor("before")?, query.cursor("after")?);
    let offset = query.number("offset")?;
    let places = [before.is_some(), after.is_some(), offset.is_some()];
    if places.into_iter().filter(|&given| given).count() > 1 {
        return bad("before, after and offset exclude each other");
    }
    let limit = query.number("limit")?.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return bad(format!("limit must be from 1 to {MAX_PAGE}"));
    }
    let sorting = query.sorting()?;
    list.sort_by(|one, other| {
        let by_keys = sorting
            .iter()
            .map(|(key, order)| compare(&one.1[*key], &other.1[*key], order))
            .find(|order| order.is_ne());
        by_keys.unwrap_or_else(|| one.0.cmp(&other.0))
    });
    let place = |sequence| list.iter().position(|entry| entry.0 == sequence);
    let (start, end) = match (before, after) {
        (Some(before), _) => {
            let Some(end) = place(before) else {
                return bad("before is not a cursor of this list");
            };
            (end.saturating_sub(limit), end)
        }
        (None, Some(after)) => {
            let Some(last) = place(after) else {
                return bad("after is not a cursor of this list");
            };
            (last + 1, last + 1 + limit)
        }
        (None, None) => {
            let start = offset.unwrap_or(0).min(list.len());
            (start, start + limit)
        }
    };
    let end = end.min(list.len());
    let part = &list[start..end];
    let mut pagination = json!({
        "hasNextPage": end < list.len(),
        "hasPreviousPage": start > 0,
        "total": list.len(),
        "currentRequestPagination": current(query, limit, &sorting),
    });
    if let [first, .., last] | [first @ last] = part {
        pagination["startCursor"] = json!(encode(first.0));
        pagination["endCursor"] = json!(encode(last.0));
    }
    let data: Vec<_> = part.iter().map(|entry| &entry.1).collect();
    Ok(json!({ "data": data, "pagination": pagination }))
}

fn current(query: &Query, limit: usize, sorting: &[(&str, &str)]) -> Value {
    let mut current = json!({ "parameters": Map::new(), "limit": limit });
    for (name, value) in &query.0 {
        match name.as_str() {
            "before" | "after" => current[name] = json!(value),
            "offset" => current[name] = json!(value.parse::<u64>().unwrap()),
            "limit" | "sorting_keys" | "sorting_order" => {}
            _ => current["parameters"][name] = json!(query.all(name)),
        }
    }
    if !sorting.is_empty() {
        let (keys, orders): (Vec<_>, Vec<_>) = sorting.iter().copied().unzip();
        current["sortingKeys"] = json!(keys);
        current["sortingOrder"] = json!(orders);
    }
    current
}

fn compare(one: &Value, other: &Value, order: &str) -> Ordering {
    let nulls_first = order.ends_with("NULLS_FIRST");
    match (one.as_str(), other.as_str()) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) if nulls_first => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) if nulls_first => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(one), Some(other)) if order.starts_with("DESC") => other.cmp(one),
        (Some(one), Some(other)) => one.cmp(other),
    }
}

const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// A cursor in Pleo's alphabet.
fn encode(mut sequence: u64) -> String {
    let mut text = String::from("=");
    for _ in 0..7 {
        let digit = usize::try_from(sequence % 32).unwrap();
        text.insert(0, char::from(DIGITS[digit]));
        sequence /= 32;
    }
    text
}

fn decode(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('=').filter(|digits| digits.len() == 7)?;
    digits.bytes().try_fold(0, |sequence, byte| {
        let digit = DIGITS.iter().position(|&one| one == byte)?;
        Some(sequence * 32 + u64::try_from(digit).ok()?)
    })
}
