//! Merging lists.

use serde_json::Value;

use super::order::ordered;
use super::{Merge, PATCH, StrategicError, cleaned};

/// How a list merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy<'a> {
    /// The patch's list takes the place of the old one.
    Replace,
    /// Plain values: each is there once.
    Unite,
    /// Objects: those with the same key merge.
    Keyed(&'a str),
}

impl<'a> Strategy<'a> {
    /// What the schema of a field says.
    pub(super) fn of(field: &'a Value) -> Self {
        let merges = field["x-kubernetes-patch-strategy"].as_str();
        if !merges.is_some_and(|s| s.split(',').any(|word| word == "merge")) {
            return Self::Replace;
        }
        field["x-kubernetes-patch-merge-key"]
            .as_str()
            .map_or(Self::Unite, Self::Keyed)
    }
}

impl<'a> Merge<'a> {
    /// Merges the list `name`, whose items are of the schema `item`.
    pub(super) fn lists(
        self,
        item: &'a Value,
        name: &str,
        strategy: Strategy<'_>,
        original: Vec<Value>,
        patch: &[Value],
    ) -> Result<Vec<Value>, StrategicError> {
        let merged = match strategy {
            Strategy::Replace => return Ok(super::cleaned_items(patch)),
            Strategy::Unite => {
                if original.iter().chain(patch).any(Value::is_object) {
                    return Err(StrategicError::NotKeyed(name.to_owned()));
                }
                let mut united: Vec<Value> = Vec::new();
                for value in original.iter().chain(patch) {
                    if !united.contains(value) {
                        united.push(value.clone());
                    }
                }
                united
            }
            Strategy::Keyed(key) => {
                if !original.iter().chain(patch).all(Value::is_object) {
                    return Err(StrategicError::MixedList);
                }
                match self.keyed(item, key, original.clone(), patch)? {
                    Keyed::Merged(merged) => merged,
                    Keyed::Replaced(items) => return Ok(items),
                }
            }
        };
        Ok(ordered(strategy, merged, patch, &original))
    }

    fn keyed(
        self,
        item: &'a Value,
        key: &str,
        mut merged: Vec<Value>,
        patch: &[Value],
    ) -> Result<Keyed, StrategicError> {
        let mut replaces = false;
        let mut plain = Vec::new();
        for patched in patch {
            match patched.get(PATCH) {
                None => plain.push(patched),
                Some(directive) if directive == "delete" => {
                    let value = key_of(patched, key)?;
                    merged.retain(|old| old[key] != *value);
                }
                Some(directive) if directive == "replace" => replaces = true,
                Some(other) => return Err(StrategicError::Directive(other.to_string())),
            }
        }
        if replaces {
            return Ok(Keyed::Replaced(plain.into_iter().map(cleaned).collect()));
        }
        for patched in plain {
            let value = key_of(patched, key)?;
            match merged.iter_mut().find(|old| old[key] == *value) {
                Some(old) => *old = self.values(item, old.take(), patched)?,
                None => merged.push(cleaned(patched)),
            }
        }
        Ok(Keyed::Merged(merged))
    }
}

enum Keyed {
    Merged(Vec<Value>),
    Replaced(Vec<Value>),
}

fn key_of<'v>(item: &'v Value, key: &str) -> Result<&'v Value, StrategicError> {
    item.get(key).ok_or_else(|| StrategicError::NoKey {
        key: key.to_owned(),
        item: item.to_string(),
    })
}
