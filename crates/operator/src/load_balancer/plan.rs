//! Which Service has which addresses, decided from the objects alone.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

/// The `loadBalancerClass` that names this operator. A Service without a class is its too, where the Network has pools.
pub const CLASS: &str = "tombolo.dev/lb";

/// The addresses that a Service is to have.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// The Service, as it was decided on.
    pub service: Service,
    /// Its addresses, in the order of its families; none if there are none for it.
    pub addresses: Vec<IpAddr>,
}

/// Why a Service does not have an address that it wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// The Service.
    pub service: Service,
    /// What is wrong and what to do, for a person.
    pub message: String,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The Services whose status is to change.
    pub assignments: Vec<Assignment>,
    /// What cannot be done until somebody changes something.
    pub problems: Vec<Problem>,
}

/// Decides what is to be done, so that each Service of type LoadBalancer that is ours has an address of each of its
/// families. What a Service has it keeps, unless it asks for another one (`loadBalancerIP`) or an older Service has
/// the same.
///
/// `services` must be as recent as the API server has them: what is handed out is what none of them has.
pub fn plan<S: Borrow<Service>>(pools: &[IpNet], services: &[S]) -> Plan {
    let mut plan = Plan::default();
    let mut ours: Vec<&Service> = services
        .iter()
        .map(Borrow::borrow)
        .filter(|service| is_ours(pools, service))
        .collect();
    ours.sort_by_key(|s| (s.creation_timestamp().map(|t| t.0), s.namespace(), s.name_any()));

    // First who keeps what, so that nobody is given what a later one in the list has.
    let mut held: BTreeSet<IpAddr> = BTreeSet::new();
    let mut kept: Vec<Vec<IpAddr>> = Vec::new();
    for service in &ours {
        let asked = asked_address(service);
        let mut own = Vec::new();
        for family in families(service) {
            let is_good = |ip: &IpAddr| is_of(*ip, family) && pools.iter().any(|pool| pool.contains(ip));
            let is_asked = |ip: &IpAddr| asked.is_none_or(|asked| !is_of(asked, family) || asked == *ip);
            let has = current(service);
            let has = has
                .into_iter()
                .find(|ip| is_good(ip) && is_asked(ip) && !held.contains(ip));
            held.extend(has);
            own.extend(has);
        }
        kept.push(own);
    }
    for (service, own) in ours.into_iter().zip(kept) {
        let mut addresses = Vec::new();
        for family in families(service) {
            if let Some(ip) = own.iter().find(|ip| is_of(**ip, family)) {
                addresses.push(*ip);
                continue;
            }
            match new_address(pools, service, family, &held) {
                Ok(ip) => {
                    held.insert(ip);
                    addresses.push(ip);
                }
                Err(message) => plan.problems.push(Problem {
                    service: service.clone(),
                    message,
                }),
            }
        }
        if addresses != current(service) || has_others(service) {
            plan.assignments.push(Assignment {
                service: service.clone(),
                addresses,
            });
        }
    }
    plan
}

fn is_ours(pools: &[IpNet], service: &Service) -> bool {
    let spec = service.spec.as_ref();
    let is_balanced = spec.is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"));
    is_balanced
        && service.metadata.deletion_timestamp.is_none()
        && match spec.and_then(|spec| spec.load_balancer_class.as_deref()) {
            Some(class) => class == CLASS,
            None => !pools.is_empty(),
        }
}

/// The IP families of a Service, as it names them: `IPv4`, `IPv6`.
fn families(service: &Service) -> impl Iterator<Item = &str> {
    let families = service
        .spec
        .iter()
        .flat_map(|spec| spec.ip_families.iter().flatten());
    families.map(String::as_str)
}

fn is_of(ip: IpAddr, family: &str) -> bool {
    ip.is_ipv4() == (family == "IPv4")
}

/// The addresses in the status.
fn current(service: &Service) -> Vec<IpAddr> {
    ingress(service)
        .filter_map(|point| point.ip.as_ref()?.parse().ok())
        .collect()
}

/// Whether the status holds what is no address.
fn has_others(service: &Service) -> bool {
    ingress(service).count() != current(service).len()
}

fn ingress(service: &Service) -> impl Iterator<Item = &k8s_openapi::api::core::v1::LoadBalancerIngress> {
    let status = service
        .status
        .iter()
        .filter_map(|status| status.load_balancer.as_ref());
    status.flat_map(|balancer| balancer.ingress.iter().flatten())
}

fn asked_address(service: &Service) -> Option<IpAddr> {
    service.spec.as_ref()?.load_balancer_ip.as_ref()?.parse().ok()
}

/// A free address of a family, or why there is none.
fn new_address(
    pools: &[IpNet],
    service: &Service,
    family: &str,
    held: &BTreeSet<IpAddr>,
) -> Result<IpAddr, String> {
    if let Some(asked) = asked_address(service).filter(|asked| is_of(*asked, family)) {
        if !pools.iter().any(|pool| pool.contains(&asked)) {
            return Err(format!(
                "spec.loadBalancerIP {asked} is in none of the Network's loadBalancerPools; ask for one that is, or for none"
            ));
        }
        if held.contains(&asked) {
            return Err(format!(
                "spec.loadBalancerIP {asked} is another Service's; ask for another one, or delete that Service"
            ));
        }
        return Ok(asked);
    }
    let pools: Vec<&IpNet> = pools.iter().filter(|pool| is_of(pool.addr(), family)).collect();
    if pools.is_empty() {
        return Err(format!(
            "the Network has no loadBalancerPools of {family}; add one, or leave {family} out of the Service's ipFamilies"
        ));
    }
    let all = pools.iter().flat_map(|pool| {
        // The subnet-router's anycast address (RFC 4291, section 2.6.1) is nobody's.
        let anycast = (pool.addr().is_ipv6() && pool.prefix_len() < 127).then(|| pool.network());
        pool.hosts().filter(move |ip| Some(*ip) != anycast)
    });
    let mut free = all.filter(|ip| !held.contains(ip));
    free.next().ok_or_else(|| {
        let ranges: Vec<String> = pools.iter().map(ToString::to_string).collect();
        format!(
            "no {family} address is left in the Network's loadBalancerPools ({}); add a range, or delete a Service of type LoadBalancer",
            ranges.join(", ")
        )
    })
}
