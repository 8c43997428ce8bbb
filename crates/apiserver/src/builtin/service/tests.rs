//! The rules as a writer meets them: specs go in, specs or causes come out.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;

/// Services of one cluster, which hold what they were given.
struct Cluster {
    ranges: ServiceRanges,
    taken: BTreeSet<String>,
}

impl Cluster {
    fn new(cidrs: &[&str]) -> Self {
        Self {
            ranges: ServiceRanges {
                cidrs: cidrs.iter().map(|c| c.parse().unwrap()).collect(),
                ..ServiceRanges::default()
            },
            taken: BTreeSet::new(),
        }
    }

    fn dual() -> Self {
        Self::new(&["10.96.0.0/16", "fd00:96::/112"])
    }

    /// What becomes of a write, as the server does it.
    fn write(&self, old: Option<&Value>, spec: Value) -> Result<Value, String> {
        let mut new = json!({"metadata": {"name": "web"}, "spec": spec, "status": {"loadBalancer": {}}});
        defaults::set(&mut new);
        let before = old.map(super::spec);
        let mut after = super::spec(&new);
        let told = |causes: Vec<crate::Cause>| {
            let each = causes.iter().map(|c| format!("{}: {}", c.field, c.message));
            each.collect::<Vec<_>>().join("\n")
        };
        admit(&self.ranges, before.as_ref(), &mut after, &|c| {
            self.taken.contains(c)
        })
        .map_err(|refusal| match refusal {
            Refusal::Invalid(causes) => told(causes),
            Refusal::Internal(why) => format!("internal: {why}"),
        })?;
        set_spec(&mut new, &after);
        let causes = validate::service(old, &new);
        if causes.is_empty() {
            Ok(new)
        } else {
            Err(told(causes))
        }
    }

    fn create(&mut self, spec: Value) -> Result<Value, String> {
        let made = self.write(None, spec)?;
        self.taken.extend(allocate::claims(&made));
        Ok(made)
    }

    /// Writes `patch` over a Service, as a merge patch does.
    fn patch(&self, old: &Value, patch: Value) -> Result<Value, String> {
        let mut spec = old["spec"].clone();
        merge(&mut spec, &patch);
        self.write(Some(old), spec)
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    for (name, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut target[name], value);
        }
    }
}

fn ports(ports: Value) -> Value {
    json!({"selector": {"app": "web"}, "ports": ports})
}

fn with(mut spec: Value, more: Value) -> Value {
    merge(&mut spec, &more);
    spec
}

fn web() -> Value {
    ports(json!([{"port": 80}]))
}

#[test]
fn what_is_left_out_is_set() {
    let made = Cluster::dual().create(web()).unwrap();
    let ip = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert!(ip.starts_with("10.96."), "{ip}");
    assert_eq!(
        made["spec"],
        json!({
            "type": "ClusterIP",
            "clusterIP": ip,
            "clusterIPs": [ip],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "selector": {"app": "web"},
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        })
    );
    let made = Cluster::dual()
        .create(with(
            web(),
            json!({"type": "LoadBalancer", "sessionAffinity": "ClientIP"}),
        ))
        .unwrap();
    let spec = &made["spec"];
    assert_eq!(spec["externalTrafficPolicy"], "Cluster");
    assert_eq!(spec["allocateLoadBalancerNodePorts"], true);
    assert_eq!(spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10800);
    assert!(
        (30086..=32767).contains(&spec["ports"][0]["nodePort"].as_i64().unwrap()),
        "{spec}"
    );
}

