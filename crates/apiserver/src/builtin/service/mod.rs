//! Services: their defaults, what a change of their type drops and keeps, the addresses and node ports that
//! they are given, and what is wrong with them.
//!
//! A write goes the way that it goes in Kubernetes: `defaults`, `change` (on updates), `families`, `allocate`,
//! `validate`. The rules are those of k8s.io/kubernetes: pkg/apis/core/v1/defaults.go,
//! pkg/registry/core/service (strategy.go, storage/alloc.go) and pkg/apis/core/validation.

mod allocate;
mod change;
mod columns;
mod defaults;
mod families;
mod ranges;
mod spec;
#[cfg(test)]
mod tests;
mod validate;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use serde_json::{Value, json};

use super::{core, fields};
use crate::admission::{Admission, Others, Refusal};
use crate::resource::{RegistrationError, Resource, Rules};

pub use ranges::ServiceRanges;

pub(super) fn resource(ranges: &ServiceRanges) -> Result<Resource, RegistrationError> {
    Ok(Resource {
        categories: vec!["all".to_owned()],
        columns: columns::columns(),
        selectable_fields: fields(&["spec.clusterIP", "spec.type"]),
        rules: Rules {
            defaults: defaults::set,
            admission: Some(Arc::new(Allocator(ranges.clone()))),
            claims: allocate::claims,
            on_create: |service| service["status"] = json!({"loadBalancer": {}}),
            validate: validate::service,
            ..Rules::default()
        },
        ..core::<Service>("Service", "svc")?
    })
}

/// Gives Services what no two of them may share.
#[derive(Debug)]
struct Allocator(ServiceRanges);

impl Admission for Allocator {
    fn admit(&self, old: Option<&Value>, new: &mut Value, others: &Others<'_>) -> Result<(), Refusal> {
        let before = old.map(spec);
        let mut after = spec(new);
        admit(&self.0, before.as_ref(), &mut after, &|claim| others.claim(claim))?;
        if before.is_some() && after.type_.as_deref() != Some(spec::LOAD_BALANCER) {
            new["status"]["loadBalancer"] = json!({});
        }
        set_spec(new, &after);
        Ok(())
    }
}

/// Completes the spec of a Service that is made, or takes the place of `before`. `taken` tells whether another
/// Service claims something.
fn admit(
    ranges: &ServiceRanges,
    before: Option<&ServiceSpec>,
    after: &mut ServiceSpec,
    taken: &dyn Fn(&str) -> bool,
) -> Result<(), Refusal> {
    match before {
        Some(before) => change::settle(before, after),
        None => change::pair_cluster_ips(after),
    }
    families::complete(ranges, before, after).map_err(Refusal::Invalid)?;
    allocate::Allocation::new(ranges, taken).run(before, after)
}

/// The spec of a Service; of one that has been checked against its schema, all of it.
fn spec(service: &Value) -> ServiceSpec {
    serde_json::from_value(service["spec"].clone()).unwrap_or_default()
}

fn set_spec(service: &mut Value, spec: &ServiceSpec) {
    if let Ok(spec) = serde_json::to_value(spec) {
        service["spec"] = spec;
    }
}
