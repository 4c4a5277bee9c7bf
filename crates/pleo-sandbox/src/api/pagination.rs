//! Pages of a list: filters, sorting, cursors.

use core::cmp::Ordering;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::validation::{ApiError, bad_request};

/// The page size if a request sets none.
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;

/// The keys that a list can be sorted by.
const SORTING_KEYS: &[&str] = &["createdAt", "updatedAt", "id", "status"];

/// The parameters of a query string. A name may be repeated.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Parses a query string. Allows only these filters and the parameters of pagination.
    pub(crate) fn parse(text: &str, filters: &[&str]) -> Result<Self, ApiError> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let Some((name, value)) = pair.split_once('=') else {
                return bad_request(format!("{pair} has no value"));
            };
            let decoded = percent_decode_str(value).decode_utf8();
            let Ok(value) = decoded.map(|value| value.into_owned()) else {
                return bad_request(format!("{name} is not UTF-8"));
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
                return bad_request(format!("unknown parameter {name}"));
            }
            pairs.push((name.to_owned(), value));
        }
        Ok(Self(pairs))
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.0.iter().filter(|(other, _)| other == name);
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// Returns the value of a parameter. Rejects any value but these.
    pub(crate) fn one_of(&self, name: &str, values: &[&str]) -> Result<Option<&str>, ApiError> {
        match self.all(name)[..] {
            [] => Ok(None),
            [value] if values.contains(&value) => Ok(Some(value)),
            _ => bad_request(format!("{name} must be one of {values:?}")),
        }
    }

    /// Returns the values of a repeatable parameter. Rejects any value but these.
    pub(crate) fn any_of(&self, name: &str, values: &[&str]) -> Result<Vec<&str>, ApiError> {
        let given = self.all(name);
        if given.iter().all(|value| values.contains(value)) {
            return Ok(given);
        }
        bad_request(format!("{name} must be among {values:?}"))
    }

    fn number(&self, name: &str) -> Result<Option<usize>, ApiError> {
        match self.all(name)[..] {
            [] => Ok(None),
            [text] => match text.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => bad_request(format!("{name} must be a number")),
            },
            _ => bad_request(format!("{name} is duplicated")),
        }
    }

    fn cursor(&self, name: &str) -> Result<Option<u64>, ApiError> {
        match self.all(name)[..] {
            [] => Ok(None),
            [text] => match decode(text) {
                Some(sequence) => Ok(Some(sequence)),
                None => bad_request(format!("{name} is not a cursor")),
            },
            _ => bad_request(format!("{name} is duplicated")),
        }
    }

    fn sorting(&self) -> Result<Vec<(&str, &str)>, ApiError> {
        let keys = self.any_of("sorting_keys", SORTING_KEYS)?;
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
            return bad_request("sorting_order must have as many entries as sorting_keys");
        }
        Ok(keys.into_iter().zip(orders).collect())
    }
}

/// Returns the requested page of a list.
pub(crate) fn page(mut list: Vec<(u64, Value)>, query: &Query) -> Result<Value, ApiError> {
    let (before, after) = (query.cursor("before")?, query.cursor("after")?);
    let offset = query.number("offset")?;
    let starts = [before.is_some(), after.is_some(), offset.is_some()];
    if starts.into_iter().filter(|&given| given).count() > 1 {
        return bad_request("before, after and offset exclude each other");
    }
    let limit = query.number("limit")?.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return bad_request(format!("limit must be from 1 to {MAX_LIMIT}"));
    }
    let sorting = query.sorting()?;
    list.sort_by(|left, right| {
        let by_keys = sorting
            .iter()
            .map(|(key, order)| compare(&left.1[*key], &right.1[*key], order))
            .find(|order| order.is_ne());
        by_keys.unwrap_or_else(|| left.0.cmp(&right.0))
    });
    let position = |sequence| list.iter().position(|entry| entry.0 == sequence);
    let (start, end) = match (before, after) {
        (Some(before), _) => {
            let Some(end) = position(before) else {
                return bad_request("before is not a cursor of this list");
            };
            (end.saturating_sub(limit), end)
        }
        (None, Some(after)) => {
            let Some(last) = position(after) else {
                return bad_request("after is not a cursor of this list");
            };
            (last + 1, last + 1 + limit)
        }
        (None, None) => {
            let start = offset.unwrap_or(0).min(list.len());
            (start, start + limit)
        }
    };
    let end = end.min(list.len());
    let entries = &list[start..end];
    let mut pagination = json!({
        "hasNextPage": end < list.len(),
        "hasPreviousPage": start > 0,
        "total": list.len(),
        "currentRequestPagination": current_pagination(query, limit, &sorting),
    });
    if let [first, .., last] | [first @ last] = entries {
        pagination["startCursor"] = json!(encode(first.0));
        pagination["endCursor"] = json!(encode(last.0));
    }
    let data: Vec<_> = entries.iter().map(|entry| &entry.1).collect();
    Ok(json!({ "data": data, "pagination": pagination }))
}

fn current_pagination(query: &Query, limit: usize, sorting: &[(&str, &str)]) -> Value {
    let mut current = json!({ "parameters": Map::new(), "limit": limit });
    for (name, value) in &query.0 {
        match name.as_str() {
            "before" | "after" => current[name] = json!(value),
            "offset" => current[name] = json!(value.parse::<u64>().ok()),
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

fn compare(left: &Value, right: &Value, order: &str) -> Ordering {
    let nulls_first = order.ends_with("NULLS_FIRST");
    match (left.as_str(), right.as_str()) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) if nulls_first => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) if nulls_first => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(left), Some(right)) if order.starts_with("DESC") => right.cmp(left),
        (Some(left), Some(right)) => left.cmp(right),
    }
}

const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Encodes a sequence number as a cursor, in Pleo's alphabet.
pub(crate) fn encode(mut sequence: u64) -> String {
    let mut text = String::from("=");
    for _ in 0..7 {
        let digit = usize::try_from(sequence % 32).unwrap_or_default();
        text.insert(0, char::from(DIGITS[digit]));
        sequence /= 32;
    }
    text
}

fn decode(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('=').filter(|digits| digits.len() == 7)?;
    digits.bytes().try_fold(0, |sequence, byte| {
        let digit = DIGITS.iter().position(|&digit| digit == byte)?;
        Some(sequence * 32 + u64::try_from(digit).ok()?)
    })
}
