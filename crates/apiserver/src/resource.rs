//! What the server is told of a kind when it is registered, and the registry of them all.

use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;
use thiserror::Error;

use crate::admission::Admission;
use crate::cause::Cause;
use crate::schema::{Schema, SchemaError};

/// A kind of object and all that the server knows of it.
#[derive(Clone, Debug)]
pub struct Resource {
    /// The API group; empty for the core group.
    pub group: String,
    /// The version within the group, such as `v1`.
    pub version: String,
    /// The kind, such as `Pod`.
    pub kind: String,
    /// The lower-case plural that stands in paths.
    pub plural: String,
    /// The lower-case singular that kubectl accepts too.
    pub singular: String,
    /// Abbreviations that kubectl accepts, such as `po`.
    pub short_names: Vec<String>,
    /// Groups of resources that kubectl asks for together, such as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether status is a subresource: written through `/status` and nowhere else.
    pub has_status: bool,
    /// Whether `/log` is served for its objects.
    pub has_log: bool,
    /// Whether strategic merge patches are taken, as for all kinds built into Kubernetes.
    pub strategic_merge: bool,
    /// The shape of its objects.
    pub schema: Schema,
    /// What `kubectl get` shows, after the name.
    pub columns: Vec<Column>,
    /// The dotted paths that field selectors may name, besides metadata.name and metadata.namespace.
    pub selectable_fields: Vec<String>,
    /// The kind's own rules.
    pub rules: Rules,
}

/// The rules of a kind that its schema cannot express. The default has none.
///
/// A write goes through them in this order: `defaults`, `admission`, `on_create`, `validate`.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Sets what was left out, at every write. The object has been checked against its schema.
    pub defaults: fn(&mut Value),
    /// The rules that look at the kind's other objects. They are not asked about a write of the status alone.
    pub admission: Option<Arc<dyn Admission>>,
    /// What an object claims for itself alone among its kind, such as an address: [`Others::claim`] finds it.
    ///
    /// [`Others::claim`]: crate::Others::claim
    pub claims: fn(&Value) -> Vec<String>,
    /// Completes an object that is about to be created.
    pub on_create: fn(&mut Value),
    /// What is wrong with an object, or with the change from the one that it is to replace.
    pub validate: fn(Option<&Value>, &Value) -> Vec<Cause>,
    /// How many seconds an object is given to end once its deletion is asked for. None: the kind is
    /// deleted at once, whatever the client asks for.
    pub grace: fn(&Value) -> Option<i64>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            defaults: |_| (),
            admission: None,
            claims: |_| Vec::new(),
            on_create: |_| (),
            validate: |_, _| Vec::new(),
            grace: |_| None,
        }
    }
}

/// A column of `kubectl get`.
#[derive(Clone, Debug)]
pub struct Column {
    /// The heading.
    pub name: String,
    /// The OpenAPI type of its cells: `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    /// What it tells.
    pub description: String,
    /// 0 for what is always shown, more for what only `-o wide` shows.
    pub priority: i32,
    /// Where a cell comes from.
    pub cell: Cell,
}

/// Where the cell of a column comes from.
#[derive(Clone, Debug)]
pub enum Cell {
    /// A path into the object in the JSONPath of CustomResourceDefinitions, such as `.spec.layout`.
    Path(String),
    /// Worked out of the object.
    Of(fn(&Value) -> Value),
}

impl Column {
    /// A column of text that is worked out of the object.
    pub fn text(name: &str, priority: i32, of: fn(&Value) -> Value) -> Self {
        Self {
            name: name.to_owned(),
            kind: "string".to_owned(),
            description: String::new(),
            priority,
            cell: Cell::Of(of),
        }
    }

    /// The time since creation.
    pub fn age() -> Self {
        Self::text("Age", 0, crate::table::age)
    }
}