#[test]
fn a_service_is_of_the_families_that_it_asks_for_and_the_cluster_has() {
    let (v4, v6) = (&["10.96.0.0/16"][..], &["fd00:96::/112"][..]);
    let (dual, dual6) = (
        &["10.96.0.0/16", "fd00:96::/112"][..],
        &["fd00:96::/112", "10.96.0.0/16"][..],
    );
    let none = json!({"clusterIP": "None"});
    let unselected = json!({"clusterIP": "None", "selector": null});
    for (cidrs, asked, families) in [
        (v4, json!({}), json!(["IPv4"])),
        (v6, json!({}), json!(["IPv6"])),
        (dual, json!({}), json!(["IPv4"])),
        (dual6, json!({}), json!(["IPv6"])),
        (dual, json!({"ipFamilies": ["IPv6"]}), json!(["IPv6"])),
        (
            dual,
            json!({"ipFamilyPolicy": "PreferDualStack"}),
            json!(["IPv4", "IPv6"]),
        ),
        (
            dual6,
            json!({"ipFamilyPolicy": "RequireDualStack"}),
            json!(["IPv6", "IPv4"]),
        ),
        (v4, json!({"ipFamilyPolicy": "PreferDualStack"}), json!(["IPv4"])),
        (dual, json!({"clusterIP": "fd00:96::7"}), json!(["IPv6"])),
        (dual, none, json!(["IPv4"])),
        (v6, unselected, json!(["IPv6", "IPv4"])),
    ] {
        let made = Cluster::new(cidrs).create(with(web(), asked.clone())).unwrap();
        assert_eq!(made["spec"]["ipFamilies"], families, "{cidrs:?} {asked}");
        if asked["clusterIP"] != "None" {
            let ips = made["spec"]["clusterIPs"].as_array().unwrap();
            assert_eq!(ips.len(), families.as_array().unwrap().len(), "{cidrs:?} {asked}");
            assert_eq!(made["spec"]["clusterIP"], ips[0]);
        }
    }
    let refused = |cidrs, asked| Cluster::new(cidrs).create(with(web(), asked)).unwrap_err();
    assert_eq!(
        refused(v4, json!({"ipFamilyPolicy": "RequireDualStack"})),
        "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services"
    );
    assert_eq!(
        refused(v4, json!({"ipFamilies": ["IPv6"]})),
        "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"
    );
    assert_eq!(
        refused(
            dual,
            json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "SingleStack"})
        ),
        "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"
    );
}

#[test]
fn nothing_is_given_twice() {
    let mut cluster = Cluster::new(&["10.96.0.0/28"]);
    let mut ips = BTreeSet::new();
    for _ in 0..14 {
        let made = cluster.create(web()).unwrap();
        assert!(ips.insert(made["spec"]["clusterIP"].as_str().unwrap().to_owned()));
    }
    assert!(
        !ips.contains("10.96.0.0") && !ips.contains("10.96.0.15"),
        "{ips:?}"
    );
    assert_eq!(
        cluster.create(web()).unwrap_err(),
        "internal: failed to allocate a serviceIP: range is full"
    );
    assert_eq!(
        cluster
            .create(with(web(), json!({"clusterIP": "10.96.0.3"})))
            .unwrap_err(),
        "spec.clusterIPs: Invalid value: []string{\"10.96.0.3\"}: failed to allocate IP 10.96.0.3: provided IP is already allocated"
    );
    assert_eq!(
        cluster
            .create(with(web(), json!({"clusterIP": "10.97.0.3"})))
            .unwrap_err(),
        "spec.clusterIPs: Invalid value: []string{\"10.97.0.3\"}: failed to allocate IP 10.97.0.3: the provided IP (10.97.0.3) is not in the valid range. The range of valid IPs is 10.96.0.0/28"
    );

    let mut cluster = Cluster::dual();
    cluster.ranges.node_ports = 30000..=30001;
    let node_port = json!({"type": "NodePort"});
    let first = cluster.create(with(web(), node_port.clone())).unwrap();
    let taken = first["spec"]["ports"][0]["nodePort"].clone();
    let asks = with(node_port.clone(), ports(json!([{"port": 80, "nodePort": taken}])));
    assert_eq!(
        cluster.create(asks).unwrap_err(),
        format!("spec.ports[0].nodePort: Invalid value: {taken}: provided port is already allocated")
    );
    let asks = with(node_port.clone(), ports(json!([{"port": 80, "nodePort": 29999}])));
    assert_eq!(
        cluster.create(asks).unwrap_err(),
        "spec.ports[0].nodePort: Invalid value: 29999: provided port is not in the valid range. The range of valid ports is 30000-30001"
    );
    cluster.create(with(web(), node_port.clone())).unwrap();
    assert_eq!(
        cluster.create(with(web(), node_port)).unwrap_err(),
        "internal: failed to allocate a nodePort: range is full"
    );
}

