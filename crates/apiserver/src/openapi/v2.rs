//! The OpenAPI v2 document, which kubectl up to 1.28 reads, and only as protobuf.
//!
//! It looks for one thing: the parameters of each kind's PATCH. So the document holds nothing else. The
//! numbers of fields are those of gnostic's `OpenAPIv2.proto`.

use crate::resource::{Registry, Resource};

/// The media type of the document.
pub const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The document of all kinds.
pub fn document(registry: &Registry) -> Vec<u8> {
    let info = [text(1, "Kubernetes"), text(2, "v1.33.0")].concat();
    let paths: Vec<u8> = registry
        .all()
        .iter()
        .flat_map(|r| field(2, &path_item(r)))
        .collect();
    [text(1, "2.0"), field(2, &info), field(8, &paths)].concat()
}

fn path_item(resource: &Resource) -> Vec<u8> {
    let namespace = if resource.namespaced {
        "namespaces/{namespace}/"
    } else {
        ""
    };
    let path = format!(
        "/{}/{namespace}{}/{{name}}",
        resource.root_path(),
        resource.plural
    );
    let patch = field(8, &operation(resource));
    [text(1, &path), field(2, &patch)].concat()
}

fn operation(resource: &Resource) -> Vec<u8> {
    let parameters = super::WRITE_PARAMETERS.into_iter().flat_map(|name| {
        let query = [text(2, "query"), text(4, name), text(6, "string")].concat();
        // An item that is a parameter, not in the body, but in the query.
        field(8, &field(1, &field(2, &field(3, &query))))
    });
    let kind = format!(
        "group: {:?}\nkind: {:?}\nversion: {:?}\n",
        resource.group, resource.kind, resource.version
    );
    let extension = [
        text(1, "x-kubernetes-group-version-kind"),
        field(2, &text(2, &kind)),
    ]
    .concat();
    parameters.chain(field(13, &extension)).collect()
}

fn text(number: u8, text: &str) -> Vec<u8> {
    field(number, text.as_bytes())
}

/// A field of the wire type "length-delimited" (protobuf encoding), whose number is below 16.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut encoded = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        encoded.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    encoded.push(length as u8);
    encoded.extend(content);
    encoded
}