/// Why a set of resources cannot be served.
#[derive(Debug, Error)]
pub enum RegistrationError {
    /// The CustomResourceDefinition has no version that is served.
    #[error("CustomResourceDefinition {0} serves no version; set `served: true` on one")]
    NoVersion(String),
    /// The schema cannot be used.
    #[error("the schema of {kind} cannot be used: {source}")]
    Schema {
        /// The kind.
        kind: String,
        /// What is wrong with it.
        source: SchemaError,
    },
    /// Two resources share a path.
    #[error("{0} is registered twice; remove one of the two registrations")]
    Twice(String),
}

impl Resource {
    /// `pods`, or `networks.tombolo.dev`.
    pub fn qualified_name(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// `v1`, or `tombolo.dev/v1alpha1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Where its group and version are served: `api/v1`, or `apis/tombolo.dev/v1alpha1`.
    pub fn root_path(&self) -> String {
        let root = if self.group.is_empty() { "api" } else { "apis" };
        format!("{root}/{}", self.api_version())
    }

    /// The resource that a CustomResourceDefinition defines, in its first served version.
    pub fn from_crd(crd: CustomResourceDefinition) -> Result<Self, RegistrationError> {
        let names = crd.spec.names;
        let version = crd.spec.versions.into_iter().find(|v| v.served);
        let version = version.ok_or_else(|| RegistrationError::NoVersion(names.plural.clone()))?;
        let root = version.schema.and_then(|s| s.open_api_v3_schema);
        let root = serde_json::to_value(root).unwrap_or_default();
        let schema = Schema::of_custom_kind(root).map_err(|source| RegistrationError::Schema {
            kind: names.kind.clone(),
            source,
        })?;
        let mut columns: Vec<Column> = version
            .additional_printer_columns
            .unwrap_or_default()
            .into_iter()
            .map(|c| Column {
                name: c.name,
                kind: c.type_,
                description: c.description.unwrap_or_default(),
                priority: c.priority.unwrap_or(0),
                cell: Cell::Path(c.json_path),
            })
            .collect();
        if columns.is_empty() {
            columns.push(Column::age());
        }
        Ok(Self {
            group: crd.spec.group,
            version: version.name,
            singular: names.singular.unwrap_or_else(|| names.kind.to_lowercase()),
            kind: names.kind,
            plural: names.plural,
            short_names: names.short_names.unwrap_or_default(),
            categories: names.categories.unwrap_or_default(),
            namespaced: crd.spec.scope == "Namespaced",
            has_status: version.subresources.is_some_and(|s| s.status.is_some()),
            has_log: false,
            strategic_merge: false,
            schema,
            columns,
            selectable_fields: Vec::new(),
            rules: Rules::default(),
        })
    }
}

/// The resources that a server serves. Each is known by its index.
#[derive(Debug)]
pub struct Registry {
    resources: Vec<Resource>,
    namespaces: Option<usize>,
}

impl Registry {
    /// A registry of `resources`.
    pub fn new(resources: Vec<Resource>) -> Result<Self, RegistrationError> {
        for (i, resource) in resources.iter().enumerate() {
            let twin = |r: &Resource| r.group == resource.group && r.plural == resource.plural;
            if resources.iter().take(i).any(twin) {
                return Err(RegistrationError::Twice(resource.qualified_name()));
            }
        }
        let namespaces = resources
            .iter()
            .position(|r| r.group.is_empty() && r.plural == "namespaces");
        Ok(Self {
            resources,
            namespaces,
        })
    }

    /// All resources, in the order of registration.
    pub fn all(&self) -> &[Resource] {
        &self.resources
    }

    /// The resource with this index.
    pub fn get(&self, index: usize) -> &Resource {
        &self.resources[index]
    }

    /// The index of the resource that is served at a group, version and plural.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<usize> {
        self.resources
            .iter()
            .position(|r| r.group == group && r.version == version && r.plural == plural)
    }

    /// The index of the Namespaces, where they are registered.
    pub fn namespaces(&self) -> Option<usize> {
        self.namespaces
    }

    /// The groups and versions that are served, each once; the core group is `("", "v1")`.
    pub fn group_versions(&self) -> Vec<(&str, &str)> {
        let mut all: Vec<_> = self
            .resources
            .iter()
            .map(|r| (r.group.as_str(), r.version.as_str()))
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}