#[test]
fn protocols_of_one_port_share_a_node_port() {
    let spec = ports(
        json!([{"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"}, {"name": "x", "port": 54}]),
    );
    let made = Cluster::dual()
        .create(with(spec, json!({"type": "NodePort"})))
        .unwrap();
    let of = |i: usize| made["spec"]["ports"][i]["nodePort"].as_i64().unwrap();
    assert_eq!(of(0), of(1));
    assert_ne!(of(0), of(2));
}

#[test]
fn a_change_of_the_type_gives_keeps_and_drops() {
    let mut cluster = Cluster::dual();
    let made = cluster.create(web()).unwrap();
    let ip = made["spec"]["clusterIP"].clone();

    let open = cluster.patch(&made, json!({"type": "NodePort"})).unwrap();
    let port = open["spec"]["ports"][0]["nodePort"].clone();
    assert!(port.is_i64());
    assert_eq!(open["spec"]["clusterIP"], ip);

    let balanced =
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "loadBalancerClass": "a.b/c"});
    let balanced = cluster.patch(&open, balanced).unwrap();
    assert_eq!(
        balanced["spec"]["ports"][0]["nodePort"], port,
        "the node port stays"
    );
    let health = balanced["spec"]["healthCheckNodePort"].clone();
    assert!(health.is_i64() && health != port);
    let claims: BTreeSet<String> = allocate::claims(&balanced).into_iter().collect();
    let wanted = [
        format!("address {}", ip.as_str().unwrap()),
        format!("port {port}"),
        format!("port {health}"),
    ];
    assert_eq!(claims, BTreeSet::from(wanted));

    let named = cluster
        .patch(
            &balanced,
            json!({"type": "ExternalName", "externalName": "example.com"}),
        )
        .unwrap();
    assert_eq!(
        named["spec"],
        json!({
            "type": "ExternalName",
            "externalName": "example.com",
            "sessionAffinity": "None",
            "selector": {"app": "web"},
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        })
    );
    assert!(allocate::claims(&named).is_empty());

    let back = cluster
        .patch(&named, json!({"type": "ClusterIP", "externalName": null}))
        .unwrap();
    assert!(back["spec"]["clusterIP"].is_string());
    let closed = cluster.patch(&balanced, json!({"type": "ClusterIP"})).unwrap();
    assert_eq!(closed["spec"], made["spec"], "as it was at first");
}

#[test]
fn the_same_manifest_again_changes_nothing() {
    let mut cluster = Cluster::dual();
    let manifest = with(
        web(),
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ipFamilyPolicy": "RequireDualStack"}),
    );
    let made = cluster.create(manifest.clone()).unwrap();
    assert_eq!(
        cluster.write(Some(&made), manifest.clone()).unwrap()["spec"],
        made["spec"]
    );

    let more = with(
        manifest,
        ports(json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}])),
    );
    let grown = cluster.write(Some(&made), more).unwrap();
    let ports = grown["spec"]["ports"].as_array().unwrap();
    assert!(ports.iter().all(|p| p["nodePort"].is_i64()), "{ports:?}");
}

