//! The order of merged lists: the client's for the items it names, the server's for the others, the two
//! interleaved as the old list was.

use serde_json::Value;

use super::list::Strategy;
use super::{ELEMENT_ORDER, Merge, Object, PATCH, StrategicError, list_of};

/// A `$setElementOrder` of a patch.
pub(super) struct ElementOrder<'a> {
    name: &'a str,
    strategy: Strategy<'a>,
    order: &'a [Value],
    /// The list before the patch.
    server: Vec<Value>,
}

impl<'a> Merge<'a> {
    /// The orders that a patch wants lists of `original` to have.
    pub(super) fn element_orders<'p>(
        self,
        schema: &'p Value,
        original: &Object,
        patch: &'p Object,
    ) -> Result<Vec<ElementOrder<'p>>, StrategicError>
    where
        'a: 'p,
    {
        let mut orders = Vec::new();
        for (directive, order) in patch {
            let Some(name) = directive.strip_prefix(ELEMENT_ORDER) else {
                continue;
            };
            let order = list_of(directive, order)?;
            let strategy = match Strategy::of(self.schema.field(schema, name).unwrap_or(&Value::Null)) {
                Strategy::Replace if order.iter().any(Value::is_object) => {
                    return Err(StrategicError::NotKeyed(name.to_owned()));
                }
                Strategy::Replace => Strategy::Unite,
                strategy => strategy,
            };
            if let Some(Value::Array(patched)) = patch.get(name)
                && !follows(strategy, patched, order)
            {
                return Err(StrategicError::Order(name.to_owned()));
            }
            let server = original
                .get(name)
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            orders.push(ElementOrder {
                name,
                strategy,
                order,
                server,
            });
        }
        Ok(orders)
    }
}

impl ElementOrder<'_> {
    /// Puts the list into this order, once the rest of the patch is applied.
    pub(super) fn set(&self, merged: &mut Object) {
        if let Some(Value::Array(items)) = merged.get_mut(self.name) {
            *items = ordered(self.strategy, std::mem::take(items), self.order, &self.server);
        }
    }
}

/// Whether the items of a patch are in the given order, and all part of it.
fn follows(strategy: Strategy<'_>, patched: &[Value], order: &[Value]) -> bool {
    let mut rest = order.iter();
    let kept = patched.iter().filter(|item| item.get(PATCH).is_none());
    kept.into_iter().all(|item| rest.any(|o| same(strategy, item, o)))
}

/// `items` with those that `order` names in its order, the others in the order of `server`, and each of
/// the others before the first named one that it stood before on the server.
pub(super) fn ordered(
    strategy: Strategy<'_>,
    items: Vec<Value>,
    order: &[Value],
    server: &[Value],
) -> Vec<Value> {
    let place = |list: &[Value], item: &Value| list.iter().position(|other| same(strategy, item, other));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    others.sort_by_key(|item| place(server, item));
    let mut merged = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        let here = place(server, &item);
        while let Some(other) = others.next_if(|other| {
            place(server, other)
                .zip(here)
                .is_some_and(|(other, here)| other < here)
        }) {
            merged.push(other);
        }
        merged.push(item);
    }
    merged.extend(others);
    merged
}

fn same(strategy: Strategy<'_>, a: &Value, b: &Value) -> bool {
    match strategy {
        Strategy::Keyed(key) => a.get(key).is_some() && a[key] == b[key],
        Strategy::Replace | Strategy::Unite => a == b,
    }
}
