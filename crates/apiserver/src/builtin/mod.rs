//! The kinds of Kubernetes that the server knows from the start: the one table of registrations.

mod addresses;
mod endpoint_slice;
mod event;
mod merge_keys;
mod namespace;
mod node;
mod pod;
mod pod_ports;
mod service;

use schemars::JsonSchema;

use crate::resource::{RegistrationError, Resource, Rules};
use crate::schema::Schema;

pub use service::ServiceRanges;

/// Namespace, Node, Pod, Service and Event of the core group, and EndpointSlice of `discovery.k8s.io`. Services are
/// given what is in `ranges`.
pub fn resources(ranges: &ServiceRanges) -> Result<Vec<Resource>, RegistrationError> {
    Ok(vec![
        namespace::resource()?,
        node::resource()?,
        pod::resource()?,
        service::resource(ranges)?,
        endpoint_slice::resource()?,
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
        short_names: (!short_name.is_empty())
            .then(|| short_name.to_owned())
            .into_iter()
            .collect(),
        categories: Vec::new(),
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