#[test]
fn a_second_family_comes_and_goes() {
    let mut cluster = Cluster::dual();
    let made = cluster.create(web()).unwrap();
    let two = cluster
        .patch(&made, json!({"ipFamilyPolicy": "PreferDualStack"}))
        .unwrap();
    assert_eq!(two["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert_eq!(two["spec"]["clusterIPs"][0], made["spec"]["clusterIPs"][0]);
    assert!(
        two["spec"]["clusterIPs"][1]
            .as_str()
            .unwrap()
            .starts_with("fd00:96::")
    );
    let one = cluster
        .patch(&two, json!({"ipFamilyPolicy": "SingleStack"}))
        .unwrap();
    assert_eq!(one["spec"], made["spec"]);
    let first = two["spec"]["clusterIPs"][0].clone();
    assert_eq!(
        cluster
            .patch(&two, json!({"clusterIPs": [first], "ipFamilies": ["IPv4"]}))
            .unwrap_err(),
        "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be 'SingleStack' to release the secondary cluster IP\n\
         spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be 'SingleStack' to release the secondary IP family"
    );
}

#[test]
fn what_is_set_once_stays() {
    let mut cluster = Cluster::dual();
    let made = cluster
        .create(with(web(), json!({"clusterIP": "10.96.0.9"})))
        .unwrap();
    assert_eq!(
        cluster
            .patch(&made, json!({"clusterIP": "10.96.0.10"}))
            .unwrap_err(),
        "spec.clusterIPs[0]: Invalid value: []string{\"10.96.0.10\"}: may not change once set"
    );
    assert_eq!(
        cluster.patch(&made, json!({"clusterIP": "None"})).unwrap_err(),
        "spec.clusterIPs[0]: Invalid value: []string{\"None\"}: may not change once set"
    );
    let balanced =
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30001});
    let made = cluster.create(with(web(), balanced)).unwrap();
    assert_eq!(
        cluster
            .patch(&made, json!({"healthCheckNodePort": 30002}))
            .unwrap_err(),
        "spec.healthCheckNodePort: Forbidden: field is immutable"
    );
    assert_eq!(
        cluster
            .patch(&made, json!({"loadBalancerClass": "x.y/z"}))
            .unwrap_err(),
        "spec.loadBalancerClass: Invalid value: \"x.y/z\": may not change once set"
    );
}

#[test]
fn mistakes_are_told_in_the_words_of_kubernetes() {
    let name = |more: Value| {
        with(
            json!({"type": "ExternalName", "externalName": "example.com"}),
            more,
        )
    };
    for (spec, wanted) in [
        (json!({}), "spec.ports: Required value"),
        (
            ports(json!([{"port": 80}, {"port": 81}])),
            "spec.ports[0].name: Required value\nspec.ports[1].name: Required value",
        ),
        (
            ports(json!([{"name": "a", "port": 80}, {"name": "a", "port": 81}])),
            "spec.ports[1].name: Duplicate value: \"a\"",
        ),
        (
            ports(json!([{"name": "a", "port": 80}, {"name": "b", "port": 80}])),
            "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
        ),
        (
            ports(json!([{"port": 0, "targetPort": 1}])),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            ports(json!([{"port": 1, "targetPort": 70000}])),
            "spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            ports(json!([{"port": 1, "targetPort": "Web"}])),
            "spec.ports[0].targetPort: Invalid value: \"Web\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (
            ports(json!([{"port": 1, "protocol": "ICMP"}])),
            "spec.ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        (
            ports(json!([{"port": 1, "nodePort": 30000}])),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (
            with(web(), json!({"type": "Teapot"})),
            "spec.type: Unsupported value: \"Teapot\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ),
        (
            with(web(), json!({"type": "NodePort", "clusterIP": "None"})),
            "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
        ),
        (
            with(
                web(),
                json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}),
            ),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than 86400",
        ),
        (
            with(web(), json!({"externalTrafficPolicy": "Local"})),
            "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
        ),
        (
            with(web(), json!({"externalIPs": ["127.0.0.1"]})),
            "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ),
        (
            with(web(), json!({"loadBalancerClass": "a.b/c"})),
            "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ),
        (
            with(web(), json!({"clusterIP": "nonsense"})),
            "spec.clusterIPs[0]: Invalid value: \"nonsense\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
        (
            with(
                web(),
                json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.2"]}),
            ),
            "spec.clusterIPs: Invalid value: []string{\"10.96.0.2\"}: first value must match `clusterIP`",
        ),
        (
            json!({"type": "ExternalName"}),
            "spec.externalName: Required value",
        ),
        (
            name(json!({"clusterIP": "10.96.0.1"})),
            "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
        ),
        (
            with(web(), json!({"trafficDistribution": "Random"})),
            "spec.trafficDistribution: Unsupported value: \"Random\": supported values: \"PreferClose\", \"PreferSameNode\", \"PreferSameZone\"",
        ),
    ] {
        assert_eq!(
            Cluster::dual().create(spec.clone()).unwrap_err(),
            wanted,
            "{spec}"
        );
    }
}
