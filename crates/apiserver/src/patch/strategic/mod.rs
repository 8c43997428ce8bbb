//! Strategic merge patch: a merge patch in which the schema says how lists merge, and directives in the
//! patch say the rest.
//!
//! The rules are those of k8s.io/apimachinery/pkg/util/strategicpatch; the directives are described in
//! the Kubernetes community's `sig-api-machinery/strategic-merge-patch.md`:
//! `$patch` (replace or delete), `$retainKeys`, `$deleteFromPrimitiveList` and `$setElementOrder`.

mod list;
mod order;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::schema::Schema;
use list::Strategy;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Why a strategic merge patch cannot be applied.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum StrategicError {
    /// `$patch` knows only two values (and in lists, where it is left out, a third one).
    #[error("unknown value {0} of $patch; it can be \"replace\" or \"delete\"")]
    Directive(String),
    /// A directive has a value of the wrong type.
    #[error("the value of {0} must be a list")]
    NotAList(String),
    /// An item of a keyed list has no key.
    #[error("an item of the patch has no field {key:?}, by which its list is merged: {item}")]
    NoKey {
        /// The key.
        key: String,
        /// The item.
        item: String,
    },
    /// An item of a list is of another type than the rest.
    #[error("a list mixes objects and plain values")]
    MixedList,
    /// A list of objects that has no key cannot be merged or ordered.
    #[error("the list {0} has no merge key, so its objects cannot be merged")]
    NotKeyed(String),
    /// A patch sets a field that its `$retainKeys` does away with.
    #[error("the patch sets {0:?}, which is not in its $retainKeys")]
    NotRetained(String),
    /// The order of items in a patch is not that of its `$setElementOrder`.
    #[error("the items of {0} in the patch are not in the order of its $setElementOrder")]
    Order(String),
}

type Object = Map<String, Value>;

/// The object that results from `patch`.
pub fn apply(schema: &Schema, original: Value, patch: &Value) -> Result<Value, StrategicError> {
    Merge { schema }.values(schema.root(), original, patch)
}

#[derive(Clone, Copy)]
struct Merge<'a> {
    schema: &'a Schema,
}

impl<'a> Merge<'a> {
    /// Merges two values of the same schema; where they are not both objects, the patch's counts.
    fn values(self, schema: &'a Value, original: Value, patch: &Value) -> Result<Value, StrategicError> {
        match (original, patch) {
            (Value::Object(original), Value::Object(patch)) => {
                self.objects(schema, original, patch).map(Value::Object)
            }
            (_, patch) => Ok(cleaned(patch)),
        }
    }

    fn objects(
        self,
        schema: &'a Value,
        mut original: Object,
        patch: &Object,
    ) -> Result<Object, StrategicError> {
        match patch.get(PATCH) {
            None => (),
            Some(Value::String(directive)) if directive == "replace" => return Ok(cleaned_object(patch)),
            Some(Value::String(directive)) if directive == "delete" => return Ok(Object::new()),
            Some(other) => return Err(StrategicError::Directive(other.to_string())),
        }
        if let Some(retained) = patch.get(RETAIN_KEYS) {
            retain(&mut original, patch, list_of(RETAIN_KEYS, retained)?)?;
        }
        let orders = self.element_orders(schema, &original, patch)?;
        for (name, value) in patch {
            if name == RETAIN_KEYS || name.starts_with(ELEMENT_ORDER) {
                continue;
            }
            if let Some(name) = name.strip_prefix(DELETE_FROM) {
                delete_from(&mut original, name, list_of(DELETE_FROM, value)?);
                continue;
            }
            if value.is_null() {
                original.remove(name);
                continue;
            }
            let field = self.schema.field(schema, name).unwrap_or(&Value::Null);
            let merged = match (original.remove(name), value) {
                (Some(Value::Array(old)), Value::Array(new)) => {
                    let strategy = Strategy::of(field);
                    Value::Array(self.lists(self.schema.items(field), name, strategy, old, new)?)
                }
                (None, Value::Array(new)) => Value::Array(cleaned_items(new)),
                (old, new) => self.values(field, old.unwrap_or_default(), new)?,
            };
            original.insert(name.clone(), merged);
        }
        for order in orders {
            order.set(&mut original);
        }
        Ok(original)
    }
}

/// Drops the fields that are not retained. The patch cannot set what it drops.
fn retain(original: &mut Object, patch: &Object, retained: &[Value]) -> Result<(), StrategicError> {
    let is_retained = |name: &str| retained.iter().any(|r| r == name);
    let sets = |name: &str, value: &Value| {
        !value.is_null()
            && name != RETAIN_KEYS
            && !name.starts_with(DELETE_FROM)
            && !name.starts_with(ELEMENT_ORDER)
    };
    if let Some((name, _)) = patch
        .iter()
        .find(|(name, value)| sets(name, value) && !is_retained(name))
    {
        return Err(StrategicError::NotRetained(name.clone()));
    }
    original.retain(|name, _| is_retained(name));
    Ok(())
}

fn delete_from(original: &mut Object, name: &str, gone: &[Value]) {
    if let Some(Value::Array(items)) = original.get_mut(name) {
        items.retain(|item| !gone.contains(item));
    }
}

fn list_of<'a>(directive: &str, value: &'a Value) -> Result<&'a [Value], StrategicError> {
    let list = value
        .as_array()
        .ok_or_else(|| StrategicError::NotAList(directive.to_owned()))?;
    Ok(list)
}

/// A value of a patch as it comes into an object that has none yet: without directives and nulls.
fn cleaned(value: &Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(cleaned_object(object)),
        Value::Array(items) => Value::Array(cleaned_items(items)),
        other => other.clone(),
    }
}

fn cleaned_object(object: &Object) -> Object {
    let is_directive = |name: &str| {
        name == PATCH
            || name == RETAIN_KEYS
            || name.starts_with(DELETE_FROM)
            || name.starts_with(ELEMENT_ORDER)
    };
    let fields = object
        .iter()
        .filter(|(name, value)| !is_directive(name) && !value.is_null());
    fields
        .map(|(name, value)| (name.clone(), cleaned(value)))
        .collect()
}

fn cleaned_items(items: &[Value]) -> Vec<Value> {
    let kept = items.iter().filter(|item| item[PATCH] != "delete");
    // An item that only says "replace the list" is not part of it.
    let kept =
        kept.filter(|item| !(item[PATCH] == "replace" && item.as_object().is_some_and(|o| o.len() == 1)));
    kept.map(cleaned).collect()
}

#[cfg(test)]
mod tests;
