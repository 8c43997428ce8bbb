//! The kinds of Kubernetes that the server knows from the start: the one table of registrations.

mod event;
mod merge_keys;
mod namespace;
mod node;
mod pod;

use schemars::JsonSchema;

use crate::resource::{RegistrationError, Resource, Rules};
use crate::schema::Schema;

/// Namespace, Node, Pod and Event of the core group.
pub fn resources() -> Result<Vec<Resource>, RegistrationError> {
    Ok(vec![
        namespace::resource()?,
        node::resource()?,
        pod::resource()?,
        event::resource()?,
    ])
}

/// What all kinds of the core group share.
fn core<K: JsonSchema>(kind: &str, short_name: &str) -> Result<Resource, RegistrationError> {
    let mut schema = Schema::of_built_in_kind::<K>().map_err(|source| RegistrationError::Schema {
        kind: kind.to_owned(),
        source,
    })?;
    merge_keys::annotate(&mut schema);
    let singular = kind.to_lowercase();
    Ok(Resource {
        group: String::new(),
        version: "v1".to_owned(),
        kind: kind.to_owned(),
        plural: format!("{singular}s"),
        singular,
        short_names: vec![short_name.to_owned()],
        namespaced: true,
        has_status: true,
        has_log: false,
        strategic_merge: true,
        schema,
        columns: Vec::new(),
        selectable_fields: Vec::new(),
        rules: Rules::default(),
    })
}

fn fields(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|&path| path.to_owned()).collect()
}
