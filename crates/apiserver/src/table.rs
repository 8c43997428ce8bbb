//! Tables: what `kubectl get` shows, printed by the server (meta/v1 Table).

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::clock;
use crate::resource::{Cell, Column, Resource};

/// What of each object goes into its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata.
    Metadata,
    /// All of it.
    Object,
}

/// The table of `objects`, with the metadata of their list.
pub fn table(resource: &Resource, objects: &[Arc<Value>], metadata: Value, include: IncludeObject) -> Value {
    let mut columns = vec![json!({
        "name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "Name must be unique within a namespace.",
    })];
    columns.extend(resource.columns.iter().map(|c| {
        json!({
            "name": c.name, "type": c.kind, "format": "", "priority": c.priority,
            "description": c.description,
        })
    }));
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| row(resource, object, include))
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

fn row(resource: &Resource, object: &Value, include: IncludeObject) -> Value {
    let mut cells = vec![object["metadata"]["name"].clone()];
    cells.extend(resource.columns.iter().map(|column| cell(column, object)));
    let object = match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Object => object.clone(),
        IncludeObject::Metadata => json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": object["metadata"],
        }),
    };
    json!({"cells": cells, "object": object})
}

fn cell(column: &Column, object: &Value) -> Value {
    match &column.cell {
        Cell::Of(of) => of(object),
        Cell::Path(path) => {
            let value = at(object, path);
            match column.kind.as_str() {
                "date" => since(value),
                "string" if value.is_object() || value.is_array() => listed(value).into(),
                _ => value.clone(),
            }
        }
    }
}

/// A list as text, its items between commas.
fn listed(value: &Value) -> String {
    match value {
        Value::Array(items) => items.iter().map(listed).collect::<Vec<_>>().join(","),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The value at a path such as `.spec.pools[0].cidr`; null where there is none. Of JSONPath, these are
/// the forms that name a single value.
fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split(['.', '['])
        .filter(|step| !step.is_empty())
        .fold(object, |value, step| match step.strip_suffix(']') {
            Some(index) => index.parse::<usize>().map_or(&Value::Null, |i| &value[i]),
            None => &value[step],
        })
}

/// The time since an object was made.
pub fn age(object: &Value) -> Value {
    since(&object["metadata"]["creationTimestamp"])
}

/// The time since a timestamp, as people read it.
pub fn since(time: &Value) -> Value {
    let Some(time) = time.as_str().and_then(|t| t.parse::<Timestamp>().ok()) else {
        return "<unknown>".into();
    };
    human(clock::now().duration_since(time).as_secs()).into()
}

/// Seconds in at most two units, the smaller one only where it still matters (HumanDuration of
/// k8s.io/apimachinery).
fn human(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |big: i64, big_name: &str, small: i64, small_name: &str| {
        let rest = seconds % big / small;
        let rest = if rest == 0 {
            String::new()
        } else {
            format!("{rest}{small_name}")
        };
        format!("{}{big_name}{rest}", seconds / big)
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(MINUTE, "m", 1, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(HOUR, "h", MINUTE, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(DAY, "d", HOUR, "h"),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        s if s < 8 * YEAR => two(YEAR, "y", DAY, "d"),
        s => format!("{}y", s / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_kubectl_writes_them() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (599, "9m59s"),
            (3599, "59m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (47 * 3600, "47h"),
            (50 * 3600, "2d2h"),
            (700 * 86400, "700d"),
            (800 * 86400, "2y70d"),
        ] {
            assert_eq!(human(seconds), text, "{seconds} s");
        }
    }

    #[test]
    fn paths_lead_to_single_values() {
        let object = json!({"spec": {"pools": [{"cidr": "10.0.0.0/8"}], "n": 3}});
        assert_eq!(at(&object, ".spec.pools[0].cidr"), "10.0.0.0/8");
        assert_eq!(at(&object, ".spec.n"), 3);
        assert!(at(&object, ".spec.pools[7].cidr").is_null());
        assert!(at(&object, ".status.x").is_null());
    }
}
