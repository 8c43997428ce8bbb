//! From a path to what it is about.

use crate::resource::Registry;

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Whether the server lives; the only path that needs no token.
    Live,
    /// Whether the server is well (`/healthz`, `/readyz`).
    Healthy,
    /// The version of Kubernetes that is served.
    Version,
    /// The versions of the core group.
    CoreVersions,
    /// All other groups.
    Groups,
    /// One other group.
    Group(String),
    /// The resources of a group and version.
    Resources(String, String),
    /// The OpenAPI v2 document.
    OpenApiV2,
    /// The list of OpenAPI v3 documents.
    OpenApiIndex,
    /// The OpenAPI v3 document of a group and version.
    OpenApi(String, String),
    /// Objects.
    Objects(Target),
}

/// The objects that a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The index of the resource.
    pub resource: usize,
    /// The namespace; None: all of them, or the kind has none.
    pub namespace: Option<String>,
    /// The one object; None: the whole collection.
    pub name: Option<String>,
    /// The subresource of the one object.
    pub subresource: Subresource,
}

/// A part of an object with a path of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// The object itself.
    None,
    /// Its status.
    Status,
    /// Its log.
    Log,
}

/// Finds what `path` is about; None when this server serves no such thing.
pub fn route(registry: &Registry, path: &str) -> Option<Route> {
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let has_group = |g: &str, v: &str| registry.group_versions().contains(&(g, v));
    let served = |group: &str, version: &str, rest: &[&str]| match rest {
        [] => has_group(group, version).then(|| Route::Resources(group.to_owned(), version.to_owned())),
        rest => objects(registry, group, version, rest).map(Route::Objects),
    };
    match segments.as_slice() {
        ["livez", ..] => Some(Route::Live),
        ["healthz" | "readyz", ..] => Some(Route::Healthy),
        ["version"] => Some(Route::Version),
        ["api"] => Some(Route::CoreVersions),
        ["apis"] => Some(Route::Groups),
        ["apis", group] => Some(Route::Group((*group).to_owned())),
        ["openapi", "v2"] => Some(Route::OpenApiV2),
        ["openapi", "v3"] => Some(Route::OpenApiIndex),
        ["openapi", "v3", "api", version] => Some(Route::OpenApi(String::new(), (*version).to_owned())),
        ["openapi", "v3", "apis", group, version] => {
            Some(Route::OpenApi((*group).to_owned(), (*version).to_owned()))
        }
        ["api", version, rest @ ..] => served("", version, rest),
        ["apis", group, version, rest @ ..] => served(group, version, rest),
        _ => None,
    }
}

fn objects(registry: &Registry, group: &str, version: &str, rest: &[&str]) -> Option<Target> {
    let (namespace, rest) = match rest {
        // `namespaces/x/status` is the status of Namespace x, not the resource "status" in x.
        ["namespaces", _, "status"] if group.is_empty() => (None, rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
        rest => (None, rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (plural, None, Subresource::None),
        [plural, name] => (plural, Some((*name).to_owned()), Subresource::None),
        [plural, name, "status"] => (plural, Some((*name).to_owned()), Subresource::Status),
        [plural, name, "log"] => (plural, Some((*name).to_owned()), Subresource::Log),
        _ => return None,
    };
    let index = registry.find(group, version, plural)?;
    let resource = registry.get(index);
    let in_right_place = if resource.namespaced {
        namespace.is_some() || name.is_none()
    } else {
        namespace.is_none()
    };
    let has_subresource = match subresource {
        Subresource::None => true,
        Subresource::Status => resource.has_status,
        Subresource::Log => resource.has_log,
    };
    (in_right_place && has_subresource).then_some(Target {
        resource: index,
        namespace,
        name,
        subresource,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Option<(String, Option<String>, Option<String>, Subresource)> {
        let registry =
            Registry::new(crate::builtin::resources(&crate::ServiceRanges::default()).unwrap()).unwrap();
        match route(&registry, path)? {
            Route::Objects(t) => Some((
                registry.get(t.resource).plural.clone(),
                t.namespace,
                t.name,
                t.subresource,
            )),
            other => panic!("{path} leads to {other:?}"),
        }
    }

    #[test]
    fn paths_lead_to_objects() {
        let some = |s: &str| Some(s.to_owned());
        for (path, wanted) in [
            ("/api/v1/pods", ("pods", None, None, Subresource::None)),
            (
                "/api/v1/namespaces/a/pods",
                ("pods", some("a"), None, Subresource::None),
            ),
            (
                "/api/v1/namespaces/a/pods/x",
                ("pods", some("a"), some("x"), Subresource::None),
            ),
            (
                "/api/v1/namespaces/a/pods/x/log",
                ("pods", some("a"), some("x"), Subresource::Log),
            ),
            (
                "/api/v1/namespaces",
                ("namespaces", None, None, Subresource::None),
            ),
            (
                "/api/v1/namespaces/a",
                ("namespaces", None, some("a"), Subresource::None),
            ),
            (
                "/api/v1/namespaces/a/status",
                ("namespaces", None, some("a"), Subresource::Status),
            ),
            (
                "/api/v1/nodes/n/status",
                ("nodes", None, some("n"), Subresource::Status),
            ),
        ] {
            let (plural, namespace, name, subresource) = wanted;
            assert_eq!(
                target(path),
                Some((plural.to_owned(), namespace, name, subresource)),
                "{path}"
            );
        }
        for path in [
            "/api/v1/pods/x",
            "/api/v1/namespaces/a/nodes",
            "/api/v1/nodes/n/log",
            "/api/v2/pods",
            "/api/v1/namespaces/a/pods/x/exec",
            "/apis/nowhere/v1",
        ] {
            assert_eq!(target(path), None, "{path}");
        }
    }
}
