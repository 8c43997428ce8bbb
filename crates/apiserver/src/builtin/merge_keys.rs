//! How strategic merge patches merge the lists of built-in kinds.
//!
//! The source is the `patchStrategy` and `patchMergeKey` tags of k8s.io/api/core/v1 and
//! k8s.io/apimachinery/pkg/apis/meta/v1. Lists that are not here are replaced as a whole.

use crate::schema::Schema;

const CORE: &str = "io.k8s.api.core.v1.";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// Lists of objects: type, field and the key by which items are the same.
const KEYED: &[(&str, &str, &str, &str)] = &[
    (META, "ObjectMeta", "ownerReferences", "uid"),
    (CORE, "Container", "env", "name"),
    (CORE, "Container", "ports", "containerPort"),
    (CORE, "Container", "volumeDevices", "devicePath"),
    (CORE, "Container", "volumeMounts", "mountPath"),
    (CORE, "ContainerStatus", "allocatedResourcesStatus", "name"),
    (CORE, "ContainerStatus", "volumeMounts", "mountPath"),
    (CORE, "EphemeralContainer", "env", "name"),
    (CORE, "EphemeralContainer", "ports", "containerPort"),
    (CORE, "EphemeralContainer", "volumeDevices", "devicePath"),
    (CORE, "EphemeralContainer", "volumeMounts", "mountPath"),
    (CORE, "NamespaceStatus", "conditions", "type"),
    (CORE, "NodeStatus", "addresses", "type"),
    (CORE, "NodeStatus", "conditions", "type"),
    (CORE, "PodSpec", "containers", "name"),
    (CORE, "PodSpec", "ephemeralContainers", "name"),
    (CORE, "PodSpec", "hostAliases", "ip"),
    (CORE, "PodSpec", "imagePullSecrets", "name"),
    (CORE, "PodSpec", "initContainers", "name"),
    (CORE, "PodSpec", "resourceClaims", "name"),
    (CORE, "PodSpec", "schedulingGates", "name"),
    (CORE, "PodSpec", "topologySpreadConstraints", "topologyKey"),
    (CORE, "PodSpec", "volumes", "name"),
    (CORE, "PodStatus", "conditions", "type"),
    (CORE, "PodStatus", "hostIPs", "ip"),
    (CORE, "PodStatus", "podIPs", "ip"),
    (CORE, "PodStatus", "resourceClaimStatuses", "name"),
    (CORE, "ServiceSpec", "ports", "port"),
    (CORE, "ServiceStatus", "conditions", "type"),
];

/// Lists of plain values whose items are united.
const UNITED: &[(&str, &str, &str)] = &[(META, "ObjectMeta", "finalizers"), (CORE, "NodeSpec", "podCIDRs")];

/// Keyed lists whose items, as unions, may also be told which fields to retain.
const RETAINING: &[(&str, &str)] = &[
    ("PodSpec", "volumes"),
    ("PodSpec", "resourceClaims"),
    ("PodStatus", "resourceClaimStatuses"),
];

/// Writes the table into the schema, where clients read it too.
pub fn annotate(schema: &mut Schema) {
    for (package, kind, field, key) in KEYED {
        let definition = format!("{package}{kind}");
        let strategy = if RETAINING.contains(&(kind, field)) {
            "merge,retainKeys"
        } else {
            "merge"
        };
        schema.annotate(&definition, field, "x-kubernetes-patch-merge-key", key);
        schema.annotate(&definition, field, "x-kubernetes-patch-strategy", strategy);
    }
    for (package, kind, field) in UNITED {
        schema.annotate(
            &format!("{package}{kind}"),
            field,
            "x-kubernetes-patch-strategy",
            "merge",
        );
    }
}
