//! Where Services are reached, for people.

use comfy_table::Table;
use tombolo_cni::agent::{Backends, ClientWay, Frontend, Outcome};

use crate::output::table as with_heading;

/// How many backends are named one by one.
const NAMED: usize = 4;

/// Where Services are reached.
pub fn table(frontends: &[Frontend]) -> Table {
    let client = frontends.iter().find_map(|one| one.client.as_ref());
    let of_client = client.map(|way| format!("from {}", way.client));
    let mut heading = vec!["service", "frontend", "for this node's pods", "for others"];
    heading.extend(of_client.as_deref());
    let mut table = with_heading(&heading);
    for one in frontends {
        let external = if one.external.backends == one.internal.backends {
            "the same".to_owned()
        } else {
            set(&one.external)
        };
        let mut row = vec![
            match (&one.service, &one.pod) {
                (Some(service), _) => service.clone(),
                (None, Some(pod)) => format!("pod {pod}"),
                (None, None) => "-".to_owned(),
            },
            one.frontend.clone(),
            set(&one.internal),
            external,
        ];
        row.extend(one.client.as_ref().map(way));
        table.add_row(row);
    }
    table
}

fn set(set: &Backends) -> String {
    let texts = set.backends.iter().map(|backend| match backend.state.as_str() {
        "serving" => backend.address.to_string(),
        state => format!("{} ({state})", backend.address),
    });
    match (texts.len(), set.drops) {
        (0, true) => "none here: dropped".to_owned(),
        (0, false) => "none: refused".to_owned(),
        _ => some_of(texts),
    }
}

fn way(way: &ClientWay) -> String {
    let to = some_of(way.to.iter().map(ToString::to_string));
    match way.outcome {
        Outcome::Kept => format!("keeps {to}"),
        Outcome::Random if way.to.len() == 1 => to,
        Outcome::Random => format!("any of {to}"),
        Outcome::Hash if way.to.len() == 1 => to,
        Outcome::Hash => format!("by the flow's hash, of {to}"),
        Outcome::Refused => "refused".to_owned(),
        Outcome::Dropped => "dropped".to_owned(),
        Outcome::NotLetIn => "dropped: not in the source ranges".to_owned(),
    }
}

fn some_of(texts: impl ExactSizeIterator<Item = String>) -> String {
    let more = texts.len().saturating_sub(NAMED);
    let mut text = texts.take(NAMED).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}
